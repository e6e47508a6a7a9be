"""What Optuna's study says of a trial beside its score, so that optuna-dashboard is worth opening.

In: a trial's files. Out: attributes, intermediate values and notes in the study. The names of the
notes' attributes are those of optuna-dashboard 0.21, which needs no package to be written for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from symnoise_ray.records.files import read_lines
from symnoise_ray.records.layout import METRICS, SweepPaths
from symnoise_ray.records.results import TrialResult, read_result
from symnoise_ray.report.words import DASH, interval, percent
from symnoise_ray.space.parameters import Params
from symnoise_ray.space.trials import SweepPlans, show
from symnoise_ray.statistics.early_exit import CLEAN_LOSS

NAME = "trial"
"""Attribute of Optuna's trials: what the sweep calls them."""
METRIC_NAME = "win rate"
_CHUNK = 2045  # characters of one attribute of a note, in optuna-dashboard


def introduce(study: optuna.Study, plans: SweepPlans) -> None:
    """Name the study's value, and say in its note what is where; once, since people may edit it."""
    study.set_metric_names([METRIC_NAME])
    config, question = plans.sweep, plans.sweep.question
    paths = SweepPaths(plans.directory)
    tracker = config.tracking.uri or "`mlflow.db` beside the sweep's folder"
    lines = [
        f"# {config.name}",
        f"{question.treatment} against {question.reference}. The value is the **win rate** over "
        "the reference's answers; intermediate values are **minus the clean loss**, since the "
        "study maximises. A trial that was stopped early is pruned.",
        "The best trial of a search is flattered by being chosen. The verdict is in the report.",
        f"- Report: [{paths.report}]({paths.report.absolute().as_uri()})",
        f"- MLflow: {tracker}",
    ]
    if "dashboard:note_ver" not in study._storage.get_study_system_attrs(study._study_id):
        _write_note(study, "dashboard", "\n\n".join(lines))


def describe(study: optuna.Study, trial_id: int, directory: Path, point: Params) -> None:
    """Tell the study of a trial that comes to its end; call it before its state is written.

    A trial without files, whose process died early, has no more to tell than its state.
    """
    result = read_result(directory)
    storage = study._storage
    for row in read_lines(directory / METRICS):
        if CLEAN_LOSS in row:
            storage.set_trial_intermediate_value(trial_id, row["step"], -row[CLEAN_LOSS])
    if result is None:
        return
    for name, value in _attributes(result).items():
        storage.set_trial_user_attr(trial_id, name, value)
    _write_note(study, f"dashboard:{trial_id}", _note(directory, point, result))


def _attributes(result: TrialResult) -> dict[str, Any]:
    ends = dict(
        zip(("win_rate_low_95", "win_rate_high_95"), result.interval_95 or (), strict=False)
    )
    told = {"status": result.status, "reason": result.reason, CLEAN_LOSS: result.get(CLEAN_LOSS)}
    return {name: value for name, value in {**ends, **told}.items() if value not in (None, "")}


def _note(directory: Path, point: Params, result: TrialResult) -> str:
    ends = result.interval_95
    wins = DASH if result.win_rate is None else f"{percent(result.win_rate)} %"
    told = f", 95 % interval {interval(ends)}" if ends else ""
    lines = [
        f"# {directory.name}",
        show(point),
        f"wins: {wins}{told}",
        f"status: {result.status}" + (f", {result.reason}" if result.reason else ""),
        f"files: [{directory}]({directory.absolute().as_uri()})",
    ]
    return "\n\n".join(lines)


def _write_note(study: optuna.Study, prefix: str, text: str) -> None:
    """Write a Markdown note, over the one that is there."""
    storage, own = study._storage, study._study_id
    for number, start in enumerate(range(0, len(text), _CHUNK)):
        part = text[start : start + _CHUNK]
        storage.set_study_system_attr(own, f"{prefix}:note_str:{number}", part)
    storage.set_study_system_attr(own, f"{prefix}:note_ver", 1)
