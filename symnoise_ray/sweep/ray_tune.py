"""Ray Tune as a search needs it, where Tune has no setting for it.

In: nothing. Out: a block in which Tune is quiet, hands on no keys, keeps its processes and forgets
trials that ended. The names of Tune that are changed here are private: Ray's version is pinned.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air._internal import usage
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback


@contextmanager
def for_a_search() -> Iterator[None]:
    """Run a search of Tune within this block.

    Tune's result tells only the trials that failed: what the others came to is in their files. A
    caller's own searches are as ever; but that Tune is quiet, and hands on no keys, lasts as long
    as this process.
    """
    _quieten()
    _hand_on_no_keys()
    with (
        _changed(TuneController, "_maybe_reuse_cached_actor", _reuse),
        _changed(TuneController, "on_step_end", _forget_ended),
        # Tune's snapshots would hold 10 kB of every trial so far, in memory and again and again on
        # disk. Nobody reads them: a sweep goes on from its own files.
        _changed(TuneController, "_mark_trial_to_checkpoint", _do_nothing),
        # What prints its progress prints nothing in a quiet search, and keeps every trial.
        _changed(TrialProgressCallback, "log_result", _do_nothing),
        _changed(TrialProgressCallback, "on_trial_complete", _do_nothing),
    ):
        yield


@contextmanager
def _changed(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stand in for what a search has no use for."""


_tune_reuses = TuneController._maybe_reuse_cached_actor


def _reuse(controller: TuneController, trial: Any) -> bool:
    """Give a trial the process of one that has ended, unless its own is on its way.

    Tune would end the one on its way. Then the next trial has none and begins another, which takes
    seconds: where trials are shorter than that, one is begun and ended for almost every trial.
    """
    on_its_way = trial in controller._trial_to_actor and trial not in controller._resetting_trials
    return not on_its_way and bool(_tune_reuses(controller, trial))


_tune_ends_step = TuneController.on_step_end


def _forget_ended(controller: TuneController) -> None:
    """Forget the trials that ended well; Tune would keep 25 kB of each."""
    _tune_ends_step(controller)
    controller._trials = [each for each in controller._trials if each.status != Trial.TERMINATED]
    controller._stopped_trials.clear()


def _hand_on_no_keys() -> None:
    """Keep the keys of cloud accounts out of the environment that Tune gives to trials.

    It would write them into Ray's logs. A trial's process has the environment of its own machine.
    """
    class_cache.ENV_VARS_TO_PROPAGATE -= {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
    }


def _quieten() -> None:
    """The live table speaks; Tune's own loggers, files and signal handlers stay out of it."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # To count callbacks for Ray's usage statistics it would import MLflow, for most of a second
    # before the first trial.
    usage.tag_callbacks = lambda _callbacks: False
