"""What to try next: Optuna proposes, in a study on disk that outlives the sweep's process.

In: a sweep and the numbers of its trials. Out: their points, the same ones whether or not the sweep
was interrupted. The only importer of optuna. The study is the sweep's memory of what was proposed:
each of its trials carries its number in the sweep, and baselines outside the space are not in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from symnoise_ray.config import SearchConfig, SweepConfig
from symnoise_ray.space.parameters import Params, Space

INDEX = "index"
"""Attribute of Optuna's trials: the trial's number in the sweep."""


class SeededByTrial(optuna.samplers.BaseSampler):
    """Optuna's sampler, made anew for every trial from the sweep's seed and the trial's number.

    Optuna's own goes on in one stream of random numbers, which ends with its process: one that is
    started anew would propose its first points again.
    """

    def __init__(self, search: SearchConfig) -> None:
        self.search = search
        self.turn(0)

    def turn(self, index: int) -> None:
        """Propose for the trial of this number from now on."""
        seed = int(np.random.SeedSequence([self.search.seed, index]).generate_state(1)[0])
        if self.search.sampler == "tpe":
            self.inner: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
                seed=seed, constant_liar=True
            )
        else:  # a grid's points are given, so that nothing is sampled
            self.inner = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As Optuna's does."""
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's does."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As Optuna's does."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)


class Proposals:
    """The points of a sweep's trials by their numbers; the baselines come first."""

    def __init__(self, sweep: SweepConfig, storage: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.sweep, self.space = sweep, Space(sweep.parameters)
        self.given: list[Params] = [dict(point) for point in sweep.baselines]
        if sweep.search.sampler == "grid":
            self.given += [point for point in self.space.grid() if point not in self.given]
        self.sampler = SeededByTrial(sweep.search)
        self.study = optuna.create_study(
            storage=optuna.storages.RDBStorage(f"sqlite:///{storage}"),
            sampler=self.sampler,
            study_name=sweep.name,
            direction="maximize",
            load_if_exists=True,
        )

    def propose(self, index: int) -> Params:
        """The point of a trial; one that was proposed before has the same point again."""
        point = self.given[index] if index < len(self.given) else None
        if point is not None and not self.space.contains(point):
            return point
        before = self.known().get(index)
        if before is not None and before.state == TrialState.RUNNING:
            return before.params
        # A trial that failed and runs again is a second trial for Optuna, which keeps the failure.
        point = before.params if before is not None else point
        if point is not None:
            self.study.enqueue_trial(point)
        self.sampler.turn(index)
        trial = self.study.ask()
        self.space(trial)
        trial.set_user_attr(INDEX, index)
        return trial.params

    def tell(self, index: int, score: float | None) -> None:
        """A trial came to its end, without a score if it failed."""
        trial = self.known().get(index)
        if trial is None or trial.state != TrialState.RUNNING:
            return  # outside the space, or recorded before
        self.study.tell(trial.number, score, TrialState.FAIL if score is None else None)

    def settle(self, scores: Mapping[int, float | None]) -> None:
        """Record what an earlier part of the sweep found out and had no time to record.

        A trial that was just being proposed when it ended will be proposed again.
        """
        while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.ask()  # a trial that waits must be asked for before it can end
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if INDEX not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        for index, score in scores.items():
            self.tell(index, score)

    def known(self) -> dict[int, FrozenTrial]:
        """Optuna's trials by their numbers in the sweep, of several the newest."""
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs[INDEX]: trial for trial in trials if INDEX in trial.user_attrs}
