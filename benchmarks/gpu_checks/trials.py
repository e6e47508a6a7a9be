"""Trials on random weights and random words, for the checks that train.

In: a step and the size of a model. Out: its folder, trials on it, and what a training gave. The
rows are those of one optimizer step, again and again, so that a few steps learn them by heart: a
loss that hardly moves would be equal whatever was trained.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from benchmarks.gpu_checks.step import Step
from benchmarks.training import SHAPES, TINY, Job, Sizes, make_files
from symnoise_ray.config import TrialConfig
from symnoise_ray.models.process import give_memory_back
from symnoise_ray.models.weights import DTYPES
from symnoise_ray.training.loop import train

SMALL = Sizes(8, 512, 1376, 8, 8, 8192, 24, 256, 16, 2)
"""30 million weights."""
HALF = SHAPES["0.5B"]._replace(longest=512, batch=16, micros=2)
"""Half a billion weights, and shorter rows."""
DRAWN = TINY._replace(batch=8, micros=2)
LR = 1e-3


class Losses(NamedTuple):
    """A training, step by step, with its tokens per second and its peak of memory."""

    losses: list[float]
    norms: list[float]
    clean: list[float]
    summary: dict[str, float]


def job(step: Step, sizes: Sizes, num_steps: int, dtype: str = "bf16") -> Job:
    """A model with random weights and its rows, both made now; tiny in a rehearsal."""
    found = Job(step.scratch, DRAWN if step.rehearse else sizes, num_steps, dtype)
    make_files(found.folder, found.sizes, DTYPES[dtype])
    give_memory_back()
    return found


def trial(job: Job, **sections: Any) -> TrialConfig:
    """A packed trial of the job; `sections` change its settings."""
    values = job.config(packing="on").model_dump()
    ours: dict[str, dict[str, Any]] = {
        "data": {"max_train_rows": job.sizes.batch},
        "optim": {"lr": LR},
        "train": {"num_clean_rows": job.sizes.batch, "checkpoint_minutes": 0},
    }
    for changes in (ours, sections):
        for name, section in changes.items():
            values[name] |= section
    return TrialConfig.model_validate(values)


def trained(config: TrialConfig) -> Losses:
    """Train in this process, and release the model."""
    records: list[dict[str, Any]] = []
    began = time.monotonic()
    done = train(config, records.append)
    done.release()
    return Losses(
        [record["loss"] for record in records if record["step"]],
        [record["grad_norm"] for record in records if record["step"]],
        [record["clean_loss"] for record in records if "clean_loss" in record],
        {**done.summary, "seconds": round(time.monotonic() - began, 2)},
    )


def assert_learnt(found: Losses, least: float = 0.01) -> None:
    """The clean loss fell by this share at least, and no gradient was zero."""
    first, last = found.clean[0], found.clean[-1]
    assert last < (1 - least) * first, f"nothing was learnt: the clean loss went {first} to {last}"
    assert all(norm > 0 for norm in found.norms), f"a gradient is zero: {found.norms}"


def largest_difference(values: list[float], others: list[float]) -> float:
    """Relative to the others."""
    return max(abs(one - other) / abs(other) for one, other in zip(values, others, strict=True))
