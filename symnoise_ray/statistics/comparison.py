"""Paired comparisons of arms with plain fine-tuning, and the verdict in words.

In: per arm, the item scores of prompts by seeds. Out: frozen comparisons with interval, p-value
(Holm-corrected over the arms), verdict, and how many more prompts or seeds would decide it. An
interval covers what would change in a repetition: the prompts, and the seeds if an arm was trained
with several. The raw win rate decides the verdict; the length-controlled one is only reported. With
one seed, all this is about the trained models themselves, not about another training.

Shape letters: P prompts, S seeds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from scipy.special import ndtri, stdtrit

from symnoise_ray.records.results import Comparison
from symnoise_ray.statistics.bootstrap import Floats, hull, is_one_sided, unseen, unseen_p_value

SIGNIFICANCE = 0.05
_NO_SPREAD = 1e-12
_SMALLEST_P = 1e-15
_POWER_Z = 0.8416  # 80 % power
_LEVEL_Z = 1.9600  # two-sided 5 %
_STEP, _NUM_STEPS = 1.05, 150  # plans reach to about 1,500 times what is present

Name = TypeVar("Name")


class Spread(NamedTuple):
    """Variance components of one score: by prompt, by seed, and the rest."""

    prompts: float
    seeds: float
    rest: float

    def half_width(self, num_prompts: float, num_seeds: float, level: float = 0.95) -> float:
        """Expected half-width of the mean's interval over so many prompts and seeds."""
        by_prompt = self.rest + num_seeds * self.prompts
        by_seed = self.rest + num_prompts * self.seeds
        squares = _MeanSquares(by_prompt, by_seed, self.rest)
        return _half_width(squares, num_prompts, num_seeds, level)


class _MeanSquares(NamedTuple):
    """Mean squares of the two-way layout; `prompts` and `seeds` both contain the rest."""

    prompts: float
    seeds: float
    rest: float


def _half_width(squares: _MeanSquares, num_prompts: float, num_seeds: float, level: float) -> float:
    """Half-width of the mean's interval from the mean squares.

    The variance of the mean is (MS_prompts + MS_seeds - MS_rest) / (P * S). Prompts and seeds have
    a t interval each, and the squared half-widths add up. Both contain the rest, so it is
    subtracted once, with the normal's quantile, which leaves the interval rather wide for few
    seeds. Source: intervals for sums of variances, Zou and Donner (2008). The subtraction is our
    own; in simulations (benchmarks/judging_statistics.py) the interval keeps its level.
    """
    if num_prompts < 2:
        return math.inf  # one prompt says nothing
    quantile = 0.5 + level / 2
    squared = stdtrit(num_prompts - 1, quantile) ** 2 * squares.prompts
    if num_seeds > 1:
        by_seed = stdtrit(num_seeds - 1, quantile) ** 2 * squares.seeds
        squared += max(0.0, by_seed - ndtri(quantile) ** 2 * squares.rest)
    return math.sqrt(squared / (num_prompts * num_seeds))


class _Tested(NamedTuple):
    mean: float
    interval: tuple[float, float]
    p_value: float
    spread: Spread


def compare(
    scores: Mapping[str, Floats],
    at_equal_lengths: Mapping[str, Floats] | None = None,
    contrasts: Mapping[tuple[str, str], Floats] | None = None,
) -> list[Comparison]:
    """Test every arm's win rate over plain fine-tuning against one half, Holm-corrected.

    Args:
        scores: Arm -> item scores of shape (P, S): prompts by seeds, paired with the plain
            model of the same seed.
        at_equal_lengths: The same at equal lengths (`length_control.shares`, seed by seed).
        contrasts: Two arms -> differences of their item scores, (P, S), in [-1, 1].
    """
    halved = {pair: 0.5 + delta_PS / 2 for pair, delta_PS in (contrasts or {}).items()}
    asked: dict[tuple[str, str], Floats] = {(arm, ""): values for arm, values in scores.items()}
    asked |= halved
    tested = {pair: _test(values) for pair, values in asked.items()}
    corrected = holm({pair: test.p_value for pair, test in tested.items()})
    comparisons = [
        replace(_judge_arm(pair[0], tested[pair], corrected[pair], values.shape), over=pair[1])
        for pair, values in asked.items()
    ]
    if at_equal_lengths is None:
        return comparisons
    return [
        each if each.over else _with_length_control(each, at_equal_lengths[each.arm])
        for each in comparisons
    ]


