"""LoRA on half a billion weights against training all of them; with `nf4`, on weights of 4 bits.

A rehearsal of `nf4` takes weights of bf16, since 4 bits need a GPU.
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_checks.step import Step
from benchmarks.gpu_checks.trials import (
    HALF,
    Losses,
    assert_learnt,
    job,
    trained,
    trial,
)
from benchmarks.training import Job

NUM_STEPS = 8
ALL: dict[str, Any] = {}
LORA = {"rank": 8, "merge": False}
LR = 2e-3
TOLERANCES = {"none": 2e-3, "nf4": 0.05}
"""Relative, of clean losses: in bf16, or with weights that are rounded to 4 bits."""


def check(step: Step, quantize: str) -> str:
    """Adapters begin at the loss of the weights that they adapt, learn, and need less memory."""
    made = job(step, HALF, NUM_STEPS)
    if quantize == "nf4":
        ours = {**LORA, "quantize": "none" if step.rehearse else "nf4"}
        other, found = run(step, made, "lora", LORA), run(step, made, "nf4", ours)
        ends = [(found.clean[0], other.clean[0]), (found.clean[-1], other.clean[-1])]
    else:
        other, found = run(step, made, "all weights", ALL), run(step, made, "lora", LORA)
        ends = [(found.clean[0], other.clean[0])]
    off = max(abs(one - two) / two for one, two in ends)
    assert off <= TOLERANCES[quantize], f"the clean loss is off by {off:.2g}: {ends}"
    peak, more = (one.summary["peak_memory_gib"] for one in (found, other))
    if not step.rehearse:  # on the CPU it is the peak of the process, which only grows
        assert peak < more, f"the peak of memory is {peak:.2f} GiB, no less than {more:.2f}"
    weights = "4 bits" if quantize == "nf4" and not step.rehearse else "bf16"
    first, last = found.clean[0], found.clean[-1]
    return (
        f"frozen in {weights}: clean loss {first:.3f} to {last:.3f}, off by {off:.1g}; peak "
        f"{peak:.2f} GiB against {more:.2f}; {found.summary['tokens_per_second']:.0f} tokens/s"
    )


def run(step: Step, made: Job, name: str, lora: dict[str, Any]) -> Losses:
    """Train with these adapters, or with none all weights."""
    settings = {"lora": lora, "optim": {"lr": LR}} if lora else {}
    found = trained(trial(made, **settings))
    step.note(**{name: found._asdict()})
    assert_learnt(found, least=1e-3)
    return found
