"""The one verb of the workers: run this configuration in this directory, yielding events.

Light: a trial's own process needs it, and imports neither torch nor ray.train for it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import InfrastructureError, one_line
from symnoise_ray.workers.outcome import Outcome

HUB_SECONDS = 300.0
"""How long a hub may be away: until its silence is noticed, and a new process has started."""
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 30.0
"""How long an answer may take beyond the time that the hub was asked to wait. One that was on its
way when a link was cut never comes, and Ray would wait for it without an end."""


class Workers:
    """A handle on the warm slots; it pickles, so it can be handed to trials anywhere."""

    def __init__(self, hub: Any, pool: str) -> None:
        self.hub, self.pool = hub, pool

    def run(
        self, name: str, config: TrialConfig, directory: Path, *, patience: float = 2.0
    ) -> Iterator[dict[str, Any] | Outcome | None]:
        """Run a trial on the next free slot.

        Yields records as they come, None when `patience` seconds brought none, and last of all the
        `Outcome` of a trial that went well.

        Raises:
            SymnoiseError: the trial failed, as the kind of error that its worker met.
            CancelledError: it was cancelled.
        """
        payload = {"config": config.model_dump(mode="json"), "directory": str(directory)}
        seen, last_step, key = 0, -1, secrets.token_hex(8)
        self._ask("submit", name, payload, self.pool, key)
        while True:
            found = self._ask("events", name, seen, patience, takes=patience)
            if found is None:  # the hub that knew the trial is gone
                self._ask("submit", name, payload, self.pool, key, last_step)
                seen = 0
                continue
            events, outcome = found
            yield from events
            seen += len(events)
            last_step = events[-1]["step"] if events else last_step
            if outcome is not None:
                outcome.raise_failure()
                yield outcome
                return
            if not events:
                yield None

    def cancel(self, name: str) -> bool:
        """Stop a trial at its next step or token; False for a finished or unknown one."""
        return bool(self._ask("cancel", name))

    def hold(self, held: bool) -> None:
        """Keep trials that wait from the slots, or hand them out again."""
        self._ask("hold", held)

    def ask(self, name: str, prompt: str, seconds: float) -> tuple[str, bool] | None:
        """What the model of a trial that trains answers now, and whether that failed.

        None if the trial does not train, or does not answer within so many seconds.
        """
        found: tuple[str, bool] | None = self._ask("ask", name, prompt, seconds, takes=seconds)
        return found

    def slots(self) -> dict[str, str]:
        """Slot that is up -> the trial that it runs; empty for one that runs none."""
        found: dict[str, dict[str, Any]] = self._ask("state")["slots"]
        return {name: slot["task"] for name, slot in found.items() if slot["up"]}

    def _ask(self, method: str, *arguments: Any, takes: float = 0.0) -> Any:
        """Call the hub, or the one that takes its place.

        Args:
            method: What is asked.
            arguments: With what.
            takes: Seconds that the hub may wait before it answers.

        Raises:
            InfrastructureError: there is none for too long.
        """
        deadline = time.monotonic() + HUB_SECONDS
        while True:
            try:
                answer = getattr(self.hub, method).remote(*arguments)
                return ray.get(answer, timeout=takes + ANSWER_SECONDS)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
                if time.monotonic() > deadline:
                    raise InfrastructureError(
                        f"the hub of the workers must answer, but is gone for {HUB_SECONDS:g} s: "
                        f"{one_line(error)}"
                    ) from None
                time.sleep(RETRY_SECONDS)
