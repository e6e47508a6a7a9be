"""A sweep: what is held fixed, what is varied, what runs first, how it ends."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from symnoise_ray.config.noise import NoiseType
from symnoise_ray.config.section import Section


class Parameter(Section):
    """One varied setting, in Optuna's words; both ends are inclusive."""

    type: Literal["float", "int", "categorical"]
    """Kind of distribution."""
    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Sample the logarithm uniformly."""
    step: float | None = Field(None, gt=0)
    """Distance between values; without it a float is continuous."""
    choices: tuple[bool | int | float | str | None, ...] | None = None
    """Values of a categorical parameter."""
    when: dict[str, tuple[Any, ...]] = Field({})
    """Other parameters -> values for which this one is sampled at all."""

    @model_validator(mode="after")
    def _range_is_sound(self) -> Self:
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("a categorical parameter needs a non-empty list of choices")
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("a categorical parameter takes choices, not low, high, step, log")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise ValueError("choices must differ from each other")
            return self
        if self.choices is not None:
            raise ValueError(f"choices belong to categorical, but type is {self.type}")
        if self.low is None or self.high is None:
            raise ValueError(f"a {self.type} parameter needs both low and high")
        if not self.low <= self.high:
            raise ValueError(f"low <= high must hold, but got low={self.low:g}, high={self.high:g}")
        numbers = (self.low, self.high, self.step or 1)
        if self.type == "int" and any(number != int(number) for number in numbers):
            raise ValueError("low, high and step of an int parameter must be whole numbers")
        if self.log and self.low <= 0:
            raise ValueError(f"low > 0 must hold when log is true, but got low={self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; choose one")
        return self


class SearchConfig(Section):
    """How the search proposes configurations."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`grid` tries every combination once and needs `step` or `choices` everywhere."""
    num_trials: int | None = Field(None, ge=0)
    """Trials beside the baselines; a grid's size by default, else required."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the sampler."""


class ConfirmConfig(Section):
    """Fresh seeds and fresh prompts for the best of the search, before anything is called best."""

    top_k: int = Field(0, ge=0)
    """Noise types confirmed, each by its best configuration; 0 confirms nothing."""
    num_seeds: int = Field(2, ge=1)
    """Fresh training seeds per confirmed configuration."""
    contrasts: tuple[tuple[NoiseType, NoiseType], ...] = ()
    """Pairs of noise types whose win rates over plain fine-tuning are compared with each other,
    such as `[[symnoise, independent]]`; both are confirmed whatever `top_k` says."""

    @model_validator(mode="after")
    def _contrasts_can_be_made(self) -> Self:
        if self.contrasts and not self.top_k:
            raise ValueError("confirm.contrasts needs confirm.top_k >= 1, but got 0")
        for one, other in self.contrasts:
            if one == other or "none" in (one, other):
                raise ValueError(
                    "confirm.contrasts must name two different noise types, plain fine-tuning not "
                    f"among them, but got [{one}, {other}]"
                )
        return self


class WorkersConfig(Section):
    """What one trial runs on, and how many trials run at once."""

    num_workers: int = Field(1, ge=1)
    """Ranks of one trial."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPU cores of one rank; also its number of compute threads."""
    gpus_per_worker: float = Field(0.0, ge=0, le=1)
    """GPUs of one rank; a fraction (one rank only) shares a GPU with others, such as a local judge;
    0 trains on the CPU over gloo."""
    max_slots: int | None = Field(None, ge=1)
    """Trials that train at once at most; by default as many as the cluster's resources hold."""
    start_minutes: float = Field(15.0, gt=0, allow_inf_nan=False)
    """Minutes within which the first worker group must be up, new machines included."""

    @model_validator(mode="after")
    def _a_shared_gpu_has_one_rank(self) -> Self:
        if self.num_workers > 1 and 0 < self.gpus_per_worker < 1:
            raise ValueError(
                "workers.gpus_per_worker must be 0 or 1 for several workers, which cannot meet on "
                f"one GPU (NCCL), but got {self.gpus_per_worker:g}"
            )
        return self


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: str | None = None
    """MLflow tracking URI; by default a sqlite file beside the sweep directories."""
    experiment: str = "symnoise_ray"
    """MLflow experiment name."""


class SweepConfig(Section):
    """A sweep: what is held fixed, what is varied, what runs first, how it is judged at the end."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)
    """Name of the sweep and of its directory."""
    trial: dict[str, Any] = Field({})
    """Settings held fixed; what is left out keeps its default."""
    parameters: dict[str, Parameter] = Field({})
    """Dotted path into the trial -> how it is varied."""
    baselines: tuple[dict[str, Any], ...] = ()
    """Settings that run first, flagged as baselines."""
    search: SearchConfig = SearchConfig()
    """Sampler and number of trials."""
    confirm: ConfirmConfig = ConfirmConfig()
    """Confirmation of the best."""
    workers: WorkersConfig = WorkersConfig()
    """Resources."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
