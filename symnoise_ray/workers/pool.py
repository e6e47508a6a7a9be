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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from symnoise_ray.config import TrialConfig, WorkersConfig
from symnoise_ray.errors import InfrastructureError, one_line
from symnoise_ray.preflight.cluster import Checked
from symnoise_ray.workers.client import Workers
from symnoise_ray.workers.hub import MAX_START_FAILURES, Hub
from symnoise_ray.workers.session import THREAD_PREFIX

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
HUB_POLL_SECONDS = 2.0
HUB_SILENT_SECONDS = 60.0
"""A hub that did not answer for so long is replaced; on a busy machine an answer may take some."""
INTERRUPTED_CLOSE_SECONDS = 0.5
"""After an interruption the end of the driver ends the slots."""


def import_slots() -> None:
    """Import what a pool needs to start its slots, Ray Train above all, which takes a second."""
    import symnoise_ray.workers.slots  # noqa: F401


class Pool:
    """The warm slots of a sweep; a context manager that leaves nothing running.

    Args:
        workers: What one slot holds.
        num_slots: How many there are; those without room wait for a node.
        warm: A trial like those to come.
        storage: Where Ray Train writes.
        checked: The nodes that are fit, and what others must find; None takes any node.
        say: Tells a person which nodes are left out, and why.
    """

    def __init__(
        self,
        workers: WorkersConfig,
        num_slots: int,
        warm: TrialConfig,
        storage: Path,
        checked: Checked | None = None,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self.config = workers
        self.num_slots = num_slots
        self.warm = warm.model_dump(mode="json")
        self.storage, self.checked = storage, checked
        self.say = say
        self.told: set[str] = set()
        self.last_end = ""
        self.name = f"{workers.num_workers}x{workers.cpus_per_worker}c{workers.gpus_per_worker:g}g"
        self.threads: list[threading.Thread] = []
        self.closed = threading.Event()
        self.hub_silent_seconds = HUB_SILENT_SECONDS

    def __enter__(self) -> Self:
        # Ray starts it again, under the same handle, whenever its process dies, and makes a call
        # again whose answer was lost.
        often = {"max_restarts": -1, "max_task_retries": -1}
        actor = ray.remote(num_cpus=0, max_concurrency=1000, **often)(Hub)
        # It lives and dies with the driver's node; another node may be taken away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        name = f"symnoise-hub-{uuid.uuid4().hex[:8]}"
        self.hub: Any = actor.options(name=name, scheduling_strategy=here).remote(
            start_seconds=60 * self.config.start_minutes
        )
        self.workers = Workers(self.hub, self.name)
        # The hub notices a death through these settings of Ray Train's controller.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        # A lost worker is replaced by the hub's own means; the watcher costs a process per slot.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        from symnoise_ray.workers.slots import run_slot, start_coordinator

        start_coordinator()
        for index in range(self.num_slots):
            self.hub.expect.remote(f"slot-{index}", self.name)
            self._start(f"slot-{index}", self._hold, run_slot, f"slot-{index}")
        self._start("hub", self._watch_hub)
        return self

    def _start(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        name = f"{THREAD_PREFIX}-{name}"
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _watch_hub(self) -> None:
        """End a hub that is silent; Ray starts a new one in its place, as for one that died."""
        heard = time.monotonic()
        while not self.closed.wait(HUB_POLL_SECONDS):
            if (state := self._hub_state(HUB_POLL_SECONDS)) is not None:
                heard = time.monotonic()
                self._tell(state["unfit"])
            elif time.monotonic() - heard > self.hub_silent_seconds:
                log.warning("the hub was silent for %g s and is replaced", self.hub_silent_seconds)
                ray.kill(self.hub, no_restart=False)
                heard = time.monotonic()

    def _tell(self, unfit: dict[str, str]) -> None:
        """Say once of every node that is left out what is wrong there."""
        for node in unfit.keys() - self.told:
            self.told.add(node)
            self.say(f"{unfit[node]}; it is left out")

    def _hub_state(self, timeout: float) -> dict[str, Any] | None:
        """What the hub knows; None if it does not answer in time."""
        try:
            state: dict[str, Any] = ray.get(self.hub.state.remote(), timeout=timeout)
            return state
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return None

    def _hold(self, run_slot: Callable[..., None], slot: str) -> None:
        try:
            run_slot(self.hub, slot, self.name, self.config, self.warm, self.storage, self.checked)
        except Exception as error:
            if not self.closed.is_set():
                log.info("%s ended: %s", slot, error)
                self._report_death(slot, error)

    def _report_death(self, slot: str, error: Exception) -> None:
        """A slot whose Ray Train run ended altogether will not come back."""
        self.last_end = one_line(error)  # kept here as well, since the hub may be lost, too
        self.hub.expect.remote(slot, self.name)
        for _ in range(MAX_START_FAILURES):
            self.hub.slot_down.remote(slot, self.name, self.last_end)

    def wait_until_up(self) -> None:
        """Wait for the first slot.

        Raises:
            InfrastructureError: none can be started, or none came up in time, with the reason.
        """
        minutes = self.config.start_minutes
        deadline = time.monotonic() + 60 * minutes
        state = self._hub_state(HUB_POLL_SECONDS) or {}
        while not state.get("ever_up"):
            reason = state.get("last_failure") or self.last_end or "none reported a failure"
            if state.get("gave_up"):
                raise InfrastructureError(f"no worker group could be started: {reason}")
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"a worker group must be up within workers.start_minutes={minutes:g}, but none "
                    f"is; {reason}"
                )
            time.sleep(0.2)
            state = self._hub_state(HUB_POLL_SECONDS) or {}

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self.closed.set()
        patience = CLOSE_SECONDS if kind is None else INTERRUPTED_CLOSE_SECONDS
        try:
            ray.get(self.hub.close.remote(), timeout=patience)
        except (ray.exceptions.RayError, TimeoutError):
            log.debug("the hub did not answer its closing", exc_info=True)
        deadline = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
