"""The one verb of the workers: run this configuration in this directory, yielding events.

Light: a trial's own process needs it, and imports neither torch nor ray.train for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from symnoise_ray.config import TrialConfig
from symnoise_ray.workers.outcome import Outcome


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
        ray.get(self.hub.submit.remote(name, payload, self.pool))
        seen = 0
        while True:
            events, outcome = ray.get(self.hub.events.remote(name, seen, patience))
            yield from events
            seen += len(events)
            if outcome is not None:
                outcome.raise_failure()
                yield outcome
                return
            if not events:
                yield None

    def cancel(self, name: str) -> None:
        """Stop a trial at its next step or token; a finished or unknown one is left alone."""
        ray.get(self.hub.cancel.remote(name))
