"""What a search changes in Ray Tune: processes of trials are kept, and trials' states are not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.air.execution._internal import RayActorManager

from symnoise_ray.sweep.ray_tune import for_a_search
from symnoise_ray.workers.session import ray_session

pytestmark = pytest.mark.slow
NUM_TRIALS, AT_ONCE = 24, 3
WITHOUT = tune.CheckpointConfig(checkpoint_at_end=False)


class Short(tune.Trainable):  # type: ignore[misc]
    """A trial that is over before another process could start; several end together."""

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing to set up."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        return True

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        time.sleep(0.1)
        return {"done": True}


def search(folder: Path) -> None:
    found = tune.Tuner(
        tune.with_resources(Short, {"memory": 1 << 20}),
        param_space={"index": tune.grid_search(list(range(NUM_TRIALS)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=AT_ONCE, reuse_actors=True),
        run_config=tune.RunConfig(
            name="search", storage_path=str(folder), verbose=0, checkpoint_config=WITHOUT
        ),
    ).fit()
    assert found.num_terminated == NUM_TRIALS


def snapshot(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "search").glob("experiment_state-*.json")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every process that Tune starts for a trial."""
    add, seen = RayActorManager.add_actor, []

    def counted(*inputs: Any, **named: Any) -> Any:
        seen.append(named)
        return add(*inputs, **named)

    monkeypatch.setattr(RayActorManager, "add_actor", counted)
    return seen


def test_a_search_keeps_its_processes_and_a_callers_own_search_is_as_ever(
    started: list[object], tmp_path: Path
):
    with ray_session(print):
        with for_a_search():
            search(tmp_path / "ours")
        assert len(started) == AT_ONCE
        assert snapshot(tmp_path / "ours")["trial_data"] == []
        search(tmp_path / "callers")
        assert len(snapshot(tmp_path / "callers")["trial_data"]) == NUM_TRIALS
