"""A finished sweep's directory to `report.html` and `report.md`; several sweeps to one page.

In: `SweepResult`s, and the trials' curves, answers and preferences. Out: a page that opens offline,
and its text as Markdown. Both are made from the same sections; a number that is missing is shown as
missing, never as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from symnoise_ray.records.files import read_lines, write_text
from symnoise_ray.records.layout import METRICS, REPORT_MARKDOWN
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report.content import FEWEST_TRIALS, shown
from symnoise_ray.report.design_sections import Importances
from symnoise_ray.report.frames import Curves
from symnoise_ray.report.heading import footer, sentence, status
from symnoise_ray.report.markdown import escape_markdown, table_as_markdown
from symnoise_ray.report.overfitting import overfitting
from symnoise_ray.report.page import page
from symnoise_ray.report.reading import reading
from symnoise_ray.report.sections import (
    choice,
    confirmation,
    departures,
    left_out,
    search,
    time,
    together,
)

__all__ = ["FEWEST_TRIALS", "write_page", "write_report"]


def write_report(results: SweepResult, importances: Importances) -> None:
    """Write report.html and report.md into the sweep's directory.

    Args:
        results: What the sweep found.
        importances: Arm -> setting -> its importance by Optuna, of arms with `FEWEST_TRIALS`.

    Raises:
        OSError: a file of the sweep cannot be read, or a report cannot be written.
    """
    write_page([(results, importances)], results.paths.report)
    write_text(markdown(results), results.paths.directory / REPORT_MARKDOWN)


def write_page(sweeps: Sequence[tuple[SweepResult, Importances]], path: Path) -> None:
    """Write one page of several sweeps, each with its importances; see `write_report`."""
    made = [shown(results, read_curves(results), found) for results, found in sweeps]
    title = f"{', '.join(each.name for each in made)}: sweep report"
    write_text(page(made, title), path)


def read_curves(results: SweepResult) -> Curves:
    """What the searched trials measured by step: trial -> the lines of its metrics.jsonl."""
    return {
        trial.trial: read_lines(results.paths.trial(trial.trial) / METRICS)
        for trial in results.part("search")
    }


def markdown(results: SweepResult) -> str:
    """The report as Markdown: all text and tables, no figures and no answers."""
    parts = [
        f"# {escape_markdown(results.name)}",
        escape_markdown(status(results)),
        f"> **{escape_markdown(sentence(results))}**",
    ]
    sections = (
        *(confirmation, choice, search, together, overfitting),
        *(departures, time, left_out, reading),
    )
    for section in filter(None, (make(results) for make in sections)):
        parts.append(f"## {section.heading}")
        parts += [escape_markdown(paragraph) for paragraph in section.paragraphs]
        parts += [table_as_markdown(table) for table in section.tables]
    parts.append(escape_markdown(footer(results)))
    return "\n\n".join(parts) + "\n"
