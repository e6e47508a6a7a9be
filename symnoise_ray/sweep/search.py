"""The search: Ray Tune drives, Optuna proposes, thin trials hand their work to the warm slots.

In: a sweep's plans and its workers. Out: an Optuna study on disk and one result per trial.
A trial that fails raises, so that Optuna records FAIL, and one that is stopped early is PRUNED; no
score is ever made up. A sweep goes on from the study and the trials' own files, not from Tune's.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from symnoise_ray.errors import CancelledError, InfrastructureError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.layout import STOP, STUDY, TUNE
from symnoise_ray.records.results import TrialResult, read_result
from symnoise_ray.space.parameters import Params
from symnoise_ray.space.trials import SweepPlans, TrialPlan
from symnoise_ray.statistics.early_exit import CLEAN_LOSS
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.early_exit import EarlyExit
from symnoise_ray.sweep.proposals import Proposals
from symnoise_ray.sweep.ray_tune import for_a_search
from symnoise_ray.sweep.search_trial import METRIC, SearchTrial
from symnoise_ray.sweep.steering import Steering
from symnoise_ray.sweep.trial import fail, stop_by_order
from symnoise_ray.sweep.watch import Watch


class SweepSearch(Searcher):  # type: ignore[misc]
    """Hands the trials of some numbers to Tune in their order, and their scores to Optuna."""

    def __init__(self, proposals: Proposals, indices: Sequence[int], budget: Budget) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.proposals, self.waiting, self.budget = proposals, list(indices), budget
        self.running: dict[str, int] = {}
        self.has_ended = False
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its searcher to disk; the sweep never reads it back.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial: its number and its point.

        As long as trials run, an order may still add one, or raise the budget.
        """
        with self._lock:
            if not self.waiting or not self.budget.search_may_go_on(len(self.running)):
                self.has_ended = not self.running
                return Searcher.FINISHED if self.has_ended else None
        index = self.waiting.pop(0)
        self.running[trial_id] = index
        return {"index": index, "point": self.proposals.propose(index)}

    def add(self, index: int) -> bool:
        """Hand out one more trial; False where the search has ended."""
        with self._lock:
            if not self.has_ended:
                self.waiting.append(index)
            return not self.has_ended

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the score, or PRUNED, or FAIL.

        The last report of a trial that was stopped early is a clean loss instead of a score.
        """
        result = {} if error or result is None else result
        stopped = (result["step"], result.get(CLEAN_LOSS)) if "step" in result else None
        self.proposals.tell(self.running.pop(trial_id), result.get(METRIC), stopped=stopped)

    def save(self, checkpoint_path: str) -> None:
        """Tune would keep the searcher's state; it is the study, which is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Never asked: a sweep goes on from its own files."""
        raise NotImplementedError


class _TimeIsUp(tune.Stopper):  # type: ignore[misc]
    """Ends the search when its share of the wall time is spent, which an order may change."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes it to disk with the rest; this one lives in the driver alone.
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is up."""
        return self.budget.search_time_is_up()


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


def open_study(steering: Steering) -> Proposals:
    """The sweep's study, new or as it was left; its tables take half a second."""
    plans = steering.plans
    return Proposals(plans, plans.directory / STUDY, steering.added)


def run_search(
    steering: Steering, judges: JudgeSource, num_slots: int, proposals: Proposals
) -> None:
    """Run the baselines and the search; results lie in the trials' directories.

    Trials that ended in an earlier part of the sweep are not run again, and the others keep their
    points. What the budget ends has no score, and is run when the sweep goes on.
    """
    plans, watch = steering.plans, steering.watch
    on = plans.sweep.search.early_exit == "on"
    early_exit = EarlyExit(plans, steering.workers) if on else None
    with steering.lock:  # an order to add a trial comes before or after
        waiting = _take_up(plans, proposals, watch, early_exit)
        searcher = SweepSearch(proposals, waiting, steering.budget)
        searcher.has_ended = not waiting
        steering.search = searcher
    if waiting:
        with for_a_search():
            _run_trials(steering, judges, searcher, early_exit, num_slots)


