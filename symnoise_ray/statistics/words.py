"""Win rates, comparisons and verdicts as sentences.

In: the numbers of `win_rate` and `comparison`. Out: the words that reports and terminals print.
"""

from __future__ import annotations

from collections.abc import Mapping

from symnoise_ray.records.verdict import BETTER, Comparison, Decision, Verdict
from symnoise_ray.statistics.comparison import EFFECT
from symnoise_ray.statistics.power import MOST_SEEDS
from symnoise_ray.statistics.win_rate import ONE_SIDED, WinRate

ONE_SEED = "One seed cannot show how much another training would differ."
NOTHING = "Nothing was confirmed on fresh seeds and prompts, so the sweep names no winner."


def needed_text(comparison: Comparison) -> str:
    """How many prompts tell two fixed models apart, in words."""
    gap, needed = f"a gap of {points(EFFECT)}", comparison.prompts_needed
    if needed is None:
        return f"these prompts do not show how many {gap} takes"
    if needed <= comparison.num_prompts:
        return f"{gap} would probably be seen on these prompts"
    return f"{gap} takes about {needed} prompts"


def points(rate: float) -> str:
    """A difference in win rate: `3 points`."""
    number = f"{100 * rate:.3g}"
    return f"{number} point{'' if number == '1' else 's'}"


def verdict_sentence(verdict: Verdict) -> str:
    """The sweep's verdict in words: one part per arm, best first, then the contrasts."""
    decided = sorted(
        (each for each in verdict.decisions if each.comparisons),
        key=lambda each: (bool(each.over), -each.comparisons[0].win_rate),
    )
    if not decided:
        return NOTHING
    return " ".join([*(decision_text(each, verdict) for each in decided), *not_compared(verdict)])


def not_compared(verdict: Verdict) -> list[str]:
    """A sentence for every arm that no comparison is known of."""
    return [
        f"{each.arm} could not be compared: {why_not_compared(each)}."
        for each in verdict.decisions
        if not each.comparisons and not each.over
    ]


def why_not_compared(decision: Decision) -> str:
    """Why there is no comparison of an arm."""
    if decision.stopped == "budget":
        return "the budget was spent before its first look"
    if decision.num_failed:
        return f"{decision.num_failed} of its {decision.num_trained} trainings failed"
    return "too few of its answers were judged"


def decision_text(decision: Decision, verdict: Verdict) -> str:
    """One decision in words: what was found, by how much, on what, and what is left open."""
    contrast = bool(decision.over)
    other = decision.over if contrast else arm_words(verdict, verdict.reference)
    first = decision.comparisons[0]
    found = _found(decision, other, verdict)
    numbers = _with_interval(first) if contrast else _numbers(decision, verdict)
    tail = [] if contrast else _excluded(decision, verdict)
    tail += _doubts(decision)
    if not decision.is_decided and not decision.withheld:
        tail.append(_open(decision, verdict))
    if first.num_seeds == 1:
        tail.append(ONE_SEED)
    return " ".join([f"{found}: {numbers}; {_counts(first, verdict)}.", *tail])


def arm_words(verdict: Verdict, arm: str) -> str:
    """An arm in words; without noise it is plain fine-tuning."""
    return "plain fine-tuning" if (verdict.treatment, arm) == ("noise.type", "none") else arm


def _found(decision: Decision, other: str, verdict: Verdict) -> str:
    subject = f"{_at(decision.label)} ({_tried(decision.num_settings)})"
    if decision.verdict == "no difference":
        return f"{subject} makes no difference of {points(verdict.effect)} to {other}"
    if decision.is_decided:
        kind = _better(decision) if decision.verdict == BETTER else decision.verdict
        if decision.comparisons[0].num_seeds == 1:
            return f"These two models differ: {subject} is {kind} than {other}"
        return f"{subject} is {kind} than {other}"
    return f"Whether {subject} is better or worse than {other} cannot be told yet"


def _at(label: str) -> str:
    """`symnoise, alpha=5, lr=0.002` as `symnoise at alpha=5, lr=0.002`."""
    arm, comma, rest = label.partition(", ")
    return f"{arm} at {rest}" if comma else arm


def _tried(number: int) -> str:
    return f"{number} setting{'' if number == 1 else 's'} tried"


def _better(decision: Decision) -> str:
    """`better`, with what its intervals at equal lengths leave of it."""
    known = [each.length_controlled_interval_95 for each in decision.comparisons]
    ends = [each for each in known if each is not None]
    if any(high < 0.5 for _, high in ends):
        return "better, but worse at equal lengths,"
    return "better, perhaps only longer," if any(low <= 0.5 for low, _ in ends) else "better"


