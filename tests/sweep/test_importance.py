"""Optuna's importances of a sweep's settings, of each arm by itself."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report.write import FEWEST_TRIALS
from symnoise_ray.sweep.importance import importances


def _study(folder: Path, per_arm: dict[str, int]) -> SweepResult:
    """A study in which the win rate follows the learning rate alone."""
    found = SweepResult(SweepPaths(folder), "played", "whole")
    study = optuna.create_study(
        storage=f"sqlite:///{found.paths.study}", study_name="played", direction="maximize"
    )
    sampler = optuna.samplers.RandomSampler(seed=0)
    study.sampler = sampler
    for arm, count in per_arm.items():
        for _ in range(count):
            study.enqueue_trial({"noise.type": arm})
            trial = study.ask()
            trial.suggest_categorical("noise.type", sorted(per_arm))
            rate = trial.suggest_float("optim.lr", 0.0, 1.0)
            trial.suggest_float("noise.alpha", 0.0, 1.0)
            study.tell(trial, rate)
    return found


def test_the_setting_that_matters_is_found_in_every_arm_with_enough_trials(tmp_path: Path) -> None:
    found = importances(_study(tmp_path, {"neftune": 60, "symnoise": FEWEST_TRIALS - 1}))
    assert set(found) == {"neftune"}
    assert set(found["neftune"]) == {"optim.lr", "noise.alpha"}
    assert found["neftune"]["optim.lr"] > 0.8
    assert sum(found["neftune"].values()) == pytest.approx(1)


def test_a_sweep_without_a_study_has_none(tmp_path: Path) -> None:
    found = SweepResult(SweepPaths(tmp_path), "played", "whole")
    assert importances(found) == {}
    assert importances(replace(found, paths=SweepPaths(tmp_path / "none"))) == {}
    assert list(tmp_path.iterdir()) == []
