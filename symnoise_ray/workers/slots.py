"""Slots: long Ray Train runs whose ranks take one trial after the other from the hub.

Imports, process groups, base weights and tokenised data stay warm between trials. An idle rank
waits in an actor call, never in a collective, so nothing times out between trials.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
from ray import cloudpickle
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from symnoise_ray.config import TrialConfig, WorkersConfig
from symnoise_ray.preflight.cluster import Checked
from symnoise_ray.workers.backend import LazyTorchConfig
from symnoise_ray.workers.gate import Gate

BEAT_SECONDS = 1.0
CANCEL_SECONDS = 0.1
"""How often a rank looks whether its trial is to stop; it is asked at every token."""
COLLECTIVE_TIMEOUT_SECONDS = 600
ANSWER_SECONDS = 60.0
"""How long the hub's answer may take. One that was lost with a link never comes; the rank then
ends, and Ray Train starts its group anew."""
SEND_SECONDS = 1.0
"""Records that follow each other faster go together: a call takes the hub, the trial and this rank
a few milliseconds each, as much as a step of a tiny model."""
_ORPHANED = 18  # exit status of a rank whose sweep is gone


class _TellHub(ray.train.UserCallback):  # type: ignore[misc]
    """In Ray Train's controller: report a death to the hub at once, so its trial moves on."""

    def __init__(self, hub: Any, slot: str, pool: str) -> None:
        self.hub, self.slot, self.pool = hub, slot, pool

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Hand over the first rank's reason."""
        error = next(iter(worker_exceptions.values()), None)
        lines = str(error).strip().splitlines() or ["a worker died"]
        self.hub.slot_down.remote(self.slot, self.pool, lines[-1][:300])


class _SlotTrainer(DataParallelTrainer):  # type: ignore[misc]
    """A trainer without two helper processes of Ray Train, two seconds of CPU each at every start.

    A slot reads no Ray data sets. The cleaner of placement groups serves runs whose controller
    dies while their job goes on and wants the machines again; those of a sweep are held to its end.
    """

    def _create_default_callbacks(self) -> list[Any]:
        # Private name: the version of ray is pinned, and a test counts the processes of a slot.
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [
            each for each in super()._create_default_callbacks() if not isinstance(each, unused)
        ]


def start_coordinator() -> None:
    """Start the actor of Ray Train that every controller asks for room before it starts a rank.

    Left to the controllers it would start after them; so it starts beside them. Private name: the
    version of ray is pinned.
    """
    get_or_create_autoscaling_coordinator()


def run_slot(
    hub: Any,
    slot: str,
    pool: str,
    workers: WorkersConfig,
    warm: dict[str, Any],
    storage: Path,
    checked: Checked | None,
) -> None:
    """Hold one slot until the hub sends it home; Ray Train restarts it whenever it dies."""
    gates = [Gate(hub, checked)] if checked else []
    resources = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
    _SlotTrainer(
        slot_loop,
        train_loop_config={
            "hub": hub,
            "slot": slot,
            "pool": pool,
            "threads": workers.cpus_per_worker,
            "warm": warm,
        },
        backend_config=LazyTorchConfig(COLLECTIVE_TIMEOUT_SECONDS),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.gpus_per_worker > 0,
            resources_per_worker={name: count for name, count in resources.items() if count},
        ),
        run_config=ray.train.RunConfig(
            name=f"{slot}-{uuid.uuid4().hex[:6]}",
            storage_path=str(storage),
            callbacks=[_TellHub(hub, slot, pool), *gates],
            failure_config=ray.train.FailureConfig(max_failures=-1),
        ),
    ).fit()


