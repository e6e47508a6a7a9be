"""Win rates, comparisons and verdicts as sentences.

In: the numbers of `win_rate` and `comparison`. Out: the words that reports and terminals print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from symnoise_ray.records.results import Comparison
from symnoise_ray.statistics.win_rate import ONE_SIDED, WinRate

ONE_SEED = "One seed cannot show how much another training would differ."


def needed_text(comparison: Comparison) -> str:
    """How many prompts or seeds would decide the comparison, in words."""
    ways = []
    if comparison.prompts_needed:
        ways.append(f"{comparison.prompts_needed} prompts")
    if comparison.seeds_needed:
        ways.append(f"{comparison.seeds_needed} seeds")
    if not ways:
        return "the gap is too small to plan for"
    link = " and " if comparison.needed_together else " or "
    return f"about {link.join(ways)} would decide it"


def verdict_sentence(comparisons: Sequence[Comparison], labels: Mapping[str, str]) -> str:
    """The sweep's verdict in one sentence; `labels` gives each arm its setting in words."""
    if not comparisons:
        return "Nothing was confirmed on fresh seeds and prompts, so the sweep names no winner."
    parts = [verdict_text(each, labels) for each in _ranked(comparisons) if not each.over]
    contrasts = [verdict_text(each, labels) for each in _ranked(comparisons) if each.over]
    first = comparisons[0]
    seeds = f"{first.num_seeds} fresh seed{'s' if first.num_seeds > 1 else ''}"
    text = (
        f"Against plain fine-tuning, on {first.num_prompts} fresh prompts and {seeds}: "
        f"{'; '.join(parts)}."
    )
    if contrasts:
        text += f" Against each other, by their win rates over plain: {'; '.join(contrasts)}."
    return text if first.num_seeds > 1 else f"{text} {ONE_SEED}"


def _ranked(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return sorted(comparisons, key=lambda comparison: comparison.win_rate, reverse=True)


def verdict_text(comparison: Comparison, labels: Mapping[str, str]) -> str:
    """One verdict in words; `labels` names the arms."""
    evidence, label = _evidence(comparison), labels[comparison.arm]
    other = f" from {labels[comparison.over]}" if comparison.over else ""
    if comparison.verdict == "cannot tell yet":
        needed = needed_text(comparison)
        return f"whether {label} differs{other} is not decided yet ({evidence}; {needed})"
    than = f" than {labels[comparison.over]}" if comparison.over else ""
    return f"{label} is {comparison.verdict}{than} ({evidence})"


def in_points(rate: float) -> float:
    """The difference of two win rates in points, from a contrast's rate (1/2 + difference / 2)."""
    return 200 * rate - 100


def _evidence(comparison: Comparison) -> str:
    """The numbers behind a verdict; `at equal lengths` is the length-controlled win rate."""
    low, high = comparison.interval_95
    if comparison.over:
        gap, least, most = map(in_points, (comparison.win_rate, low, high))
        return f"{gap:+.1f} points, 95 % interval {least:+.1f} to {most:+.1f}"
    text = (
        f"{100 * comparison.win_rate:.1f} % wins, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
    )
    if comparison.length_controlled_win_rate is None:
        return text
    return f"{text}, {100 * comparison.length_controlled_win_rate:.1f} % at equal lengths"


def score_text(rate: WinRate, *, intervals: bool = True) -> str:
    """The score in a few lines, in percent; without `intervals` if judging stopped early."""
    raw, equal = rate.interval_95, rate.length_controlled_interval_95
    counts = (
        f"of {rate.n_total} items: {rate.n_wins} won, {rate.n_wins_reference} lost, "
        f"{rate.n_draws} tied"
    )
    lines = [
        f"{_percent(rate.win_rate, raw if intervals else None)} {counts}",
        f"{_percent(rate.length_controlled_win_rate, equal if intervals else None)} at equal "
        f"lengths; {rate.avg_length:.0f} characters on average, longer than the reference on "
        f"{100 * rate.longer_rate:.0f} %",
    ]
    if not ONE_SIDED <= rate.longer_rate <= 1 - ONE_SIDED:
        lines.append("the lengths hardly overlap, so the rate at equal lengths is an extrapolation")
    if rate.n_invalid:
        lines.append(f"{rate.n_invalid} items without a verdict are left out")
    return "\n".join(lines)


def _percent(rate: float, ends: tuple[float, float] | None) -> str:
    interval_text = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
    return f"{100 * rate:.1f} %{interval_text}"
