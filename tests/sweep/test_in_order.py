"""Trials of the search share the processes that they began with."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from symnoise_ray.sweep.in_order import InOrder

NUM_PROCESSES = 3


class Short(tune.Trainable):
    """A trial that ends before a process could start; trials end in pairs."""

    def setup(self, config: dict[str, Any]) -> None:
        """Note where to leave a word."""
        self.folder = Path(config["folder"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        return True

    def step(self) -> dict[str, Any]:
        """Say in which process it ended."""
        time.sleep(0.2)
        (self.folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return {"score": 0.5, "done": True}


@pytest.fixture
def private_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_trials_that_are_shorter_than_the_start_of_a_process_start_none_anew(
    private_ray: None, tmp_path: Path
) -> None:
    (tmp_path / "ended").mkdir()
    outcome = tune.Tuner(
        tune.with_resources(Short, {"memory": 1 << 20}),
        param_space={"folder": str(tmp_path / "ended")},
        tune_config=tune.TuneConfig(
            scheduler=InOrder(NUM_PROCESSES),
            num_samples=30,
            max_concurrent_trials=NUM_PROCESSES,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    ended = [each.name.split("-")[0] for each in (tmp_path / "ended").iterdir()]
    assert outcome.num_errors == 0
    assert len(ended) == 30
    assert len(set(ended)) == NUM_PROCESSES
