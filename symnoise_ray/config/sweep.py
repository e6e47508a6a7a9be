"""A sweep: what is held fixed, what is varied, what runs first, how it ends."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from symnoise_ray.config.noise import NoiseType
from symnoise_ray.config.section import Section


class Parameter(Section):
    """One varied setting, with the names that Optuna uses; both ends of a range are included."""

    type: Literal["float", "int", "categorical"]
    """Kind of the values: numbers, whole numbers, or a list of choices."""
    low: float | None = Field(None, allow_inf_nan=False)
    """Smallest value of a `float` or `int`."""
    high: float | None = Field(None, allow_inf_nan=False)
    """Largest value of a `float` or `int`."""
    log: bool = False
    """Sample the logarithm of the value uniformly; `low` must then be above 0."""
    step: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Distance between neighbouring values, above 0. By default a `float` is continuous, and an
    `int` takes every whole number."""
    choices: tuple[bool | int | float | str | None, ...] | None = None
    """The values of a `categorical` parameter."""
    when: dict[str, tuple[Any, ...]] = Field({})
    """Conditions: other parameter -> its values for which this one is sampled. Under all other
    values this parameter is left out. By default there is no condition."""

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

    sampler: Literal["tpe", "gp", "random", "qmc", "grid"] = "tpe"
    """How points are proposed. `qmc` (evenly spread) and `random` draw one point of the shared
    parameters after another and try each in every arm. `tpe` and `gp` are Optuna's; they begin with
    ten such blocks, then each arm learns from its own trials. `grid` tries every combination once,
    for which every parameter needs a `step` or `choices`."""
    num_trials: int | None = Field(None, ge=0)
    """Number of searched trials, in addition to the baselines. With them it must come out equal for
    all arms. By default the size of the grid; the other samplers need a number."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the sampler, from 0."""
    early_exit: Literal["off", "on"] = "off"
    """`on`: a searched trial stops after 1/16 or 3/8 of its training if its clean loss is not among
    the best third of those of its noise type so far. At least two trials of every noise type, all
    baselines and the confirmation run to their end. A trial stops where the clean loss is measured,
    so `train.num_evals: 16` saves more than the default."""
    opponents: int = Field(4, ge=1)
    """Before a setting is chosen, all searched trials are judged against so many of the reference's
    trials, its best ones. This takes verdicts and no training, and ranks settings more surely. 1
    leaves it at the verdicts that a trial got when it ended."""


class QuestionConfig(Section):
    """What the sweep is asked. Each value of the treatment is an arm; all arms are tuned alike, and
    the best are compared with the reference."""

    treatment: str = "noise.type"
    """Categorical parameter whose values are compared, such as `noise.type` or `lora.rank`."""
    reference: bool | int | float | str = "none"
    """Value of the treatment that the others are compared with."""
    effect: float = Field(0.03, gt=0, lt=0.5)
    """Smallest difference in win rate that would matter to you, above 0 and below 0.5; 0.03 is 3
    points."""
    population: Literal["these_groups", "other_groups"] = "these_groups"
    """Prompts that the verdict is about: more prompts of the same groups (data sets, topics), or
    prompts of other groups, for which the groups are the units of the test."""


class ConfirmConfig(Section):
    """The best settings are trained again with fresh seeds and judged on fresh prompts, look by
    look; only that decides whether an arm is better than the reference."""

    arms: int = Field(0, ge=0)
    """Number of arms that are confirmed, each with its best setting; 0 confirms none."""
    looks: tuple[int, ...] = (3, 5, 8)
    """Number of fresh training seeds at each look. After a look, an arm stops when it is decided or
    when it can no longer be; the level of 5 % is spent over the looks. The first has 2 seeds at
    least, unless one seed is all there is."""
    pairs: Literal["same", "all"] = "same"
    """Which trainings of an arm and of an opponent are judged against each other: those of the
    `same` seed, or `all` of them, 64 in place of 8 with 8 seeds. `all` takes more verdicts and no
    training, and averages out the randomness of the judge."""
    contrasts: tuple[tuple[NoiseType, NoiseType], ...] = ()
    """Pairs of arms whose win rates over the reference are compared with each other, such as
    `[[symnoise, independent]]`. Both are confirmed even if `arms` leaves them out."""

    @model_validator(mode="after")
    def _looks_grow(self) -> Self:
        rising = all(one < other for one, other in pairwise(self.looks))
        if not self.looks or self.looks[0] < 1 or not rising:
            raise ValueError(
                "confirm.looks must be growing numbers of seeds from 1, such as [3, 5, 8], but got "
                f"{list(self.looks)}"
            )
        if self.looks[0] == 1 and len(self.looks) > 1:
            raise ValueError(
                "confirm.looks must begin with 2 seeds at least, or be [1] alone, since one seed "
                f"cannot show how much seeds differ, but got {list(self.looks)}"
            )
        return self

    @model_validator(mode="after")
    def _contrasts_can_be_made(self) -> Self:
        if self.contrasts and not self.arms:
            raise ValueError("confirm.contrasts needs confirm.arms >= 1, but got 0")
        for one, other in self.contrasts:
            if one == other or "none" in (one, other):
                raise ValueError(
                    "confirm.contrasts must name two different noise types, plain fine-tuning not "
                    f"among them, but got [{one}, {other}]"
                )
        return self


