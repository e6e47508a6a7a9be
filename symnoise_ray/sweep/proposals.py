"""What to try next: Optuna proposes, in a study on disk that outlives the sweep's process.

In: a sweep's plans and the numbers of its trials. Out: their points, the same ones whether or not
the sweep was interrupted. The study is the sweep's memory of what was
proposed: each of its trials carries its number in the sweep, and baselines outside the space are
not in it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from symnoise_ray.records.sqlite import sqlite_uri
from symnoise_ray.space.parameters import Params, Space
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.study import NAME, describe, introduce

INDEX = "index"
"""Attribute of Optuna's trials: the trial's number in the sweep."""


class Proposals:
    """The points of a sweep's trials by their numbers; the design gives most of them.

    A proposal or a score costs the same after ten trials as after ten thousand, but for what an
    adaptive sampler computes itself: the study is read once.
    """

    def __init__(
        self, plans: SweepPlans, storage: Path, added: Mapping[int, Params] = MappingProxyType({})
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.plans, self.space, self.added = plans, Space(plans.sweep.parameters), added
        name = plans.sweep.name
        self.storage = optuna.storages.RDBStorage(sqlite_uri(storage))
        self.study = optuna.create_study(
            storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
        )
        introduce(self.study, plans)
        self._study_id = self.storage.get_study_id_from_name(name)
        self._ids = {index: trial._trial_id for index, trial in self.known().items()}
        self._arms: dict[str, _Arm] = {}

    def given(self, index: int) -> Params | None:
        """The point that the design or an order gives a trial; None if a sampler chooses it."""
        return self.added[index] if index in self.added else self.plans.cells[index].point

    def propose(self, index: int) -> Params:
        """The point of a trial; one that was proposed before has the same point again."""
        point = self.given(index)
        if point is not None and not self.space.contains(point):
            return point
        before = self._newest(index)
        if before is not None and before.state == TrialState.RUNNING:
            return before.params
        if before is not None:
            # A trial that failed and runs again is a second trial for Optuna, which keeps the
            # failure; and a range may have shrunk since.
            return self._record(index, before.params, before.distributions)
        drawn = optuna.trial.FixedTrial(self._sampled(index) if point is None else point)
        self.space(drawn)
        return self._record(index, drawn.params, drawn.distributions)

    def recall(self, index: int, point: Params) -> None:
        """Put a trial that has ended into a study that lost it."""
        if index not in self._ids and self.space.contains(point):
            drawn = optuna.trial.FixedTrial(point)
            self.space(drawn)
            self._record(index, drawn.params, drawn.distributions)

    def _record(
        self, index: int, point: Params, distributions: Mapping[str, BaseDistribution]
    ) -> Params:
        """Write a running trial into the study, in one transaction."""
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions=dict(distributions),
            user_attrs={INDEX: index, NAME: self.plans.directory_of(index, point).name},
        )
        self._ids[index] = self.storage.create_new_trial(self._study_id, template)
        trial = self.storage.get_trial(self._ids[index])
        self._note(trial)
        return trial.params

    def _note(self, trial: FrozenTrial) -> None:
        """Let the sampler of its arm know how a trial stands, if that arm has asked one before."""
        arm = self._arm_of(trial)
        if arm in self._arms:
            self._arms[arm].note(trial)

    def _arm_of(self, trial: FrozenTrial) -> str:
        """The arm of one of Optuna's trials; there may be one alone, which no parameter names."""
        return repr(trial.params.get(self.plans.arms.treatment))

    def _sampled(self, index: int) -> Params:
        """What an adaptive sampler proposes, from the trials of the same arm alone."""
        cell, arms = self.plans.cells[index], self.plans.arms
        name = repr(cell.arm if arms.treatment in self.space.parameters else None)
        if name not in self._arms:
            self._arms[name] = _Arm()
            for trial in self.study.get_trials(deepcopy=False):
                if self._arm_of(trial) == name and trial.state != TrialState.WAITING:
                    self._arms[name].note(trial)
        fixed = {arms.treatment: cell.arm}
        sampler = optuna.samplers.PartialFixedSampler(fixed, self._sampler(cell.block))
        return self._arms[name].ask(sampler, self.space)

    def _sampler(self, block: int) -> optuna.samplers.BaseSampler:
        """Made anew for every trial, from the sweep's seed and the trial's block.

        One that was started anew with its process would propose its first points again.
        """
        search = self.plans.sweep.search
        seed = int(np.random.SeedSequence([search.seed, block]).generate_state(1)[0])
        if search.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=0)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=0)

    def tell(
        self, index: int, score: float | None, *, stopped: tuple[int, float | None] | None = None
    ) -> None:
        """A trial came to its end, without a score if it failed or was stopped.

        Args:
            index: Its number.
            score: Its score.
            stopped: Step and clean loss of a trial that was stopped early; None where none was
                measured. Of those Optuna takes the highest value for the best, so it is told
                minus the loss.
        """
        trial = self._newest(index)
        if trial is None or trial.state != TrialState.RUNNING:
            return  # outside the space, or recorded before
        own = trial._trial_id
        directory = self.plans.directory_of(index, trial.params)
        describe(self.study, own, directory, trial.params)
        if stopped is not None:
            step, loss = stopped
            # As Optuna's own `tell`: the value of a pruned trial is its last report.
            values = None if loss is None else [-loss]
            if loss is not None:
                self.storage.set_trial_intermediate_value(own, step, -loss)
            self.storage.set_trial_state_values(own, TrialState.PRUNED, values)
        elif score is None:
            self.storage.set_trial_state_values(own, TrialState.FAIL)
        else:
            self.storage.set_trial_state_values(own, TrialState.COMPLETE, [score])
        self._note(self.storage.get_trial(own))

    def settle(
        self,
        scores: Mapping[int, float | None],
        stopped: Mapping[int, tuple[int, float | None]] = MappingProxyType({}),
    ) -> None:
        """Record what an earlier part of the sweep found out and had no time to record.

        `stopped` holds step and clean loss of the trials that were stopped early.
        """
        for index, score in scores.items():
            self.tell(index, score, stopped=stopped.get(index))

    def known(self) -> dict[int, FrozenTrial]:
        """Optuna's trials by their numbers in the sweep, of several the newest."""
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs[INDEX]: trial for trial in trials if INDEX in trial.user_attrs}

    def _newest(self, index: int) -> FrozenTrial | None:
        return self.storage.get_trial(self._ids[index]) if index in self._ids else None


class _Arm:
    """The trials of one arm in a study in memory, so that no arm learns from another."""

    def __init__(self) -> None:
        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=self.storage, direction="maximize")
        self._study_id = self.storage.get_study_id_from_name(self.study.study_name)
        self._ids: dict[int, int] = {}
        self._asked: list[int] = []

    def note(self, trial: FrozenTrial) -> None:
        """Add a trial, or say how one came to its end."""
        if trial.number not in self._ids:
            self._ids[trial.number] = (
                self._asked.pop()
                if self._asked
                else self.storage.create_new_trial(self._study_id, copy.deepcopy(trial))
            )
            return
        own = self._ids[trial.number]
        for step, value in trial.intermediate_values.items():
            self.storage.set_trial_intermediate_value(own, step, value)
        self.storage.set_trial_state_values(own, trial.state, trial.values)

    def ask(self, sampler: optuna.samplers.BaseSampler, space: Space) -> Params:
        """The next point; the next trial that is noted is the one with this point."""
        self.study.sampler = sampler
        trial = self.study.ask()
        space(trial)
        self._asked = [trial._trial_id]
        return trial.params
