"""A finished sweep's directory to `report.html` and `report.md`.

In: the content of results.json and the trials' curves, answers and preferences. Out: one page
that opens offline, without scripts or outside resources, and its text as Markdown. Both are made
from the same sections; a number that is missing is shown as missing, never as 0.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from symnoise_ray import charts
from symnoise_ray.charts import clean, element, interval, percent
from symnoise_ray.page import (
    DASH,
    Section,
    Table,
    answers_as_html,
    escape_markdown,
    page,
    section_as_html,
    table_as_markdown,
)
from symnoise_ray.records import PHASES, read_lines, write_text

Trial = dict[str, Any]

NUM_EXAMPLES = 8
STATUS = {
    "whole": "Every trial finished",
    "partial": "Finished, but some trials have no result",
    "failed": "Failed",
    "interrupted": "Interrupted before its end",
}
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
    "The clean loss is measured without noise, on the same training rows for every trial. A lower "
    "one says that the rows were learned better, not that other prompts are answered better.",
    "One tiny model says nothing about a large one. Repeat the sweep with the model and the data "
    "that matter to you.",
)
CLIPPED = "A loss above 1.2 times the largest one before training is drawn at the upper edge."
MARKS = "Diamonds are paired noise, circles all else; hollow marks and dashed lines are baselines."


def write_report(directory: Path, results: dict[str, Any]) -> None:
    """Write report.html and report.md into a sweep's directory.

    Raises:
        OSError: a file of the sweep cannot be read, or a report cannot be written.
    """
    curves = {
        trial["trial"]: read_lines(directory / "trials" / trial["trial"] / "metrics.jsonl")
        for trial in _part(results, "search")
    }
    best = _best_noise(_part(results, "search"))
    examples = [] if best is None else _examples(directory / "trials" / best["trial"], best)
    write_text(html(results, curves, examples), directory / "report.html")
    write_text(markdown(results), directory / "report.md")


def markdown(results: dict[str, Any]) -> str:
    """The report as Markdown: all text and tables, no figures and no answers."""
    parts = [
        f"# {escape_markdown(results['name'])}",
        escape_markdown(_status(results)),
        f"> **{escape_markdown(_sentence(results))}**",
    ]
    sections = (_confirmation, _search, _time, _left_out, _reading)
    for section in (make(results) for make in sections):
        parts.append(f"## {section.heading}")
        parts += [escape_markdown(paragraph) for paragraph in section.paragraphs]
        parts += [table_as_markdown(table) for table in section.tables]
    parts.append(escape_markdown(_footer(results)))
    return "\n\n".join(parts) + "\n"


def html(
    results: dict[str, Any],
    curves: dict[str, list[dict[str, Any]]],
    examples: list[dict[str, Any]],
) -> str:
    """The report as one page.

    Args:
        results: The content of results.json.
        curves: Trial -> the lines of its metrics.jsonl.
        examples: Answers side by side: instruction, gold, reference, trial, and winner (one of
            reference, trial, tie or none), with the names of both in reference_name, trial_name.
    """
    search = _ranked(_part(results, "search"))
    confirmed = charts.win_rates(_comparisons(results), "Win rates in the confirmation")
    searched = charts.win_rates(search, "Win rates in the search")
    by_alpha = charts.by_alpha(search, "Win rate against alpha")
    by_step = charts.clean_loss(search, curves, "Clean loss by step")
    time_spent = charts.time_spent(_trials(results), "Seconds of each trial by phase")
    no_alpha = () if by_alpha else ("No trial with a result varied noise.alpha.",)
    about_loss = CLIPPED if by_step else "No trial measured a clean loss."
    note = element("p", clean(MARKS), class_="note") if searched else ""
    sections = [
        section_as_html(_confirmation(results), confirmed),
        section_as_html(_search(results), searched + note),
        section_as_html(Section("Win rate against alpha", no_alpha), by_alpha),
        section_as_html(Section("Clean loss by step", (about_loss,)), by_step),
        section_as_html(_time(results), time_spent),
        answers_as_html(examples),
        section_as_html(_left_out(results)),
        section_as_html(_reading(results)),
    ]
    return page(
        results["name"],
        status=_status(results),
        verdict=_sentence(results),
        footer=_footer(results),
        sections="".join(sections),
    )


def _trials(results: dict[str, Any]) -> list[Trial]:
    return list(results.get("trials") or ())


def _part(results: dict[str, Any], part: str) -> list[Trial]:
    return [trial for trial in _trials(results) if trial.get("part") == part]


def _ranked(trials: Iterable[Trial]) -> list[Trial]:
    """By win rate, best first; those without one last."""
    return sorted(
        trials, key=lambda row: (row.get("win_rate") is None, -(row.get("win_rate") or 0))
    )


def _comparisons(results: dict[str, Any]) -> list[dict[str, Any]]:
    comparisons = (results.get("verdict") or {}).get("comparisons") or ()
    return _ranked(comparisons)


def _status(results: dict[str, Any]) -> str:
    status = str(results.get("status"))
    finished = results.get("finished")
    when = datetime.fromisoformat(finished).strftime("%Y-%m-%d %H:%M %Z") if finished else DASH
    ends = [str(trial.get("status")) for trial in _trials(results)]
    told = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends), key=_end_order))
    wall = (results.get("seconds") or {}).get("wall")
    return (
        f"{STATUS.get(status, status)}. {len(ends)} trials ({told or 'none'}) in "
        f"{_duration(wall)}, {when}. symnoise_ray {results.get('version', DASH)}."
    )


def _end_order(status: str) -> tuple[bool, str]:
    return status != "done", status


def _sentence(results: dict[str, Any]) -> str:
    sentence = (results.get("verdict") or {}).get("sentence")
    return str(sentence or "The sweep ended before a verdict could be given.")


def _footer(results: dict[str, Any]) -> str:
    tracking = results.get("tracking") or {}
    # A report is passed on, a password in a tracking address is not.
    address = re.sub(r"//[^/@]*@", "//", str(tracking.get("uri") or DASH))
    return f"Runs are logged in MLflow at {address}, experiment {tracking.get('experiment', DASH)}."


def _number(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}g}"


def _fixed(value: float | None, decimals: int) -> str:
    return DASH if value is None else f"{value:.{decimals}f}"


def _duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _confirmation(results: dict[str, Any]) -> Section:
    comparisons = _comparisons(results)
    trials = _part(results, "confirm")
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
                "lrrrll",
                (
                    "setting",
                    "wins %",
                    "95 % interval",
                    "p (Holm)",
                    "verdict",
                    "would be decided by",
                ),
                [_comparison_row(row) for row in comparisons],
                tuple(str(row.get("arm")) for row in comparisons),
            ),
            *_trial_tables(trials, "The confirmation's trials, one by one"),
        ),
    )


def _comparison_row(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = (("prompts_needed", "prompts"), ("seeds_needed", "seeds"))
    needed = [f"{row[name]:,} {what}" for name, what in numbers if row.get(name)]
    link = " and " if row.get("needed_together") else " or "
    return (
        charts.setting(row),
        percent(row.get("win_rate")),
        interval(row),
        _number(row.get("p_holm"), 2),
        str(row.get("verdict") or DASH),
        link.join(needed) or DASH,
    )


def _search(results: dict[str, Any]) -> Section:
    trials = _part(results, "search")
    if not trials:
        return Section("Search", ("No trial was run.",))
    return Section("Search", (), _trial_tables(trials))


COLUMNS = (
    "trial", "noise", "learning rate", "wins %", "95 % interval", "clean loss",
    "answer length", "seconds",
)  # fmt: skip


def _trial_tables(trials: Sequence[Trial], summary: str = "") -> tuple[Table, ...]:
    """Trials with a win rate, best first, and those without one with their reasons."""
    rated = [trial for trial in _ranked(trials) if trial.get("win_rate") is not None]
    unrated = [trial for trial in trials if trial.get("win_rate") is None]
    more = {key for trial in trials for key in trial.get("params") or ()}
    more -= {"noise.type", "noise.alpha", "optim.lr"}
    others = tuple(sorted(more))
    tables = []
    if rated:
        tables.append(
            Table(
                "llrrrrrr" + "r" * len(others),
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
        DASH if after is None else f"{_fixed(before, 2)} \u2192 {_fixed(after, 2)}",
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


def _time(results: dict[str, Any]) -> Section:
    seconds = results.get("seconds") or {}
    by_phase = seconds.get("by_phase") or {}
    known = {name: by_phase[name] for name in PHASES if by_phase.get(name) is not None}
    total = sum(known.get(name, 0.0) for name in charts.OWN_PHASES) or 1.0
    phases = [
        (name, f"{spent:.1f}", percent(spent / total if name in charts.OWN_PHASES else None))
        for name, spent in known.items()
    ]
    parts = [
        (name, _duration(seconds[name]))
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


def _left_out(results: dict[str, Any]) -> Section:
    """Counts of what did not reach training or judging, over all trials."""
    by_name: dict[str, list[int]] = {}
    for trial in _trials(results):
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


def _reading(results: dict[str, Any]) -> Section:
    return Section("How to read this", READING)


def _best_noise(trials: Iterable[Trial]) -> Trial | None:
    """The searched trial with noise that won most; a baseline where nothing was searched."""
    noisy = [
        trial
        for trial in trials
        if trial.get("win_rate") is not None and trial.get("arm") not in ("none", "duplicate")
    ]
    return max(
        noisy, key=lambda trial: (not trial.get("baseline"), trial["win_rate"]), default=None
    )


def _examples(directory: Path, trial: Trial) -> list[dict[str, Any]]:
    """A few answers of a trial beside the reference's, drawn by chance but always the same."""
    golds = [str(row.get("gold") or "") for row in read_lines(directory / "completions.jsonl")]
    by_item: dict[int, list[dict[str, Any]]] = {}
    for row in read_lines(directory / "preferences.jsonl"):
        by_item.setdefault(row["item"], []).append(row)
    drawn = random.Random(0).sample(sorted(by_item), min(NUM_EXAMPLES, len(by_item)))
    return [
        {
            "instruction": by_item[item][0]["instruction"],
            "gold": golds[item] if item < len(golds) else "",
            "reference": by_item[item][0]["output_1"],
            "reference_name": by_item[item][0]["generator_1"],
            "trial": by_item[item][0]["output_2"],
            "trial_name": f"{trial['trial']}: {charts.setting(trial)}",
            "winner": _winner([row["preference"] for row in by_item[item]]),
        }
        for item in sorted(drawn)
    ]


def _winner(preferences: Sequence[float | None]) -> str:
    """Who won an item over both orders."""
    valid = [preference for preference in preferences if preference is not None]
    if not valid or len(valid) < len(preferences):
        return "none"
    mean = sum(valid) / len(valid)
    return "tie" if mean == 1.5 else "trial" if mean > 1.5 else "reference"
