"""The trials of a sweep: their names, directories, configurations, and what each is judged against.

In: a `SweepConfig` and its directory. Out: `TrialPlan`s for the search and for the confirmation.
Picklable: the search's trials make their own plan where they run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from symnoise_ray.config import SweepConfig, TrialConfig
from symnoise_ray.config.data import HELD_BACK
from symnoise_ray.config.loading import is_space, load_trial
from symnoise_ray.records.layout import COMPLETIONS, CONFIG, trial_directory
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.design import (
    FRESH_SEED,
    Arms,
    Cell,
    design,
    first_seed,
    reference_baseline,
    treatment_of,
)
from symnoise_ray.space.parameters import Params, Space, corners, describe, resolve
from symnoise_ray.space.paths import read_space, read_trial
from symnoise_ray.space.step_costs import with_cost

_OF_SEED = re.compile(r"-seed\d+|-prompts\d+$")
"""What the name of a trial of the confirmation has beside its setting's."""
ADDED = 100_000
"""Trials that were added by an order are numbered from here on, past every design that may still
grow; each is a block of its own."""
_ADDED_NAME = "added"


@dataclass(frozen=True)
class TrialPlan:
    """A trial's place in its sweep: what it is called, what it is, what it is judged against.

    `kept` is the directory of the same training with fewer answers, where its model was kept.
    """

    name: str
    config: TrialConfig
    directory: Path
    reference: Path
    params: Params
    part: str = "search"
    baseline: bool = False
    arm_name: str | None = None
    kept: Path | None = None
    setting: str = ""
    """Of the confirmation: what the trials of one setting have in common, the seed apart."""

    @property
    def arm(self) -> str:
        """The value of the treatment as a word; by default the noise type."""
        return self.arm_name or self.config.noise.type

    def result(self, status: str, **values: Any) -> TrialResult:
        """The trial's result; `values` are further fields of `TrialResult`."""
        return TrialResult(
            trial=self.name,
            part=self.part,
            baseline=self.baseline,
            is_reference=self.reference == self.directory / COMPLETIONS,
            arm=self.arm,
            label=describe(self.config),
            params=self.params,
            seed=self.config.train.seed,
            status=status,
            **values,
        )


@dataclass(frozen=True)
class SweepPlans:
    """Makes the plan of every trial of one sweep; `fresh` is its confirmation's first seed's
    distance from the search's. `search_prompts` is given where the search's source of prompts has
    grown since it began: it takes so many of them."""

    sweep: SweepConfig
    directory: Path
    fresh: int = FRESH_SEED
    search_prompts: int | None = None

    @cached_property
    def arms(self) -> Arms:
        """What the sweep compares."""
        return Arms.of(self.sweep)

    @cached_property
    def cells(self) -> list[Cell]:
        """The design: arm and block of every trial of the search, the baselines first."""
        return design(self.sweep)

    def config(self, point: Params) -> TrialConfig:
        """The complete configuration of a point, prompts for the confirmation set apart."""
        config = resolve(self.sweep, point)
        own_prompts = config.data.eval_prompts is None
        if self.sweep.confirm.arms and not own_prompts and config.data.confirm_prompts is None:
            config = resolve(self.sweep, {**point, "data.confirm_prompts": HELD_BACK})
        return with_cost(config, self.directory)

    def arm_of(self, point: Params) -> str:
        """The arm of a point."""
        return self.arms.name(treatment_of(self.sweep, point))

    def directory_of(self, index: int, point: Params) -> Path:
        """The directory of the index-th trial, which has its name."""
        return self._trial_directory(_search_name(index, self.arm_of(point)))

    def search(self, index: int, point: Params) -> TrialPlan:
        """The plan of the index-th trial; the first ones are the baselines.

        Each block has a training seed of its own, which all arms share: so the trials of an arm
        differ by what another seed would change as well, and those of a block do not.
        """
        own: dict[str, Any] = {}
        if self.search_prompts is not None:
            own["data.max_eval_prompts"] = self.search_prompts
        config = self.config(self._seeded(point, self.block(index)) | own)
        arm = self.arm_of(point)
        return TrialPlan(
            name=_search_name(index, arm),
            config=config,
            directory=self._trial_directory(_search_name(index, arm)),
            reference=self._reference(config),
            params=point,
            baseline=index < len(self.sweep.baselines),
            arm_name=arm,
        )

    def block(self, index: int) -> int:
        """The block of the index-th trial of the search."""
        return index if index >= ADDED else self.cells[index].block

    def search_directory(self, index: int) -> Path:
        """Where the index-th trial of the search writes, whatever its point."""
        return self._trial_directory(_search_name(index, self.arms.name(self.cells[index].arm)))

    def confirm(
        self,
        point: Params,
        number: int,
        setting: int = 1,
        reference: int = 1,
        num_prompts: int = 0,
    ) -> TrialPlan:
        """The plan of a setting on the number-th fresh seed, judged against the reference's best.

        Args:
            point: The setting.
            number: Of the seed, from 0.
            setting: Its number among the settings of its arm that were chosen, from 1.
            reference: The same of the reference's own best setting.
            num_prompts: How many it answers, if they are more than at first: a trial with fewer
                answers must not be taken for it. 0 for those that the sweep began with.
        """
        value, other = treatment_of(self.sweep, point), self.arms.reference
        seed, other_seed = (self._fresh_seed(each, number) for each in (value, other))
        fresh: dict[str, Any] = {"train.seed": seed, "data.prompts": "confirm"}
        arm, plain = self.arms.name(value), self.arms.name(other)
        name = _confirm_name(arm, seed, setting, num_prompts)
        opponent = self._trial_directory(_confirm_name(plain, other_seed, reference, num_prompts))
        return TrialPlan(
            name=name,
            config=self.config({**point, **fresh}),
            directory=self._trial_directory(name),
            reference=opponent / COMPLETIONS,
            params=point,
            part="confirm",
            baseline=arm == plain,
            arm_name=arm,
            setting=_setting_name(arm, setting),
        )

    def _fresh_seed(self, arm: Any, number: int) -> int:
        return first_seed(self.sweep, self.arms.treatment, arm) + self.fresh + number

    def _seeded(self, point: Params, block: int) -> Params:
        if "train.seed" in point:
            return point
        return {**point, "train.seed": resolve(self.sweep, point).train.seed + block}

    def _reference(self, config: TrialConfig) -> Path:
        if config.judge.reference != "baseline":
            return Path(config.judge.reference)
        index = reference_baseline(self.sweep)
        assert index is not None
        name = _search_name(index, self.arms.name(self.arms.reference))
        return self._trial_directory(name) / COMPLETIONS

    def _trial_directory(self, name: str) -> Path:
        return trial_directory(self.directory, name)


