"""Preferences to numbers: win rates with intervals, paired comparisons, and the verdict in words.

In: preferences per item (and training seed). Out: frozen results; rates are fractions in [0, 1].
Pure numpy and scipy. An interval covers what would differ in a repetition: the prompts, and where
a configuration was trained several times, the seeds as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from symnoise_ray.errors import JudgeError
from symnoise_ray.records import Preference

Floats = NDArray[np.float64]

NUM_REPLICATES = 2000
SIGNIFICANCE = 0.05
_BOOTSTRAP_SEED = 20231202
_NO_SPREAD = 1e-12
_SMALLEST_P = 1e-15
_POWER_Z = 0.8416  # 80 % power
_LEVEL_Z = 1.9600  # two-sided 5 %
_STEP, _NUM_STEPS = 1.05, 150  # plans reach to about 1,500 times what is present


@dataclass(frozen=True)
class WinRate:
    """How often answers beat the reference; a tie counts one half.

    `standard_error` is AlpacaEval's: the items' standard deviation (ddof 1) over sqrt(n).
    `interval_95` is a percentile bootstrap over items.
    """

    win_rate: float
    interval_95: tuple[float, float]
    standard_error: float
    discrete_win_rate: float
    n_total: int
    n_wins: int
    n_wins_reference: int
    n_draws: int
    n_invalid: int
    position_bias: float
    avg_length: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, as score.json holds them."""
        return asdict(self)


def item_scores(preferences: Iterable[Preference]) -> tuple[dict[int, float], int, float]:
    """Score of every item: 1 a win, 0 a loss, 1/2 a tie, averaged over both orders.

    Opposite verdicts in the two orders average to a tie.

    Returns:
        Item -> score; the number of items without a verdict in each order; and the fraction of
        items on which the two orders contradict each other.
    """
    by_item: dict[int, list[float | None]] = {}
    for preference in preferences:
        by_item.setdefault(preference.item, []).append(preference.preference)
    scores, num_invalid, num_contradictions = {}, 0, 0
    for item, verdicts in by_item.items():
        valid = [value - 1 for value in verdicts if value is not None]
        if len(valid) < len(verdicts):
            num_invalid += 1
            continue
        scores[item] = sum(valid) / len(valid)
        num_contradictions += min(valid) < 0.5 < max(valid)
    return scores, num_invalid, num_contradictions / max(1, len(scores))


def win_rate(preferences: Sequence[Preference]) -> WinRate:
    """Win rate of one trial against its reference.

    Raises:
        JudgeError: no item has a verdict; there is no default score.
    """
    scores, num_invalid, contradictions = item_scores(preferences)
    if not scores:
        raise JudgeError(f"at least one item must have a verdict, but none of {num_invalid} has")
    values = np.array(list(scores.values()))
    lengths = {p.item: len(p.output_2) for p in preferences}
    return WinRate(
        win_rate=float(values.mean()),
        interval_95=bootstrap_interval(values),
        standard_error=_standard_error(values),
        discrete_win_rate=float(np.where(values == 0.5, 0.5, values > 0.5).mean()),
        n_total=len(values),
        n_wins=int((values > 0.5).sum()),
        n_wins_reference=int((values < 0.5).sum()),
        n_draws=int((values == 0.5).sum()),
        n_invalid=num_invalid,
        position_bias=contradictions,
        avg_length=float(np.mean(list(lengths.values()))),
    )


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def bootstrap_interval(scores: Floats) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the items' mean.

    Shapes: scores (P,), one score per prompt.
    """
    count = len(scores)
    if scores[0] in (0, 1) and np.all(scores == scores[0]):
        return _unanimous(float(scores[0]), count)[0]  # resampling would show no width at all
    generator = np.random.default_rng(_BOOTSTRAP_SEED)
    drawn = generator.multinomial(count, [1 / count] * count, NUM_REPLICATES)
    low, high = np.quantile(drawn @ scores / count, [0.025, 0.975])
    return float(low), float(high)


class Spread(NamedTuple):
    """Variance components of one score: of its prompt, of its seed, and of the rest."""

    prompts: float
    seeds: float
    rest: float

    def half_width(self, num_prompts: float, num_seeds: float, level: float = 0.95) -> float:
        """Expected half-width of the mean's interval over so many prompts and seeds."""
        by_prompt = self.rest + num_seeds * self.prompts
        by_seed = self.rest + num_prompts * self.seeds
        return _half_width(by_prompt, by_seed, num_prompts, num_seeds, level)


def _half_width(
    by_prompt: float, by_seed: float, num_prompts: float, num_seeds: float, level: float
) -> float:
    """Half-width of the mean's interval from the two mean squares.

    Prompts and seeds each give a t interval of their own; the squared half-widths add up. That
    keeps the level whatever the seeds' share of the variance is, at the price of some width.
    Source: recovery of variance estimates from the two intervals, Zou and Donner (2008).
    """
    quantile = 0.5 + level / 2
    squared = stdtrit(num_prompts - 1, quantile) ** 2 * by_prompt
    if num_seeds > 1:
        squared += stdtrit(num_seeds - 1, quantile) ** 2 * by_seed
    return math.sqrt(squared / (num_prompts * num_seeds))


