"""One sweep as the page shows it: sections with their figures, columns, answers.

In: a `SweepResult`, its trials' curves and Optuna's importances. Out: `Shown`, plain values that
the templates and the page's script read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from altair.utils.schemapi import debug_mode

from symnoise_ray.records.results import SweepResult
from symnoise_ray.report import rate_figures, run_figures, sections
from symnoise_ray.report.answers import Answers, confirmed_answers
from symnoise_ray.report.chart import Figure
from symnoise_ray.report.colours import Arm, arms_of
from symnoise_ray.report.design_sections import (
    Importances,
    cost,
    design,
    early_exits,
    failures,
    importance,
    lengths,
)
from symnoise_ray.report.frames import (
    CURVES,
    Columns,
    Curves,
    columns,
    of_choices,
    of_comparisons,
    of_curves,
    of_trials,
    varied_numbers,
)
from symnoise_ray.report.heading import footer, sentence, status
from symnoise_ray.report.overfitting import overfitting
from symnoise_ray.report.reading import reading
from symnoise_ray.report.response import fitted_lines
from symnoise_ray.report.section import Section, cleaned

FEWEST_TRIALS = 16
"""Finished trials of an arm below which an importance says nothing."""
MARKS = "Diamonds are paired noise, circles all else; hollow marks and dashed lines are baselines."
CLIPPED = "A loss above 1.2 times the largest one before training is drawn at the upper edge."
CURVATURE = (
    "Curvature is how much two opposite sign noises of the same size raise the loss on the "
    "training rows: L(x+e) + L(x-e) - 2 L(x). Smaller is flatter, which is what symmetric noise is "
    "said to bring. The noise is the same for all trials, whatever they train with."
)


class Part(NamedTuple):
    """A section with its figures, between its text and its tables."""

    section: Section
    figures: tuple[Figure, ...] = ()


class Shown(NamedTuple):
    """A sweep on the page; `columns` are what its figures draw, by name."""

    name: str
    status: str
    verdict: str
    footer: str
    arms: list[Arm]
    parts: list[Part]
    columns: dict[str, Columns]
    answers: Answers | None


def shown(results: SweepResult, curves: Curves, found: Importances) -> Shown:
    """A sweep as the page shows it.

    Args:
        results: What the sweep found.
        curves: Trial -> the lines of its metrics.jsonl.
        found: Arm -> setting -> its importance, a share of 1; empty where trials are too few.
    """
    names = [trial.arm for trial in results.trials]
    arms = arms_of(map(cleaned, [*names, *(each.arm for each in results.comparisons)]))
    settings = varied_numbers(results)
    data = {
        "trials": of_trials(results, settings),
        "comparisons": of_comparisons(sections.comparisons_of(results)),
        "curves": of_curves(results.part("search"), curves),
        "fit": fitted_lines(results, settings),
        "choices": of_choices(results.choices, settings),
        "importances": columns(
            [
                {"arm": cleaned(arm), "setting": cleaned(name), "importance": share}
                for arm, shares in found.items()
                for name, share in shares.items()
            ]
        ),
    }
    # Every chart is checked against Vega-Lite's schema by the tests; here that would take seconds.
    with debug_mode(False):
        parts = _parts(results, arms, data, settings, found)
    return Shown(
        results.name,
        status(results),
        sentence(results),
        footer(results),
        arms,
        parts,
        data,
        confirmed_answers(results),
    )


def _parts(
    results: SweepResult,
    arms: Sequence[Arm],
    data: dict[str, Columns],
    settings: Sequence[str],
    found: Importances,
) -> list[Part]:
    drawn = _Drawn(arms, data)
    optional: list[tuple[Callable[[SweepResult], Section | None], tuple[Figure, ...]]] = [
        (sections.departures, ()),
        (design, ()),
        (sections.leaderboard, drawn.search()),
        (_response, drawn.response(settings)),
        (sections.choice, drawn.fits(settings)),
        (sections.together, ()),
        (lambda _: lengths(drawn.count("length")), drawn.lengths()),
        (lambda _: _learning(drawn.curves()), drawn.curves()),
        (lambda _: importance(found, FEWEST_TRIALS), drawn.importances()),
        (overfitting, ()),
        (sections.time, drawn.time()),
        (cost, ()),
        (early_exits, ()),
        (failures, ()),
        (sections.left_out, ()),
        (reading, ()),
    ]
    effect = results.verdict.effect
    parts = [Part(sections.confirmation(results), drawn.confirmed(effect))]
    made = ((make(results), pictures) for make, pictures in optional)
    return parts + [Part(section, pictures) for section, pictures in made if section]


def _response(results: SweepResult) -> Section:
    known = any(trial.win_rate is not None for trial in results.part("search"))
    varied = known and varied_numbers(results)
    return Section("Response", (MARKS if varied else "No trial with a result varied a number.",))


def _learning(drawn: Iterable[Figure]) -> Section:
    notes = (CLIPPED, CURVATURE) if tuple(drawn) else ("No trial measured a loss.",)
    return Section("Learning curves", notes)


class _Drawn:
    """The figures for which there is something to draw."""

    def __init__(self, arms: Sequence[Arm], data: dict[str, Columns]) -> None:
        self.arms, self.data, self.trials = arms, data, data["trials"]

    def count(self, *fields: str, part: str = "") -> int:
        """Trials that have a win rate and all of some fields."""
        names = ("part", "win_rate", *fields)
        rows: list[tuple[Any, ...]] = list(
            zip(*(self.trials.get(n, []) for n in names), strict=True)
        )
        return sum(None not in row and part in ("", row[0]) for row in rows)

    def confirmed(self, effect: float) -> tuple[Figure, ...]:
        rows = len(self.data["comparisons"].get("label", ()))
        return (rate_figures.confirmed(self.arms, effect, rows),) if rows else ()

    def search(self) -> tuple[Figure, ...]:
        count = self.count(part="search")
        return (rate_figures.searched(self.arms, count),) if count else ()

    def response(self, settings: Sequence[str]) -> tuple[Figure, ...]:
        counts = [self.count(f"setting_{n}", part="search") for n in range(len(settings))]
        return tuple(
            rate_figures.by_setting(self.arms, n, name, counts[n])
            for n, name in enumerate(settings)
            if counts[n]
        )

    def fits(self, settings: Sequence[str]) -> tuple[Figure, ...]:
        return tuple(
            rate_figures.fitted(self.arms, n, name, self.count(f"setting_{n}", "chosen_by"))
            for n, name in enumerate(settings)
            if n in self.data["fit"].get("setting", ())
        )

    def lengths(self) -> tuple[Figure, ...]:
        count = self.count("length")
        return (rate_figures.by_length(self.arms, count),) if count else ()

    def curves(self) -> tuple[Figure, ...]:
        if not self.data["curves"]:
            return ()
        made = (run_figures.by_step(self.arms, self.data["curves"], field) for field in CURVES)
        return tuple(filter(None, made))

    def importances(self) -> tuple[Figure, ...]:
        count = len(self.data["importances"].get("setting", ()))
        return (run_figures.importances(self.arms, count),) if count else ()

    def time(self) -> tuple[Figure, ...]:
        count = len(self.trials.get("trial", ()))
        return (run_figures.time_spent(count),) if count else ()
