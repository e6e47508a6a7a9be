"""What an optimizer step with some noise takes, over one of plain fine-tuning.

In: what a sweep has measured on its own workers before its first trial. Out: the cost of a trial's
step, by which `train.compute_match: gpu_seconds` divides its number of steps.
"""

from __future__ import annotations

from pathlib import Path

from symnoise_ray.config import NoiseConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.noise.types import num_passes
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import STEP_COSTS

PLAIN = NoiseConfig(type="none")
_SAME_COST = {"type", "alpha", "scale", "length", "kl_weight"}


def matches_seconds(config: TrialConfig) -> bool:
    """Whether a trial's number of steps rests on measured seconds."""
    return config.train.compute_match == "gpu_seconds"


def cost_name(noise: NoiseConfig) -> str:
    """What kinds of noise of one cost have in common, in words: the type, and how it is run."""
    further = noise.model_dump(exclude=_SAME_COST, exclude_defaults=True)
    return ", ".join([noise.type, *(f"{name}={value}" for name, value in further.items())])


def with_cost(config: TrialConfig, directory: Path) -> TrialConfig:
    """The configuration with the measured cost of its step, once the sweep has measured it.

    Raises:
        UserError: the sweep has measured, but not this kind of noise.
    """
    path = directory / STEP_COSTS
    if not matches_seconds(config) or not path.exists():
        return config
    costs, name = read_json(path)["costs"], cost_name(config.noise)
    if name not in costs:
        raise UserError(
            f"{path}: must hold what a step of '{name}' takes, but the sweep measured only "
            f"{', '.join(costs)} when it began; start another sweep for it"
        )
    train = config.train.model_copy(update={"step_cost": costs[name]})
    return config.model_copy(update={"train": train})


def costs_notes(directory: Path) -> tuple[str, ...]:
    """What was measured, in a sentence; none where a sweep matches no seconds."""
    path = directory / STEP_COSTS
    if not path.exists():
        return ()
    costs = read_json(path)["costs"]
    told = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items() if name != "none")
    return (
        "All noise types trained for the same GPU seconds (train.compute_match=gpu_seconds). "
        "Measured before the first trial, a step took so many times one of plain fine-tuning: "
        f"{told}",
    )


def with_assumed_cost(config: TrialConfig) -> TrialConfig:
    """For a forecast: a step costs what its passes do, as long as nothing is measured."""
    if not matches_seconds(config) or config.train.step_cost is not None:
        return config
    assumed = float(num_passes(config.noise))
    train = config.train.model_copy(update={"step_cost": assumed})
    return config.model_copy(update={"train": train})
