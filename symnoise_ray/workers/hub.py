"""The hub: a 0-CPU actor that hands trials to slots and their events back to the trials.

A slot's ranks each ask for their n-th task; the hub binds it once, so all ranks get the same.
Every message carries the slot's incarnation, so that messages of a worker group that Ray Train
has replaced are ignored. A trial whose slot died goes back to the head of the queue, a bounded
number of times; a slot that is silent or makes no progress is killed and comes back through Ray
Train.

Ray starts a hub again whose process died, and `pool.py` ends one that is silent. The new hub knows
nothing: ranks of the old one leave and come back through Ray Train, and trials are queued again by
those that wait for them, so they go on from their checkpoints.

Ray makes a call again whose answer was lost, so every method bears to be called twice; at worst a
failed start counts twice, until a slot is up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any

from symnoise_ray.errors import OutOfMemoryError
from symnoise_ray.workers.ledger import Slot, Task, Wait
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.prompts import Prompts
from symnoise_ray.workers.waiting import POOL, SLOT, TASK, Waiting
from symnoise_ray.workers.watchman import Watchman

POLL_SECONDS = 20.0
"""Longest a slot's question for work stays open before it asks again."""
MAX_ATTEMPTS = 4
"""Times a trial is handed out before a lost slot counts as its failure."""
MAX_START_FAILURES = 3
"""Failed starts in a row while no slot is up, after which no slot is waited for any more."""
GRACE_SECONDS = 5.0
"""How long a rank that ended waits for its peers before the group is given up."""
KEPT_RECORDS = 100
"""Trials that have ended whose records stay: the answer with the last ones may have been lost."""