@dataclass(frozen=True)
class Comparison:
    """One noise type against plain fine-tuning, over fresh prompts and seeds.

    `verdict` is `better`, `worse` or `cannot tell yet`, at 5 % after Holm's correction. A
    difference of the observed size would be decided with 80 % power by `prompts_needed` prompts
    with as many seeds, or by `seeds_needed` seeds with as many prompts; where neither is enough
    alone, by both (`needed_together`). None where no plan is.
    """

    arm: str
    win_rate: float
    interval_95: tuple[float, float]
    p_value: float
    p_holm: float
    num_prompts: int
    num_seeds: int
    verdict: str
    prompts_needed: int | None
    seeds_needed: int | None
    needed_together: bool = False


class _Tested(NamedTuple):
    mean: float
    interval: tuple[float, float]
    p_value: float
    spread: Spread


def compare(scores: dict[str, Floats]) -> list[Comparison]:
    """Test every arm's win rate over plain fine-tuning against one half, Holm-corrected.

    Args:
        scores: Arm -> item scores of shape (P, S): prompts by seeds, paired with the plain
            model of the same seed.
    """
    tested = {arm: _test(values) for arm, values in scores.items()}
    corrected = holm({arm: test.p_value for arm, test in tested.items()})
    return [
        _judge_arm(arm, tested[arm], corrected[arm], values.shape) for arm, values in scores.items()
    ]


def _test(scores_PS: Floats) -> _Tested:
    """Mean, 95 % interval and two-sided p-value of the mean being one half.

    Two-way layout with random prompts and seeds and one observation per cell. With one seed only
    the prompts are covered.
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
    if prompt_squares + seed_squares < _NO_SPREAD:
        return _Tested(mean, *_unanimous(mean, num_prompts), spread)

    def half_width(level: float) -> float:
        return _half_width(prompt_squares, seed_squares, num_prompts, num_seeds, level)

    half = half_width(0.95)
    interval = (max(0.0, mean - half), min(1.0, mean + half))
    return _Tested(mean, interval, _p_value(abs(mean - 0.5), half_width), spread)


def _p_value(gap: float, half_width: Callable[[float], float]) -> float:
    """The p-value at which an interval's half-width is just the gap, found by bisection."""
    low, high = _SMALLEST_P, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(1 - middle) < gap else (middle, high)
    return high


def _unanimous(score: float, num_prompts: int) -> tuple[tuple[float, float], float]:
    """Interval and p-value when all scores are the same, so that no spread can be estimated.

    What was never seen in n prompts may still happen on a share q of them, (1-q)^n = 2.5 %; the
    p-value is the sign test's.
    """
    unseen = 1 - 0.025 ** (1 / num_prompts)
    interval = ((1 - unseen) * score, (1 - unseen) * score + unseen)
    return interval, 1.0 if score == 0.5 else min(1.0, 2 * 0.5**num_prompts)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): valid whatever the dependence."""
    corrected: dict[str, float] = {}
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
    """Number at which a gap of this size is decided with about 80 % power, if any is.

    Args:
        gap: Distance of the mean from one half.
        half_width: Of the interval, when there is so many times what is present.
        present: The present number.
    """
    if gap < _NO_SPREAD:
        return None
    wanted = gap * _LEVEL_Z / (_LEVEL_Z + _POWER_Z)
    factors = (_STEP**step for step in range(1, _NUM_STEPS))
    factor = next((factor for factor in factors if half_width(factor) <= wanted), None)
    return None if factor is None else max(present + 1, math.ceil(factor * present))


def needed_text(comparison: Comparison) -> str:
    """How many more prompts or seeds would tell, in words."""
    ways = []
    if comparison.prompts_needed:
        ways.append(f"{comparison.prompts_needed} prompts")
    if comparison.seeds_needed:
        ways.append(f"{comparison.seeds_needed} seeds")
    link = " and " if comparison.needed_together else " or "
    return f"about {link.join(ways)} would tell" if ways else "the gap is too small to plan for"


def verdict_sentence(comparisons: Sequence[Comparison], labels: dict[str, str]) -> str:
    """The sweep's verdict in one sentence; `labels` gives each arm its setting in words."""
    if not comparisons:
        return "Nothing was confirmed on fresh seeds and prompts, so the sweep names no winner."
    parts = []
    for comparison in sorted(comparisons, key=lambda c: c.win_rate, reverse=True):
        low, high = comparison.interval_95
        evidence = (
            f"{100 * comparison.win_rate:.1f} % wins, 95 % interval "
            f"{100 * low:.1f} to {100 * high:.1f}"
        )
        label = labels[comparison.arm]
        if comparison.verdict == "cannot tell yet":
            told = needed_text(comparison)
            parts.append(f"whether {label} differs cannot be told yet ({evidence}; {told})")
        else:
            parts.append(f"{label} is {comparison.verdict} ({evidence})")
    first = comparisons[0]
    seeds = f"{first.num_seeds} fresh seed{'s' if first.num_seeds > 1 else ''}"
    return (
        f"Against plain fine-tuning, on {first.num_prompts} fresh prompts and {seeds}: "
        f"{'; '.join(parts)}."
    )
