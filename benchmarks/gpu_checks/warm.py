"""Twenty trials in one process, as a slot runs them: memory after 4 and after 20, equal records.

Four kinds of trials take turns, so that both measurements come after the same trial. Every trial
trains, answers prompts and leaves its files; trials of one kind must leave the same records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.gpu_checks.step import Step
from benchmarks.gpu_checks.trials import SMALL, job, trial
from symnoise_ray.models.process import give_memory_back
from symnoise_ray.records.files import read_lines
from symnoise_ray.records.layout import METRICS, trial_directory
from symnoise_ray.workers.task import run_task

KINDS: tuple[dict[str, dict[str, Any]], ...] = (
    {},
    {"noise": {"type": "symnoise", "alpha": 5}, "train": {"zero_stage": 1}},
    {"noise": {"type": "neftune", "alpha": 5}, "lora": {"rank": 4}},
    {"noise": {"type": "symnoise", "alpha": 5}, "train": {"zero_stage": 2}},
)
NUM_TRIALS = 20
ALLOWED_MIB = {"allocated": 1.0, "reserved": 20.0, "resident": 32.0}
"""Growth from trial 4 to trial 20: rounding, one block of CUDA's allocator, 2 MiB a trial."""
MIB = 2**20


def check(step: Step) -> str:
    """Run the trials, then compare."""
    made = job(step, SMALL, 3)
    folders = [trial_directory(step.scratch / "sweep", f"{n:02}") for n in range(NUM_TRIALS)]
    memory = {}
    for number, folder in enumerate(folders, 1):
        config = trial(
            made,
            **KINDS[(number - 1) % len(KINDS)],
            generate={"max_new_tokens": 8, "batch_size": 4},
        )
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"max_eval_prompts": 4})}
        )
        outcome = run_task(config, folder, report=lambda record: None, cancelled=lambda: False)
        assert outcome.status == "done", f"trial {number} {outcome.status}: {outcome.reason}"
        memory[number] = memory_mib(step)
    step.note(memory_mib=memory)
    grown = {key: memory[NUM_TRIALS][key] - memory[len(KINDS)][key] for key in ALLOWED_MIB}
    for key, most in ALLOWED_MIB.items():
        assert grown[key] <= most, f"{key} memory grew by {grown[key]:.1f} MiB, {most:g} may be"
    different = [n for n in range(len(KINDS), NUM_TRIALS) if not alike(folders, n)]
    step.note(trials_with_other_records=different)
    assert not different, f"trials {different} have other records than the first of their kind"
    told = ", ".join(f"{key} {memory[NUM_TRIALS][key]:.0f} ({grown[key]:+.1f})" for key in grown)
    return f"MiB after {NUM_TRIALS} trials (growth since {len(KINDS)}): {told}; equal records"


def alike(folders: list[Path], number: int) -> bool:
    """Whether a trial left the records of the first of its kind."""
    first, own = folders[number % len(KINDS)], folders[number]
    return bool(read_lines(own / METRICS) == read_lines(first / METRICS))


def memory_mib(step: Step) -> dict[str, float]:
    """What torch and this process hold between two trials, in MiB; no CUDA memory on the CPU."""
    give_memory_back()
    cuda = step.device == "cuda"
    found = {
        "allocated": torch.cuda.memory_allocated() if cuda else 0,
        "reserved": torch.cuda.memory_reserved() if cuda else 0,
        "resident": psutil.Process().memory_info().rss,
    }
    return {key: value / MIB for key, value in found.items()}
