"""The description of a sweep's run in MLflow: the verdict, what it rests on, and where to look.

In: what a sweep found. Out: Markdown, with links whose ids are put in when the event is applied.
"""

from __future__ import annotations

from collections.abc import Sequence

from symnoise_ray.records.layout import REPORT_HTML
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Decision
from symnoise_ray.report import words
from symnoise_ray.report.contrast import gap, gaps
from symnoise_ray.report.words import interval, percent
from symnoise_ray.statistics.words import arm_words
from symnoise_ray.tracking import views

AGAINST = ("setting", "against", "wins %", "interval", "at equal lengths %", "seeds", "verdict")
OVER = ("setting", "over", "points", "interval", "seeds", "verdict")


def describe(result: SweepResult, settings: Sequence[str], shown: Sequence[str]) -> str:
    """The description of a sweep that ended.

    Args:
        result: What it found.
        settings: Runs of the settings that were confirmed.
        shown: Trials whose answers are there as traces.
    """
    parts = [result.verdict.sentence]
    decisions = result.verdict.decisions
    against = [row for each in decisions if not each.over for row in _rows(each, result)]
    contrasts = [row for each in decisions if each.over for row in _contrast_rows(each)]
    parts += [_table(*each) for each in ((AGAINST, against), (OVER, contrasts)) if each[1]]
    if settings:
        links = [f"[{name}]({views.run_address(name)})" for name in settings]
        parts.append(f"Confirmed settings, each with its seeds below it: {', '.join(links)}")
    if pairs := _pairs(result, shown):
        links = [f"[{name} beside {other}]({page})" for name, other, page in pairs]
        parts.append(f"Answers side by side: {', '.join(links)}")
    parts.append(_links(result))
    return "\n\n".join(parts)


def _rows(decision: Decision, result: SweepResult) -> list[tuple[str, ...]]:
    """One row per comparison of an arm with the reference."""
    reference = arm_words(result.verdict, result.verdict.reference)
    return [
        (
            decision.label or decision.arm,
            f"{reference}: {each.against}",
            percent(each.win_rate),
            interval(each.interval_95),
            percent(each.length_controlled_win_rate),
            str(each.num_seeds),
            words.verdict(decision.verdict, decision.withheld),
        )
        for each in decision.comparisons
    ]


def _contrast_rows(decision: Decision) -> list[tuple[str, ...]]:
    """Two arms against each other: the difference of their win rates, as the report shows it."""
    return [
        (
            decision.label or decision.arm,
            decision.over,
            gap(each.win_rate),
            gaps(each.interval_95),
            str(each.num_seeds),
            words.verdict(decision.verdict, decision.withheld),
        )
        for each in decision.comparisons
    ]


def _pairs(result: SweepResult, shown: Sequence[str]) -> list[tuple[str, str, str]]:
    """Trials whose answers are there, beside the reference's on the same seed and prompts."""
    trials = [trial for trial in result.trials if trial.trial in shown]
    references = {(each.part, each.seed): each.trial for each in trials if each.is_reference}
    pairs = [(each.trial, references.get((each.part, each.seed))) for each in trials]
    return [
        (name, other, views.compare_address(name, other))
        for name, other in pairs
        if other and name != other
    ]


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _links(result: SweepResult) -> str:
    directory = result.paths.directory
    names = [views.SEARCH]
    if result.part("confirm"):
        names.append(views.CONFIRMATION)
    pages = {name: views.view_address(views.view_key(directory, name)) for name in names}
    pages["Report"] = views.run_address(result.name, f"/artifacts/{REPORT_HTML}")
    return "Look at: " + ", ".join(f"[{name}]({page})" for name, page in pages.items())
