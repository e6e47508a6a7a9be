"""What four trials of one model hold in memory: on warm slots, and four times one by itself.

    PYTHONPATH=. python benchmarks/memory.py [--tiny] [--json]

A trial stands still behind its last step while its memory is read: no gradients, no activations,
free memory given back. Counted are the private pages of its process and its share of the pages of
the model's and the tokens' files (Linux's proportional set size), less what the same process holds
with a model and rows of no size, and less AdamW's moments (8 bytes per trained weight). What is
left is weights and tokens. Figures are in copies of the weights; a ratio is that of four trials on
slots to four times one trial in a process of its own, where nothing is shared. Equal losses and
gradients that are not zero are asserted before a figure is told. `--tiny` only shows that the
benchmark runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import torch

from benchmarks.training import Job, Sizes, make_files, row_of
from symnoise_ray.config import TrialConfig, WorkersConfig
from symnoise_ray.models.shape import read_shape
from symnoise_ray.records.files import read_lines, write_text
from symnoise_ray.records.layout import METRICS, trial_directory
from symnoise_ray.workers import slots
from symnoise_ray.workers.pool import Pool

NUM_TRIALS = 4
NUM_STEPS = 2
NUM_ROWS = 52_000
"""Rows of the data set Alpaca."""
NO_SIZE = Sizes(1, 8, 8, 1, 1, 32, 8, 16, 4, 1)
SIZES = Sizes(12, 768, 2048, 12, 12, 16_384, 8, 48, 4, 1)
TINY = Sizes(2, 128, 256, 4, 4, 4096, 8, 48, 4, 1)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KINDS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"lora": {"rank": 8}}}
"""All train in fp32, with weights whose file has either of the types below."""
MOMENTS = 8
BAR = 0.6
HELD, GO = "held", "go"
PATIENCE = 1200.0
ALONE = """
import sys, pathlib, torch
torch.set_num_threads(1)
from benchmarks.memory import run_held
from symnoise_ray.config.loading import load_trial
for folder in map(pathlib.Path, sys.argv[1:]):
    run_held(load_trial(folder / "config.json"), folder)
"""


# In the process of a trial


def run_held(config: TrialConfig, directory: Path, **given: Any) -> Any:
    """A trial that says when it has taken its last step, and then waits until it may go on."""
    from symnoise_ray.models.process import give_memory_back
    from symnoise_ray.workers.task import run_task

    told = given.pop("report", lambda record: None)

    def report(record: dict[str, Any]) -> None:
        told(record)
        if record["step"] == NUM_STEPS:
            give_memory_back()
            write_text(str(os.getpid()), directory / HELD)
            _wait_for(directory / GO)

    given.setdefault("cancelled", lambda: False)
    return run_task(config, directory, report=report, **given)


def held_slot(settings: dict[str, Any]) -> None:
    """A slot as a sweep has it, whose trials wait."""
    from benchmarks import memory
    from symnoise_ray.workers import slots, task

    run_task = task.run_task

    def held(*arguments: Any, **given: Any) -> Any:
        with patch.object(task, "run_task", run_task):
            return memory.run_held(*arguments, **given)

    task.run_task = held
    slots.slot_loop(settings)


def _wait_for(*files: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, f"{files} did not come"
        time.sleep(0.05)


# The two ways to run trials


def alone(trials: dict[str, TrialConfig], folder: Path) -> dict[str, int]:
    """Bytes of one trial after the other in a process of its own."""
    directories = {name: trial_directory(folder, f"{name}-alone") for name in trials}
    for name, directory in directories.items():
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(trials[name].model_dump_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ALONE, *map(str, directories.values())]
    found = {}
    with subprocess.Popen(command, env=environment) as process:
        for name, directory in directories.items():
            _wait_for(directory / HELD)
            found[name] = held_bytes([process.pid], folder)
            (directory / GO).touch()
    assert process.returncode == 0
    return found


@contextmanager
def together(pool: Pool, config: TrialConfig, folder: Path, kind: str) -> Iterator[list[int]]:
    """Four trials on four slots at the same time; gives their processes while they wait."""
    names = [f"{kind}-slot-{number}" for number in range(NUM_TRIALS)]
    directories = [trial_directory(folder, name) for name in names]

    def follow(directory: Path) -> None:
        for _ in pool.workers.run(f"{folder.name}-{directory.name}", config, directory):
            pass

    threads = [threading.Thread(target=follow, args=(each,), daemon=True) for each in directories]
    for thread in threads:
        thread.start()
    _wait_for(*(directory / HELD for directory in directories))
    yield [int((directory / HELD).read_text()) for directory in directories]
    for directory in directories:
        (directory / GO).touch()
    for thread in threads:
        thread.join()


# What they hold


def held_bytes(pids: list[int], folder: Path) -> int:
    """Private bytes of processes, and their shares of the files in a folder."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += 1024 * sum(map(int, re.findall(r"^Pss_Anon: +(\d+) kB", rollup, re.M)))
        file = False
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                file = str(folder) in line
            elif file and (found := re.match(r"(Pss|Anonymous): +(\d+) kB", line)):
                total += 1024 * int(found[2]) * (1 if found[1] == "Pss" else -1)
    return total


