"""Measures what an optimizer step of every kind of noise takes, before a sweep's first trial.

In: the sweep's points and one of its warm slots. Out: a file with the cost of each kind of noise
over plain fine-tuning. It is measured once per sweep and then part of every trial, so that a trial
that is run again takes as many steps as before.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from symnoise_ray.config import TrialConfig
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import STEP_COSTS
from symnoise_ray.space.step_costs import PLAIN, cost_name, matches_seconds
from symnoise_ray.space.trials import SweepPlans, known_points
from symnoise_ray.workers.outcome import Outcome

if TYPE_CHECKING:
    from symnoise_ray.workers.client import Workers  # ray, which bad input must not wait for

FIRST_STEPS = 3
"""Steps of the first round, which warms up and tells how long a step is."""
ROUND_SECONDS = 2.0
MOST_STEPS = 50
ROUNDS = 3
"""Rounds that count; in each all kinds are measured in turn, so that a slow minute meets all."""
FOLDER = ".step-costs"


def measure_step_costs(plans: SweepPlans, workers: Workers, say: Callable[[str], None]) -> None:
    """Write down what a step of each kind of noise takes, unless it was measured before.

    Raises:
        SymnoiseError: a training failed.
    """
    path = plans.directory / STEP_COSTS
    kinds = _kinds(plans)
    if path.exists() or not kinds:
        return
    folder = plans.directory / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of a part that was interrupted
    say(f"measuring what a step takes with {', '.join(kinds)} ...")
    try:
        first = _round(workers, kinds, FIRST_STEPS, folder / "0")
        wanted = math.ceil(ROUND_SECONDS / min(first.values()))
        steps = max(FIRST_STEPS, min(MOST_STEPS, wanted))
        rounds = [
            _round(workers, kinds, steps, folder / str(number)) for number in range(1, ROUNDS + 1)
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    plain = cost_name(PLAIN)
    costs = {name: round(median(each[name] / each[plain] for each in rounds), 3) for name in kinds}
    write_json({"costs": costs, "steps": steps, "seconds_per_step": rounds}, path)


def _kinds(plans: SweepPlans) -> dict[str, TrialConfig]:
    """Every kind of noise of another cost, plain fine-tuning first; empty if none is asked for."""
    kinds: dict[str, TrialConfig] = {}
    for config in map(plans.config, known_points(plans.sweep)):
        if matches_seconds(config):
            plain = config.model_copy(update={"noise": PLAIN})
            kinds.setdefault(cost_name(PLAIN), plain)
            kinds.setdefault(cost_name(config.noise), config)
    return kinds


def _round(
    workers: Workers, kinds: dict[str, TrialConfig], num_steps: int, folder: Path
) -> dict[str, float]:
    """Seconds of a step of every kind, one after the other."""
    return {
        name: _seconds(workers, config, num_steps, folder.with_name(f"{folder.name}-{number}"))
        for number, (name, config) in enumerate(kinds.items())
    }


def _seconds(workers: Workers, config: TrialConfig, num_steps: int, folder: Path) -> float:
    """Seconds of one optimizer step, by a short training on the next free slot."""
    folder.mkdir(parents=True)
    name = f"{FOLDER}-{folder.name}"
    for event in workers.run(name, _short(config, num_steps), folder):
        if isinstance(event, Outcome):
            return float(event.seconds["train"]) / num_steps
    raise AssertionError("a worker's last word is an Outcome or an exception")


def _short(config: TrialConfig, num_steps: int) -> TrialConfig:
    """The same steps, and next to nothing before and after them."""
    changed: dict[str, dict[str, Any]] = {
        "train": {
            "compute_match": "steps",
            "num_epochs": float(num_steps * config.train.global_batch_size),
            "max_steps": num_steps,
            "num_evals": 1,
            "num_clean_rows": 1,
            "probe_alpha": 0.0,
            "checkpoint_minutes": 0.0,
            "save_model": False,
        },
        "data": {"max_eval_prompts": 1},
        "generate": {"max_new_tokens": 1},
        "harness": {"tasks": []},
    }
    document = config.model_dump()
    for section, values in changed.items():
        document[section] |= values
    return TrialConfig.model_validate(document)
