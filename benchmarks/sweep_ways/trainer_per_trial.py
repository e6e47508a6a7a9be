"""Ray Tune as its documentation shows it: every trial makes a `TorchTrainer` of its own.

trainer_per_trial.py FOLDER CONFIG...: leaves every trial's files in FOLDER.
"""

import sys
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray import tune

from symnoise_ray.config.loading import load_trial
from symnoise_ray.workers.task import run_task

SLOTS = 2


def train_loop(settings: dict[str, str]) -> None:
    """What a worker runs: the trial's training and its answers."""
    target = Path(settings["target"])
    target.mkdir(parents=True)
    config = load_trial(Path(settings["config"]))
    outcome = run_task(config, target, report=lambda record: None, cancelled=lambda: False)
    assert outcome.status == "done", outcome
    ray.train.report({"clean_loss": outcome.summary["clean_loss"]})


def driver(space: dict[str, Any]) -> None:
    """What a trial of Tune runs: a trainer with one worker."""
    settings = space["point"]
    scaling = ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1})
    run = ray.train.RunConfig(name=Path(settings["target"]).name, storage_path=settings["storage"])
    trainer = ray.train.torch.TorchTrainer(
        train_loop, train_loop_config=settings, scaling_config=scaling, run_config=run
    )
    trainer.fit()
    tune.report({"done": 1})


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    points: list[dict[str, Any]] = [
        {
            "config": path,
            "target": str(folder / Path(path).parent.name),
            "storage": str(folder / "ray"),
        }
        for path in sys.argv[2:]
    ]
    ray.init(address="local", num_cpus=SLOTS + 1, include_dashboard=False, log_to_driver=False)
    results = tune.Tuner(
        tune.with_resources(driver, {"CPU": 0.5}),
        param_space={"point": tune.grid_search(points)},
        tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder / "tune")),
    ).fit()
    assert not results.errors, results.errors
    ray.shutdown()
