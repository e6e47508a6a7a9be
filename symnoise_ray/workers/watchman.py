"""The part of the hub that looks after its slots once a second, and after those who wait for one.

In: the hub's books. Out: slots that are silent or make no progress are killed, and come back
through Ray Train; trials that wait for a slot that does not come have their end.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque

import ray
from ray import cloudpickle

from symnoise_ray.workers.ledger import Slot, Wait
from symnoise_ray.workers.waiting import SLOT, Waiting


class Watchman:
    """What the hub does unasked; it runs in the hub's own event loop."""

    slots: dict[str, Slot]
    queues: dict[str, deque[str]]
    waiting: Waiting
    wait: Wait
    silent_seconds: float
    stuck_seconds: float
    last_failure: str
    closing: bool
    _watcher: asyncio.Task[None] | None

    @abstractmethod
    def _drop(self, name: str, reason: str) -> None:
        """Hand a lost slot's trial back to the queue, or end it after too many attempts."""

    @abstractmethod
    def _give_up(self) -> None:
        """End every waiting trial: no slot will come for it."""

    @property
    def is_up(self) -> bool:
        """Whether there is a slot that can run a trial."""
        return any(slot.up for slot in self.slots.values())

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())

    def _look_for_capacity(self, now: float) -> None:
        """End the trials that wait when no slot was up for too long: a lost node may not return."""
        if self.wait.ends(now, waits=any(self.queues.values()) and not self.is_up):
            self.last_failure = self.wait.reason(self.last_failure)
            self._give_up()

    async def _watch(self) -> None:
        """Kill slots that are silent, or that run a trial without a step for too long."""
        while not self.closing:
            await asyncio.sleep(1.0)
            self._look_for_capacity(now := time.monotonic())
            for name, slot in list(self.slots.items()):
                silent = slot.up and now - min(slot.beats.values()) > self.silent_seconds
                stuck = bool(slot.task) and now - slot.last_progress > self.stuck_seconds
                if slot.up and (silent or stuck):
                    why = "was silent" if silent else "made no progress"
                    self.last_failure = f"one {why} and was killed"
                    self._drop(name, f"it {why} and was killed")
                    self.slots[name] = Slot(slot.pool)
                    for handle in slot.ranks.values():
                        actor = cloudpickle.loads(handle)
                        ray.kill(actor, no_restart=True)
                    self.waiting.wake((SLOT, name))
