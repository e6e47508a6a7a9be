"""How long a trial waits for its first record: on a warm slot, and in a process of its own.

    python benchmarks/warm_start.py [--rounds 5] [--json]

Both run the same trial of the demo model in turn, round by round; equal losses and a non-zero
gradient are asserted before a time is told. `first_record_ratio` is fresh over warm (medians);
the one-off start of the slot is told beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from symnoise_ray.config import TrialConfig, WorkersConfig
from symnoise_ray.records.files import read_lines
from symnoise_ray.workers.pool import Pool

TRIAL = TrialConfig.model_validate(
    {
        "noise": {"type": "symnoise", "alpha": 5},
        "optim": {"lr": 2e-3},
        "data": {"max_eval_prompts": 2},
        "train": {"max_steps": 3, "global_batch_size": 16, "num_clean_rows": 16},
        "generate": {"max_new_tokens": 2},
    }
)
FRESH = """
import pathlib, sys, time
import torch
torch.set_num_threads(1)
from symnoise_ray.config.loading import load_trial
from symnoise_ray.workers.task import run_task
folder = pathlib.Path(sys.argv[1])
def report(record):
    if record["step"] == 0:
        (folder / "first").write_text(repr(time.time()))
run_task(load_trial(folder / "trial.json"), folder, report=report, cancelled=lambda: False)
"""


def warm(pool: Pool, name: str, folder: Path) -> float:
    """Seconds from handing a trial to the hub to its first record."""
    began = time.monotonic()
    records = pool.workers.run(name, TRIAL, folder)
    while next(records) is None:
        pass
    seconds = time.monotonic() - began
    for _ in records:
        pass
    return seconds


def fresh(folder: Path) -> float:
    """Seconds from starting a process to the first record of the same trial."""
    folder.mkdir()
    (folder / "trial.json").write_text(TRIAL.model_dump_json())
    began = time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)], check=True, env=environment, capture_output=True
    )
    return float((folder / "first").read_text()) - began


def assert_equal_work(one: Path, other: Path) -> None:
    """Both trained the same losses, with a gradient that is not zero."""
    curves = [read_lines(folder / "metrics.jsonl") for folder in (one, other)]
    assert curves[0] == curves[1], "warm and fresh must give the same records"
    assert all(record["grad_norm"] > 0 for record in curves[0][1:])


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Warm and fresh in turn."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    began = time.monotonic()
    with Pool(WorkersConfig(), 1, TRIAL, folder) as pool:
        pool.wait_until_up()
        slot_start = time.monotonic() - began
        warm(pool, "unmeasured", folder / "unmeasured")
        seconds: dict[str, list[float]] = {"warm": [], "fresh": []}
        for number in range(rounds):
            seconds["warm"].append(warm(pool, f"warm-{number}", folder / f"warm-{number}"))
            seconds["fresh"].append(fresh(folder / f"fresh-{number}"))
            assert_equal_work(folder / f"warm-{number}", folder / f"fresh-{number}")
    ray.shutdown()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "first_record_ratio": round(medians["fresh"] / medians["warm"], 1),
        "warm_seconds": [round(value, 3) for value in sorted(seconds["warm"])],
        "fresh_seconds": [round(value, 3) for value in sorted(seconds["fresh"])],
        "slot_start_seconds": round(slot_start, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments.rounds, Path(folder))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
