"""A contrast as tables show it: the difference of two arms' win rates in points, with its sign.

In: the rates of a contrast, which are one half plus half the difference. Out: text.
"""

from __future__ import annotations

from collections.abc import Sequence

from symnoise_ray.statistics.words import in_points


def gap(rate: float) -> str:
    """The difference, such as `+8.7`."""
    return f"{in_points(rate):+.1f}"


def gaps(ends: Sequence[float]) -> str:
    """Its interval, such as `-4.1 to +8.0`."""
    return f"{gap(ends[0])} to {gap(ends[1])}"