class BudgetConfig(Section):
    """What the sweep may spend. It ends cleanly when a limit is reached and goes on with a larger
    one by `--resume`. The confirmation's share is reserved from the beginning."""

    wall_time: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Hours from the start of the sweep, or of the part that goes on with it. By default no
    limit."""
    trials: int | None = Field(None, ge=1)
    """Trainings in all, those of the confirmation among them. By default no limit."""
    gpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Hours of all GPUs together. By default no limit."""
    judge_calls: int | None = Field(None, ge=1)
    """Calls to the judge's endpoint. By default no limit."""
    judge_cost: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Cost of those calls, at `judge.price_input` and `judge.price_output`. By default no limit."""


class WorkersConfig(Section):
    """What one trial runs on, and how many trials run at the same time."""

    num_workers: int = Field(1, ge=1)
    """Number of worker processes that train one trial together."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPU cores of one worker, which is also its number of compute threads."""
    gpus_per_worker: float = Field(0.0, ge=0, le=1)
    """GPUs of one worker, from 0 to 1. 0 trains on the CPU. A fraction shares one GPU, for example
    with a local judge, and needs `num_workers: 1`."""
    max_slots: int | None = Field(None, ge=1)
    """Most trials that train at the same time. By default as many as the cluster's resources
    hold. On a cluster that the sweep joins, so many are started, and those without room wait for
    machines that come later."""
    start_minutes: float = Field(15.0, gt=0, allow_inf_nan=False)
    """Minutes within which the first trial's workers must have started; the time in which a cluster
    adds machines counts. Where all workers are lost later, trials wait for new ones so long and
    then fail."""

    @model_validator(mode="after")
    def _a_shared_gpu_has_one_rank(self) -> Self:
        if self.num_workers > 1 and 0 < self.gpus_per_worker < 1:
            raise ValueError(
                "workers.gpus_per_worker must be 0 or 1 for several workers, which cannot share "
                f"one GPU (NCCL), but got {self.gpus_per_worker:g}"
            )
        return self


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: str | None = None
    """Tracking URI of MLflow. By default that of the environment variable `MLFLOW_TRACKING_URI`,
    else an SQLite file beside the sweep directories. A password in it is used and written
    nowhere; the variable is the place for it."""
    experiment: str | None = Field(None, min_length=1)
    """Name of the MLflow experiment. By default that of `MLFLOW_EXPERIMENT_NAME`, else
    `symnoise_ray`."""
    traces: Literal["none", "confirmed", "all"] = "confirmed"
    """Trials whose answers and verdicts MLflow gets prompt by prompt, when the sweep has ended, so
    that it shows two trials side by side. `confirmed`: the first seed of every confirmed setting,
    or the baselines where nothing was confirmed. `all` takes about 1 s of CPU and 0.5 MB for 100
    prompts of every trial."""
    registered_model: str | None = Field(None, pattern=r"^[^/:%\"']+$", max_length=255)
    """Name of a registered model in MLflow. At the end of the sweep the arm that was found better
    becomes a new version of it: the weights of its first confirmed seed. That needs `confirm.arms`
    and `train.save_model: true`. By default nothing is registered."""
    registered_alias: str = Field("winner", pattern=r"^[A-Za-z0-9_-]+$")
    """Alias that the new version gets."""
    register_undecided: bool = False
    """Register a version also where no arm was found better: of the confirmed arms that were not
    found worse, the one with the most wins."""

    @field_validator("registered_alias")
    @classmethod
    def _alias_is_free(cls, alias: str) -> str:
        if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(
                f"must not be latest or a version such as v1, which MLflow keeps, but got {alias!r}"
            )
        return alias


_MEASURED = ("model.", "data.", "train.num_clean_rows", "train.num_evals")
"""Settings that decide on what the clean loss is measured, and when."""


class SweepConfig(Section):
    """A sweep: what is held fixed, what is varied, what runs first, and how it is confirmed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)
    """Name of the sweep and of its directory: at most 80 letters, digits, dots, hyphens and
    underscores, a letter or digit first."""
    trial: dict[str, Any] = Field({})
    """Settings of every trial; what is left out keeps its default."""
    parameters: dict[str, Parameter] = Field({})
    """Dotted name of a trial's setting, such as `optim.lr` -> how it is varied."""
    baselines: tuple[dict[str, Any], ...] = ()
    """Trials that run first, each as a mapping of dotted names to values; reports mark them as
    baselines."""
    question: QuestionConfig = QuestionConfig()
    """What is compared with what, and how large a difference would matter."""
    search: SearchConfig = SearchConfig()
    """How the search proposes trials, and how many."""
    confirm: ConfirmConfig = ConfirmConfig()
    """How the best configurations are confirmed."""
    budget: BudgetConfig = BudgetConfig()
    """What the sweep may spend."""
    workers: WorkersConfig = WorkersConfig()
    """Workers and their resources."""
    tracking: TrackingConfig = TrackingConfig()
    """Where runs are logged in MLflow."""

    @model_validator(mode="after")
    def _what_is_registered_is_kept(self) -> Self:
        if self.tracking.registered_model is None:
            return self
        train = self.trial.get("train")
        if not self.confirm.arms:
            raise ValueError("tracking.registered_model needs confirm.arms >= 1, but got 0")
        if not isinstance(train, dict) or train.get("save_model") is not True:
            raise ValueError(
                "tracking.registered_model needs the weights of the winner, so "
                "train.save_model=true for all trials"
            )
        return self

    @model_validator(mode="after")
    def _early_exit_compares_like_with_like(self) -> Self:
        if self.search.early_exit == "off":
            return self
        for name in self.parameters:
            if name.startswith(_MEASURED):
                raise ValueError(
                    "search.early_exit=on compares the clean losses of trials, which must be "
                    f"measured alike, but {name} differs between them; hold it fixed, or set it to "
                    "off"
                )
        train = self.trial.get("train")
        if isinstance(train, dict) and train.get("num_evals") == 1:
            raise ValueError(
                "search.early_exit=on needs the clean loss on the way, so train.num_evals >= 2, "
                "but got 1"
            )
        return self
