"""The sections of a report: headings, paragraphs and tables, made from what a sweep found.

In: a `SweepResult`. Out: `Section`s, from which HTML and Markdown are made alike.
A number that is missing is shown as missing, never as 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from symnoise_ray.records.metrics import OWN_PHASES, PHASES
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Choice, Comparison, Decision
from symnoise_ray.report import words
from symnoise_ray.report.contrast import gap, gaps
from symnoise_ray.report.section import Section, Table
from symnoise_ray.report.trial_tables import (
    answer_tables,
    at_equal_lengths,
    number,
    ranked,
    rated_tables,
    trial_tables,
    upstream_tables,
)
from symnoise_ray.report.words import DASH, duration, interval, percent
from symnoise_ray.space.trials import show
from symnoise_ray.statistics.blocks import block_differences
from symnoise_ray.statistics.words import arm_words, points


def comparisons_of(results: SweepResult) -> list[Comparison]:
    """The comparisons with the reference of the confirmation, best first."""
    return ranked(each for each in results.comparisons if not each.over)


def confirmation(results: SweepResult) -> Section:
    """The chosen settings against the reference, and the verdict on each."""
    trials = results.part("confirm")
    decisions = [each for each in results.verdict.decisions if not each.over]
    reference = arm_words(results.verdict, results.verdict.reference)
    if not decisions:
        return Section(
            "Confirmation",
            (f"Nothing was compared with {reference} on fresh seeds and prompts.",),
            trial_tables(trials, "The confirmation's trials, one by one"),
        )
    return Section(
        "Confirmation",
        (CONFIRMED.format(reference=reference, effect=points(results.verdict.effect)),),
        (
            Table(
                "llrrrrl",
                (
                    "setting",
                    "against",
                    "wins %",
                    "95 % interval",
                    "at equal lengths %",
                    "p",
                    "seeds",
                ),
                [_comparison_row(row) for each in decisions for row in each.comparisons],
                tuple(row.arm for each in decisions for row in each.comparisons),
            ),
            Table(
                "llllll",
                (
                    "setting",
                    "verdict",
                    "looks at seeds",
                    "then",
                    "trainings failed",
                    "seeds needed in all",
                ),
                [_decision_row(each) for each in decisions],
                tuple(each.arm for each in decisions),
            ),
            *_contrasts(results),
            *trial_tables(trials, "The confirmation's trials, one by one"),
            *upstream_tables(trials),
        ),
    )


CONFIRMED = (
    "The settings that the search chose, again, on fresh seeds and fresh prompts: against "
    "{reference} at its own best setting, and at the arm's shared settings. A verdict needs all "
    "intervals of an arm: it is better if all lie above 50 %, worse if all lie below, and makes no "
    "difference if all lie within {effect} of 50 %. The level of 5 % is spent over the looks and "
    "shared by the arms (Holm); the intervals are at the level that is left."
)
STOPPED = {
    "decided": "stopped: decided",
    "futile": "stopped: no verdict was in reach",
    "last look": "that was the last look",
    "failed": "stopped: nothing to compare",
    "budget": "stopped: the budget was spent",
}


def _comparison_row(row: Comparison) -> tuple[str, ...]:
    kinds = {"best": "its own best", "shared": "the same settings"}
    kind = kinds.get(row.opponent)
    return (
        words.setting(row),
        f"{row.against} ({kind})" if kind else row.against or DASH,
        percent(row.win_rate),
        interval(row.interval_95),
        at_equal_lengths(row.length_controlled_win_rate, row.length_controlled_interval_95),
        number(row.p_value, 2),
        str(row.num_seeds),
    )


def _decision_row(row: Decision) -> tuple[str, ...]:
    needed = f"about {row.seeds_needed}" if row.seeds_needed else DASH
    return (
        row.label or row.arm,
        words.verdict(row.verdict, row.withheld),
        ", ".join(map(str, row.looks)) or DASH,
        STOPPED.get(row.stopped, DASH),
        f"{row.num_failed} of {row.num_trained}",
        DASH if row.is_decided else needed,
    )


def _contrasts(results: SweepResult) -> tuple[Table, ...]:
    """Arms against each other: the difference of their win rates over the reference."""
    rows = [each for each in results.verdict.decisions if each.over and each.comparisons]
    if not rows:
        return ()
    return (
        Table(
            "llrrrl",
            ("setting", "over", "points", "95 % interval", "p", "verdict"),
            [_contrast_row(row) for row in rows],
            tuple(row.arm for row in rows),
        ),
    )


def _contrast_row(decision: Decision) -> tuple[str, ...]:
    row = decision.comparisons[0]
    return (
        decision.label or decision.arm,
        decision.over,
        gap(row.win_rate),
        gaps(row.interval_95),
        number(row.p_value, 2),
        words.verdict(decision.verdict, decision.withheld),
    )


def choice(results: SweepResult) -> Section | None:
    """How each arm's setting was chosen; None without a confirmation."""
    if not results.choices:
        return None
    rows = [row for each in results.choices for row in _candidates(each)]
    header = ("arm", "setting", "wins %", "its standard error", "fitted %", "its band (1 sd)")
    notes = [CHOSEN]
    if opponents := results.choices[0].opponents:
        notes.append(OVER.format(len(opponents), ", ".join(opponents)))
    notes += list(dict.fromkeys(each.remark for each in results.choices if each.remark))
    notes += [
        FLATTERED.format(each.arm, 100 * each.flattered)
        for each in results.choices
        if each.flattered is not None
    ]
    notes += [f"{each.arm}: {each.note}" for each in results.choices if each.note]
    notes += [f"{each.arm}: {BY_PAIRS}" for each in results.choices if each.method == "pairs"]
    arms = tuple(row[0] for row in rows)
    return Section("Choice of settings", tuple(notes), (Table("llrrrr", header, rows, arms),))


