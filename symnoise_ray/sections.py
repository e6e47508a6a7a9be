"""The sections of a report: headings, paragraphs and tables, made from results.json.

In: the content of results.json. Out: `Section`s, from which HTML and Markdown are made alike.
A number that is missing is shown as missing, never as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from symnoise_ray import charts
from symnoise_ray.charts import interval, percent
from symnoise_ray.compare import in_points
from symnoise_ray.page import DASH, Section, Table
from symnoise_ray.records import PHASES, UPSTREAM

Trial = dict[str, Any]

EXTRAPOLATED = 0.05
"""Where the longer answer is the trial's on less than this share of the prompts, or on more than
the rest, the rate at equal lengths is an extrapolation."""
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


def trials_of(results: dict[str, Any]) -> list[Trial]:
    """All trials of a sweep."""
    return list(results.get("trials") or ())


def part(results: dict[str, Any], name: str) -> list[Trial]:
    """Trials of the search, or of the confirmation (`confirm`)."""
    return [trial for trial in trials_of(results) if trial.get("part") == name]


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """By win rate, best first; those without one last."""
    return sorted(
        trials, key=lambda row: (row.get("win_rate") is None, -(row.get("win_rate") or 0))
    )


def comparisons_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons with plain fine-tuning of the confirmation, best first."""
    return ranked(row for row in _compared(results) if not row.get("over"))


def _compared(results: dict[str, Any]) -> list[dict[str, Any]]:
    return list((results.get("verdict") or {}).get("comparisons") or ())


def _number(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}g}"


def _fixed(value: float | None, decimals: int) -> str:
    return DASH if value is None else f"{value:.{decimals}f}"


def _at_equal_lengths(row: dict[str, Any]) -> str:
    """The length-controlled win rate with its interval, and a warning where it reaches too far."""
    rate, ends = (row.get(f"length_controlled_{name}") for name in ("win_rate", "interval_95"))
    if rate is None:
        return DASH
    text = f"{percent(rate)} ({interval({'interval_95': ends})})" if ends else percent(rate)
    longer = row.get("longer_rate")
    if longer is None or EXTRAPOLATED <= longer <= 1 - EXTRAPOLATED:
        return text
    return f"{text}, longer on {percent(longer)} %"


def duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def confirmation(results: dict[str, Any]) -> Section:
    """The best settings against plain fine-tuning, and the verdict on each."""
    comparisons = comparisons_of(results)
    trials = part(results, "confirm")
    if not comparisons:
        return Section(
            "Confirmation",
            ("No noise type was compared with plain fine-tuning on fresh seeds and prompts.",),
            _trial_tables(trials, "The confirmation's trials, one by one"),
        )
    first = comparisons[0]
    seeds = first.get("num_seeds", DASH)
    return Section(
        "Confirmation",
        (
            f"The best settings of the search against plain fine-tuning, on "
            f"{first.get('num_prompts', DASH)} fresh prompts and {seeds} fresh "
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
                tuple(str(row.get("arm")) for row in comparisons),
            ),
            *_contrasts(results),
            *_trial_tables(trials, "The confirmation's trials, one by one"),
            *_upstream_tables(trials),
        ),
    )


def _contrasts(results: dict[str, Any]) -> tuple[Table, ...]:
    """Noise types against each other: the difference of their win rates over plain."""
    rows = [row for row in _compared(results) if row.get("over")]
    if not rows:
        return ()
    header = ("against each other", "points", "95 % interval", "p (Holm)", "verdict")
    return (
        Table(
            "lrrrll",
            (*header, "would be decided by"),
            [_contrast_row(row) for row in rows],
            tuple(str(row.get("arm")) for row in rows),
        ),
    )


def _contrast_row(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = (f"{in_points(end):+.1f}" for end in row["interval_95"])
    return (
        charts.setting(row),
        f"{in_points(row['win_rate']):+.1f}",
        f"{low} to {high}",
        _number(row.get("p_holm"), 2),
        str(row.get("verdict") or DASH),
        _needed(row),
    )


def _needed(row: dict[str, Any]) -> str:
    """How many prompts or seeds would decide, in words."""
    numbers = (("prompts_needed", "prompts"), ("seeds_needed", "seeds"))
    needed = [f"{row[name]:,} {what}" for name, what in numbers if row.get(name)]
    link = " and " if row.get("needed_together") else " or "
    return link.join(needed) or DASH


def _comparison_row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        charts.setting(row),
        percent(row.get("win_rate")),
        interval(row),
        _at_equal_lengths(row),
        _number(row.get("p_holm"), 2),
        str(row.get("verdict") or DASH),
        _needed(row),
    )


def search(results: dict[str, Any]) -> Section:
    """The trials of the search, best first."""
    trials = part(results, "search")
    if not trials:
        return Section("Search", ("No trial was run.",))
    stopped = sum(bool(trial.get("stopped_early")) for trial in trials)
    told = (STOPPED_EARLY.format(stopped, len(trials)),) if stopped else ()
    tables = (*_trial_tables(trials), *_answer_tables(trials), *_upstream_tables(trials))
    return Section("Search", told, tables)


STOPPED_EARLY = (
    "The judging of {} of {} trials stopped once the side of 50 % was decided. Their win rate is "
    "that of the prompts that were judged, flattered by the stopping; their interval says where "
    "the win rate of all these prompts lies. The confirmation always judges every prompt."
)
ANSWER_COLUMNS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "length_median": ("median length", lambda value: _fixed(value, 0)),
    "words_mean": ("words", lambda value: _fixed(value, 1)),
    "repetition_2": ("repeated 2-grams %", percent),
    "log_diversity": ("log-diversity", lambda value: _fixed(value, 2)),
    "compression_ratio": ("compression", lambda value: _fixed(value, 2)),
    "distinct_rate": ("different %", percent),
    "refusal_rate": ("refusals %", percent),
    "empty_rate": ("empty %", percent),
}
"""Statistic of the answers -> its heading and how it is shown."""


