"""What the evidence of a look says about every arm: better, worse, no difference, or open.

In: per question (an arm against the reference, or two arms), the analyses of its tables of scores,
and the look's share of the level. Out: a `Ruling` each. One interval decides everything: if it
leaves one half the arm is better or worse, if it lies within the effect there is no difference that
matters. With two opponents both intervals must say so.

An arm is compared with the reference at the reference's own best setting and at the arm's shared
settings, and a verdict needs both: an intersection-union test (Berger, 1982), which needs no
correction. Several questions share the level by Holm's step-down procedure (1979).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from symnoise_ray.statistics.looks import SIGNIFICANCE
from symnoise_ray.statistics.two_way import TwoWay

BETTER, WORSE, SAME, OPEN = "better", "worse", "no difference", "cannot tell yet"
CAUTION = 0.85
"""Futility takes the half-width at the last look for so much narrower than expected, since few
seeds say little of how much seeds differ."""
Key = TypeVar("Key", bound=Hashable)


class Ruling(NamedTuple):
    """The verdict on one question; `confidence` is that of the intervals it rests on."""

    verdict: str
    p_value: float
    p_holm: float
    confidence: float


def p_of(tests: Sequence[TwoWay]) -> float:
    """Two-sided p-value of no difference from any of the opponents: 1 if they disagree."""
    if len({test.mean > 0.5 for test in tests}) > 1:
        return 1.0
    return max(test.p_value() for test in tests)


def rule(
    findings: Mapping[Key, tuple[Sequence[TwoWay], float, float]],
) -> dict[Key, Ruling]:
    """Rule on all questions together.

    Args:
        findings: Question -> its analyses, one per opponent; the share of the level that its last
            look has; the effect, as a distance from one half.
    """
    spent = {key: min(1.0, p_of(tests) / share) for key, (tests, share, _) in findings.items()}
    corrected = holm(spent)
    order = sorted(spent, key=lambda key: spent[key])
    rejected = sum(corrected[key] < SIGNIFICANCE for key in order)
    found = {}
    for rank, key in enumerate(order):
        tests, share, effect = findings[key]
        # A question that is open has the level at which the first of them stayed open.
        level = share * SIGNIFICANCE / (len(order) - min(rank, rejected))
        ends = np.array([test.interval(1 - level) for test in tests])
        verdict = str(ruled(ends[:, 0], ends[:, 1], effect))
        found[key] = Ruling(verdict, spent[key], corrected[key], 1 - level)
    return found


def ruled(lows_K: ArrayLike, highs_K: ArrayLike, effect: float) -> NDArray[np.str_]:
    """The verdict of intervals against K opponents, over any leading axes.

    `no difference` by two one-sided tests (Schuirmann, 1987) at the same interval.
    """
    lows, highs = np.asarray(lows_K), np.asarray(highs_K)
    better, worse = (lows > 0.5).all(axis=-1), (highs < 0.5).all(axis=-1)
    same = ((lows > 0.5 - effect) & (highs < 0.5 + effect)).all(axis=-1)
    return np.select([better, worse, same], [BETTER, WORSE, SAME], OPEN)


def hopeless(
    means_K: ArrayLike, last_halves_K: ArrayLike, done: float, effect: float
) -> NDArray[np.bool_]:
    """Whether the last look can hardly bring a verdict any more (futility).

    It cannot if, although all seeds to come showed the effect (or the gain seen so far, if that is
    larger), the mean would not leave one half by the half-width that is expected at the last look,
    neither upwards nor downwards; nor would it, if they showed no difference, lie within the
    effect. Stopping for futility never adds wrong verdicts.

    Args:
        means_K: Means so far against K opponents, over any leading axes.
        last_halves_K: Half-widths that are expected at the last look.
        done: Share of the last look's seeds that are done.
        effect: The smallest difference that matters, as a distance from one half.
    """
    gaps, halves = np.asarray(means_K) - 0.5, CAUTION * np.asarray(last_halves_K)
    to_come = 1 - done
    up = done * gaps + to_come * np.maximum(gaps, effect) > halves
    down = done * gaps + to_come * np.minimum(gaps, -effect) < -halves
    same = np.abs(done * gaps) + halves < effect
    return np.logical_not(up.all(axis=-1) | down.all(axis=-1) | same.all(axis=-1))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's step-down correction (1979), which is valid under any dependence."""
    corrected: dict[Key, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected
