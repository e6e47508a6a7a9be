"""The sections of a report: headings, paragraphs and tables, made from what a sweep found.

In: a `SweepResult`. Out: `Section`s, from which HTML and Markdown are made alike.
A number that is missing is shown as missing, never as 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import Comparison, SweepResult
from symnoise_ray.report import charts, words
from symnoise_ray.report.page import Section, Table
from symnoise_ray.report.trial_tables import (
    answer_tables,
    at_equal_lengths,
    number,
    ranked,
    trial_tables,
    upstream_tables,
)
from symnoise_ray.report.words import DASH, duration, interval, percent
from symnoise_ray.statistics.words import in_points

READING = (
    "The win rate is the share of prompts on which a trial's answer is nearer to the gold answer "
    "than the reference's answer. A tie counts one half, so 50 % means no difference.",
    "The search's best number is flattered: it is the largest of many uncertain ones. This is why "
    "the confirmation trains the best settings again, with fresh seeds and on fresh prompts, and "
    "why only the confirmation decides.",
    "An interval of the search covers another choice of prompts; an interval of the confirmation "
    "covers other training seeds as well.",
    "\u201cCannot tell yet\u201d is a result: the gap is too small for this many prompts and "
    "seeds. \u201cWould be decided by\u201d holds for a gap of the size that was seen.",
    "Judges like long answers. \u201cAt equal lengths\u201d is the win rate that a model of length "
    "gives for answers as long as the reference's; where nearly all answers are longer, or nearly "
    "all shorter, it is an extrapolation, and the share of longer ones stands beside it.",
    "The clean loss is measured without noise, on the same training rows for every trial. A lower "
    "one says that the rows were learned better, not that other prompts are answered better.",
    "One tiny model says nothing about a large one. Repeat the sweep with the model and the data "
    "that matter to you.",
)


def comparisons_of(results: SweepResult) -> list[Comparison]:
    """The comparisons with plain fine-tuning of the confirmation, best first."""
    return ranked(each for each in results.comparisons if not each.over)


def confirmation(results: SweepResult) -> Section:
    """The best settings against plain fine-tuning, and the verdict on each."""
    comparisons = comparisons_of(results)
    trials = results.part("confirm")
    if not comparisons:
        return Section(
            "Confirmation",
            ("No noise type was compared with plain fine-tuning on fresh seeds and prompts.",),
            trial_tables(trials, "The confirmation's trials, one by one"),
        )
    first = comparisons[0]
    seeds = first.num_seeds
    return Section(
        "Confirmation",
        (
            f"The best settings of the search against plain fine-tuning, on "
            f"{first.num_prompts} fresh prompts and {seeds} fresh "
            f"seed{'' if seeds == 1 else 's'}. A verdict needs p < 0.05 after Holm's correction "
            "for the number of comparisons.",
        ),
        (
            Table(
                "lrrrrll",
                (
                    "setting",
                    "wins %",
                    "95 % interval",
                    "at equal lengths %",
                    "p (Holm)",
                    "verdict",
                    "would be decided by",
                ),
                [_comparison_row(row) for row in comparisons],
                tuple(row.arm for row in comparisons),
            ),
            *_contrasts(results),
            *trial_tables(trials, "The confirmation's trials, one by one"),
            *upstream_tables(trials),
        ),
    )


def _contrasts(results: SweepResult) -> tuple[Table, ...]:
    """Noise types against each other: the difference of their win rates over plain."""
    rows = [row for row in results.comparisons if row.over]
    if not rows:
        return ()
    header = ("against each other", "points", "95 % interval", "p (Holm)", "verdict")
    return (
        Table(
            "lrrrll",
            (*header, "would be decided by"),
            [_contrast_row(row) for row in rows],
            tuple(row.arm for row in rows),
        ),
    )


def _contrast_row(row: Comparison) -> tuple[str, ...]:
    low, high = (f"{in_points(end):+.1f}" for end in row.interval_95)
    return (
        words.setting(row),
        f"{in_points(row.win_rate):+.1f}",
        f"{low} to {high}",
        number(row.p_holm, 2),
        row.verdict or DASH,
        _needed(row),
    )


def _needed(row: Comparison) -> str:
    """How many prompts or seeds would decide, in words."""
    numbers = ((row.prompts_needed, "prompts"), (row.seeds_needed, "seeds"))
    needed = [f"{count:,} {what}" for count, what in numbers if count]
    link = " and " if row.needed_together else " or "
    return link.join(needed) or DASH


def _comparison_row(row: Comparison) -> tuple[str, ...]:
    return (
        words.setting(row),
        percent(row.win_rate),
        interval(row.interval_95),
        at_equal_lengths(row.length_controlled_win_rate, row.length_controlled_interval_95),
        number(row.p_holm, 2),
        row.verdict or DASH,
        _needed(row),
    )


def search(results: SweepResult) -> Section:
    """The trials of the search, best first."""
    trials = results.part("search")
    if not trials:
        return Section("Search", ("No trial was run.",))
    stopped = sum(bool(trial.get("stopped_early")) for trial in trials)
    notes = (STOPPED_EARLY.format(stopped, len(trials)),) if stopped else ()
    tables = (*trial_tables(trials), *answer_tables(trials), *upstream_tables(trials))
    return Section("Search", notes, tables)


STOPPED_EARLY = (
    "The judging of {} of {} trials stopped once the side of 50 % was decided. Their win rate is "
    "that of the prompts that were judged, flattered by the stopping; their interval says where "
    "the win rate of all these prompts lies. The confirmation always judges every prompt."
)


def time(results: SweepResult) -> Section:
    """Where the time went, by phase and by part of the sweep."""
    seconds, by_phase = results.seconds, results.by_phase
    known = {name: by_phase[name] for name in PHASES if by_phase.get(name) is not None}
    total = sum(known.get(name, 0.0) for name in charts.OWN_PHASES) or 1.0
    phases = [
        (name, f"{spent:.1f}", percent(spent / total if name in charts.OWN_PHASES else None))
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


def reading(results: SweepResult) -> Section:
    """What the numbers mean, and what they do not."""
    return Section("How to read this", READING)
