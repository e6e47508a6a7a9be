"""What a sweep found, assembled from its trials, its comparisons and its times.

In: the results of its trials, the decisions of the confirmation, and times. Out: a
`SweepResult`, which results.json, the report and the tracker are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from symnoise_ray import __version__
from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, DataError
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import TRIALS, SweepPaths
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import (
    INTERRUPTED,
    NO_END,
    SweepResult,
    TrialResult,
    read_result,
)
from symnoise_ray.records.verdict import Choice, Decision, Verdict
from symnoise_ray.space.design import Arms
from symnoise_ray.space.step_costs import costs_notes
from symnoise_ray.statistics.words import arm_words, not_compared, verdict_sentence
from symnoise_ray.sweep.ordered import notes as ordered_notes
from symnoise_ray.sweep.registration import departures
from symnoise_ray.tracking.store import Store

GROWN = (
    " This is verdict number {looks} of a sweep that was made larger after a verdict; what was "
    "added had only the part of the level that is kept for growth."
)


def assemble(
    sweep: SweepConfig,
    directory: Path,
    trials: Sequence[TrialResult],
    choices: Sequence[Choice],
    decisions: Sequence[Decision],
    seconds: Mapping[str, float],
    *,
    notes: Sequence[str] = (),
    store: Store,
    interrupted: bool,
    parts: int = 1,
    looks: int = 1,
) -> SweepResult:
    """What a sweep found.

    Args:
        sweep: Its configuration.
        directory: Its directory.
        trials: Their results, in any order.
        choices: Of the search, one per arm.
        decisions: Of the confirmation.
        seconds: Of the sweep's parts.
        notes: On the search.
        store: Where it is logged.
        interrupted: It did not come to its end.
        parts: How often the sweep was started.
        looks: How often it gave a verdict and was made larger, this verdict included.
    """
    ordered = sorted(trials, key=_order)
    verdict = verdict_of(sweep, ordered, decisions, looks, interrupted=interrupted)
    return SweepResult(
        paths=SweepPaths(directory),
        name=sweep.name,
        version=__version__,
        status=INTERRUPTED if interrupted else status(ordered),
        parts=parts,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=verdict,
        choices=tuple(choices),
        departures=departures(directory),
        notes=(*notes, *costs_notes(directory), *ordered_notes(directory)),
        trials=tuple(ordered),
        seconds=seconds,
        by_phase=_by_phase(ordered),
        tracking_uri=store.shown,
        experiment=store.experiment,
    )


def settle(result: SweepResult, *, ended: bool) -> SweepResult:
    """Write results.json and the report; returns what they hold now.

    Of a sweep that did not come to its end, all trials that have ended are told, whether or not
    this part of it has met them. It never takes the place of one that did, or that gave a verdict:
    that was seen, and later verdicts are corrected for it.
    """
    # Figures and optuna: not before there are results.
    from symnoise_ray.report.write import write_report
    from symnoise_ray.sweep.importance import importances

    if not ended:
        before = _seen(result.paths)
        if before is not None:
            return before
        met = {trial.trial for trial in result.trials}
        folders = sorted((result.paths.directory / TRIALS).glob("*"))
        others = [found for each in folders if each.name not in met if (found := _result(each))]
        trials = sorted((*result.trials, *others), key=_order)
        result = replace(result, trials=tuple(trials), by_phase=_by_phase(trials))
    write_json(result.to_json(), result.paths.results)
    write_report(result, importances(result))
    return result


def _seen(paths: SweepPaths) -> SweepResult | None:
    """The results on disk, if they are of a sweep that came to its end."""
    if not paths.results.exists():
        return None
    try:
        found = SweepResult.from_json(read_json(paths.results), paths.directory)
    except (DataError, LookupError, TypeError, ValueError, AttributeError):
        return None  # damaged: set aside when the sweep goes on
    return found if found.comparisons or found.status == "whole" else None


def _result(folder: Path) -> TrialResult | None:
    try:
        return read_result(folder)
    except (DataError, LookupError, TypeError, ValueError, AttributeError):
        return None  # as above


def _order(trial: TrialResult) -> tuple[bool, str]:
    return trial.part != "search", trial.trial


def verdict_of(
    sweep: SweepConfig,
    trials: Sequence[TrialResult],
    decisions: Sequence[Decision],
    looks: int,
    *,
    interrupted: bool = False,
) -> Verdict:
    """The verdict of some decisions, with its sentence; the arguments are those of `assemble`."""
    question, arms = sweep.question, Arms.of(sweep)
    verdict = Verdict(
        looks=looks,
        decisions=() if interrupted else tuple(decisions),
        treatment=question.treatment,
        reference=arms.name(arms.reference),
        effect=question.effect,
        population=question.population,
    )
    sentence = _sentence(sweep, trials, verdict, interrupted=interrupted)
    if decisions and looks > 1 and not interrupted:
        sentence += GROWN.format(looks=looks)
    return replace(verdict, sentence=sentence)


def status(trials: Sequence[TrialResult]) -> str:
    """`whole`, `partial` when some trials failed, `failed` when none came to its end.

    A trial that was stopped early did what it was to do.
    """
    done = sum(trial.is_done for trial in trials)
    if not done:
        return "failed"
    return "whole" if all(trial.is_done or trial.is_stopped for trial in trials) else "partial"


def exit_code(result: SweepResult) -> int:
    """Exit status of a sweep that came to its end."""
    return {"whole": EXIT_OK, "partial": EXIT_PARTIAL}.get(result.status, EXIT_FAILED)


def _sentence(
    sweep: SweepConfig, trials: Sequence[TrialResult], verdict: Verdict, *, interrupted: bool
) -> str:
    if interrupted:
        return NO_END
    if not sweep.confirm.arms or any(each.comparisons for each in verdict.decisions):
        return verdict_sentence(verdict)
    if verdict.decisions and all(each.stopped == "budget" for each in verdict.decisions):
        return "No verdict: the budget was spent before the first look of the confirmation."
    if verdict.decisions:
        return f"No verdict: {' '.join(not_compared(verdict))}"
    done = [trial for trial in trials if trial.is_done]
    arms = {trial.arm for trial in done}
    if verdict.reference in arms and len(arms) > 1:
        return "No verdict: the search ended before every arm had trials at the same settings."
    return (
        f"No verdict: only {len(done)} of {len(trials)} trials came to their end, and "
        f"{arm_words(verdict, verdict.reference)} or every other arm is not among them."
    )


def _by_phase(trials: Sequence[TrialResult]) -> dict[str, float]:
    """Seconds of all trials by phase; trials overlap, so they add up to more than the wall."""
    return {
        phase: round(sum(trial.seconds.get(phase, 0.0) for trial in trials), 2)
        for phase in PHASES
        if any(phase in trial.seconds for trial in trials)
    }
