"""What a confirmation can tell: its power, and the seeds that it takes.

In: the variance components of a score, a number of prompts, and the looks. Out: the chance that a
true difference gets its verdict, and the seeds spent on average. Simulated from the distributions
of means and mean squares, by the rules that decide a real sweep, so looks, futility and the second
opponent are in it. With one look and one opponent this is the power of a noncentral t test.

Shape letters: R replicates, K opponents, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.decision import BETTER, OPEN, hopeless, ruled
from symnoise_ray.statistics.looks import SIGNIFICANCE, Look
from symnoise_ray.statistics.two_way import MeanSquares, Spread, TwoWay, half_width

TYPICAL = Spread(prompts=0.15**2, seeds=0.01**2, rest=0.375**2 - 0.15**2)
"""Assumed where nothing was measured: a score's standard deviation of 37.5 points, of which 15
belong to the prompt, and seeds that differ by 1 point."""
WANTED = 0.8
_REPLICATES = 4000
_SEED = 20231201
_SHARED = 0.5
"""Correlation of the scores against the two opponents: the arm's own model is in both."""
MOST_SEEDS = 200
"""The most that is planned for; more would be another kind of study."""


class Power(NamedTuple):
    """Chance of the verdict `better` for a true gain, of any verdict, and seeds on average."""

    better: float
    decided: float
    mean_seeds: float


def power(
    spread: Spread,
    num_prompts: int,
    looks: Sequence[Look],
    effect: float,
    *,
    gap: float | None = None,
    num_opponents: int = 2,
    num_questions: int = 1,
    num_replicates: int = _REPLICATES,
) -> Power:
    """Power of a confirmation by simulation; its error is below one point and a half.

    Args:
        spread: Variance components of one score.
        num_prompts: Prompts, or groups if they are the units.
        looks: The seeds at each look and its share of the level.
        effect: Smallest difference that matters; it sets `no difference` and futility.
        gap: True gain over every opponent; by default the effect.
        num_opponents: 2, or 1 if the reference's best setting is the arm's.
        num_questions: Arms and contrasts that share the level.
        num_replicates: Simulated confirmations.
    """
    drawn = _Drawn(spread, num_prompts, looks[-1].num_seeds, num_opponents, num_replicates)
    gain = effect if gap is None else gap
    verdicts = np.full(num_replicates, OPEN, dtype=object)
    going = np.ones(num_replicates, dtype=bool)
    seeds = np.zeros(num_replicates)
    last = looks[-1]
    for look in looks:
        means, squares = drawn.at(look.num_seeds)
        means = means + gain
        seeds[going] = look.num_seeds
        confidence = 1 - SIGNIFICANCE * look.share / num_questions
        halves = half_width(squares, num_prompts, look.num_seeds, confidence)
        found = ruled(means - halves, means + halves, effect)
        verdicts[going] = found[going]
        done = look.num_seeds / last.num_seeds
        expected = last_half_width(squares, num_prompts, look, last, num_questions)
        going &= (found == OPEN) & ~hopeless(means, expected, done, effect)
    return Power(
        float((verdicts == BETTER).mean()), float((verdicts != OPEN).mean()), float(seeds.mean())
    )


def last_half_width(
    squares: MeanSquares, num_prompts: float, look: Look, last: Look, num_questions: int
) -> Floats:
    """Half-width expected at the last look from the mean squares of an earlier one."""
    prompts, seeds, rest = map(np.asarray, squares)
    of_prompts = np.maximum(0, (prompts - rest) / look.num_seeds)
    of_seeds = np.maximum(0, (seeds - rest) / num_prompts)
    expected = MeanSquares(rest + last.num_seeds * of_prompts, rest + num_prompts * of_seeds, rest)
    confidence = 1 - SIGNIFICANCE * last.share / num_questions
    return half_width(expected, num_prompts, last.num_seeds, confidence)


