"""Preferences to numbers: win rates with intervals, paired comparisons, and the verdict in words.

In: preferences per item (and training seed). Out: frozen results; rates are fractions in [0, 1].
Pure numpy. An interval resamples what would differ in a repetition: the prompts, and where a
configuration was trained several times, the seeds as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symnoise_ray.errors import JudgeError
from symnoise_ray.records import Preference

Floats = NDArray[np.float64]

NUM_REPLICATES = 2000
SIGNIFICANCE = 0.05
_BOOTSTRAP_SEED = 20231202
_POWER_Z = 0.8416  # 80 % power
_LEVEL_Z = 1.9600  # two-sided 5 %


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
        interval_95=bootstrap_interval(values[:, None]),
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


def _bootstrap_means(scores_PS: Floats) -> Floats:
    """Means of resampled prompts x resampled seeds; shape (replicates,)."""
    num_prompts, num_seeds = scores_PS.shape
    generator = np.random.default_rng(_BOOTSTRAP_SEED)
    prompts = generator.multinomial(num_prompts, [1 / num_prompts] * num_prompts, NUM_REPLICATES)
    seeds = generator.multinomial(num_seeds, [1 / num_seeds] * num_seeds, NUM_REPLICATES)
    totals = np.einsum("rp,ps,rs->r", prompts, scores_PS, seeds, optimize=True)
    means: Floats = totals / (num_prompts * num_seeds)
    return means


def bootstrap_interval(scores_PS: Floats) -> tuple[float, float]:
    """95 % percentile interval of the mean.

    Prompts and seeds are resampled independently (the pigeonhole bootstrap, Owen 2007), so the
    interval covers both another prompt set and another training run.

    Shapes: scores_PS, P prompts by S seeds.
    """
    low, high = np.quantile(_bootstrap_means(scores_PS), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """One noise type against plain fine-tuning, over fresh prompts and seeds.

    `verdict` is `better`, `worse` or `cannot tell yet`, at 5 % after Holm's correction;
    `prompts_needed` would decide a difference of the observed size with 80 % power.
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


def compare(scores: dict[str, Floats]) -> list[Comparison]:
    """Test every arm's win rate over plain fine-tuning against one half, Holm-corrected.

    Args:
        scores: Arm -> item scores of shape (P, S): prompts by seeds, paired with the plain
            model of the same seed.
    """
    raw = {arm: _p_value(values) for arm, values in scores.items()}
    corrected = holm(raw)
    return [_judge_arm(arm, values, raw[arm], corrected[arm]) for arm, values in scores.items()]


def _p_value(scores_PS: Floats) -> float:
    """Two-sided bootstrap p-value of the mean being one half."""
    means = _bootstrap_means(scores_PS)
    below = (np.sum(means <= 0.5) + 1) / (len(means) + 1)
    above = (np.sum(means >= 0.5) + 1) / (len(means) + 1)
    return float(min(1.0, 2 * min(below, above)))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): valid whatever the dependence."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected


def _judge_arm(arm: str, scores_PS: Floats, p_value: float, p_holm: float) -> Comparison:
    mean = float(scores_PS.mean())
    decided = "better" if mean > 0.5 else "worse"
    verdict = decided if p_holm < SIGNIFICANCE else "cannot tell yet"
    return Comparison(
        arm=arm,
        win_rate=mean,
        interval_95=bootstrap_interval(scores_PS),
        p_value=p_value,
        p_holm=p_holm,
        num_prompts=scores_PS.shape[0],
        num_seeds=scores_PS.shape[1],
        verdict=verdict,
        prompts_needed=_prompts_needed(scores_PS) if verdict == "cannot tell yet" else None,
    )


def _prompts_needed(scores_PS: Floats) -> int | None:
    """Prompts that would decide a gap of the observed size; None when there is no gap."""
    per_prompt = scores_PS.mean(axis=1)
    gap = abs(float(per_prompt.mean()) - 0.5)
    if gap < 1e-9 or len(per_prompt) < 2:
        return None
    spread: float = float(per_prompt.std(ddof=1))
    return max(scores_PS.shape[0] + 1, math.ceil(((_LEVEL_Z + _POWER_Z) * spread / gap) ** 2))


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
            needed = comparison.prompts_needed
            more = f", about {needed} prompts would tell" if needed else ", no gap was seen"
            parts.append(f"whether {label} differs cannot be told yet ({evidence}{more})")
        else:
            parts.append(f"{label} is {comparison.verdict} ({evidence})")
    first = comparisons[0]
    seeds = f"{first.num_seeds} fresh seed{'s' if first.num_seeds > 1 else ''}"
    return (
        f"Against plain fine-tuning, on {first.num_prompts} fresh prompts and {seeds}: "
        f"{'; '.join(parts)}."
    )
