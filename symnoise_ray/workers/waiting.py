"""Who waits for what in the hub: a change wakes those that asked about its subject, nobody else.

With one condition for all, every record of every trial would wake every slot and every trial, and
the hub's work would grow with the square of their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable

TASK, SLOT, POOL = "task", "slot", "pool"
"""What one may wait for in the hub, each with its name."""


class Waiting:
    """Coroutines of one event loop that wait for a change of some subjects."""

    def __init__(self) -> None:
        self._futures: dict[Hashable, set[asyncio.Future[None]]] = {}

    def wake(self, *subjects: Hashable) -> None:
        """Let those that wait for a subject look again."""
        for subject in subjects:
            for future in self._futures.pop(subject, ()):
                if not future.done():
                    future.set_result(None)

    def wake_all(self) -> None:
        """Let everyone look again."""
        self.wake(*self._futures)

    async def until(self, ready: Callable[[], bool], timeout: float, *subjects: Hashable) -> bool:
        """Wait until a condition holds; False if it did not hold within so many seconds.

        The condition is looked at again whenever one of the subjects is woken.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._change(left, subjects)
        return True

    async def _change(self, timeout: float, subjects: tuple[Hashable, ...]) -> None:
        future = asyncio.get_running_loop().create_future()
        for subject in subjects:
            self._futures.setdefault(subject, set()).add(future)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(future, timeout)
        for subject in subjects:
            waiting = self._futures.get(subject, set())
            waiting.discard(future)
            if not waiting:
                self._futures.pop(subject, None)