def _numbers(decision: Decision, verdict: Verdict) -> str:
    """The win rate against each opponent, with its interval."""
    other = arm_words(verdict, verdict.reference)
    tried = _tried(decision.num_reference_settings)
    names = {
        "best": f"{other} at its own best, {_setting(decision.comparisons[0].against)} ({tried})",
        "shared": f"{other} at the same {_setting(decision.comparisons[-1].against)}",
        "": other,
    }
    if len(decision.comparisons) == 1:
        names["best"] = f"{other} at the same setting, which is its own best ({tried})"
    return ", and ".join(
        f"{_with_interval(each)} against {names[each.opponent]}" for each in decision.comparisons
    )


def _setting(label: str) -> str:
    """A setting without its arm."""
    return label.partition(", ")[2] or label


def _evidence(comparison: Comparison) -> tuple[str, str]:
    """`48.9 % wins` and `95 % interval 46.1 to 51.7`, with the rate at equal lengths if known."""
    low, high = comparison.interval_95
    if comparison.over:
        gap, least, most = map(in_points, (comparison.win_rate, low, high))
        return f"{gap:+.1f} points in win rate", f"95 % interval {least:+.1f} to {most:+.1f}"
    interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f}"
    if comparison.length_controlled_win_rate is not None:
        interval += f"; {100 * comparison.length_controlled_win_rate:.1f} % at equal lengths"
    return f"{100 * comparison.win_rate:.1f} % wins", interval


def _with_interval(comparison: Comparison) -> str:
    found, interval = _evidence(comparison)
    return f"{found} ({interval})"


def _counts(comparison: Comparison, verdict: Verdict) -> str:
    """Seeds, their pairs if all were judged, prompts, and groups if they are units or several."""
    seeds = f"{comparison.num_seeds} fresh seed{'' if comparison.num_seeds == 1 else 's'}"
    if comparison.num_pairs > comparison.num_seeds:
        seeds += f" in all {comparison.num_pairs} pairs"
    text = f"{seeds}, {comparison.num_prompts} fresh prompts"
    if comparison.num_groups > 1:
        text += f" of {comparison.num_groups} groups"
    if verdict.population == "other_groups":
        return f"{text}, for groups like these"
    return f"{text}, for more of the same groups" if comparison.num_groups > 1 else text


def _excluded(decision: Decision, verdict: Verdict) -> list[str]:
    """What the intervals exclude beside the verdict."""
    if decision.verdict == "no difference":
        return []
    gain, loss = decision.excludes(verdict.effect)
    found = []
    if decision.verdict != "worse" and gain:
        found.append(f"A gain of {points(verdict.effect)} or more is excluded.")
    if decision.verdict != "better" and loss:
        found.append(f"A loss of {points(verdict.effect)} or more is excluded.")
    return found


def _doubts(decision: Decision) -> list[str]:
    if decision.withheld:
        return [f"The verdict that these numbers give is withheld: {decision.withheld}."]
    if decision.num_failed:
        return [f"{decision.num_failed} of its {decision.num_trained} trainings failed."]
    return []


def _open(decision: Decision, verdict: Verdict) -> str:
    gap = f"a gap of {points(verdict.effect)}"
    if decision.comparisons[0].num_seeds < 2:
        return f"For {gap} it takes several seeds."
    needed = decision.seeds_needed
    if needed is None:
        return f"For {gap} even {MOST_SEEDS} seeds on these prompts would not be enough."
    if needed <= decision.comparisons[0].num_seeds:
        return f"{gap[0].upper()}{gap[1:]} would probably have been seen with so many seeds."
    return f"For {gap} it takes about {needed} seeds on these prompts."


def verdict_text(comparison: Comparison, labels: Mapping[str, str]) -> str:
    """One verdict on fixed models in words; `labels` names them."""
    label = labels[comparison.arm]
    evidence = ", ".join(_evidence(comparison))
    other = f" from {labels[comparison.over]}" if comparison.over else ""
    if comparison.verdict == "cannot tell yet":
        needed = needed_text(comparison)
        return f"whether {label} differs{other} is not decided yet ({evidence}; {needed})"
    than = f" than {labels[comparison.over]}" if comparison.over else ""
    return f"{label} is {comparison.verdict}{than} ({evidence})"


def in_points(rate: float) -> float:
    """The difference of two win rates in points, from a contrast's rate (1/2 + difference / 2)."""
    return 200 * rate - 100


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
