"""A finished sweep's directory to `report.html` and `report.md`.

In: a `SweepResult`, and the trials' curves, answers and preferences. Out: one page
that opens offline, without scripts or outside resources, and its text as Markdown. Both are made
from the same sections; a number that is missing is shown as missing, never as 0.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from symnoise_ray.config.redaction import without_password
from symnoise_ray.noise.types import NOISES, adds_noise
from symnoise_ray.records.files import read_lines, write_text
from symnoise_ray.records.layout import COMPLETIONS, METRICS, PREFERENCES, REPORT_MARKDOWN
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report import charts, words
from symnoise_ray.report.fit_chart import fitted
from symnoise_ray.report.markup import clean, element
from symnoise_ray.report.overfitting import overfitting
from symnoise_ray.report.page import (
    Section,
    answers_as_html,
    escape_markdown,
    page,
    section_as_html,
    table_as_markdown,
)
from symnoise_ray.report.sections import (
    choice,
    comparisons_of,
    confirmation,
    departures,
    left_out,
    reading,
    search,
    time,
    together,
)
from symnoise_ray.report.trial_tables import ranked
from symnoise_ray.report.words import DASH, duration

NUM_EXAMPLES = 8
STATUS = {
    "whole": "Every trial finished",
    "partial": "Finished, but some trials have no result",
    "failed": "Failed",
    "interrupted": "Interrupted before its end",
}
CLIPPED = "A loss above 1.2 times the largest one before training is drawn at the upper edge."
CURVATURE = (
    "How much two opposite sign noises of the same size raise the loss on the training rows: "
    "L(x+e) + L(x-e) - 2 L(x). Smaller is flatter, which is what symmetric noise is said to bring. "
    "The noise is the same for all trials, whatever they train with."
)
MARKS = "Diamonds are paired noise, circles all else; hollow marks and dashed lines are baselines."


def write_report(results: SweepResult) -> None:
    """Write report.html and report.md into the sweep's directory.

    Raises:
        OSError: a file of the sweep cannot be read, or a report cannot be written.
    """
    paths, searched = results.paths, results.part("search")
    curves = {trial.trial: read_lines(paths.trial(trial.trial) / METRICS) for trial in searched}
    best = _best_noise(searched)
    examples = [] if best is None else _examples(paths.trial(best.trial), best)
    write_text(html(results, curves, examples), paths.report)
    write_text(markdown(results), paths.directory / REPORT_MARKDOWN)


def markdown(results: SweepResult) -> str:
    """The report as Markdown: all text and tables, no figures and no answers."""
    parts = [
        f"# {escape_markdown(results.name)}",
        escape_markdown(_status(results)),
        f"> **{escape_markdown(_sentence(results))}**",
    ]
    sections = (
        *(confirmation, choice, search, together, overfitting),
        *(departures, time, left_out, reading),
    )
    for section in filter(None, (make(results) for make in sections)):
        parts.append(f"## {section.heading}")
        parts += [escape_markdown(paragraph) for paragraph in section.paragraphs]
        parts += [table_as_markdown(table) for table in section.tables]
    parts.append(escape_markdown(_footer(results)))
    return "\n\n".join(parts) + "\n"


def html(
    results: SweepResult,
    curves: dict[str, list[dict[str, Any]]],
    examples: list[dict[str, Any]],
) -> str:
    """The report as one page.

    Args:
        results: What the sweep found.
        curves: Trial -> the lines of its metrics.jsonl.
        examples: Answers side by side: instruction, gold, reference, trial, and winner (one of
            reference, trial, tie or none), with the names of both in reference_name, trial_name.
    """
    trials = ranked(results.part("search"))
    confirmed = charts.win_rates(comparisons_of(results), "Win rates in the confirmation")
    searched = charts.win_rates(trials, "Win rates in the search")
    by_alpha = charts.by_alpha(trials, "Win rate against alpha")
    by_step = charts.clean_loss(trials, curves, "Clean loss by step")
    curvature = charts.curvature(trials, curves, "Curvature by step")
    time_spent = charts.time_spent(results.trials, "Seconds of each trial by phase")
    no_alpha = () if by_alpha else ("No trial with a result varied noise.alpha.",)
    about_loss = CLIPPED if by_step else "No trial measured a clean loss."
    about_curvature = CURVATURE if curvature else "No trial measured the curvature."
    note = element("p", clean(MARKS), class_="note") if searched else ""
    sections = [
        section_as_html(confirmation(results), confirmed),
        _optional(choice(results), fitted(results.choices, results.trials)),
        section_as_html(search(results), searched + note),
        _optional(together(results)),
        section_as_html(Section("Win rate against alpha", no_alpha), by_alpha),
        section_as_html(Section("Clean loss by step", (about_loss,)), by_step),
        section_as_html(Section("Curvature by step", (about_curvature,)), curvature),
        _optional(overfitting(results)),
        section_as_html(time(results), time_spent),
        answers_as_html(examples),
        _optional(departures(results)),
        section_as_html(left_out(results)),
        section_as_html(reading(results)),
    ]
    return page(
        results.name,
        status=_status(results),
        verdict=_sentence(results),
        footer=_footer(results),
        sections="".join(sections),
    )


def _optional(section: Section | None, figure: str = "") -> str:
    return section_as_html(section, figure) if section else ""


def _status(results: SweepResult) -> str:
    finished = results.finished
    when = datetime.fromisoformat(finished).strftime("%Y-%m-%d %H:%M %Z") if finished else DASH
    ends = [trial.status for trial in results.trials]
    counted = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends), key=_end_order))
    return (
        f"{STATUS.get(results.status, results.status)}. {len(ends)} trials ({counted or 'none'}) "
        f"in {duration(results.seconds.get('wall'))}, {when}. "
        f"symnoise_ray {results.version or DASH}."
    )


def _end_order(status: str) -> tuple[bool, str]:
    return status != "done", status


def _sentence(results: SweepResult) -> str:
    return results.verdict.sentence or "The sweep ended before a verdict could be given."


def _footer(results: SweepResult) -> str:
    # A report is passed on; results of an earlier version may hold a password.
    address = without_password(results.tracking_uri or DASH)
    return f"Runs are logged in MLflow at {address}, experiment {results.experiment or DASH}."


def _has_noise(arm: str) -> bool:
    """Whether an arm adds noise; one that this version does not know may."""
    return arm not in NOISES or adds_noise(arm)


def _best_noise(trials: Iterable[TrialResult]) -> TrialResult | None:
    """The searched trial with noise that won most; a baseline where nothing was searched."""
    noisy = [trial for trial in trials if trial.win_rate is not None and _has_noise(trial.arm)]
    return max(noisy, key=lambda trial: (not trial.baseline, trial["win_rate"]), default=None)


def _examples(directory: Path, trial: TrialResult) -> list[dict[str, Any]]:
    """A few answers of a trial beside the reference's, drawn by chance but always the same."""
    golds = [str(row.get("gold") or "") for row in read_lines(directory / COMPLETIONS)]
    by_item: dict[int, list[dict[str, Any]]] = {}
    for row in read_lines(directory / PREFERENCES):
        by_item.setdefault(row["item"], []).append(row)
    drawn = random.Random(0).sample(sorted(by_item), min(NUM_EXAMPLES, len(by_item)))
    return [
        {
            "instruction": by_item[item][0]["instruction"],
            "gold": golds[item] if item < len(golds) else "",
            "reference": by_item[item][0]["output_1"],
            "reference_name": by_item[item][0]["generator_1"],
            "trial": by_item[item][0]["output_2"],
            "trial_name": f"{trial.trial}: {words.setting(trial)}",
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
