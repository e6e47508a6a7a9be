"""A whole sweep against what people do today: loops, a process per trial, Ray Tune as documented.

    PYTHONPATH=. python benchmarks/sweep.py [--rounds 3] [--trials 30] [--steps 60] [--limit-only]

In every round the same trials run in five ways, one way after the other; but for `shell_loop`, two
trials at a time with a thread each:

sweep              our sweep, from the command to its report: search without a confirmation
bare               two warm processes that train and answer trial after trial: the limit. They
                   have imported everything before, and Python's garbage collector is kept from
                   searching what was imported, as in a slot
shell_loop         a process per trial around TRL's `SFTTrainer`, which trains and does not answer;
                   one after the other, each with all cores
fresh_processes    the same processes, two at a time
trainer_per_trial  `ray.tune.Tuner`, whose trials make a `TorchTrainer` each

`vs_limit` is the sweep's wall seconds over those of `bare`; `vs_limit_after_start` leaves out what
passes before the sweep's first record. `vs_own` and `vs_own_after_start` are over the seconds that
its trials spent on loading, training, answering and judging, for each of two slots: what the sweep
adds to its trials, as slow as they are beside its other processes. `vs_shell_loop`,
`vs_fresh_processes` and `vs_trainer_per_trial` are their seconds over the sweep's. All losses are
asserted to be equal, and all gradients not to be zero, before a ratio is told. Where TRL is not
installed its ways are left out, and that is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.start import first_record
from symnoise_ray.records.files import read_json, read_lines

SLOTS = 2
"""Trials that run at a time."""
WAYS = Path(__file__).parent / "sweep_ways"
TYPES = ("none", "neftune", "symnoise")
OWN = ("load", "train", "generate", "judge")
"""Phases of a trial in which it works."""
NEAR, FIRST, NEAR_LATER = 1e-4, 10, 1e-2
"""Losses of `SFTTrainer` may differ by so much in the first steps, and by so much later: it sums a
batch in another order, and at a high learning rate training enlarges the difference."""
OF_TRL = ("shell_loop", "fresh_processes")
LOSSES = "losses.json"
"""What a way leaves of a trial that has no metrics.jsonl of ours."""


def space(num_trials: int, num_steps: int) -> dict[str, Any]:
    """The sweep's file: three noise types over as many learning rates as the trials need."""
    num_rates = num_trials // len(TYPES)
    rates = [round(5e-4 * 10 ** (index / max(1, num_rates - 1)), 6) for index in range(num_rates)]
    train = {
        "max_steps": num_steps,
        "num_epochs": num_steps,  # an epoch is a step or more, so that max_steps alone decides
        "global_batch_size": 16,
        "micro_batch_size": 16,
    }
    return {
        "name": "benchmark",
        "trial": {
            "model": {"name": "demo"},
            "data": {"train": "demo"},
            "train": train,
            "generate": {"max_new_tokens": 32, "batch_size": 64},
        },
        "parameters": {
            "noise.type": {"type": "categorical", "choices": list(TYPES)},
            "noise.alpha": {
                "type": "categorical",
                "choices": [5],
                "when": {"noise.type": list(TYPES[1:])},
            },
            "optim.lr": {"type": "categorical", "choices": rates},
        },
        "baselines": [{"noise.type": "none", "optim.lr": rates[0]}],
        "search": {"sampler": "grid", "opponents": 1},
        "confirm": {"arms": 0},
        "workers": {"num_workers": 1, "cpus_per_worker": 1, "max_slots": SLOTS},
    }


def run(command: list[str], log: Path, threads: int = 1) -> subprocess.Popen[bytes]:
    """Start a way in a process of its own, which computes with so many threads."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(threads),
                "TOKENIZERS_PARALLELISM": "false",
            },
        )


def ended(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a way; its output is the reason if it failed."""
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, process.args))}\n{log.read_text()}")  # type: ignore[arg-type]


def sweep(folder: Path, num_trials: int, num_steps: int) -> dict[str, Any]:
    """Our sweep: its wall seconds, and those before its first record and by phase."""
    (folder / "space.yaml").write_text(yaml.safe_dump(space(num_trials, num_steps)))
    directory, log = folder / "sweep", folder / "sweep.txt"
    began = time.monotonic()
    process = run(
        ["-m", "symnoise_ray.tune", str(folder / "space.yaml"), "--output", str(directory)], log
    )
    while process.poll() is None and not first_record(directory):
        time.sleep(0.02)
    start = time.monotonic() - began
    ended(process, log)
    wall = time.monotonic() - began
    trials = [read_json(path) for path in sorted(directory.glob("trials/*/trial.json"))]
    # A slot's first trial finds nothing warm, so it says nothing about a warm slot.
    warm = [trial["seconds"]["load"] for trial in trials][SLOTS:]
    seconds = read_json(directory / "results.json")["seconds"]
    return {
        "wall": wall,
        "start": start,
        "warm_start": statistics.median(warm),
        "by_phase": seconds["by_phase"],
    }


def trials_of(folder: Path) -> list[Path]:
    """The configurations of the sweep's trials."""
    return sorted((folder / "sweep" / "trials").glob("*/config.json"))


