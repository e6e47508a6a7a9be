"""Follows running trials by their files, for the live table and the tracker.

In: the plans of trials that were started. Out: board lines and journal events. A trial's directory
is the contract, so it does not matter where the trial runs or who started it.
"""

from __future__ import annotations

import threading
from typing import Any, Self

from symnoise_ray.errors import DataError, DivergedError, OutOfMemoryError, UserError
from symnoise_ray.records.layout import RESULT
from symnoise_ray.records.metrics import UPSTREAM, Tail
from symnoise_ray.records.results import read_result
from symnoise_ray.report.board import Board
from symnoise_ray.space.parameters import flat
from symnoise_ray.space.trials import TrialPlan, show
from symnoise_ray.tracking.events import SCORES
from symnoise_ray.tracking.journal import KILLED
from symnoise_ray.tracking.mlflow_runs import Tracker

POLL_SECONDS = 0.25
FINAL = tuple(kind.kind for kind in (UserError, DataError, DivergedError, OutOfMemoryError))
"""Failures that would come again: a sweep that goes on leaves them as they are."""


class Watch:
    """A thread that reads the directories of unfinished trials."""

    def __init__(self, sweep: str, board: Board, tracker: Tracker) -> None:
        self.sweep, self.board, self.tracker = sweep, board, tracker
        self.results: list[dict[str, Any]] = []
        self.before: set[str] = set()
        """Trials that ended in an earlier part of the sweep."""
        self._last_steps, self._told = tracker.journal.history()
        self._plans: dict[str, TrialPlan] = {}
        self._tails: dict[str, Tail] = {}
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

    def take_up(self, plan: TrialPlan) -> dict[str, Any] | None:
        """The result of a trial that ended for good in an earlier part of the sweep.

        None for one that is still to be run: it never ended, or it was not its own fault that it
        failed. What it was told then goes out of the way.
        """
        result = read_result(plan.directory)
        if result is None:
            return None
        if result["status"] != "done" and result["kind"] not in FINAL:
            (plan.directory / RESULT).unlink()
            return None
        self.before.add(plan.name)
        if plan.name in self._told:
            self._show(plan)
            with self._lock:
                self._close(plan, result)
        else:
            self.add(plan)
            self.poll()
        return result

    def add(self, plan: TrialPlan) -> None:
        """A trial was started."""
        self._show(plan)
        self.tracker.log(
            "start",
            plan.name,
            parent=self.sweep,
            params={**flat(plan.config), "config.digest": plan.config.digest()},
            tags={
                "symnoise.part": plan.part,
                "symnoise.arm": plan.record()["arm"],
                "symnoise.baseline": str(plan.baseline).lower(),
                "symnoise.varied": ", ".join(plan.params),
            },
        )
        with self._lock:
            self._plans[plan.name] = plan
            last_step = self._last_steps.get(plan.name, -1)
            self._tails[plan.name] = Tail(plan.directory / "metrics.jsonl", last_step)

    def _show(self, plan: TrialPlan) -> None:
        confirms = plan.part == "confirm"
        self.board.start(plan.name, show(plan.params), baseline=plan.baseline, confirms=confirms)

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.poll()

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
        for record in records:
            self.board.move(plan.name, record)
        if records:
            self.tracker.log("metrics", plan.name, records=records)

    def _end(self, plan: TrialPlan, result: dict[str, Any]) -> None:
        del self._plans[plan.name]
        self._close(plan, result)
        scores = {name: result[name] for name in SCORES if result.get(name) is not None}
        scores |= {name: result[name] for name in result if name.startswith(UPSTREAM)}
        for prefix in ("", "length_controlled_"):
            if result.get(f"{prefix}interval_95"):
                low, high = result[f"{prefix}interval_95"]
                scores |= {f"{prefix}win_rate_low_95": low, f"{prefix}win_rate_high_95": high}
        scores |= {f"seconds/{name}": value for name, value in result["seconds"].items()}
        step = result.get("num_steps", 0)
        self.tracker.log("metrics", plan.name, records=[{"step": step, **scores}])
        for file in ("completions", "preferences"):
            if (plan.directory / f"{file}.jsonl").exists():
                path = f"trials/{plan.name}/{file}.jsonl"
                shown = {"completions": "answers.json", "preferences": "verdicts.json"}[file]
                self.tracker.log("table", plan.name, path=path, file=shown)
        status = {"done": "FINISHED", "failed": "FAILED"}.get(result["status"], KILLED)
        tags = {"symnoise.reason": result["reason"]} if result.get("reason") else {}
        self.tracker.log("end", plan.name, status=status, tags=tags)

    def _close(self, plan: TrialPlan, result: dict[str, Any]) -> None:
        self.results.append(result)
        self.board.end(plan.name, result, before=plan.name in self.before)

    def abandon(self) -> None:
        """The sweep was interrupted: trials still running are told as killed."""
        with self._lock:
            for name in self._plans:
                self.tracker.log("end", name, status=KILLED, tags={})
            self._plans.clear()

    @property
    def unfinished(self) -> list[TrialPlan]:
        """Trials that were started and have no result."""
        with self._lock:
            return list(self._plans.values())
