"""Checkpoints of a running trial: complete or ignored, and usable with any number of workers.

In: a training engine between two steps. Out: folders `checkpoints/<step>`. A folder holds the
trained weights and moments as whole fp32 tensors, one file per worker with a part of them, and a
manifest with a digest of every file and of itself. It gets its name when everything is written; a
folder with another name, or with a wrong digest, is ignored, and the one before is used. A thread
writes the files while training goes on.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from symnoise_ray.config import JudgeConfig, TrialConfig
from symnoise_ray.errors import DataError, InfrastructureError
from symnoise_ray.models import deepspeed_engine
from symnoise_ray.records.files import (
    digest,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from symnoise_ray.training.schedule import KEPT_CHECKPOINTS

_RANDOM = "random state"
_PEER_SECONDS = 600.0
_POLL_SECONDS = 0.02


def identity(config: TrialConfig) -> str:
    """Hash of the settings that a trial must share with a checkpoint to go on from it.

    The size of the micro-batches, the limits of the prompts and the judge are no part of it.
    """
    train = config.train.model_copy(update={"micro_batch_size": 1})
    limits = {"max_eval_prompts": None, "max_confirm_prompts": None}
    data = config.data.model_copy(update=limits)
    changed = {"train": train, "data": data, "judge": JudgeConfig()}
    return config.model_copy(update=changed).digest()


class Saver:
    """Writes one trial's checkpoints, one at a time."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, engine: Any, step: int, progress: dict[str, Any]) -> None:
        """Copy the state now, and write it while training goes on; every worker must call it.

        Args:
            engine: The engine, after `step` steps.
            step: Number of steps taken.
            progress: JSON values that a resumed training needs.

        Raises:
            InfrastructureError: an earlier checkpoint could not be written.
        """
        self.wait()
        rank, world_size = dist.get_rank(), dist.get_world_size()
        partial = self.folder / f".{step}.partial"
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)  # of a worker that was killed
            partial.mkdir(parents=True)
        tensors = _share(engine, rank, world_size)
        if world_size > 1:
            dist.barrier()
        about = {
            "step": step,
            "identity": self.identity,
            "world_size": world_size,
            "optimizer_steps": deepspeed_engine.num_optimizer_steps(engine),
            "progress": progress,
        }
        self._thread = threading.Thread(
            target=self._write, args=(partial, step, tensors, about), daemon=True
        )
        self._thread.start()

    def _write(
        self, partial: Path, step: int, tensors: dict[str, Tensor], about: dict[str, Any]
    ) -> None:
        try:
            rank, world_size = dist.get_rank(), about["world_size"]
            file = partial / f"{rank}.safetensors"
            save_file(tensors, file)
            write_json(digest(file), partial / f"{rank}.digest")
            if rank == 0:
                about["files"] = dict(_digests(partial, world_size))
                write_sealed(about, partial / "manifest.json")
                shutil.rmtree(self.folder / str(step), ignore_errors=True)
                partial.rename(self.folder / str(step))
                for old in _steps(self.folder)[KEPT_CHECKPOINTS:]:
                    shutil.rmtree(self.folder / str(old))
        except BaseException as error:
            self._failure = error  # `wait` raises it, in the thread that trains

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            InfrastructureError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise InfrastructureError(f"{self.folder}: a checkpoint must be written, but {failure}")

    def clear(self) -> None:
        """Remove all checkpoints, because the trial has ended."""
        self.wait()
        if dist.get_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)


def _share(engine: Any, rank: int, world_size: int) -> dict[str, Tensor]:
    """This worker's part of the state, copied to the host."""
    random = [torch.get_rng_state()]
    if torch.cuda.is_available():
        random.append(torch.cuda.get_rng_state())
    tensors = {f"{_RANDOM}/{number}": state for number, state in enumerate(random)}
    for number, (name, values) in enumerate(deepspeed_engine.read_state(engine)):
        if number % world_size == rank:
            copies = {f"{name}/{key}": value.detach() for key, value in values.items()}
            tensors |= {key: value.to("cpu", copy=True) for key, value in copies.items()}
    return tensors


def _digests(partial: Path, world_size: int) -> Iterator[tuple[str, str]]:
    """The file and the digest of every worker; waits for workers that still write."""
    deadline = time.monotonic() + _PEER_SECONDS
    for rank in range(world_size):
        written = partial / f"{rank}.digest"
        while not written.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"worker {rank} did not write its part")
            time.sleep(_POLL_SECONDS)
        yield f"{rank}.safetensors", read_json(written)


def _steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are written, newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def newest(folder: Path, identity: str) -> dict[str, Any] | None:
    """Manifest of this trial's newest complete checkpoint, with its `path`; None without one."""
    for step in _steps(folder):
        manifest = _manifest(folder / str(step))
        if manifest is not None and manifest["identity"] == identity:
            return manifest
    return None


def _manifest(path: Path) -> dict[str, Any] | None:
    """What a checkpoint's folder says of itself, with its `path`; None where it is not whole."""
    try:
        manifest = read_sealed(path / "manifest.json")
        files = manifest["files"].items()
        whole = all(digest(path / name) == written for name, written in files)
    except (OSError, DataError):
        return None
    return {**manifest, "path": str(path)} if whole else None


def agreed(folder: Path, identity: str) -> dict[str, Any] | None:
    """The newest checkpoint that rank 0 finds, the same on every worker."""
    found = [newest(folder, identity) if dist.get_rank() == 0 else None]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(found)
    return found[0]


def restore(engine: Any, manifest: dict[str, Any]) -> None:
    """Bring a fresh engine to where the checkpoint was taken, on any number of workers.

    Random states, such as those of dropout, are restored if the number of workers is the same.
    """
    rank, world_size = dist.get_rank(), manifest["world_size"]
    opened: list[Any] = [
        safe_open(Path(manifest["path"]) / n, framework="pt") for n in manifest["files"]
    ]
    place = {key: file for file in opened for key in file.keys()}  # noqa: SIM118 - no iterator

    def state(name: str) -> dict[str, Tensor]:
        keys = (deepspeed_engine.WEIGHT, *deepspeed_engine.MOMENTS)
        return {key: place[f"{name}/{key}"].get_tensor(f"{name}/{key}") for key in keys}

    deepspeed_engine.write_state(engine, state, manifest["optimizer_steps"])
    if world_size == dist.get_world_size():
        torch.set_rng_state(opened[rank].get_tensor(f"{_RANDOM}/0"))
        if torch.cuda.is_available() and f"{_RANDOM}/1" in opened[rank].keys():  # noqa: SIM118
            torch.cuda.set_rng_state(opened[rank].get_tensor(f"{_RANDOM}/1"))
