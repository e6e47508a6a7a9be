"""Real sweeps whose processes are killed at seeded random moments, against an undisturbed one.

    PYTHONPATH=. python benchmarks/chaos.py --seeds N [--first 0] [--json]

Every seed draws one to three kills: of the driver, a worker, the hub, the raylet or the GCS, each
at a moment of the time that the undisturbed sweep took. A sweep that ended by it goes on with
--resume, at last without a kill. Then its table, choices and verdict must be those of the
undisturbed sweep, MLflow must hold the same runs, each once and finished, and no process may be
left. The status is 1 if anything differs. Kills reach only processes that the sweep has started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from symnoise_ray.records.files import read_json

SPACE = """
name: chaos
trial:
  data: {max_eval_prompts: 12}
  train: {max_steps: 30, global_batch_size: 16, num_clean_rows: 8, num_evals: 2, CHECKPOINTS}
  generate: {max_new_tokens: 8}
parameters:
  noise.type: {type: categorical, choices: [symnoise]}
  noise.alpha: {type: float, low: 1, high: 10, log: true, when: {noise.type: [symnoise]}}
  optim.lr: {type: categorical, choices: [0.002]}
baselines:
  - {noise.type: none, optim.lr: 0.002}
search: {num_trials: 1}
confirm: {arms: 1, looks: [2]}
workers: {max_slots: 1}
""".replace("CHECKPOINTS", "checkpoint_minutes: 0.005")
VICTIMS = {
    "driver": "",
    "worker": "ray::RayTrain",
    "hub": "ray::Hub",
    "raylet": "raylet",
    "gcs": "gcs_server",
}
"""Victim -> how the names of its processes begin."""
TOOK = ("seconds", "tokens_per_second", "peak_memory_gib", "resumed_at", "attempts")
"""Of a trial's result: what it took, which a kill may change."""
MOST_PARTS = 8
LEFT_SECONDS = 15.0
"""After so long no process of an ended sweep may be left: the guard looks for ten."""
STUCK_SECONDS = 1800.0


class Run:
    """One part of a sweep, as a user starts it."""

    def __init__(self, folder: Path) -> None:
        self.log = (folder / "log.txt").open("ab")
        words = ["space.yaml", "--resume", "--output", "out"]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "symnoise_ray.tune", *words],
            stdout=self.log,
            stderr=self.log,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
        )
        self.seen: set[psutil.Process] = set()

    def note(self) -> list[psutil.Process]:
        """The processes that it has started and that run now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
            self.seen |= set(found)
            return found
        return []

    def kill(self, victim: str, moment: float) -> bool:
        """Kill a process at a moment, or once there is one; False if the sweep ended first."""
        while self.process.poll() is None:
            found = [each for each in self.note() if _is(each, VICTIMS[victim])]
            if time.monotonic() - self.began >= moment:
                if victim == "driver":
                    self.process.kill()
                    return True
                if found:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found[0].kill()
                        return True
            time.sleep(0.1)
        return False

    def wait(self, seconds: float = STUCK_SECONDS) -> int | None:
        """Its exit status; None if it does not end."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            self.note()
            if time.monotonic() > deadline:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                return None
            time.sleep(0.2)
        self.log.close()
        return self.process.returncode

    def left(self) -> list[str]:
        """Names of the processes that outlive it for too long; they are ended."""
        _, alive = psutil.wait_procs(self.seen, timeout=LEFT_SECONDS)
        names = []
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    names.append(process.name())
                    process.kill()
        return names


def _is(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.name().startswith(name)
    return False


def told(folder: Path) -> dict[str, Any]:
    """What a sweep found, without what it took."""
    results = read_json(folder / "out" / "results.json")
    trials = [{k: v for k, v in each.items() if k not in TOOK} for each in results["trials"]]
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        runs = Counter(status for (status,) in database.execute("SELECT status FROM runs"))
    kept = {name: results[name] for name in ("status", "verdict", "choices")}
    return {**kept, "trials": trials, "mlflow": dict(runs)}


def undisturbed(folder: Path, space: str = SPACE) -> tuple[dict[str, Any], float]:
    """What a sweep finds when nothing happens to it, and how long it takes."""
    folder.mkdir()
    (folder / "space.yaml").write_text(space)
    run = Run(folder)
    status = run.wait()
    seconds = time.monotonic() - run.began
    if status != 0:
        raise SystemExit((folder / "log.txt").read_text())
    run.left()
    return told(folder), seconds


def disturbed(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """A sweep with the kills of a seed: what happened, how it ended, what it found."""
    rng = random.Random(seed)
    plan = [(rng.choice(list(VICTIMS)), rng.uniform(0, seconds)) for _ in range(rng.randint(1, 3))]
    folder.mkdir()
    (folder / "space.yaml").write_text(SPACE)
    kills: list[list[Any]] = []
    ends: list[int | None] = []
    left: list[str] = []
    while len(ends) < MOST_PARTS and (not ends or ends[-1] != 0 or plan):
        run = Run(folder)
        moment = 0.0
        while plan and run.process.poll() is None:
            victim, after = plan.pop(0)
            moment += after
            if run.kill(victim, moment):
                kills.append([victim, round(time.monotonic() - run.began, 1)])
        ends.append(run.wait())
        left += run.left()
    return {"seed": seed, "kills": kills, "ends": ends, "left": left}


def measure(seeds: list[int], folder: Path) -> dict[str, Any]:
    """All seeds, one after the other."""
    expected, seconds = undisturbed(folder / "undisturbed")
    _say(f"undisturbed: {seconds:.0f} s, {len(expected['trials'])} trials")
    found = []
    for seed in seeds:
        row = disturbed(folder / f"seed-{seed}", seed, seconds)
        got = told(folder / f"seed-{seed}")
        row["differs"] = [name for name in expected if got[name] != expected[name]]
        row["equal"] = not row["differs"]
        _say(json.dumps(row))
        found.append(row)
    victims = Counter(victim for row in found for victim, _ in row["kills"])
    return {
        "undisturbed_seconds": round(seconds, 1),
        "seeds": len(seeds),
        "equal": sum(row["equal"] for row in found),
        "kills": dict(victims),
        "processes_left": sum(len(row["left"]) for row in found),
        "rows": found,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, required=True, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds = list(range(arguments.first, arguments.first + arguments.seeds))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(seeds, Path(folder))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name}: {value}")
    good = figures["equal"] == len(seeds) and not figures["processes_left"]
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
