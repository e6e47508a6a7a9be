"""What a search changes in Ray Tune: processes of trials are kept, trials that ended are not."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.tune.experiment import Trial

from symnoise_ray.sweep.ray_tune import for_a_search
from symnoise_ray.workers.session import ray_session

pytestmark = pytest.mark.slow
NUM_TRIALS, AT_ONCE, FAILS = 24, 3, 12
WITHOUT = tune.CheckpointConfig(checkpoint_at_end=False)


class Short(tune.Trainable):  # type: ignore[misc]
    """A trial that is over before another process could start; several end together."""

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing to set up but what the trial is."""
        self.index, self.seen = config["index"], Path(config["seen"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The whole trial; one fails."""
        time.sleep(0.1)
        (self.seen / str(self.index)).touch()
        if self.index == FAILS:
            raise ValueError("this one fails")
        return {"done": True}


class Alive(tune.Callback):  # type: ignore[misc]
    """Counts the trials that memory holds when the last one starts."""

    num_trials = 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Count."""
        if trial.config["index"] == NUM_TRIALS - 1:
            gc.collect()
            self.num_trials = sum(type(each) is Trial for each in gc.get_objects())


def search(folder: Path, *callbacks: tune.Callback) -> tune.ResultGrid:
    seen = folder / "seen"
    seen.mkdir(parents=True)
    found = tune.Tuner(
        tune.with_resources(Short, {"memory": 1 << 20}),
        param_space={"index": tune.grid_search(list(range(NUM_TRIALS))), "seen": str(seen)},
        tune_config=tune.TuneConfig(max_concurrent_trials=AT_ONCE, reuse_actors=True),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=WITHOUT,
            callbacks=list(callbacks),
        ),
    ).fit()
    assert len(list(seen.iterdir())) == NUM_TRIALS
    assert "this one fails" in str(found.errors[0])
    return found


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


def test_a_search_keeps_its_processes_and_only_what_failed_and_a_callers_own_is_as_ever(
    started: list[object], tmp_path: Path
):
    with ray_session(print):
        with for_a_search():
            ours = search(tmp_path / "ours", alive := Alive())
        assert len(started) == AT_ONCE + 1, "a process ends with the trial that fails in it"
        assert (ours.num_terminated, ours.num_errors) == (0, 1)
        assert 0 < alive.num_trials < 2 * AT_ONCE, "those that run, and the one that failed"
        assert snapshot(tmp_path / "ours")["trial_data"] == []
        callers = search(tmp_path / "callers")
        assert (callers.num_terminated, callers.num_errors) == (NUM_TRIALS - 1, 1)
        assert len(snapshot(tmp_path / "callers")["trial_data"]) == NUM_TRIALS
