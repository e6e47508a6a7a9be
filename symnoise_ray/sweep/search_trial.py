"""A trial of the search as Ray Tune runs it, in a process of its own.

In: the plans of the sweep and a handle on its workers. Out: reports to Tune. It waits, judges and
writes files; all else is done on the slots. So this module imports little: every process of a
trial pays for it before the first step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ray import tune

from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.layout import CONFIG, RESULT, STOP
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import SweepPlans, TrialPlan
from symnoise_ray.statistics.early_exit import CLEAN_LOSS
from symnoise_ray.sweep.trial import run_trial
from symnoise_ray.workers.client import Workers

METRIC = "win_rate"
SLICE_SECONDS = 2.0
"""A trial hands control back to Tune this often, so that it can be stopped."""
WAIT_SECONDS = 0.05
"""How often it looks whether it may begin."""


def stopped_report(result: TrialResult) -> dict[str, Any]:
    """Step and clean loss of a trial that was stopped; without the loss where it had none yet."""
    loss = {CLEAN_LOSS: result[CLEAN_LOSS]} if CLEAN_LOSS in result.values else {}
    return {"step": result.last_step, **loss}


class SearchTrial(tune.Trainable):  # type: ignore[misc]
    """A trial as Tune sees it: it waits for its worker, judges, and reports one score."""

    def setup(
        self, config: dict[str, Any], plans: SweepPlans, workers: Workers, judges: JudgeSource
    ) -> None:
        """Remember where the work is done."""
        self.plans, self.workers, self.judges = plans, workers, judges
        self.tells_losses = plans.sweep.search.early_exit == "on"
        self.plan: TrialPlan = plans.search(config["index"], config["point"])
        self.records: Iterator[dict[str, Any] | TrialResult | None] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self.cleanup()
        self.plan = self.plans.search(new_config["index"], new_config["point"])
        self.records = None
        return True

    def step(self) -> dict[str, Any]:
        """Follow the trial for a while or to its next clean loss; the last report has its score."""
        if self.records is None:
            self.records = run_trial(self.plan, self.workers, self.judges)
        if (self.plan.directory / STOP).exists():  # the hub that was told may be gone
            self.workers.cancel(self.plan.name)
        until = time.monotonic() + SLICE_SECONDS
        while not self._may_begin():
            if time.monotonic() >= until:
                return {"done": False}
            time.sleep(WAIT_SECONDS)
        for record in self.records:
            if isinstance(record, TrialResult) and record.is_done:
                return {METRIC: record.win_rate, "done": True}
            if isinstance(record, TrialResult) and record.is_stopped:
                return {**stopped_report(record), "done": True}
            if self.tells_losses and isinstance(record, dict) and CLEAN_LOSS in record:
                return {name: record[name] for name in ("step", CLEAN_LOSS)} | {"done": False}
            if time.monotonic() >= until:
                break
        return {"done": False}

    def _may_begin(self) -> bool:
        """Whether the first baseline, which all others are compared with, has asked for its slot.

        The processes of the first trials start together, and any may be the first one that is up.
        """
        first = self.plans.search_directory(0)
        return self.plan.directory == first or any(
            (first / name).exists() for name in (CONFIG, RESULT)
        )

    def cleanup(self) -> None:
        """Free the slot of a trial that Tune stopped; a finished one is left alone.

        So is one that another process runs: Tune may give this one a trial, and end it before its
        first step because it took the trial elsewhere.
        """
        if self.records is not None:
            self.workers.cancel(self.plan.name)