def bare(folder: Path) -> float:
    """Warm processes side by side; seconds from a common start to the end of the last."""
    shares = [trials_of(folder)[index::SLOTS] for index in range(SLOTS)]
    go, logs = folder / "go", [folder / f"bare-{index}.txt" for index in range(SLOTS)]
    processes = [
        run([str(WAYS / "bare.py"), str(go), str(folder / "bare"), *map(str, share)], log)
        for share, log in zip(shares, logs, strict=True)
    ]
    while len(list(folder.glob("go.ready-*"))) < SLOTS:
        for process, log in zip(processes, logs, strict=True):
            if process.poll() is not None:
                ended(process, log)
        time.sleep(0.02)
    began = time.monotonic()
    go.touch()
    for process, log in zip(processes, logs, strict=True):
        ended(process, log)
    return time.monotonic() - began


def shell_loop(folder: Path) -> float:
    """A process per trial, one after the other; the wall seconds."""
    return processes(folder, "shell_loop", 1, SLOTS)


def fresh_processes(folder: Path) -> float:
    """A process per trial, as many at a time as there are slots; the wall seconds."""
    return processes(folder, "fresh_processes", SLOTS, 1)


def processes(folder: Path, way: str, at_once: int, threads: int) -> float:
    """A process per trial, so many at a time with so many threads; the wall seconds."""
    began, waiting = time.monotonic(), trials_of(folder)
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            config = waiting.pop(0)
            name = config.parent.name
            log, target = folder / f"{way}-{name}.txt", folder / way / name
            command = [str(WAYS / "fresh_process.py"), str(config), str(target)]
            running.append((run(command, log, threads), log))
        for each in [each for each in running if each[0].poll() is not None]:
            ended(*each)
            running.remove(each)
        time.sleep(0.02)
    return time.monotonic() - began


def trainer_per_trial(folder: Path) -> float:
    """Ray Tune over trainers; the wall seconds, with Ray's own start."""
    began, log = time.monotonic(), folder / "trainers.txt"
    target = folder / "trainer_per_trial"
    command = [str(WAYS / "trainer_per_trial.py"), str(target), *map(str, trials_of(folder))]
    ended(run(command, log), log)
    return time.monotonic() - began


def losses(directory: Path) -> list[float]:
    """The training loss of every step."""
    if (directory / LOSSES).exists():
        return list(read_json(directory / LOSSES))
    records = [record for record in read_lines(directory / "metrics.jsonl") if "loss" in record]
    assert all(record["grad_norm"] > 0 for record in records), directory
    return [record["loss"] for record in records]


def assert_equal_work(folder: Path, ways: list[str]) -> None:
    """Every way trained every trial to the sweep's losses."""
    for config in trials_of(folder):
        ours = losses(config.parent)
        for way in ways:
            theirs = losses(folder / way / config.parent.name)
            for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
                bound = 0.0
                if way in OF_TRL:
                    bound = (NEAR if step <= FIRST else NEAR_LATER) * (1 + max(ours))
                assert abs(a - b) <= bound, f"{way}, {config.parent.name}, step {step}: {a} {b}"


def one_round(num_trials: int, num_steps: int, *, limit_only: bool = False) -> dict[str, Any]:
    """All ways, one after the other; seconds of each, and their ratios."""
    ways = {"bare": bare}
    if not limit_only and importlib.util.find_spec("trl"):
        ways |= {"shell_loop": shell_loop, "fresh_processes": fresh_processes}
    if not limit_only:
        ways["trainer_per_trial"] = trainer_per_trial
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = sweep(folder, num_trials, num_steps)
        seconds = {way: function(folder) for way, function in ways.items()}
        assert_equal_work(folder, list(ways))
    own = sum(ours["by_phase"][phase] for phase in OWN) / SLOTS
    found = {
        "vs_own": ours["wall"] / own,
        "vs_own_after_start": (ours["wall"] - ours["start"]) / own,
        "vs_limit": ours["wall"] / seconds["bare"],
        "vs_limit_after_start": (ours["wall"] - ours["start"]) / seconds["bare"],
        "start_s": ours["start"],
        "warm_start_s": ours["warm_start"],
        "sweep_s": ours["wall"],
        **{f"{way}_s": value for way, value in seconds.items()},
    }
    for way in ways.keys() - {"bare"}:
        found[f"vs_{way}"] = seconds[way] / ours["wall"]
    return {**found, "by_phase": ours["by_phase"]}


def measure(
    rounds: int, num_trials: int, num_steps: int, *, limit_only: bool = False
) -> dict[str, Any]:
    """Medians over the rounds, each with its least and greatest."""
    told = [one_round(num_trials, num_steps, limit_only=limit_only) for _ in range(rounds)]
    numbers = {name for name, value in told[0].items() if isinstance(value, float)}
    columns = {name: sorted(each[name] for each in told) for name in sorted(numbers)}
    return {
        "num_trials": num_trials,
        "num_steps": num_steps,
        "rounds": rounds,
        **{name: round(statistics.median(values), 3) for name, values in columns.items()},
        "spread": {
            name: [round(values[0], 3), round(values[-1], 3)] for name, values in columns.items()
        },
        "seconds_by_phase": told[0]["by_phase"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=30, help="a multiple of 3")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--limit-only", action="store_true", help="only beside the bare loop")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(
        arguments.rounds, arguments.trials, arguments.steps, limit_only=arguments.limit_only
    )
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")
    if "vs_fresh_processes" not in figures and not arguments.limit_only:
        print("vs_shell_loop, vs_fresh_processes: not measured, since TRL is not installed")


if __name__ == "__main__":
    main()
