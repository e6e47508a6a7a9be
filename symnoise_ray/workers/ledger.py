"""What the hub keeps in its books: a trial on its way, and a worker group as it is known there."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from symnoise_ray.errors import OutOfMemoryError
from symnoise_ray.workers.outcome import Outcome


@dataclass
class Task:
    """A trial on its way through the hub."""

    payload: dict[str, Any]
    pool: str
    key: str
    """Of the one that queued it, who may say so again."""
    submitted: float = field(default_factory=time.monotonic)
    attempt: int = 0
    slot: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    last_step: int = -1
    cancelled: bool = False
    outcome: Outcome | None = None
    waited_seconds: float = 0.0
    prompt: str = ""
    answer: tuple[str, bool] | None = None
    """Of its model to that prompt, and whether it failed."""

    def end(self, outcome: Outcome, *, closing: bool) -> None:
        """Note its outcome; of one that was cancelled, what comes too late does not count."""
        is_late = outcome.status == "done" and not closing
        if self.cancelled and (is_late or outcome.kind == OutOfMemoryError.kind):
            outcome = Outcome.cancelled("cancelled at its end")
        self.outcome = outcome.after(self.waited_seconds, self.attempt)


@dataclass
class Slot:
    """A worker group as the hub knows it."""

    pool: str
    incarnation: str = ""
    world_size: int = 0
    ranks: dict[int, bytes] = field(default_factory=dict)
    """Handle of each rank's actor, pickled."""
    pids: dict[int, int] = field(default_factory=dict)
    bound: dict[int, str] = field(default_factory=dict)
    task: str = ""
    ended: dict[int, Outcome] = field(default_factory=dict)
    parted: dict[int, tuple[str, str]] = field(default_factory=dict)
    """The trial that each rank was last through with, and what it was told then."""
    beats: dict[int, float] = field(default_factory=dict)
    """When each rank gave its last sign of life: those that hang in a collective hide none."""
    last_progress: float = 0.0

    @property
    def up(self) -> bool:
        """All ranks have reported."""
        return bool(self.world_size) and len(self.ranks) == self.world_size

    @property
    def worst(self) -> Outcome:
        """One outcome of all ranks that have ended: a failure wins, then rank 0's word."""
        failed = (outcome for outcome in self.ended.values() if outcome.status == "failed")
        return next(failed, None) or self.ended.get(0) or next(iter(self.ended.values()))


@dataclass
class Wait:
    """How long trials have waited with no worker group up, and whether that was too long.

    `limit` is in seconds, `since` a time of the monotonic clock.
    """

    limit: float
    since: float = field(default_factory=time.monotonic)
    too_long: bool = False

    def ends(self, now: float, *, waits: bool) -> bool:
        """Look at the clock; True the one time when the limit has passed."""
        if not waits:
            self.since = now
        if self.too_long or now - self.since <= self.limit:
            return False
        self.too_long = True
        return True

    def reason(self, last_failure: str) -> str:
        """Why the wait has ended, with what was heard of the worker groups before."""
        return (
            f"none was up for {self.limit / 60:g} minutes (workers.start_minutes), after "
            f"{last_failure or 'no failure that was reported'}"
        )
