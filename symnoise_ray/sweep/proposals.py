"""What to try next: Optuna proposes, in a study on disk that outlives the sweep's process.

In: a sweep's plans and the numbers of its trials. Out: their points, the same ones whether or not
the sweep was interrupted. The only importer of optuna. The study is the sweep's memory of what was
proposed: each of its trials carries its number in the sweep, and baselines outside the space are
not in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from symnoise_ray.space.parameters import Params, Space
from symnoise_ray.space.trials import SweepPlans

INDEX = "index"
"""Attribute of Optuna's trials: the trial's number in the sweep."""


class Proposals:
    """The points of a sweep's trials by their numbers; the design gives most of them."""

    def __init__(self, plans: SweepPlans, storage: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.plans, self.space = plans, Space(plans.sweep.parameters)
        self.study = optuna.create_study(
            storage=optuna.storages.RDBStorage(f"sqlite:///{storage}"),
            study_name=plans.sweep.name,
            direction="maximize",
            load_if_exists=True,
        )

    def given(self, index: int) -> Params | None:
        """The point that the design gives a trial; None if a sampler chooses it."""
        return self.plans.cells[index].point

    def propose(self, index: int) -> Params:
        """The point of a trial; one that was proposed before has the same point again."""
        point = self.given(index)
        if point is not None and not self.space.contains(point):
            return point
        before = self.known().get(index)
        if before is not None and before.state == TrialState.RUNNING:
            return before.params
        # A trial that failed and runs again is a second trial for Optuna, which keeps the failure.
        if before is not None:
            point = before.params
        self.study.enqueue_trial(self._sampled(index) if point is None else point)
        trial = self.study.ask()
        self.space(trial)
        trial.set_user_attr(INDEX, index)
        return trial.params

    def _sampled(self, index: int) -> Params:
        """What an adaptive sampler proposes, from the trials of the same arm alone.

        A study in memory holds them, so that no arm learns from another. The sampler is made anew
        for every trial, from the sweep's seed and the trial's block: one that was started anew with
        its process would propose its first points again.
        """
        cell, arms = self.plans.cells[index], self.plans.arms
        study = optuna.create_study(direction="maximize", sampler=self._sampler(cell.block))
        for known in self.study.get_trials(deepcopy=True):
            arm = known.params.get(arms.treatment, cell.arm)  # by default there is one arm alone
            if arm == cell.arm and known.state != TrialState.WAITING:
                study.add_trial(known)
        fixed = {arms.treatment: cell.arm}
        study.sampler = optuna.samplers.PartialFixedSampler(fixed, study.sampler)
        trial = study.ask()
        self.space(trial)
        return trial.params

    def _sampler(self, block: int) -> optuna.samplers.BaseSampler:
        search = self.plans.sweep.search
        seed = int(np.random.SeedSequence([search.seed, block]).generate_state(1)[0])
        if search.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=0)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=0)

    def tell(
        self, index: int, score: float | None, *, stopped: tuple[int, float] | None = None
    ) -> None:
        """A trial came to its end, without a score if it failed or was stopped.

        Args:
            index: Its number.
            score: Its score.
            stopped: Step and clean loss of a trial that was stopped early. Of those Optuna takes
                the highest value for the best, so it is told minus the loss.
        """
        trial = self.known().get(index)
        if trial is None or trial.state != TrialState.RUNNING:
            return  # outside the space, or recorded before
        if stopped is not None:
            step, loss = stopped
            optuna.trial.Trial(self.study, trial._trial_id).report(-loss, step)
            self.study.tell(trial.number, state=TrialState.PRUNED)
            return
        self.study.tell(trial.number, score, TrialState.FAIL if score is None else None)

    def settle(
        self,
        scores: Mapping[int, float | None],
        stopped: Mapping[int, tuple[int, float]] = MappingProxyType({}),
    ) -> None:
        """Record what an earlier part of the sweep found out and had no time to record.

        A trial that was just being proposed when it ended will be proposed again. `stopped` holds
        step and clean loss of the trials that were stopped early.
        """
        while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.ask()  # a trial that waits must be asked for before it can end
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if INDEX not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        for index, score in scores.items():
            self.tell(index, score, stopped=stopped.get(index))

    def known(self) -> dict[int, FrozenTrial]:
        """Optuna's trials by their numbers in the sweep, of several the newest."""
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs[INDEX]: trial for trial in trials if INDEX in trial.user_attrs}