def ended_plan(directory: Path, result: TrialResult) -> TrialPlan:
    """The plan of a trial that has ended, from its own files, without what it was judged against.

    Raises:
        UserError: its configuration cannot be read.
    """
    return TrialPlan(
        name=result.trial,
        config=load_trial(directory / CONFIG, ()),
        directory=directory,
        reference=directory / COMPLETIONS if result.is_reference else Path(),
        params=dict(result.params),
        part=result.part,
        baseline=result.baseline,
        arm_name=result.arm,
        setting=_OF_SEED.sub("", result.trial) if result.part == "confirm" else "",
    )


def _search_name(index: int, arm: str) -> str:
    if index >= ADDED:
        return f"{_ADDED_NAME}{index - ADDED + 1}-{arm}"
    return f"{index:03d}-{arm}"


def search_index(name: str) -> int:
    """The number of a trial of the search, from its name."""
    word = name.partition("-")[0]
    return ADDED + int(word.removeprefix(_ADDED_NAME)) - 1 if _ADDED_NAME in word else int(word)


def _confirm_name(arm: str, seed: int, setting: int, num_prompts: int) -> str:
    on_prompts = f"-prompts{num_prompts}" if num_prompts else ""
    return _setting_name(f"{arm}-seed{seed}", setting) + on_prompts


def _setting_name(arm: str, setting: int) -> str:
    return f"confirm-{arm}" + (f"-setting{setting}" if setting > 1 else "")


def known_points(sweep: SweepConfig) -> list[Params]:
    """The baselines, and points that hold every choice and both ends of every range."""
    searched = corners(Space(sweep.parameters)) if sweep.parameters else ()
    return [*(dict(point) for point in sweep.baselines), *searched]


def first_point(sweep: SweepConfig) -> Params:
    """A point that stands for the sweep: the first baseline, or a corner of the space."""
    return dict(sweep.baselines[0]) if sweep.baselines else next(corners(Space(sweep.parameters)))


def show(point: Params) -> str:
    """A point in words, for tables and logs: `symnoise, alpha=5, lr=0.003`."""
    first = ("noise.type", "noise.alpha")
    words = []
    for name in sorted(point, key=lambda name: (name not in first, name != first[0])):
        value = point[name]
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        words.append(shown if name == "noise.type" else f"{name.split('.')[-1]}={shown}")
    return ", ".join(words)


def settings(source: str | None, overrides: Sequence[str]) -> TrialConfig:
    """A trial by its file, by overrides alone, or model and data of a search space's `trial`.

    Raises:
        UserError: there is no such file, or a setting is wrong.
    """
    if source is None:
        return read_trial(None, overrides)
    path = Path(source)
    if path.is_file() and not is_space(path):
        return read_trial(path, overrides)
    sweep, document = read_space(source, overrides)
    check_sweep(sweep, document)
    trial = {name: sweep.trial[name] for name in ("model", "data") if name in sweep.trial}
    return resolve(sweep.model_copy(update={"trial": trial}), {}, document)
