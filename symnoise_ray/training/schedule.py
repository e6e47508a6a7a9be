"""How many optimizer steps a trial takes, the learning rate of each, and how many checkpoints stay.

The training loop, the forecast and the checks before a start use the same functions.
"""

from __future__ import annotations

import math

from symnoise_ray.config import OptimConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.noise.types import num_passes

KEPT_CHECKPOINTS = 2
"""Whole checkpoints that stay: the newest, and one to fall back to."""

_ROUNDING = 1e-6  # 0.1 epochs of 30 rows are 3 rows, not 2.9999999999999996


def num_steps(config: TrialConfig, num_rows: int) -> int:
    """Optimizer steps of a trial on so many training rows.

    As many as `num_epochs` has whole batches, at most `max_steps`, and at least one. Under
    `compute_match: samples` a noise type that passes every row k times takes a k-th of the steps,
    so that the same number of rows passes through the model for all types. Under `gpu_seconds` the
    steps are divided by the cost of one.

    Raises:
        UserError: that cost is not known.
    """
    train = config.train
    steps = int(train.num_epochs * num_rows + _ROUNDING) // train.global_batch_size
    if train.max_steps is not None:
        steps = min(steps, train.max_steps)
    if train.compute_match == "samples":
        steps //= num_passes(config.noise)
    elif train.compute_match == "gpu_seconds":
        if train.step_cost is None:
            raise UserError(
                "train.compute_match=gpu_seconds needs train.step_cost, which a sweep measures; "
                "for a single trial say what its step takes over one of plain fine-tuning"
            )
        steps = int(steps / train.step_cost + _ROUNDING)
    return max(1, steps)


def require_even_split(batch_size: int, num_workers: int) -> None:
    """Refuse a batch that the workers cannot share evenly.

    Raises:
        UserError: it leaves a rest.
    """
    if batch_size % num_workers:
        raise UserError(
            f"train.global_batch_size={batch_size} must be a multiple of the {num_workers} workers"
        )


def lr_at(step: int, num_steps: int, optim: OptimConfig) -> float:
    """Learning rate of step 0 .. num_steps-1: linear warm-up, then the schedule down to 0."""
    warmup = math.ceil(optim.warmup_ratio * num_steps)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
    }[optim.schedule]
    return optim.lr * factor
