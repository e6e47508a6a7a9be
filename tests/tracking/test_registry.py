"""The winner of a sweep becomes a version of a registered model, if that is asked for."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import SymnoiseError
from symnoise_ray.records.files import write_json
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Choice
from symnoise_ray.tracking import events
from symnoise_ray.tracking.mlflow_runs import Tracker, replay
from tests.tracking.test_events import (
    EXPERIMENT,
    NOISY,
    SweepPaths,
    found_in,
    plans_in,
    trial_plans,
    verdict,
)

NAME = "my models - fox"
SEED = "confirm-symnoise-seed1000"


def sweep_in(directory: Path, weights: Path | None) -> SweepResult:
    """A sweep that found symnoise better; the weights of its confirmation are kept."""
    results = []
    for plan in trial_plans(plans_in(directory, "none")):
        write_json(plan.config.model_dump(mode="json"), plan.directory / "config.json")
        results.append(plan.result("done", values={"win_rate": 0.6}))
        if weights and plan.part == "confirm":
            shutil.copytree(weights, plan.directory / "model")
    choice = Choice("symnoise", "001-symnoise", NOISY, "raw", ())
    return SweepResult(
        SweepPaths(directory), "small", "whole", verdict=verdict(), choices=(choice,),
        trials=tuple(results),
    )  # fmt: skip


def config(**tracking: Any) -> SweepConfig:
    values = plans_in(Path(), "none").sweep.model_dump()
    values["trial"] = {"train": {"save_model": True}}
    return SweepConfig.model_validate({**values, "tracking": tracking})


def log(directory: Path, uri: str, result: SweepResult, **tracking: Any) -> str:
    """Log the runs of the sweep's trials and its registration; returns what people are told."""
    tracker = Tracker(directory, uri, EXPERIMENT)
    plans = plans_in(directory, "none")
    events.start_sweep(tracker, plans, 1)
    for plan in trial_plans(plans):
        if plan.name == SEED:
            events.start_setting(tracker, "small", plan)
            events.start_trial(tracker, "small", plan)
    told = events.register_winner(tracker, config(**tracking), result)
    assert tracker.close(timeout=600) == ""
    return told


def undecided(result: SweepResult, word: str = "cannot tell yet") -> SweepResult:
    (decision,) = result.verdict.decisions
    changed = replace(decision, verdict=word)
    return replace(result, verdict=replace(result.verdict, decisions=(changed,)))


def versions(uri: str) -> list[Any]:
    client = mlflow.MlflowClient(registry_uri=uri, tracking_uri=uri)
    return list(client.search_model_versions(f"name = '{NAME}'"))


def test_the_winner_is_a_version_with_an_alias_its_evidence_and_its_weights(
    tmp_path: Path, store: Callable[[str], str], tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    directory, uri = tmp_path / "small", store("a")
    result = sweep_in(directory, tiny_model_dir)
    told = log(directory, uri, result, registered_model=NAME)
    assert told == f"{SEED} is registered as {NAME}, alias winner"
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version_by_alias(NAME, "winner")
    assert version.run_id == found_in(uri)[SEED].info.run_id
    tags = version.tags
    assert tags["symnoise.verdict"] == "better"
    assert tags["symnoise.verdict/win_rate"] == "0.7500"
    assert tags["symnoise.verdict/win_rate_low"] == "0.6000"
    assert (tags["symnoise.num_seeds"], tags["symnoise.num_prompts"]) == ("2", "20")
    plan = next(each for each in trial_plans(plans_in(directory, "none")) if each.name == SEED)
    assert tags["symnoise.config_digest"] == plan.config.digest()
    assert tags["symnoise.data_digests"].startswith("train.jsonl ")
    assert len(tags["symnoise.judge_digest"]) == 64
    run = client.get_run(version.run_id)
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == version.run_id
    assert model.params["noise.alpha"] == "5.0"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    local = mlflow.artifacts.download_artifacts(
        f"models:/{NAME}@winner", dst_path=str(tmp_path / "got")
    )
    got, kept = (AutoModelForCausalLM.from_pretrained(path) for path in (local, tiny_model_dir))
    pairs = zip(got.parameters(), kept.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_what_is_sent_twice_is_there_once_and_leaves_a_later_alias_alone(
    tmp_path: Path, store: Callable[[str], str], tiny_model_dir: Path
) -> None:
    uri = store("a")
    for number in (1, 2):
        directory = tmp_path / f"small-{number}"
        log(directory, uri, sweep_in(directory, tiny_model_dir), registered_model=NAME)
    first = tmp_path / "small-1"
    (first / "journal.applied.json").unlink()
    replay(first, uri, EXPERIMENT)
    assert len(versions(uri)) == 2
    client = mlflow.MlflowClient(uri)
    assert int(client.get_model_version_by_alias(NAME, "winner").version) == 2


@pytest.mark.parametrize(
    ("change", "status", "asked", "told"),
    [
        ("better", "whole", {}, ""),
        ("cannot tell yet", "whole", {"registered_model": NAME}, "no arm was found better"),
        ("worse", "whole", {"registered_model": NAME, "register_undecided": True}, "no arm was"),
        ("better", "interrupted", {"registered_model": NAME}, "the sweep is interrupted"),
    ],
)
def test_without_a_verdict_or_a_wish_nothing_is_registered(
    change: str, status: str, asked: dict[str, Any], told: str,
    tmp_path: Path, store: Callable[[str], str], tiny_model_dir: Path,
) -> None:  # fmt: skip
    result = undecided(sweep_in(tmp_path / "small", tiny_model_dir), change)
    said = log(tmp_path / "small", store("a"), replace(result, status=status), **asked)
    assert said == "" if not told else told in said
    assert versions(store("a")) == []


def test_an_undecided_arm_is_registered_where_that_is_asked_for(
    tmp_path: Path, store: Callable[[str], str], tiny_model_dir: Path
) -> None:
    result = undecided(sweep_in(tmp_path / "small", tiny_model_dir))
    asked = {"registered_model": NAME, "register_undecided": True, "registered_alias": "try"}
    assert "alias try" in log(tmp_path / "small", store("a"), result, **asked)
    (version,) = versions(store("a"))
    assert version.tags["symnoise.verdict"] == "cannot tell yet"


def test_weights_that_are_gone_are_told_and_the_rest_is_there(
    tmp_path: Path, store: Callable[[str], str], tiny_model_dir: Path
) -> None:
    directory = tmp_path / "small"
    without = sweep_in(directory, None)
    assert "no trial of symnoise" in log(directory, store("a"), without, registered_model=NAME)
    directory = tmp_path / "other"
    log(directory, store("b"), sweep_in(directory, tiny_model_dir), registered_model=NAME)
    shutil.rmtree(directory / "trials" / SEED / "model")
    with pytest.raises(SymnoiseError, match="must hold the weights that are to be registered"):
        replay(directory, store("c"), EXPERIMENT)
    assert SEED in found_in(store("c"))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"trial": {}}, "needs the weights of the winner, so train.save_model=true"),
        ({"confirm": {"arms": 0}}, "needs confirm.arms >= 1"),
        ({"tracking": {"registered_model": "a/b"}}, "tracking.registered_model"),
        ({"tracking": {"registered_model": "a", "registered_alias": "v2"}}, "registered_alias"),
    ],
)
def test_a_space_that_could_register_nothing_is_refused(changed: dict[str, Any], why: str) -> None:
    values = config(registered_model=NAME).model_dump()
    with pytest.raises(ValidationError, match=why):
        SweepConfig.model_validate(values | changed)