def slot_loop(settings: dict[str, Any]) -> None:
    """One rank of a slot: start once, then trial after trial."""
    gc.disable()  # it searches all that is imported again and again: a sixth of a rank's start
    import torch

    torch.set_num_threads(settings["threads"])
    for noisy in ("deepspeed", "DeepSpeed", "transformers", "torch.distributed"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from symnoise_ray.workers.task import run_task  # imports torch, transformers, deepspeed

    if torch.cuda.is_available():
        # Ranks on one machine see each other's GPUs; the current device is this rank's own.
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    rank = ray.train.get_context().get_world_rank()
    warm_up(TrialConfig.model_validate(settings["warm"]))
    gc.enable()
    _Rank(settings, rank).serve(run_task)


def warm_up(config: TrialConfig) -> None:
    """Pay first-time costs before the first trial: imports, weights, one small engine."""
    import torch

    from symnoise_ray.models import deepspeed_engine, pretrained, process, weights

    device = process.choose_device()
    process.join_process_group(device)
    weights.load(config.model)
    dtype = pretrained.DTYPES[config.model.dtype]
    small = deepspeed_engine.start(torch.nn.Linear(2, 2).to(device, dtype), config)
    deepspeed_engine.stop(small)
    del small
    process.give_memory_back()
    gc.freeze()


class _Records:
    """Sends the records of a trial, so that all arrive in their order whatever call is late.

    Each call carries those of the calls before that have no answer yet. A record that comes soon
    after a call waits for the next moment that one may be made.
    """

    def __init__(self, tell: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.tell = tell
        self._open: list[dict[str, Any]] = []
        self._calls: dict[Any, int] = {}
        self._called = -math.inf
        self._is_held = False

    def send(self, record: dict[str, Any]) -> None:
        """Send a record, or keep it for a moment; returns at once."""
        self._open.append(record)
        self._is_held = True
        self.send_held()

    def send_held(self) -> None:
        """Send what is kept, unless a call was made just now."""
        if self._is_held and time.monotonic() - self._called >= SEND_SECONDS:
            self._call()

    def _call(self) -> None:
        if self._calls:
            calls = list(self._calls)
            answered, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
            known = max((self._calls.pop(call) for call in answered), default=-1)
            self._open = [each for each in self._open if each["step"] > known]
        self._calls[self.tell(self._open)] = self._open[-1]["step"]
        self._called, self._is_held = time.monotonic(), False

    def arrive(self) -> None:
        """Send what is kept, and wait until all have arrived."""
        if self._is_held:
            self._call()
        ray.get(list(self._calls), timeout=ANSWER_SECONDS)


def _is_true(asked: Any) -> bool:
    """Whether an answer is there, and says yes; a hub that is gone says nothing."""
    if not ray.wait([asked], timeout=0)[0]:
        return False
    try:
        return bool(ray.get(asked))
    except ray.exceptions.RayError:  # this process leaves soon
        return False


class _Rank:
    """One rank's conversation with the hub."""

    def __init__(self, settings: dict[str, Any], rank: int) -> None:
        self.hub, self.slot, self.pool = settings["hub"], settings["slot"], settings["pool"]
        self.rank = rank
        self.world_size = ray.train.get_context().get_world_size()
        self.incarnation: str = ray.train.collective.broadcast_from_rank_zero(
            uuid.uuid4().hex if rank == 0 else None
        )
        self.progress = time.monotonic()

    def serve(self, run_task: Any) -> None:
        """Take tasks until the hub says stop."""
        welcome = ray.get(
            self.hub.slot_up.remote(
                self.slot,
                self.pool,
                self.incarnation,
                self.rank,
                self.world_size,
                os.getpid(),
                # As bytes: the hub needs the handle only to kill this rank, and reading it imports
                # Ray Train.
                cloudpickle.dumps(ray.get_runtime_context().current_actor),
            ),
            timeout=ANSWER_SECONDS,
        )
        if not welcome:
            return
        threading.Thread(target=self._beat, daemon=True).start()
        number = 0
        while True:
            asked = self.hub.take.remote(self.slot, self.incarnation, number)
            task = ray.get(asked, timeout=ANSWER_SECONDS)
            if task is None:
                continue
            if task.get("stop"):
                return
            self._run(task, run_task)
            number += 1

    def _run(self, task: dict[str, Any], run_task: Any) -> None:
        name = task["name"]
        wanted = self.hub.wait_cancel.remote(name)
        records = _Records(partial(self.hub.tell.remote, self.slot, self.incarnation, name))
        wish, looked = False, 0.0

        def report(record: dict[str, Any]) -> None:
            self.progress = time.monotonic()
            records.send(record)

        def cancelled() -> bool:
            nonlocal wish, looked
            self.progress = time.monotonic()
            records.send_held()  # a step may take long, and answers longer
            if self.progress - looked >= CANCEL_SECONDS:
                wish, looked = _is_true(wanted), self.progress
            return wish

        self.progress = time.monotonic()
        config = TrialConfig.model_validate(task["config"])
        from symnoise_ray.workers.interview import Interview  # torch, which this process has

        outcome = run_task(
            config,
            Path(task["directory"]),
            report=report,
            cancelled=cancelled,
            interview=Interview(self.hub, name, config),
        )
        records.arrive()
        verdict = ray.get(
            self.hub.finish.remote(self.slot, self.incarnation, name, self.rank, outcome),
            timeout=ANSWER_SECONDS,
        )
        if verdict == "die":
            # Only a restart of the whole group frees a peer that hangs in a collective.
            raise RuntimeError("a peer of this worker did not come to the end of the trial")

    def _beat(self) -> None:
        """Tell the hub every second that this process lives; leave when nobody waits for it.

        A hub that took another's place hands the same trial out again, so the rank that still runs
        it must be gone by then. Ray Train starts it anew.
        """
        parent = os.getppid()
        while True:
            time.sleep(BEAT_SECONDS)
            if os.getppid() != parent:
                os._exit(_ORPHANED)
            try:
                age = time.monotonic() - self.progress
                beat = self.hub.beat.remote(self.slot, self.incarnation, self.rank, age)
                known = ray.get(beat, timeout=60)
            except ray.exceptions.GetTimeoutError:
                continue  # its silence is noticed where it was started
            except ray.exceptions.RayActorError:
                known = False
            if not known:
                os._exit(_ORPHANED)