def _take_up(
    plans: SweepPlans, proposals: Proposals, watch: Watch, early_exit: EarlyExit | None
) -> list[int]:
    """The numbers of the trials that are still to be run."""
    known = proposals.known()
    scores: dict[int, float | None] = {}
    stopped: dict[int, tuple[int, float | None]] = {}
    indices = [*range(len(plans.cells)), *proposals.added]
    for index in indices:
        # A range that shrank since moves no trial that was proposed before.
        point = known[index].params if index in known else _given(plans, proposals, index)
        if point is None:
            continue  # not proposed yet
        plan = plans.search(index, point)
        if (plan.directory / STOP).exists() and read_result(plan.directory) is None:
            stop_by_order(plan)
        result = watch.take_up(plan)
        if result is not None:
            proposals.recall(index, point)
            scores[index] = result.win_rate
            if result.is_stopped:
                stopped[index] = result.last_step, result.get(CLEAN_LOSS)
            if early_exit is not None:
                early_exit.take_up(plan, result)
    proposals.settle(scores, stopped)
    return [index for index in indices if index not in scores]


def _given(plans: SweepPlans, proposals: Proposals, index: int) -> Params | None:
    """The point of a trial that the study does not know: the design's, or that of its result."""
    point = proposals.given(index)
    if point is None:
        ended = read_result(plans.search_directory(index))
        point = None if ended is None else dict(ended.params)
    return point


def _run_trials(
    steering: Steering,
    judges: JudgeSource,
    searcher: SweepSearch,
    early_exit: EarlyExit | None,
    num_slots: int,
) -> None:
    plans, workers, watch = steering.plans, steering.workers, steering.watch
    before, num_trials = len(watch.results), len(searcher.waiting)
    folder = plans.directory / TUNE
    shutil.rmtree(folder, ignore_errors=True)  # of a part that was interrupted
    trainable = tune.with_resources(
        tune.with_parameters(SearchTrial, plans=plans, workers=workers, judges=judges),
        # No CPU, since the work is done on the slots; and beside the driver, since a trial whose
        # own process is lost with another node has failed.
        {"memory": 1 << 20, f"node:{ray.util.get_node_ip_address()}": 0.0001},
    )
    outcome = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=searcher,
            scheduler=early_exit,
            num_samples=-1,  # until the searcher says that there are no more
            # One more than the slots: a trial is judged while the next one trains.
            max_concurrent_trials=min(num_slots + 1, num_trials),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder.resolve()),
            verbose=0,
            stop=_TimeIsUp(searcher.budget),
            callbacks=[_Starts(plans, watch)],
            failure_config=tune.FailureConfig(max_failures=0),
            # A trial's state is its own files; there is nothing for Tune to save.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    watch.poll()
    _end_unfinished(watch, searcher.budget)
    _check_counts(outcome, watch.results[before:])


def _end_unfinished(watch: Watch, budget: Budget) -> None:
    """Give the trials that ran when the time was up a result, so that nothing waits for them."""
    for plan in watch.unfinished:
        budget.spent_on = budget.spent_on or f"budget.wall_time={budget.sweep.budget.wall_time:g}"
        fail(plan, CancelledError(f"{budget.spent_on} was spent before its end"))
    watch.poll()


def _check_counts(outcome: Any, results: Sequence[TrialResult]) -> None:
    """Tune, and with it Optuna, must have seen as failed exactly what failed."""
    failed = sum(result.status == "failed" for result in results)
    if outcome.num_errors != failed:
        first = str(outcome.errors[0]).strip().splitlines()[-1] if outcome.errors else "none"
        raise InfrastructureError(
            f"Tune counts {outcome.num_errors} failed trials but {failed} have failed; its first "
            f"error is: {first}"
        )
