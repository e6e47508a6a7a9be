"""Trials of the search that are clearly behind in their own arm stop early.

In: what Tune's trials report on their way. Out: for each report whether the trial goes on; a trial
that is stopped has its result on disk before anything else is done about it. The rule itself is
`statistics.early_exit`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from symnoise_ray.records.layout import METRICS
from symnoise_ray.records.metrics import Tail
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import SweepPlans, TrialPlan, search_index
from symnoise_ray.statistics.early_exit import (
    CLEAN_LOSS,
    RULE,
    Arm,
    Decision,
    curve_of,
    loss_at,
    stop_evidence,
)
from symnoise_ray.sweep.search_trial import METRIC
from symnoise_ray.sweep.trial import stop
from symnoise_ray.workers.client import Workers

FORETOLD = (
    "The clean loss by which trials were stopped foretold the win rate: their rank correlation is "
    "{:.2f} over {} trials that came to their end."
)


class EarlyExit(FIFOScheduler):  # type: ignore[misc]
    """Tune's scheduler: trials run in their order, and some stop at a rung."""

    def __init__(self, plans: SweepPlans, workers: Workers) -> None:
        super().__init__()
        self.plans, self.workers = plans, workers
        self.arms: defaultdict[str, Arm] = defaultdict(Arm)
        self.losses: dict[str, dict[int, float]] = {}
        """Trial -> its clean losses by step."""
        self.began: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its scheduler to disk to restore it; this one lives in the driver alone.
        return {}

    def _plan(self, trial: Any) -> TrialPlan:
        return self.plans.search(trial.config["index"], trial.config["point"])

    def take_up(self, plan: TrialPlan, result: TrialResult) -> None:
        """A trial that ended in an earlier part of the sweep is compared with."""
        if _takes_part(plan):
            arm = self.arms[plan.arm]
            losses = _on_disk(plan, result.get("stopped_at"))
            arm.add(plan.name, _curve(plan, losses))
            if not result.is_done:
                arm.leave(plan.name)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Stop the trial, or let it go on."""
        plan = self._plan(trial)
        if CLEAN_LOSS not in result or not _takes_part(plan):
            return str(TrialScheduler.CONTINUE)
        if plan.name not in self.losses:
            # One that goes on from a checkpoint does not report again what came before.
            self.losses[plan.name] = _on_disk(plan, result["step"])
            self.began[plan.name] = time.monotonic()
        self.losses[plan.name][result["step"]] = result[CLEAN_LOSS]
        decision = self.arms[plan.arm].report(plan.name, _curve(plan, self.losses[plan.name]))
        if decision is None or decision.goes_on:
            return str(TrialScheduler.CONTINUE)
        self._stop(plan, decision)
        return str(TrialScheduler.STOP)

    def _stop(self, plan: TrialPlan, decision: Decision) -> None:
        """Settle the trial, then free its slot: a sweep that is killed between finds it stopped."""
        losses = self.losses[plan.name]
        stop(plan, decision, losses, seconds=time.monotonic() - self.began[plan.name])
        self.workers.cancel(plan.name)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial failed; it no longer counts as one of those that stay."""
        plan = self._plan(trial)
        self.arms[plan.arm].leave(plan.name)

    def on_trial_complete(
        self, tune_controller: Any, trial: Any, result: Mapping[str, Any]
    ) -> None:
        """A trial that was stopped by an order no longer counts as one of those that stay."""
        if METRIC not in result:
            self.on_trial_error(tune_controller, trial)


def evidence_note(plans: SweepPlans, results: Sequence[TrialResult]) -> str:
    """How well the loss that trials were stopped by foretold the win rate, as a sentence."""
    known = [
        (loss, result.win_rate, result.arm)
        for result in results
        if result.is_done and result.part == "search" and result.win_rate is not None
        for plan in [plans.search(search_index(result.trial), dict(result.params))]
        for loss in [loss_at(_curve(plan, _on_disk(plan, None)), RULE.rungs[0])]
        if loss is not None
    ]
    found = stop_evidence(
        [loss for loss, _, _ in known], [rate for _, rate, _ in known], [arm for _, _, arm in known]
    )
    return found.warning or FORETOLD.format(found.correlation, found.num_trials)


def _takes_part(plan: TrialPlan) -> bool:
    return plan.part == "search" and not plan.baseline


def _on_disk(plan: TrialPlan, last_step: int | None) -> dict[int, float]:
    """The clean losses of an earlier attempt by step, up to a step."""
    records = Tail(plan.directory / METRICS).new()
    return {
        record["step"]: record[CLEAN_LOSS]
        for record in records
        if CLEAN_LOSS in record and (last_step is None or record["step"] <= last_step)
    }


def _curve(plan: TrialPlan, losses: Mapping[int, float]) -> Any:
    records = [{"step": step, CLEAN_LOSS: loss} for step, loss in losses.items()]
    return curve_of(records, plan.config.train.num_evals)