def _answer_tables(trials: Sequence[Trial]) -> tuple[Table, ...]:
    """What the answers of each trial look like; lengths are in characters."""
    told = [trial for trial in ranked(trials) if trial.get("num_answers")]
    if not told:
        return ()
    rows = [
        (
            str(trial.get("trial")),
            *(show(trial.get(name)) for name, (_, show) in ANSWER_COLUMNS.items()),
        )
        for trial in told
    ]
    header = ("trial", *(heading for heading, _ in ANSWER_COLUMNS.values()))
    arms = tuple(str(trial.get("arm")) for trial in told)
    align = "l" + "r" * len(ANSWER_COLUMNS)
    return (Table(align, header, rows, arms, "What the answers look like"),)


def _upstream_tables(trials: Sequence[Trial]) -> tuple[Table, ...]:
    """Scores in the tasks of lm-evaluation-harness, plain fine-tuning first."""
    scored = sorted(ranked(trials), key=lambda trial: trial.get("arm") != "none")
    scored = [trial for trial in scored if _upstream(trial)]
    names = list(dict.fromkeys(name for trial in scored for name in _upstream(trial)))
    if not names:
        return ()
    rows = [
        (str(trial.get("trial")), *(_with_error(trial, name) for name in names)) for trial in scored
    ]
    header = ("trial", *(name.removeprefix(UPSTREAM).replace("/", " ") for name in names))
    arms = tuple(str(trial.get("arm")) for trial in scored)
    heading = "Scores in lm-evaluation-harness, \u00b1 their standard errors"
    return (Table("l" + "r" * len(names), header, rows, arms, heading),)


def _upstream(trial: Trial) -> list[str]:
    """Names of a trial's scores, without those of their standard errors."""
    errors = {_error_of(name) for name in trial if name.startswith(UPSTREAM)}
    return [name for name in trial if name.startswith(UPSTREAM) and name not in errors]


def _error_of(name: str) -> str:
    """`harness/task/metric.filter` -> `harness/task/metric_stderr.filter`."""
    task, _, metric = name.rpartition("/")
    first, dot, rest = metric.partition(".")
    return f"{task}/{first}_stderr{dot}{rest}"


def _with_error(trial: Trial, name: str) -> str:
    value, error = trial.get(name), trial.get(_error_of(name))
    return _fixed(value, 3) + (f" \u00b1 {_fixed(error, 3)}" if error is not None else "")


COLUMNS = (
    "trial", "noise", "learning rate", "wins %", "95 % interval", "at equal lengths %",
    "clean loss", "curvature", "answer length", "seconds",
)  # fmt: skip


def _trial_tables(trials: Sequence[Trial], summary: str = "") -> tuple[Table, ...]:
    """Trials with a win rate, best first, and those without one with their reasons."""
    rated = [trial for trial in ranked(trials) if trial.get("win_rate") is not None]
    unrated = [trial for trial in trials if trial.get("win_rate") is None]
    more = {key for trial in trials for key in trial.get("params") or ()}
    more -= {"noise.type", "noise.alpha", "optim.lr"}
    others = tuple(sorted(more))
    tables = []
    if rated:
        tables.append(
            Table(
                "llrrrrrrrr" + "r" * len(others),
                (*COLUMNS, *others),
                [_trial_row(trial, others) for trial in rated],
                tuple(str(trial.get("arm")) for trial in rated),
                summary,
            )
        )
    if unrated:
        tables.append(
            Table(
                "lllll",
                ("trial without a result", "setting", "status", "kind", "reason"),
                [_reason_row(trial) for trial in unrated],
                tuple(str(trial.get("arm")) for trial in unrated),
            )
        )
    return tuple(tables)


def _trial_row(trial: Trial, others: Iterable[str]) -> tuple[str, ...]:
    params = trial.get("params") or {}
    before, after = trial.get("first_clean_loss"), trial.get("clean_loss")
    spent = [(trial.get("seconds") or {}).get(phase) for phase in charts.OWN_PHASES]
    seconds = [value for value in spent if value is not None]
    return (
        f"{trial.get('trial')}{charts.role(trial)}",
        str(trial.get("label") or trial.get("arm")),
        _number(params.get("optim.lr"), 2),
        percent(trial.get("win_rate")),
        interval(trial),
        _at_equal_lengths(trial),
        DASH if after is None else f"{_fixed(before, 2)} \u2192 {_fixed(after, 2)}",
        _number(trial.get("curvature"), 2),
        _fixed(trial.get("avg_length"), 0),
        _fixed(sum(seconds), 1) if seconds else DASH,
        *(str(params.get(key, DASH)) for key in others),
    )


def _reason_row(trial: Trial) -> tuple[str, ...]:
    return (
        str(trial.get("trial")),
        charts.setting(trial),
        str(trial.get("status")),
        str(trial.get("kind") or DASH),
        str(trial.get("reason") or DASH),
    )


def time(results: dict[str, Any]) -> Section:
    """Where the time went, by phase and by part of the sweep."""
    seconds = results.get("seconds") or {}
    by_phase = seconds.get("by_phase") or {}
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


def left_out(results: dict[str, Any]) -> Section:
    """Counts of what did not reach training or judging, over all trials."""
    by_name: dict[str, list[int]] = {}
    for trial in trials_of(results):
        counts = dict(trial.get("counts") or {})
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


def reading(results: dict[str, Any]) -> Section:
    """What the numbers mean, and what they do not."""
    return Section("How to read this", READING)