def _candidates(choice: Choice) -> list[tuple[str, ...]]:
    """The chosen setting first where it lies between those that were tried, then those."""
    rows: list[tuple[str, ...]] = [
        (
            choice.arm,
            candidate.label + (" (chosen)" if candidate.trial == choice.trial else ""),
            percent(candidate.win_rate),
            percent(candidate.standard_error),
            percent(candidate.fitted),
            percent(candidate.band),
        )
        for candidate in sorted(choice.candidates, key=lambda found: -found.win_rate)
    ]
    if choice.fitted is None:
        return rows
    label = f"{show(dict(choice.params))} (chosen, by the fit)"
    return [(choice.arm, label, DASH, DASH, percent(choice.fitted), DASH), *rows]


CHOSEN = (
    "Every arm had the same number of trials, and its setting was chosen in the same way: where a "
    "smooth fit through its win rates is highest, each weighed by its standard error, at a setting "
    "that was tried or between such; the largest win rate itself where there are too few settings "
    "for a fit. A trial more than 20 points below the best of its arm counts as 20 below."
)
OVER = (
    "The win rates here are over {} trials of the reference: {}. Over one opponent alone they "
    "would share its luck."
)
FLATTERED = "{}: the largest win rate exceeds the fit by {:.1f} points."
BY_PAIRS = "its win rates could not rank its settings, so those were judged against each other."


def together(results: SweepResult) -> Section | None:
    """All trials of the search together, as a second opinion; None where blocks are too few."""
    found = block_differences(results.part("search"), results.verdict.reference)
    if not found:
        return None
    reference = arm_words(results.verdict, results.verdict.reference)
    rows = [
        (
            each.arm,
            f"{100 * each.difference:+.1f}",
            f"{100 * each.interval_95[0]:+.1f} to {100 * each.interval_95[1]:+.1f}",
            str(each.num_blocks),
        )
        for each in found
    ]
    header = ("arm", f"points beside {reference}", "95 % interval", "blocks")
    table = Table("lrrr", header, rows, tuple(each.arm for each in found))
    early = sum(bool(trial.get("stopped_early")) for trial in results.part("search"))
    notes = (TOGETHER, EARLY.format(early)) if early else (TOGETHER,)
    return Section("All trials together", notes, (table,))


TOGETHER = (
    "A second opinion, never the verdict: the trials of each block share settings and training "
    "seed, and their differences are averaged over all blocks. It is about the average over all "
    "settings that were searched, good and bad ones alike, on the search's prompts, and nothing is "
    "corrected for the number of arms."
)
EARLY = (
    "The judging of {} of these trials stopped once they were decided, so their win rates are of "
    "fewer prompts and lie too far from 50 %."
)


def departures(results: SweepResult) -> Section | None:
    """What was done otherwise than declared in design.json; None if nothing was."""
    if not results.departures:
        return None
    return Section("Otherwise than declared", results.departures)


def search(results: SweepResult) -> Section:
    """The trials of the search, best first, and those without a result."""
    return _searched(results, "Search", trial_tables(results.part("search")))


def leaderboard(results: SweepResult) -> Section:
    """The trials of the search that have a win rate, best first."""
    return _searched(results, "Leaderboard of the search", rated_tables(results.part("search")))


def _searched(results: SweepResult, heading: str, first: tuple[Table, ...]) -> Section:
    trials = results.part("search")
    if not trials:
        return Section(heading, ("No trial was run.",))
    stopped = sum(bool(trial.get("stopped_early")) for trial in trials)
    notes = (STOPPED_EARLY.format(stopped, len(trials)),) if stopped else ()
    notes = (*notes, *results.notes)
    return Section(heading, notes, (*first, *answer_tables(trials), *upstream_tables(trials)))


STOPPED_EARLY = (
    "The judging of {} of {} trials stopped once the side of 50 % was decided. Their win rate is "
    "that of the prompts that were judged, flattered by the stopping; their interval says where "
    "the win rate of all these prompts lies. The confirmation always judges every prompt."
)


def time(results: SweepResult) -> Section:
    """Where the time went, by phase and by part of the sweep."""
    seconds, by_phase = results.seconds, results.by_phase
    known = {name: by_phase[name] for name in PHASES if by_phase.get(name) is not None}
    total = sum(known.get(name, 0.0) for name in OWN_PHASES) or 1.0
    phases = [
        (name, f"{spent:.1f}", percent(spent / total if name in OWN_PHASES else None))
        for name, spent in known.items()
    ]
    parts = [
        (name, duration(seconds[name]))
        for name in ("start", "search", "confirm", "report", "wall")
        if seconds.get(name) is not None
    ]
    tables = []
    if phases:
        tables.append(Table("lrr", ("phase, all trials", "seconds", "%"), phases))
    if parts:
        tables.append(Table("lr", ("part of the sweep", "time"), parts))
    note = (
        "Start is waiting for a worker. Track is logging; it runs beside the other phases, so it "
        "is in no bar and no sum. Trials may run at once, so their seconds can add up to more "
        "than the sweep's wall time."
    )
    return Section("Where the time went", (note,), tuple(tables))


def left_out(results: SweepResult) -> Section:
    """Counts of what did not reach training or judging, over all trials."""
    by_name: dict[str, list[int]] = {}
    for trial in results.trials:
        counts = dict(trial.counts)
        if trial.get("n_invalid"):
            counts["prompts without a valid verdict"] = trial["n_invalid"]
        for name, count in counts.items():
            if count:
                by_name.setdefault(name, []).append(count)
    if not by_name:
        return Section("What was left out or cut", ("Nothing that was counted.",))
    rows = [(name, str(len(counts)), _span(counts)) for name, counts in sorted(by_name.items())]
    header = ("what", "in how many trials", "how many in each")
    return Section("What was left out or cut", (), (Table("lrr", header, rows),))


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
