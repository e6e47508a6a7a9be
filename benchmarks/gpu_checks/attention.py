"""FlashAttention, which gets packed rows in one line, against SDPA under the mask of blocks.

In: half a billion random weights in bf16. Out: equal logits, far nearer than those of rows that see
each other; equal losses and gradients of a training; then what each needs. A rehearsal takes
transformers' eager attention in FlashAttention's place.

Shape letters: L positions of the line, V vocabulary.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_checks.step import Step
from benchmarks.gpu_checks.trials import (
    HALF,
    assert_learnt,
    job,
    largest_difference,
    trained,
    trial,
)
from benchmarks.training import Job
from symnoise_ray.config import ModelConfig
from symnoise_ray.models.process import give_memory_back
from symnoise_ray.models.weights import load
from symnoise_ray.training.packing import block_mask

NUM_STEPS, NUM_COMPARED = 8, 3
"""Later steps only measure the speed: what bf16 rounds away grows from step to step."""
NUM_ROWS = 4
"""In the line whose logits are compared."""
MOST = 0.03
"""Relative difference of logits that bf16 may make; the project's own test allows as much."""
CONTROL = 5
"""Rows that see each other must be so many times further away."""
TOLERANCES = (1e-2, 5e-2)
"""Relative, of losses and of gradient norms."""


def check(step: Step) -> str:
    """Compare logits, then trainings."""
    made = job(step, HALF, NUM_STEPS)
    fast = "eager" if step.rehearse else "flash_attention_2"
    logits = compare_logits(step, made, fast)
    runs = {}
    for name in ("sdpa", fast, "sdpa", fast):  # the first of each warms up
        runs[name] = trained(trial(made, model={"attention": name}))
    block, flash = runs["sdpa"], runs[fast]
    step.note(block_mask=block._asdict(), fast=flash._asdict(), fast_attention=fast)
    assert_learnt(block)
    off = {
        "losses": largest_difference(flash.losses[:NUM_COMPARED], block.losses[:NUM_COMPARED]),
        "gradient norms": largest_difference(
            flash.norms[:NUM_COMPARED], block.norms[:NUM_COMPARED]
        ),
    }
    for (name, value), most in zip(off.items(), TOLERANCES, strict=True):
        assert value <= most, f"{name} are off by {value:.2g}, at most {most:g} may be"
    rate = flash.summary["tokens_per_second"] / block.summary["tokens_per_second"]
    peaks = [run.summary["peak_memory_gib"] for run in (flash, block)]
    return (
        f"{fast}: logits off by {logits:.1g}, losses by {off['losses']:.1g}; tokens/s "
        f"{rate:.2f} times the block mask's, peak {peaks[0]:.2f} against {peaks[1]:.2f} GiB"
    )


@torch.no_grad()
def compare_logits(step: Step, job: Job, fast: str) -> float:
    """The relative difference of both on one packed line, against that of rows mixed up."""
    rows = [torch.as_tensor(job.table.row(number)[0]).long() for number in range(NUM_ROWS)]
    lengths = [len(row) for row in rows]
    ids_1L = torch.cat(rows)[None].to(step.device)
    sample_1L = torch.tensor([[n for n, length in enumerate(lengths) for _ in range(length)]])
    position_1L = torch.tensor([list(itertools.chain(*map(range, lengths)))])
    sample_1L, position_1L = sample_1L.to(step.device), position_1L.to(step.device)
    mask = block_mask(sample_1L, position_1L, torch.bfloat16)
    plain = model_of(step, job, "sdpa")
    block_1LV = logits_of(plain, ids_1L, attention_mask=mask, position_ids=position_1L)
    # Rotary positions are relative, so without a mask only what rows see of each other differs.
    mixed_1LV = logits_of(plain, ids_1L)
    fast_1LV = logits_of(model_of(step, job, fast), ids_1L, position_ids=position_1L)
    off, control = (float((x - block_1LV).norm() / block_1LV.norm()) for x in (fast_1LV, mixed_1LV))
    step.note(logits_off=off, logits_off_if_rows_are_mixed=control)
    del plain
    give_memory_back()
    assert off <= MOST, f"the logits are off by {off:.2g}, at most {MOST:g} may be"
    assert control >= CONTROL * max(off, 1e-4), f"mixed rows are as near: off by {control:.2g}"
    return off


def model_of(step: Step, job: Job, attention: str) -> Any:
    """The job's model in bf16 with this attention, on the device."""
    config = ModelConfig.model_validate(
        {"name": str(job.folder / "model"), "dtype": "bf16", "attention": attention}
    )
    return load(config).model.to(step.device).eval()


def logits_of(model: Any, ids_1L: Tensor, **inputs: Tensor) -> Tensor:
    """Logits (1, L, V) in fp32."""
    logits_1LV: Tensor = model(input_ids=ids_1L, use_cache=False, **inputs).logits.float()
    return logits_1LV