def stopped(
    verdict: str, tests: Sequence[TwoWay], look: Look, last: Look, effect: float, num_questions: int
) -> str:
    """Why a question gets no further seed after a look; empty if it does.

    Args:
        verdict: The ruling at this look.
        tests: The analyses that it rests on, one per opponent.
        look: This look.
        last: The question's last one.
        effect: Smallest difference that matters, as a distance from one half.
        num_questions: Arms and contrasts that share the level.
    """
    if verdict != OPEN:
        return "decided"
    if look == last:
        return "last look"
    expected = [
        last_half_width(test.squares, test.num_prompts, look, last, num_questions) for test in tests
    ]
    means, done = [test.mean for test in tests], look.num_seeds / last.num_seeds
    return "futile" if hopeless(means, expected, done, effect) else ""


class _Drawn:
    """Scores of simulated confirmations, as far as means and mean squares need them."""

    def __init__(
        self, spread: Spread, num_prompts: int, num_seeds: int, num_opponents: int, count: int
    ) -> None:
        self.spread, self.num_prompts = spread, num_prompts
        self.generator = np.random.default_rng([_SEED, num_prompts, num_seeds])
        by_seed = math.sqrt(spread.seeds + spread.rest / num_prompts)
        by_prompt = math.sqrt(spread.prompts / num_prompts)
        self.seeds_RKS = by_seed * self._correlated((count, num_opponents, num_seeds))
        self.prompts_RK = by_prompt * self._correlated((count, num_opponents, 1))[..., 0]

    def _correlated(self, shape: tuple[int, int, int]) -> Floats:
        common = self.generator.standard_normal((shape[0], 1, shape[2]))
        own = self.generator.standard_normal(shape)
        return math.sqrt(_SHARED) * common + math.sqrt(1 - _SHARED) * own

    def at(self, num_seeds: int) -> tuple[Floats, MeanSquares]:
        """Means (R, K) around one half, and mean squares, after so many seeds."""
        seen = self.seeds_RKS[..., :num_seeds]
        means = 0.5 + seen.mean(axis=-1) + self.prompts_RK
        one, others = self.num_prompts - 1, max(1, num_seeds - 1)
        by_prompt = self.spread.rest + num_seeds * self.spread.prompts
        squares = MeanSquares(
            by_prompt * self.generator.chisquare(one, means.shape) / one,
            self.num_prompts * seen.var(axis=-1, ddof=1) if num_seeds > 1 else means * 0,
            self.spread.rest * self.generator.chisquare(one * others, means.shape) / (one * others),
        )
        return means, squares


def cautious(spread: Spread, num_prompts: float, freedom: int) -> Spread:
    """Components to plan with: few seeds say little of how much seeds differ, so a bound that their
    variance is below in 80 % of samples takes the place of the estimate.

    Args:
        spread: Variance components as estimated.
        num_prompts: Prompts, or groups, that the estimate rests on.
        freedom: Degrees of freedom of the seeds: one less than the seeds, added up over arms.
    """
    of_means = spread.rest / num_prompts
    upper = (spread.seeds + of_means) * freedom / chdtri(freedom, WANTED) - of_means
    return spread._replace(seeds=max(spread.seeds, float(upper)))


def seeds_needed(
    spread: Spread,
    num_prompts: int,
    num_seeds: int,
    effect: float,
    *,
    share: float = 1.0,
    num_questions: int = 1,
    num_opponents: int = 2,
) -> int | None:
    """Seeds in all with which a gap of the effect is told with 80 % power; None if none would.

    Args:
        spread: Variance components as estimated.
        num_prompts: Prompts, or groups if they are the units.
        num_seeds: Seeds that the estimate rests on; see `cautious`.
        effect: The gap.
        share: Of the level that is left for it.
        num_questions: Arms and contrasts that share the level.
        num_opponents: As in `power`.
    """
    if num_seeds < 2 or num_prompts < 2:
        return None
    planned = cautious(spread, num_prompts, num_seeds - 1)

    def enough(number: int) -> bool:
        looks = [Look(number, share, 1)]
        found = power(
            planned, num_prompts, looks, effect,
            num_opponents=num_opponents, num_questions=num_questions, num_replicates=1000,
        )  # fmt: skip
        return found.better >= WANTED

    return fewest(enough, MOST_SEEDS)


def fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest number from 2 that is enough, found by doubling and halving; None above `most`.

    Args:
        enough: Whether a number is; all above the first one are taken to be.
        most: The largest that is tried.
    """
    low, high = 1, min(2, most)
    while not enough(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
