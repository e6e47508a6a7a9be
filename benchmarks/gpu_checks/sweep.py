"""A whole sweep through `python -m symnoise_ray.tune`: 6 trials of half a billion random weights.

Two slots hold half of the GPU each; a rehearsal has two slots on the CPU. What is read back is
results.json, which stays beside the step's file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import symnoise_ray
from benchmarks.gpu_checks.step import Step
from benchmarks.gpu_checks.trials import HALF, job
from symnoise_ray.records.layout import OUTCOME, RESULTS, trial_directory

NUM_TRIALS = 6
NUM_SLOTS = 2


def check(step: Step) -> str:
    """Run the sweep, and look at its results."""
    space, directory = step.scratch / "space.yaml", step.scratch / "runs" / "gpu"
    space.write_text(json.dumps(space_of(step)))  # JSON is YAML
    command = [sys.executable, "-m", "symnoise_ray.tune", str(space), "--output", str(directory)]
    status = subprocess.run(command, check=False).returncode
    if (directory / RESULTS).exists():
        shutil.copy(directory / RESULTS, step.out / "sweep-results.json")
    assert status == 0, f"the sweep ended with status {status}: {step.last_words()}"
    result = symnoise_ray.load(directory)
    trials = [
        {
            "trial": one.trial,
            "status": one.status,
            "reason": one.reason,
            "clean_loss": [one.get("first_clean_loss"), one.get("clean_loss")],
            "win_rate": one.win_rate,
            "seconds": dict(one.seconds),
            "tokens_per_second": one.get("tokens_per_second"),
            "peak_memory_gib": one.get("peak_memory_gib"),
        }
        for one in result.trials
    ]
    step.note(trials=trials)
    assert len(trials) == NUM_TRIALS, f"{len(trials)} trials instead of {NUM_TRIALS}"
    for told in trials:
        assert told["status"] == "done", f"{told['trial']} {told['status']}: {told['reason']}"
        first, last = told["clean_loss"]
        assert last < first, f"{told['trial']} learnt nothing: {first} to {last}"
        assert told["win_rate"] is not None, f"{told['trial']} has no win rate"
    at_once = most_at_once([worked(directory, told) for told in trials])
    step.note(most_at_once=at_once)
    first, last = trials[0]["clean_loss"]
    return (
        f"{NUM_TRIALS} trials done, up to {at_once} at once; clean loss of the baseline "
        f"{first:.2f} to {last:.2f}"
    )


def worked(sweep: Path, told: dict[str, Any]) -> tuple[float, float]:
    """When a worker began and ended a trial, in seconds since 1970."""
    ended = (trial_directory(sweep, told["trial"]) / OUTCOME).stat().st_mtime
    return ended - sum(told["seconds"][phase] for phase in ("load", "train", "generate")), ended


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """How many trials ran at the same time at most."""
    return max(sum(began <= start < ended for began, ended in spans) for start, _ in spans)


def space_of(step: Step) -> dict[str, Any]:
    """The search space: plain fine-tuning and symnoise, a baseline and two searched trials each."""
    made = job(step, HALF, 6)
    trial = made.config().model_dump(mode="json")
    return {
        "name": "gpu",
        "trial": {
            "model": {"name": trial["model"]["name"], "dtype": "bf16"},
            "data": {
                **{key: trial["data"][key] for key in ("train", "eval_prompts", "template")},
                "max_length": made.sizes.longest,
                "max_train_rows": made.sizes.batch,
                "max_eval_prompts": 8,
            },
            "train": {
                "max_steps": 6,
                "num_epochs": 6,
                "global_batch_size": made.sizes.batch,
                "micro_batch_size": made.micro_batch_size,
                "num_evals": 2,
                "num_clean_rows": 8,
            },
            "generate": {"max_new_tokens": 16, "batch_size": 8},
        },
        "parameters": {
            "noise.type": {"type": "categorical", "choices": ["none", "symnoise"]},
            "noise.alpha": {
                "type": "float",
                "low": 2,
                "high": 10,
                "when": {"noise.type": ["symnoise"]},
            },
            "optim.lr": {"type": "float", "low": 2e-4, "high": 1e-3, "log": True},
        },
        "baselines": [
            {"noise.type": "none", "optim.lr": 5e-4},
            {"noise.type": "symnoise", "noise.alpha": 5, "optim.lr": 5e-4},
        ],
        "search": {"sampler": "random", "num_trials": NUM_TRIALS - 2},
        "workers": {
            "max_slots": NUM_SLOTS,
            "cpus_per_worker": 1,
            "gpus_per_worker": 0 if step.rehearse else 1 / NUM_SLOTS,
        },
    }