def _with_length_control(comparison: Comparison, shares_PS: Floats) -> Comparison:
    test = _test(shares_PS)
    return replace(
        comparison,
        length_controlled_win_rate=test.mean,
        length_controlled_interval_95=test.interval,
    )


def _test(scores_PS: Floats) -> _Tested:
    """Mean, 95 % interval and two-sided p-value of the mean being one half.

    A two-way layout with random prompts and seeds, and one observation per cell. With one seed the
    interval covers the prompts alone.
    """
    num_prompts, num_seeds = scores_PS.shape
    mean = float(scores_PS.mean())
    by_prompt, by_seed = scores_PS.mean(axis=1) - mean, scores_PS.mean(axis=0) - mean
    rest = scores_PS - mean - by_prompt[:, None] - by_seed[None, :]
    freedom = max(1, num_prompts - 1), max(1, num_seeds - 1)
    prompt_squares = num_seeds * float(by_prompt @ by_prompt) / freedom[0]
    seed_squares = num_prompts * float(by_seed @ by_seed) / freedom[1]
    rest_squares = float((rest**2).sum()) / (freedom[0] * freedom[1])
    spread = Spread(
        max(0.0, (prompt_squares - rest_squares) / num_seeds),
        max(0.0, (seed_squares - rest_squares) / num_prompts),
        rest_squares,
    )

    def half_width(level: float) -> float:
        squares = _MeanSquares(prompt_squares, seed_squares, rest_squares)
        return _half_width(squares, num_prompts, num_seeds, level)

    half = half_width(0.95)
    interval = (max(0.0, mean - half), min(1.0, mean + half))
    p_value = _p_value(abs(mean - 0.5), half_width)
    if is_one_sided(scores_PS.mean(axis=1)):
        interval = hull(interval, unseen(mean, num_prompts))
        p_value = max(p_value, unseen_p_value(mean, num_prompts))
    return _Tested(mean, interval, p_value, spread)


def _p_value(gap: float, half_width: Callable[[float], float]) -> float:
    """The p-value at which the half-width of the interval equals the gap, found by bisection."""
    low, high = _SMALLEST_P, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(1 - middle) < gap else (middle, high)
    return high


def holm(p_values: dict[Name, float]) -> dict[Name, float]:
    """Holm's step-down correction (1979), which is valid under any dependence."""
    corrected: dict[Name, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected


def _judge_arm(arm: str, test: _Tested, p_holm: float, shape: tuple[int, ...]) -> Comparison:
    num_prompts, num_seeds = shape
    decided = "better" if test.mean > 0.5 else "worse"
    verdict = decided if p_holm < SIGNIFICANCE else "cannot tell yet"
    prompts = seeds = None
    together = False
    if verdict == "cannot tell yet" and num_prompts > 1:
        gap, half_width = abs(test.mean - 0.5), test.spread.half_width
        prompts = _needed(gap, lambda k: half_width(k * num_prompts, num_seeds), num_prompts)
        if num_seeds > 1:
            seeds = _needed(gap, lambda k: half_width(num_prompts, k * num_seeds), num_seeds)
            together = prompts is None and seeds is None
        if together:
            prompts, seeds = (
                _needed(gap, lambda k: half_width(k * num_prompts, k * num_seeds), n) for n in shape
            )
    return Comparison(
        arm=arm,
        win_rate=test.mean,
        interval_95=test.interval,
        p_value=test.p_value,
        p_holm=p_holm,
        num_prompts=num_prompts,
        num_seeds=num_seeds,
        verdict=verdict,
        prompts_needed=prompts,
        seeds_needed=seeds,
        needed_together=together,
    )


def _needed(gap: float, half_width: Callable[[float], float], present: int) -> int | None:
    """Number at which a gap of this size is decided with about 80 % power; None without any.

    Args:
        gap: Distance of the mean from one half.
        half_width: Half-width of the interval with so many times the present number.
        present: The present number.
    """
    if gap < _NO_SPREAD:
        return None
    wanted = gap * _LEVEL_Z / (_LEVEL_Z + _POWER_Z)
    # The half-width falls with the factor, so the first that is enough is found by bisection.
    steps = range(1, _NUM_STEPS)
    found = bisect_left(steps, True, key=lambda step: half_width(_STEP**step) <= wanted)
    if found == len(steps):
        return None
    return max(present + 1, math.ceil(_STEP ** steps[found] * present))
