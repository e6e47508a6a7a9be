"""The trials of a sweep: their names, directories, configurations, and what each is judged against.

In: a `SweepConfig` and its directory. Out: `TrialPlan`s for the search and for the confirmation.
Picklable: the search's trials make their own plan where they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symnoise_ray.config import SweepConfig, TrialConfig
from symnoise_ray.config.data import HELD_BACK
from symnoise_ray.config.loading import is_space, load_sweep, load_trial
from symnoise_ray.records.layout import COMPLETIONS, trial_directory
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.parameters import (
    Params,
    Space,
    arm_of,
    check_sweep,
    corners,
    describe,
    plain_baseline,
    resolve,
    search_size,
)

FRESH_SEED = 1000
"""Distance of the confirmation's seeds from the search's."""


@dataclass(frozen=True)
class TrialPlan:
    """A trial's place in its sweep: what it is called, what it is, what it is judged against."""

    name: str
    config: TrialConfig
    directory: Path
    reference: Path
    params: Params
    part: str = "search"
    baseline: bool = False

    @property
    def arm(self) -> str:
        """The noise type."""
        return arm_of(self.config)

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
    """Makes the plan of every trial of one sweep."""

    sweep: SweepConfig
    directory: Path

    def config(self, point: Params) -> TrialConfig:
        """The complete configuration of a point, prompts for the confirmation set apart."""
        config = resolve(self.sweep, point)
        own_prompts = config.data.eval_prompts is None
        if self.sweep.confirm.top_k and not own_prompts and config.data.confirm_prompts is None:
            return resolve(self.sweep, {**point, "data.confirm_prompts": HELD_BACK})
        return config

    def search(self, index: int, point: Params) -> TrialPlan:
        """The plan of the index-th trial; the first ones are the baselines."""
        config = self.config(point)
        return TrialPlan(
            name=self._search_name(index, config),
            config=config,
            directory=self._trial_directory(self._search_name(index, config)),
            reference=self._reference(config),
            params=point,
            baseline=index < len(self.sweep.baselines),
        )

    def confirm(
        self, arm: str, point: Params, number: int, choice: int = 1, plain_choice: int = 1
    ) -> TrialPlan:
        """The plan of one arm on the number-th fresh seed, judged against plain fine-tuning.

        Args:
            arm: The noise type.
            point: Its setting.
            number: Of the seed, from 0.
            choice: 2 for the second setting that a growing search chose for this arm, and so on.
            plain_choice: The same of plain fine-tuning.
        """
        seed = self.config(point).train.seed + FRESH_SEED + number
        fresh: dict[str, Any] = {"train.seed": seed, "data.prompts": "confirm"}
        name = _confirm_name(arm, seed, choice)
        plain = self._trial_directory(_confirm_name("none", seed, plain_choice))
        return TrialPlan(
            name=name,
            config=self.config({**point, **fresh}),
            directory=self._trial_directory(name),
            reference=plain / COMPLETIONS,
            params=point,
            part="confirm",
            baseline=arm == "none",
        )

    def _reference(self, config: TrialConfig) -> Path:
        if config.judge.reference != "baseline":
            return Path(config.judge.reference)
        index = plain_baseline(self.sweep)
        assert index is not None
        plain = self.config(self.sweep.baselines[index])
        return self._trial_directory(self._search_name(index, plain)) / COMPLETIONS

    def _trial_directory(self, name: str) -> Path:
        return trial_directory(self.directory, name)

    @staticmethod
    def _search_name(index: int, config: TrialConfig) -> str:
        return f"{index:03d}-{config.noise.type}"


def _confirm_name(arm: str, seed: int, choice: int) -> str:
    return f"confirm-{arm}-seed{seed}" + (f"-choice{choice}" if choice > 1 else "")


def known_points(sweep: SweepConfig) -> list[Params]:
    """The baselines, and points that hold every choice and both ends of every range."""
    searched = corners(Space(sweep.parameters)) if sweep.parameters else ()
    return [*(dict(point) for point in sweep.baselines), *searched]


def first_point(sweep: SweepConfig) -> Params:
    """A point that stands for the sweep: the first baseline, or a corner of the space."""
    return dict(sweep.baselines[0]) if sweep.baselines else next(corners(Space(sweep.parameters)))


def size_text(sweep: SweepConfig) -> str:
    """How many trials a sweep has, in words."""
    return (
        f"{len(sweep.baselines)} baselines, {search_size(sweep)} searched trials, at most "
        f"{most_confirmed(sweep)} to confirm"
    )


def most_confirmed(sweep: SweepConfig) -> int:
    """Trials of the confirmation at most: the best noise types, the contrasted ones, and plain."""
    confirm = sweep.confirm
    if not confirm.top_k:
        return 0
    arms = {arm_of(resolve(sweep, point)) for point in known_points(sweep)} - {"none"}
    contrasted = {arm for pair in confirm.contrasts for arm in pair}
    return (1 + min(len(arms), confirm.top_k + len(contrasted))) * confirm.num_seeds


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
        return load_trial(None, overrides)
    path = Path(source)
    if path.is_file() and not is_space(path):
        return load_trial(path, overrides)
    sweep, document = load_sweep(source, overrides)
    check_sweep(sweep, document)
    trial = {name: sweep.trial[name] for name in ("model", "data") if name in sweep.trial}
    return resolve(sweep.model_copy(update={"trial": trial}), {}, document)
