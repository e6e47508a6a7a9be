"""Follows running trials by their files, for the live table and the tracker.

In: the plans of trials that were started. Out: board lines and journal events. A trial's directory
is the contract, so it does not matter where the trial runs or who started it.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Self

from symnoise_ray.errors import DivergedError, OutOfMemoryError, one_line
from symnoise_ray.records.layout import METRICS, OUTCOME, RESULT, TRIALS
from symnoise_ray.records.metrics import Tail
from symnoise_ray.records.results import TrialResult, read_result
from symnoise_ray.report.board import Board
from symnoise_ray.space.trials import TrialPlan, ended_plan, show
from symnoise_ray.tracking import events
from symnoise_ray.tracking.mlflow_runs import Tracker

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
FINAL = tuple(kind.kind for kind in (DivergedError, OutOfMemoryError))
"""Failures that the trial's own settings bring about, after a training: a sweep that goes on leaves
them as they are. The cause of any other may be gone by then, and costs little to meet again."""


class Watch:
    """A thread that reads the directories of unfinished trials."""

    def __init__(self, sweep: str, board: Board, tracker: Tracker) -> None:
        self.sweep, self.board, self.tracker = sweep, board, tracker
        self.results: list[TrialResult] = []
        self.before: set[str] = set()
        """Trials that ended in an earlier part of the sweep."""
        self.settings: dict[str, list[str]] = {}
        """Settings that are confirmed -> their trials, one per seed."""
        self._last_steps, self._logged = tracker.journal.history()
        self._plans: dict[str, TrialPlan] = {}
        self._tails: dict[str, Tail] = {}
        self._unlogged: dict[str, list[dict[str, Any]]] = {}
        """Records that were read and could not be logged."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.poll()

    def take_up(self, plan: TrialPlan) -> TrialResult | None:
        """The result of a trial that ended for good in an earlier part of the sweep.

        None for one that is still to be run: it never ended, or it was not its own fault that it
        failed. The file with that failure is removed.
        """
        result = read_result(plan.directory)
        if result is None:
            return None
        if not (result.is_done or result.is_stopped or result.kind in FINAL):
            (plan.directory / RESULT).unlink()
            return None
        if plan.name in self.before:
            return result
        self.before.add(plan.name)
        if plan.name in self._logged:
            self._begin(plan)
            with self._lock:
                self._close(plan, result)
        else:
            self.add(plan)
            self.poll()
        return result

    def take_up_confirmed(self, sweep: Path) -> None:
        """Take up all trials of the confirmation that ended in an earlier part.

        Some may not be asked for any more, because another setting was chosen or the prompts have
        grown. Those that ended for good were trained all the same, so they are listed and count
        for the budget. Of the others no result is left: the sweep would not list it.
        """
        for folder in sorted((sweep / TRIALS).glob("confirm-*")):
            result = read_result(folder)
            if result is not None and (result.is_done or result.kind in FINAL):
                self.take_up(ended_plan(folder, result))
            elif result is not None:
                (folder / RESULT).unlink()

    def add(self, plan: TrialPlan) -> None:
        """A trial was started."""
        self._begin(plan)
        events.start_trial(self.tracker, self.sweep, plan)
        with self._lock:
            self._plans[plan.name] = plan
            last_step = self._last_steps.get(plan.name, -1)
            self._tails[plan.name] = Tail(plan.directory / METRICS, last_step)

    def _begin(self, plan: TrialPlan) -> None:
        with self._lock:
            if plan.setting and plan.setting not in self.settings:
                events.start_setting(self.tracker, self.sweep, plan)
            if plan.setting:
                self.settings.setdefault(plan.setting, []).append(plan.name)
        confirms = plan.part == "confirm"
        self.board.start(plan.name, show(plan.params), baseline=plan.baseline, confirms=confirms)

    def _run(self) -> None:
        told = False
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.poll()
                told = False
            except (Exception, SystemExit) as error:  # rich exits where nobody reads any more
                # A full disk may have room again. The budget counts what this thread has seen.
                if not told:
                    log.warning("trials cannot be followed for now: %s", one_line(error))
                told = True

    def poll(self) -> None:
        """Read what is new in every unfinished trial's directory."""
        with self._lock:
            for plan in list(self._plans.values()):
                ended = read_result(plan.directory)  # before the curve, so that its end is seen
                self._follow(plan)
                if ended is not None:
                    self._end(plan, ended)

    def _follow(self, plan: TrialPlan) -> None:
        records = self._tails[plan.name].new()
        unlogged = self._unlogged.setdefault(plan.name, [])
        unlogged += records
        if unlogged:
            events.log_records(self.tracker, plan.name, unlogged)
            unlogged.clear()
        for record in records:
            self.board.move(plan.name, record)
        if (plan.directory / OUTCOME).exists():
            self.board.judge(plan.name)

    def _end(self, plan: TrialPlan, result: TrialResult) -> None:
        events.end_trial(self.tracker, plan, result)
        for known in (self._plans, self._tails, self._unlogged):
            del known[plan.name]
        self._close(plan, result)

    def _close(self, plan: TrialPlan, result: TrialResult) -> None:
        self.results.append(result)
        self.board.end(plan.name, result, before=plan.name in self.before)

    def abandon(self) -> None:
        """The sweep was interrupted: the runs of trials still running end as killed."""
        with self._lock:
            for name in self._plans:
                events.abandon_trial(self.tracker, name)
            self._plans.clear()

    @property
    def unfinished(self) -> list[TrialPlan]:
        """Trials that were started and have no result."""
        with self._lock:
            return list(self._plans.values())
