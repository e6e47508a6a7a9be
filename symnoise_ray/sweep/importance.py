"""How much each setting matters for the win rate, by Optuna, from a sweep's study.

In: optuna.db. Out: shares by arm and setting. No arm learns from another, so each has its own.
"""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState

from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.sqlite import sqlite_uri
from symnoise_ray.report.write import FEWEST_TRIALS

Importances = dict[str, dict[str, float]]


def importances(results: SweepResult) -> Importances:
    """Optuna's importance of each setting (a share of 1), by arm.

    Arms with fewer than `FEWEST_TRIALS` finished trials, or of which fewer than two settings
    differ, are left out; so are all where the sweep has no study.
    """
    study = _study(results.paths.study)
    if study is None:
        return {}
    treatment = results.verdict.treatment
    by_arm: dict[str, list[optuna.trial.FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        by_arm.setdefault(str(trial.params.get(treatment, "")), []).append(trial)
    found = {arm: _of_arm(trials, treatment) for arm, trials in sorted(by_arm.items())}
    return {arm: shares for arm, shares in found.items() if shares}


def _study(path: Path) -> optuna.Study | None:
    """The one study of a sweep."""
    if not path.is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(sqlite_uri(path))
    studies = storage.get_all_studies()
    if not studies:
        return None
    return optuna.load_study(study_name=studies[0].study_name, storage=storage)


def _of_arm(trials: list[optuna.trial.FrozenTrial], treatment: str) -> dict[str, float]:
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(repr(value))
    varied = [name for name, each in values.items() if len(each) > 1 and name != treatment]
    if len(trials) < FEWEST_TRIALS or len(varied) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return optuna.importance.get_param_importances(study, params=varied)
