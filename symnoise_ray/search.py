"""The search: Ray Tune drives, Optuna proposes, thin trials hand their work to the warm slots.

In: a sweep's plans and its workers. Out: an Optuna study on disk and one result per trial.
The only importer of ray.tune and optuna. A trial that fails raises, so that Optuna is told FAIL;
no score is ever made up.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from symnoise_ray.errors import InfrastructureError
from symnoise_ray.plans import SweepPlans, TrialPlan
from symnoise_ray.space import Params, Space, search_size
from symnoise_ray.trial import fail, run_trial
from symnoise_ray.watch import Watch, read_result
from symnoise_ray.workers.client import Workers

METRIC = "win_rate"
SLICE_SECONDS = 2.0
"""A trial hands control back to Tune this often, so that it can be stopped."""


def make_sampler(name: str, seed: int) -> Any:
    """Optuna's sampler; a grid's points are all enqueued, so its sampler is never asked."""
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


class SweepSearch(OptunaSearch):  # type: ignore[misc]
    """Optuna's proposals, after the baselines; numbers every trial.

    Baselines that lie in the search space are enqueued in the study, so the sampler learns from
    them; others (plain fine-tuning in a space of noise types) run outside it.
    """

    def __init__(self, plans: SweepPlans, storage: Path) -> None:
        sweep = plans.sweep
        space = Space(sweep.parameters)
        self.plans = plans
        self.num_suggested = 0
        self.outside: set[str] = set()
        self.inside = [space.contains(point) for point in sweep.baselines]
        points = [p for p, fits in zip(sweep.baselines, self.inside, strict=True) if fits]
        if sweep.search.sampler == "grid":
            points += [point for point in space.grid() if point not in points]
        super().__init__(
            # An empty space is never sampled: such a sweep has baselines only.
            space=space,
            metric=METRIC,
            mode="max",
            points_to_evaluate=[dict(point) for point in points],
            sampler=make_sampler(sweep.search.sampler, sweep.search.seed),
            study_name=sweep.name,
            storage=optuna.storages.RDBStorage(f"sqlite:///{storage}"),
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial: its number and its point."""
        index = self.num_suggested
        self.num_suggested += 1
        if index < len(self.inside) and not self.inside[index]:
            self.outside.add(trial_id)
            point: Params = dict(self.plans.sweep.baselines[index])
        else:
            point = super().suggest(trial_id)
        return {"index": index, "point": point}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports on the way carry no score, and Optuna is told none."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the score, or FAIL."""
        if trial_id not in self.outside:
            super().on_trial_complete(trial_id, result, error)


class SearchTrial(tune.Trainable):  # type: ignore[misc]
    """A trial as Tune sees it: it waits for its worker, judges, and reports one score."""

    def setup(self, config: dict[str, Any], plans: SweepPlans, workers: Workers) -> None:
        """Remember where the work is done."""
        self.plans, self.workers = plans, workers
        self.plan: TrialPlan = plans.search(config["index"], config["point"])
        self.records: Iterator[dict[str, Any] | None] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self.cleanup()
        self.plan = self.plans.search(new_config["index"], new_config["point"])
        self.records = None
        return True

    def step(self) -> dict[str, Any]:
        """Follow the trial for a while; the last report carries its score."""
        if self.records is None:
            self.records = run_trial(self.plan, self.workers)
        until = time.monotonic() + SLICE_SECONDS
        for record in self.records:
            if record is not None and record.get("status") == "done":
                return {METRIC: record[METRIC], "done": True}
            if time.monotonic() >= until:
                break
        return {"done": False}

    def cleanup(self) -> None:
        """Free the slot of a trial that Tune stopped; a finished one is left alone.

        So is one that another process runs: Tune may give this one a trial, and end it before its
        first step because it took the trial elsewhere.
        """
        if self.records is not None:
            self.workers.cancel(self.plan.name)


class _Starts(tune.Callback):  # type: ignore[misc]
    """Tells the watch which trials run, and gives those that died without a word a result."""

    def __init__(self, plans: SweepPlans, watch: Watch) -> None:
        self.plans, self.watch = plans, watch

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks to disk to restore them; this one lives in the driver alone.
        return {}

    def _plan(self, trial: Any) -> TrialPlan:
        return self.plans.search(trial.config["index"], trial.config["point"])

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Follow the trial's directory from now on."""
        self.watch.add(self._plan(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial raised; if its process died before it could say why, say that."""
        plan = self._plan(trial)
        if read_result(plan.directory) is None:
            fail(plan, InfrastructureError("the trial's own process died"))


def run_search(
    plans: SweepPlans, workers: Workers, watch: Watch, *, num_slots: int, storage: Path
) -> None:
    """Run the baselines and the search; results lie in the trials' directories."""
    _quieten()
    num_trials = len(plans.sweep.baselines) + search_size(plans.sweep)
    searcher = SweepSearch(plans, storage / "optuna.db")
    trainable = tune.with_resources(
        tune.with_parameters(SearchTrial, plans=plans, workers=workers),
        {"memory": 1 << 20},  # no CPU: the work is done on the slots
    )
    outcome = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=searcher,
            num_samples=num_trials,
            # One more than the slots: a trial is judged while the next one trains.
            max_concurrent_trials=min(num_slots + 1, num_trials),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str((storage / ".tune").resolve()),
            verbose=0,
            callbacks=[_Starts(plans, watch)],
            failure_config=tune.FailureConfig(max_failures=0),
            # A trial's state is its own files; there is nothing for Tune to save.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    watch.poll()
    _check_told(outcome, watch)


def _check_told(outcome: Any, watch: Watch) -> None:
    """Tune, and with it Optuna, must have seen as failed exactly what failed."""
    failed = sum(result["status"] != "done" for result in watch.results)
    if outcome.num_errors != failed:
        first = str(outcome.errors[0]).strip().splitlines()[-1] if outcome.errors else "none"
        raise InfrastructureError(
            f"Tune counts {outcome.num_errors} failed trials but {failed} have failed; its first "
            f"error is: {first}"
        )


def _quieten() -> None:
    """The live table speaks; Tune's own loggers, files and signal handlers stay out of it."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
