"""The part of the hub that carries prompts to trials that train, and their answers back.

In: a trial's name and a prompt. Out: what its model answers between two steps, if it does in time.
"""

from __future__ import annotations

from symnoise_ray.workers.ledger import Task
from symnoise_ray.workers.waiting import TASK, Waiting

POLL_SECONDS = 20.0
"""Longest that a look for a prompt stays open before it looks again."""


class Prompts:
    """What the hub can do with prompts; every method is a coroutine of its actor."""

    tasks: dict[str, Task]
    waiting: Waiting

    async def ask(self, name: str, prompt: str, timeout: float) -> tuple[str, bool] | None:
        """The answer of a trial that trains, and whether it failed; None if none came in time."""
        task = self.tasks.get(name)
        if task is None or not task.slot or task.outcome is not None:
            return None
        task.prompt, task.answer = prompt, None
        self.waiting.wake((TASK, name))
        await self.waiting.until(
            lambda: task.answer is not None or task.outcome is not None, timeout, (TASK, name)
        )
        task.prompt = ""
        return task.answer

    async def wait_prompt(self, name: str) -> str:
        """Resolves with a prompt for a trial; empty once the trial has ended."""
        task = self.tasks[name]
        while not task.prompt and task.outcome is None:
            await self.waiting.until(
                lambda: bool(task.prompt) or task.outcome is not None, POLL_SECONDS, (TASK, name)
            )
        return task.prompt

    async def answer(self, name: str, text: str, failed: bool) -> None:
        """A trial's model has answered."""
        task = self.tasks[name]
        task.prompt, task.answer = "", (text, failed)
        self.waiting.wake((TASK, name))
