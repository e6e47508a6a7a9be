"""What passes between the command and the first step: CPU seconds by process, and wall seconds.

    python benchmarks/start.py [--space quickstart] [--rounds 3] [--json]

Each round starts a sweep of the space without a confirmation, in a folder of its own, and reads
every process of it until the first record of a trial is on disk; then the sweep is interrupted. CPU
seconds say what the start costs however busy the machine is. They grow by a tenth or two where
other work shares the caches. Wall seconds mean something on a quiet machine alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

LOOK_SECONDS = 0.1
_AGENTS = re.compile(r"ray/(dashboard|autoscaler|_private|core)/")
_NUM_CLOSING_SECONDS = 120


def role(command: str) -> str:
    """What a process of a sweep is for, by its command line."""
    if command.startswith("ray::"):
        return command.removeprefix("ray::").split(".")[0].strip()
    return "Ray's own services" if _AGENTS.search(command) else "driver"


def look(root: psutil.Process, spent: dict[int, tuple[str, float]]) -> None:
    """Take down what every process below the root has spent; the ended keep their last value."""
    for process in [root, *root.children(recursive=True)]:
        try:
            times, command = process.cpu_times(), " ".join(process.cmdline())
        except psutil.Error:
            continue
        if command:
            spent[process.pid] = role(command), times.user + times.system


def first_record(directory: Path) -> bool:
    """Whether a trial has written anything of its training."""
    files = directory.glob("trials/*/metrics.jsonl")
    return any(file.stat().st_size for file in files)


def start(space: str, directory: Path) -> tuple[float, dict[int, tuple[str, float]]]:
    """Wall seconds to the first record, and for each process its role and CPU seconds."""
    began, spent = time.monotonic(), dict[int, tuple[str, float]]()
    command = [sys.executable, "-m", "symnoise_ray.tune", space, "confirm.arms=0"]
    with (directory.parent / "output.txt").open("wb") as output:
        sweep = subprocess.Popen(
            [*command, "--output", str(directory)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        root = psutil.Process(sweep.pid)
        while sweep.poll() is None and not first_record(directory):
            look(root, spent)
            time.sleep(LOOK_SECONDS)
        wall = time.monotonic() - began
        if sweep.poll() is not None:
            raise SystemExit((directory.parent / "output.txt").read_text())
        sweep.send_signal(signal.SIGINT)
        sweep.wait(_NUM_CLOSING_SECONDS)
    return wall, spent


def by_role(spent: Iterable[tuple[str, float]]) -> dict[str, tuple[int, float]]:
    """Role -> number of processes and their CPU seconds together, the costliest first."""
    found: dict[str, tuple[int, float]] = {}
    for name, seconds in spent:
        number, total = found.get(name, (0, 0.0))
        found[name] = number + 1, total + seconds
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def measure(space: str, rounds: int) -> dict[str, Any]:
    """Medians over the rounds; the processes are those of the median round."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            wall, spent = start(space, Path(folder) / "sweep")
        found.append((sum(seconds for _, seconds in spent.values()), wall, spent))
    found.sort(key=lambda each: each[0])
    processes = by_role(found[len(found) // 2][2].values())
    return {
        "cpu_seconds": [round(each[0], 1) for each in found],
        "wall_seconds": sorted(round(each[1], 1) for each in found),
        "start_s": round(statistics.median(each[1] for each in found), 1),
        "processes": {
            name: {"number": number, "cpu_seconds": round(seconds, 1)}
            for name, (number, seconds) in processes.items()
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="quickstart")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.space, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"CPU seconds of all processes to the first record: {figures['cpu_seconds']}")
    print(f"wall seconds: {figures['wall_seconds']}")
    for name, row in figures["processes"].items():
        print(f"{row['cpu_seconds']:6.1f}  {row['number']} x {name}")


if __name__ == "__main__":
    main()