class Hub(Prompts, Watchman):
    """Bookkeeping of tasks and slots; every method is a coroutine of one actor."""

    def __init__(
        self,
        silent_seconds: float = 30.0,
        stuck_seconds: float = 900.0,
        start_seconds: float = 900.0,
    ) -> None:
        self.silent_seconds = silent_seconds
        self.stuck_seconds = stuck_seconds
        self.tasks: dict[str, Task] = {}
        self.queues: dict[str, deque[str]] = {}
        self.ended: deque[str] = deque()
        self.slots: dict[str, Slot] = {}
        self.start_failures = 0
        self.last_failure = ""
        self.unfit_nodes: dict[str, str] = {}
        self.closing = False
        self.held = False
        self.ever_up = False
        self.wait = Wait(start_seconds)
        self.largest_micro_batch = sys.maxsize
        self.waiting = Waiting()
        self._watcher: asyncio.Task[None] | None = None

    # What trials ask.

    async def submit(
        self, name: str, payload: dict[str, Any], pool: str, key: str, last_step: int = -1
    ) -> None:
        """Queue a trial; a name is used once, by the one that has its key.

        One that was queued at a hub that is gone comes with the last step that was told of it, and
        is not told of that again.
        """
        if name in self.tasks:
            if self.tasks[name].key == key:
                return
            raise ValueError(f"the trial name {name!r} was submitted before")
        self.tasks[name] = Task(payload, pool, key, last_step=last_step)
        self.queues.setdefault(pool, deque()).append(name)
        if self.closing or self.gave_up:
            self._give_up()
        self.waiting.wake((POOL, pool))
        self._start_watching()

    @property
    def gave_up(self) -> bool:
        """Whether no slot is waited for any more; one that comes up nevertheless is welcome."""
        return not self.is_up and (self.wait.too_long or self.start_failures >= MAX_START_FAILURES)

    async def events(
        self, name: str, after: int, timeout: float
    ) -> tuple[list[dict[str, Any]], Outcome | None] | None:
        """Events from number `after` on, and the outcome once there is one.

        None for a trial that this hub does not know, since it was queued at one that is gone.
        """
        if name not in self.tasks:
            return None
        task = self.tasks[name]
        await self.waiting.until(
            lambda: len(task.events) > after or task.outcome is not None, timeout, (TASK, name)
        )
        return task.events[after:], task.outcome

    async def cancel(self, name: str) -> bool:
        """Stop a trial: at once when it waits, at the next step when it runs.

        False for one that is unknown or has ended; any other ends as cancelled from here on.
        """
        task = self.tasks.get(name)
        if task is None or task.outcome is not None:
            return False
        task.cancelled = True
        if not task.slot:
            self.queues[task.pool].remove(name)
            self._end(name, Outcome.cancelled("cancelled"))
        self.waiting.wake((TASK, name))
        return True

    async def hold(self, held: bool) -> None:
        """Keep waiting trials from the slots, or hand them out again; running ones go on."""
        self.held = held
        self.waiting.wake_all()

    async def close(self) -> None:
        """Send every slot home; waiting trials end."""
        self.closing = True
        for task in self.tasks.values():
            task.cancelled = True
        self._give_up()
        self.waiting.wake_all()

    async def state(self) -> dict[str, Any]:
        """Slots and tasks, for status lines and tests."""
        return {
            "slots": {
                name: {"up": slot.up, "task": slot.task, "pids": dict(slot.pids)}
                for name, slot in self.slots.items()
            },
            "waiting": sum(len(queue) for queue in self.queues.values()),
            "ever_up": self.ever_up,
            "gave_up": self.gave_up,
            "last_failure": self.last_failure,
            "unfit": dict(self.unfit_nodes),
        }

    # What slots ask.

    async def expect(self, name: str, pool: str) -> None:
        """A slot is about to start; if it goes down before it is up, its start has failed.

        Of a slot that was not expected, a hub that took another's place hears first that its ranks
        have left, and that is no failed start.
        """
        self.slots.setdefault(name, Slot(pool))

    async def unfit(self, found: dict[str, str]) -> dict[str, str]:
        """Nodes, by Ray's id, that no worker may use, with what is wrong there; returns all."""
        for node, problem in found.items():
            if node not in self.unfit_nodes:
                self.unfit_nodes[node] = self.last_failure = problem
        return self.unfit_nodes

    async def slot_up(
        self,
        name: str,
        pool: str,
        incarnation: str,
        rank: int,
        world_size: int,
        pid: int,
        actor: bytes,
    ) -> bool:
        """A rank has started; False sends it home."""
        slot = self.slots.setdefault(name, Slot(pool))
        if slot.incarnation != incarnation:
            self._drop(name, "its worker group was restarted")
            self.slots[name] = slot = Slot(pool, incarnation)
        slot.world_size = world_size
        slot.ranks[rank], slot.pids[rank] = actor, pid
        slot.beats[rank] = slot.last_progress = time.monotonic()
        if slot.up:
            self.start_failures = 0
            self.wait.too_long = False
            self.ever_up = True
        self._start_watching()
        self.waiting.wake((SLOT, name))
        return not self.closing

    async def take(self, name: str, incarnation: str, number: int) -> dict[str, Any] | None:
        """A rank's n-th task; None to ask again, `{"stop": True}` to go home."""
        slot = self.slots[name]
        queue = self.queues.setdefault(slot.pool, deque())

        def ready() -> bool:
            return self.closing or number in slot.bound or (bool(queue) and not self.held)

        await self.waiting.until(ready, POLL_SECONDS, (POOL, slot.pool), (SLOT, name))
        if self.closing or slot.incarnation != incarnation or self.slots[name] is not slot:
            return {"stop": True}
        if number not in slot.bound:
            if not queue or self.held:
                return None
            self._bind(name, slot, number, queue.popleft())
            self.waiting.wake((SLOT, name))
        task_name = slot.bound[number]
        task = self.tasks[task_name]
        return {"name": task_name, "attempt": task.attempt, **task.payload}

    def _bind(self, name: str, slot: Slot, number: int, task_name: str) -> None:
        task = self.tasks[task_name]
        train = task.payload["config"]["train"]
        train["micro_batch_size"] = min(train["micro_batch_size"], self.largest_micro_batch)
        task.slot, task.attempt = name, task.attempt + 1
        task.waited_seconds += time.monotonic() - task.submitted
        slot.bound[number] = slot.task = task_name
        slot.ended = {}
        slot.last_progress = time.monotonic()

    async def wait_cancel(self, task_name: str) -> bool:
        """Resolves when the trial is to stop, or has ended."""
        task = self.tasks[task_name]
        while not (task.cancelled or task.outcome is not None):
            await self.waiting.until(
                lambda: task.cancelled or task.outcome is not None, POLL_SECONDS, (TASK, task_name)
            )
        return task.cancelled

    async def tell(
        self, name: str, incarnation: str, task_name: str, records: list[dict[str, Any]]
    ) -> None:
        """Records of the running trial, by step; those that are known (a replay) are dropped."""
        slot, task = self.slots[name], self.tasks[task_name]
        if slot.incarnation != incarnation or slot.task != task_name:
            return
        for record in records:
            if record["step"] > task.last_step:
                task.last_step = record["step"]
                task.events.append(record)
                self.waiting.wake((TASK, task_name))

    async def beat(self, name: str, incarnation: str, rank: int, progress_age: float) -> bool:
        """A rank's sign of life every second; False when this group is not the current one."""
        slot = self.slots.get(name)
        if slot is None or slot.incarnation != incarnation:
            return False
        slot.beats[rank] = time.monotonic()
        slot.last_progress = max(slot.last_progress, slot.beats[rank] - progress_age)
        return True

    async def finish(
        self, name: str, incarnation: str, task_name: str, rank: int, outcome: Outcome
    ) -> str:
        """A rank is through with a trial; `die` when its peers are stuck in a collective."""
        slot = self.slots[name]
        if slot.incarnation != incarnation or slot.task != task_name:
            trial, word = slot.parted.get(rank, ("", ""))
            return word if slot.incarnation == incarnation and trial == task_name else "die"
        slot.ended[rank] = outcome
        attempt = self.tasks[task_name].attempt
        self.waiting.wake((SLOT, name))
        whole = await self.waiting.until(
            lambda: len(slot.ended) == slot.world_size or self.slots[name] is not slot,
            GRACE_SECONDS,
            (SLOT, name),
        )
        if self.slots[name] is not slot:
            return "die"
        if slot.task == task_name and self.tasks[task_name].attempt == attempt:
            slot.task = ""  # the first rank that comes here settles it for all
            self._settle(task_name, slot.worst)
            self.waiting.wake((SLOT, name))
        slot.parted[rank] = task_name, "ok" if whole else "die"
        return slot.parted[rank][1]

    def _settle(self, task_name: str, outcome: Outcome) -> None:
        """End a task, or queue it again with half the micro-batch when memory ran out.

        The gradient of a step does not depend on it, and later tasks start with what fitted.
        """
        task = self.tasks[task_name]
        train = task.payload["config"]["train"]
        is_out = outcome.kind == OutOfMemoryError.kind
        if task.cancelled or not is_out or train["micro_batch_size"] == 1:
            self._end(task_name, outcome)
            return
        half = train["micro_batch_size"] // 2
        self.largest_micro_batch = min(self.largest_micro_batch, half)
        task.slot, task.submitted, task.attempt = "", time.monotonic(), task.attempt - 1
        self._queue_again(task_name, task)

    def _end(self, task_name: str, outcome: Outcome) -> None:
        self.tasks[task_name].end(outcome, closing=self.closing)
        self.ended.append(task_name)
        if len(self.ended) > KEPT_RECORDS:
            self.tasks[self.ended.popleft()].events.clear()
        self.waiting.wake((TASK, task_name))

    def _queue_again(self, task_name: str, task: Task) -> None:
        self.queues[task.pool].appendleft(task_name)
        self.waiting.wake((POOL, task.pool))

    # When things break.

    async def slot_down(self, name: str, pool: str, reason: str) -> None:
        """Ray Train has seen a worker group die, or fail to start."""
        expected = name in self.slots
        slot = self.slots.setdefault(name, Slot(pool))
        self.last_failure = reason
        if expected and not slot.up and not self.is_up:
            self.start_failures += 1
        self._drop(name, reason)
        self.slots[name] = Slot(pool)
        if self.gave_up:
            self._give_up()
        self.waiting.wake((SLOT, name))

    def _drop(self, name: str, reason: str) -> None:
        """Hand a lost slot's trial back to the queue, or end it after too many attempts."""
        slot = self.slots[name]
        task = self.tasks.get(slot.task)
        if task is None or task.outcome is not None:
            return
        if task.cancelled:
            self._end(slot.task, Outcome.cancelled(reason))
        elif task.attempt >= MAX_ATTEMPTS:
            reason = f"lost {task.attempt} times, last because {reason}"
            self._end(slot.task, Outcome.lost(reason))
        else:
            task.slot, task.submitted = "", time.monotonic()
            self._queue_again(slot.task, task)

    def _give_up(self) -> None:
        """End every waiting trial: no slot will come for it."""
        reason = self.last_failure or "the sweep is closing"
        for queue in self.queues.values():
            while queue:
                name = queue.popleft()
                if self.closing:
                    self._end(name, Outcome.cancelled(reason))
                else:
                    self._end(name, Outcome.lost(f"no worker group could be started: {reason}"))
