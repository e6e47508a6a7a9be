"""The mean of item scores over prompts and seeds, and how far it may be off.

In: scores of prompts by seeds. Out: mean, interval at any level, p-value, and the variance
components. Prompts and seeds are both random: an interval covers what would change in a repetition
with other prompts and other trainings. With one seed it is about these trained models alone.

Shape letters: P prompts, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from symnoise_ray.statistics.bootstrap import Floats, hull, is_one_sided, unseen, unseen_p_value

_SMALLEST_P = 1e-15


class MeanSquares(NamedTuple):
    """Mean squares of the two-way layout; `prompts` and `seeds` both contain the rest."""

    prompts: ArrayLike
    seeds: ArrayLike
    rest: ArrayLike


class Spread(NamedTuple):
    """Variance components of one score: by prompt, by seed, and the rest."""

    prompts: float
    seeds: float
    rest: float


def half_width(
    squares: MeanSquares, num_prompts: float, num_seeds: float, confidence: float
) -> Floats:
    """Half-width of the mean's interval from the mean squares, which may be arrays.

    The variance of the mean is (MS_prompts + MS_seeds - MS_rest) / (P * S). Prompts and seeds have
    a t interval each, and the squared half-widths add up: Banerjee's bound (1961), which is on the
    safe side. Both contain the rest, so it is subtracted once, with the normal's quantile, and not
    more of it than the prompts' mean square can contain; that subtraction is our own, and simulated
    in benchmarks/judging_statistics.py, benchmarks/verdict.py and benchmarks/pairs.py. Infinite for
    one prompt, which says nothing.
    """
    if num_prompts < 2:
        return np.full(np.shape(squares.rest), math.inf)
    quantile = 0.5 + confidence / 2
    squared = stdtrit(num_prompts - 1, quantile) ** 2 * np.asarray(squares.prompts)
    if num_seeds > 1:
        by_seed = stdtrit(num_seeds - 1, quantile) ** 2 * np.asarray(squares.seeds)
        in_both = np.minimum(squares.rest, squares.prompts)
        squared = squared + np.maximum(0, by_seed - ndtri(quantile) ** 2 * in_both)
    widths: Floats = np.sqrt(squared / (num_prompts * num_seeds))
    return widths


class TwoWay:
    """The analysis of one table of scores (P, S), one observation per cell."""

    def __init__(self, scores_PS: Floats) -> None:
        self.num_prompts, self.num_seeds = scores_PS.shape
        self.mean = float(scores_PS.mean())
        by_prompt, by_seed = scores_PS.mean(axis=1), scores_PS.mean(axis=0)
        rest = scores_PS - by_prompt[:, None] - by_seed[None, :] + self.mean
        freedom = max(1, self.num_prompts - 1), max(1, self.num_seeds - 1)
        self.squares = MeanSquares(
            self.num_seeds * float(((by_prompt - self.mean) ** 2).sum()) / freedom[0],
            self.num_prompts * float(((by_seed - self.mean) ** 2).sum()) / freedom[1],
            float((rest**2).sum()) / (freedom[0] * freedom[1]),
        )
        self.is_one_sided = is_one_sided(by_prompt)
        """Whether no prompt was lost, or none was won."""

    @property
    def spread(self) -> Spread:
        """Estimated variance components, at least 0."""
        prompts, seeds, rest = (float(np.asarray(each)) for each in self.squares)
        return Spread(
            max(0.0, (prompts - rest) / self.num_seeds),
            max(0.0, (seeds - rest) / self.num_prompts),
            rest,
        )

    def half_width(self, confidence: float) -> float:
        """Half-width of the mean's interval."""
        return float(half_width(self.squares, self.num_prompts, self.num_seeds, confidence))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval of the mean, within 0 and 1.

        Scores that are all on one side of one half do not show how much the other side occurs; the
        interval then holds the exact one as well.
        """
        half = self.half_width(confidence)
        ends = (max(0.0, self.mean - half), min(1.0, self.mean + half))
        if not self.is_one_sided:
            return ends
        return hull(ends, unseen(self.mean, self.num_prompts, 1 - confidence))

    def p_value(self) -> float:
        """Two-sided p-value of the mean being one half."""
        found = _p_value(abs(self.mean - 0.5), self.half_width)
        if not self.is_one_sided:
            return found
        return max(found, unseen_p_value(self.mean, self.num_prompts))


def _p_value(gap: float, half_width: Callable[[float], float]) -> float:
    """The p-value at which the half-width of the interval equals the gap, found by bisection."""
    low, high = _SMALLEST_P, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(1 - middle) < gap else (middle, high)
    return high
