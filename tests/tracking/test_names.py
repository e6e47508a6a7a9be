"""Metrics have names in groups, made in one place, so that MLflow's interface sorts them."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.tracking.journal import Journal
from symnoise_ray.tracking.mlflow_runs import replay
from symnoise_ray.tracking.names import CURVES, RESULTS, metric_name, of_record, of_result, of_sweep


def comparison(arm: str, opponent: str, rate: float) -> Comparison:
    """A comparison of the confirmation with an interval of 10 points."""
    ends = (rate - 0.05, rate + 0.05)
    return Comparison(arm, rate, ends, 0.5, 0.5, 20, 3, "better", opponent=opponent)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("loss", "train/loss"),
        ("clean_loss", "eval/clean_loss"),
        ("win_rate", "judge/win_rate"),
        ("refusal_rate", "answers/refusal_rate"),
        ("tokens_per_second", "cost/tokens_per_second"),
        ("harness/words/acc", "harness/words/acc"),
        ("of_a_later_version", "of_a_later_version"),
    ],
)
def test_a_value_has_its_group_before_it(value: str, name: str) -> None:
    assert metric_name(value) == name


def test_no_value_is_in_two_groups() -> None:
    values = [name for group in (CURVES, RESULTS) for names in group.values() for name in names]
    assert len(set(values)) == len(values)
    assert not set(CURVES) & set(RESULTS), "curves and single results lie apart"


def test_a_record_keeps_its_step() -> None:
    record = {"step": 3, "loss": 2.0, "lr": 0.1, "clean_loss": 1.0}
    assert of_record(record) == {
        "step": 3, "train/loss": 2.0, "train/lr": 0.1, "eval/clean_loss": 1.0,
    }  # fmt: skip


def test_a_result_has_what_was_measured_once_and_nothing_else() -> None:
    values = {
        "win_rate": 0.6, "interval_95": [0.5, 0.7], "clean_loss": 1.0, "length_mean": None,
        "num_steps": 8, "harness/words/acc": 0.5,
    }  # fmt: skip
    assert of_result(values, {"train": 2.0}) == {
        "judge/win_rate": 0.6,
        "judge/win_rate_low_95": 0.5,
        "judge/win_rate_high_95": 0.7,
        "harness/words/acc": 0.5,
        "seconds/train": 2.0,
    }


def test_mlflow_takes_the_numbers_of_a_sweep_whatever_its_arms_are_called(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    arms = ("symnoise", "[q_proj, v_proj]", "a/b: c?")
    decisions = tuple(
        Decision(arm, "better", (comparison(arm, "best", 0.6), comparison(arm, "shared", 0.7)))
        for arm in arms
    )
    result = SweepResult(
        SweepPaths(tmp_path),
        "small",
        "whole",
        verdict=Verdict(decisions=decisions),
        trials=(TrialResult("000-none", values={"win_rate": 0.5}),),
        seconds={"wall": 3.0},
        by_phase={"train": 2.0},
    )
    found = of_sweep(result, report_seconds=1.0)
    assert found["sweep/num_trials"] == 1
    assert found["sweep/best_win_rate"] == 0.5
    assert found["seconds/wall"] == 3.0
    assert found["seconds/trials/train"] == 2.0
    assert found["verdict/symnoise/win_rate"] == 0.6
    assert found["verdict/symnoise/win_rate_same_settings_high"] == 0.75
    journal = Journal(tmp_path)
    journal.append("start", "small", parent="", params={}, tags={})
    journal.append("metrics", "small", records=[{"step": 0, **found}])
    uri = store("mlflow")
    assert replay(tmp_path, uri, "tests") == 2
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == pytest.approx(found)
