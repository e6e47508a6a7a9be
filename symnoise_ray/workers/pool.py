"""Starts the hub and its slots in the driver, and ends them.

One homogeneous pool: every slot has the same number of workers and the same resources. Each slot
is a `TorchTrainer.fit()` in a daemon thread of the driver.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import ray

from symnoise_ray.config import TrialConfig, WorkersConfig
from symnoise_ray.errors import InfrastructureError
from symnoise_ray.workers.client import Workers
from symnoise_ray.workers.hub import Hub
from symnoise_ray.workers.session import THREAD_PREFIX

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
INTERRUPTED_CLOSE_SECONDS = 0.5
"""After an interruption the end of the driver ends the slots."""


class Pool:
    """The warm slots of a sweep; a context manager that leaves nothing running."""

    def __init__(
        self,
        workers: WorkersConfig,
        num_slots: int,
        warm: TrialConfig,
        storage: Path,
    ) -> None:
        self.config = workers
        self.num_slots = num_slots
        self.warm = warm.model_dump(mode="json")
        self.storage = storage
        self.name = f"{workers.num_workers}x{workers.cpus_per_worker}c{workers.gpus_per_worker:g}g"
        self.threads: list[threading.Thread] = []
        self.closing = False

    def __enter__(self) -> Self:
        actor = ray.remote(num_cpus=0, max_concurrency=1000)(Hub)
        self.hub: Any = actor.options(name=f"symnoise-hub-{uuid.uuid4().hex[:8]}").remote()
        self.workers = Workers(self.hub, self.name)
        # The hub notices a death through these settings of Ray Train's controller.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        # A lost worker is replaced by the hub's own means; the watcher costs a process per slot.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        from symnoise_ray.workers.slots import run_slot  # ray.train and with it torch: seconds

        for index in range(self.num_slots):
            arguments = (run_slot, f"slot-{index}")
            name = f"{THREAD_PREFIX}-slot-{index}"
            thread = threading.Thread(target=self._hold, args=arguments, name=name, daemon=True)
            thread.start()
            self.threads.append(thread)
        return self

    def _hold(self, run_slot: Callable[..., None], slot: str) -> None:
        try:
            run_slot(self.hub, slot, self.name, self.config, self.warm, self.storage)
        except Exception as error:
            if not self.closing:
                log.error("%s ended: %s", slot, error)
                self._report_death(slot, error)

    def _report_death(self, slot: str, error: Exception) -> None:
        """A slot whose Ray Train run ended altogether will not come back."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        for _ in range(3):
            self.hub.slot_down.remote(slot, self.name, lines[-1][:300])

    def wait_until_up(self) -> None:
        """Wait for the first slot.

        Raises:
            InfrastructureError: none can be started, or none came up in time, with the reason.
        """
        minutes = self.config.start_minutes
        deadline = time.monotonic() + 60 * minutes
        state = ray.get(self.hub.state.remote())
        while not state["ever_up"]:
            reason = state["last_failure"] or "none of them reported a failure"
            if state["gave_up"]:
                raise InfrastructureError(f"no worker group could be started: {reason}")
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"a worker group must be up within workers.start_minutes={minutes:g}, but none "
                    f"is; {reason}"
                )
            time.sleep(0.2)
            state = ray.get(self.hub.state.remote())

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self.closing = True
        patience = CLOSE_SECONDS if kind is None else INTERRUPTED_CLOSE_SECONDS
        try:
            ray.get(self.hub.close.remote(), timeout=patience)
        except (ray.exceptions.RayError, TimeoutError):
            log.debug("the hub did not answer its closing", exc_info=True)
        deadline = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