class Model:
    """A model with random weights, rows for it, and a sweep's folder."""

    def __init__(self, folder: Path, sizes: Sizes, stored: str, num_rows: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.job = Job(folder, sizes, NUM_STEPS)
        make_files(folder, sizes, DTYPES[stored])
        rows = (json.dumps(row_of(sizes, number)) for number in range(num_rows))
        (folder / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))

    def trial(self, kind: str) -> TrialConfig:
        """A short trial in fp32."""
        values = self.job.config().model_dump() | KINDS[kind]
        values["data"]["max_eval_prompts"] = 2
        values["generate"] = {"max_new_tokens": 2}
        return TrialConfig.model_validate(values)

    def weights(self) -> int:
        """Bytes of one copy of the weights in fp32."""
        return 4 * read_shape(self.trial("full").model).num_parameters

    def moments(self, kind: str) -> int:
        """Bytes of AdamW's moments."""
        config = self.trial(kind)
        return MOMENTS * read_shape(config.model).num_trained(config.lora)

    def run_alone(self) -> dict[str, int]:
        """Bytes of one trial by itself, by kind; an earlier one makes the tokens."""
        trials = {kind: self.trial(kind) for kind in KINDS}
        return alone({"first": trials["lora"], **trials}, self.folder)

    def run_together(self, pool: Pool) -> dict[str, int]:
        """Bytes of four trials on slots, by kind."""
        found = {}
        for kind in KINDS:
            with together(pool, self.trial(kind), self.folder, kind) as pids:
                found[kind] = held_bytes(pids, self.folder)
        return found

    def assert_equal_work(self) -> None:
        """All trials of a kind trained the same losses, with gradients that are not zero."""
        for kind in KINDS:
            files = sorted(self.folder.glob(f"trials/{kind}-*/{METRICS}"))
            curves = [read_lines(file) for file in files]
            assert len(curves) == 1 + NUM_TRIALS, f"{kind}: {len(curves)} trials"
            assert all(curve == curves[0] for curve in curves), f"{kind}: other losses"
            assert all(record["grad_norm"] > 0 for record in curves[0][1:])


def measure(folder: Path, sizes: Sizes, num_rows: int) -> dict[str, Any]:
    """Figures by the type of the weights' file and by kind of trial."""
    small = Model(folder / "small", NO_SIZE, "fp32", 64)
    figures: dict[str, Any] = {}
    with (
        patch.object(slots, "slot_loop", held_slot),
        Pool(WorkersConfig(), NUM_TRIALS, small.trial("full"), folder / "slots") as pool,
    ):
        base = {"alone": small.run_alone(), "slots": small.run_together(pool)}
        for stored in DTYPES:
            model = Model(folder / stored, sizes, stored, num_rows)
            held = {"alone": model.run_alone(), "slots": model.run_together(pool)}
            model.assert_equal_work()
            for kind in KINDS:
                figures[f"{kind}, file in {stored}"] = copies_of(model, kind, held, base)
    return figures


def copies_of(
    model: Model, kind: str, held: dict[str, dict[str, int]], base: dict[str, dict[str, int]]
) -> dict[str, float]:
    """What is held for weights and tokens, in copies of the weights, and the ratio."""
    copies = {}
    for way, count in (("alone", 1), ("slots", NUM_TRIALS)):
        rest = held[way][kind] - base[way][kind] - count * model.moments(kind)
        copies[way] = rest / model.weights()
    return {
        "one_alone": round(copies["alone"], 2),
        "four_on_slots": round(copies["slots"], 2),
        "ratio": round(copies["slots"] / (NUM_TRIALS * copies["alone"]), 2),
        "mb_of_one_copy": round(model.weights() / 1e6),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=NUM_TRIALS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    sizes, num_rows = (TINY, 1000) if arguments.tiny else (SIZES, NUM_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), sizes, num_rows) | {"bar": BAR}
        ray.shutdown()
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
