"""How the house grows: sweeps of many trials that only sleep, and a hub with many slots.

    PYTHONPATH=. python benchmarks/scale.py [--trials 10,100,1000] [--slots 1,10,50,200]
        [--sweep-slots 2] [--sleep 1.0] [--json]

Trials: whole sweeps with real Ray Tune, Optuna, hub, judge, MLflow and report, on slots that write
two records and four answers in place of training. Told are the wall seconds beyond the slots' own
sleep, the growth of driver and hub over the second half of the search, which no import is part of,
what the driver needs beyond that at the end, the seconds that report, MLflow and Ray then take, and
the size of what the sweep leaves. The exponent is the slope of log seconds over log trials; 1 is a
cost that each trial pays once.

Slots: a real hub serves so many slots and trials at once, each slot sending a record every half
second. Told is the median and the 95th percentile of the milliseconds that a record waits for the
hub's answer.

Trials that sleep for less than a trial costs show that cost by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray
import yaml
from rich.console import Console

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.rows import read_prompts
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.layout import COMPLETIONS, METRICS
from symnoise_ray.workers import slots
from symnoise_ray.workers.hub import Hub
from symnoise_ray.workers.outcome import Outcome

SLEEP_SECONDS = 1.0
"""Of a trial in its slot, unless another is asked for: less than the start of a trial's own process
takes, so that a process that is started on the way shows."""
TRIALS = ("ray::ResourceTrainable", "ray::SearchTrial")
"""How processes of trials are called."""
NUM_PROMPTS = 4
SECONDS_BETWEEN_RECORDS = 0.5
NUM_RECORDS = 20


def space(num_trials: int, num_slots: int) -> dict[str, Any]:
    """The sweep's file: random points of two noise types."""
    return {
        "name": "scale",
        "trial": {"data": {"max_eval_prompts": NUM_PROMPTS}},
        "parameters": {
            "noise.type": {"type": "categorical", "choices": ["none", "neftune"]},
            "noise.alpha": {
                "type": "float",
                "low": 1,
                "high": 20,
                "log": True,
                "when": {"noise.type": ["neftune"]},
            },
            "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        },
        "baselines": [{"noise.type": "none", "optim.lr": 1e-3}],
        "search": {"sampler": "random", "num_trials": num_trials - 1, "opponents": 1},
        "confirm": {"arms": 0},
        "workers": {"max_slots": num_slots},
    }


def sleeping_slot(sleep: float, hub: Any, slot: str, pool: str, *_: Any) -> None:
    """A slot as the hub knows it, whose trials sleep so many seconds."""
    handle = ray.cloudpickle.dumps(None)
    assert ray.get(hub.slot_up.remote(slot, pool, slot, 0, 1, 0, handle))
    done = threading.Event()
    threading.Thread(target=_beat, args=(hub, slot, done), daemon=True).start()
    for number in itertools.count():
        while (task := ray.get(hub.take.remote(slot, slot, number))) is None:
            pass
        if task.get("stop"):
            done.set()
            return
        outcome = _sleep(sleep, hub, slot, task)
        ray.get(hub.finish.remote(slot, slot, task["name"], 0, outcome))


def _beat(hub: Any, slot: str, done: threading.Event) -> None:
    while not done.wait(1.0):
        ray.get(hub.beat.remote(slot, slot, 0, 0.0))


def _sleep(sleep: float, hub: Any, slot: str, task: dict[str, Any]) -> Outcome:
    """Two records, a sleep between them, and the gold answers as the trial's own."""
    config, directory = TrialConfig.model_validate(task["config"]), Path(task["directory"])
    records = [
        {"step": 0, "clean_loss": 2.0},
        {"step": 1, "loss": 1.5, "grad_norm": 1.0, "lr": config.optim.lr, "clean_loss": 1.0},
    ]
    for index, record in enumerate(records):
        time.sleep(index * sleep)
        ray.get(hub.tell.remote(slot, slot, task["name"], [record]))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records))
    prompts = read_prompts(config.data, config.data.prompts, gold=True).examples
    answers = [
        Completion(example.instruction, example.gold, directory.name, gold=example.gold)
        for example in prompts
    ]
    write_lines(answers, directory / COMPLETIONS)
    summary = {"num_steps": 1, "loss": 1.5, "clean_loss": 1.0, "num_train_rows": 1}
    return Outcome("done", summary=summary, seconds={"train": sleep})


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(psutil.Process(pid).memory_info().rss)


class _Memory(threading.Thread):
    """The resident size of driver and hub, and the processes of trials, once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sizes: dict[str, list[tuple[float, int]]] = {"driver": [], "hub": []}
        """Seconds since the beginning, and bytes."""
        self.began = time.monotonic()
        self.trials: set[int] = set()
        """Processes that were started for trials."""
        self.done = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.done.wait(1.0):
            below = [(_title(each), each) for each in me.children(recursive=True)]
            self.trials |= {each.pid for title, each in below if title.startswith(TRIALS)}
            hubs = [each for title, each in below if title.startswith("ray::Hub")]
            if hubs:
                now = time.monotonic() - self.began
                self.sizes["hub"].append((now, resident(hubs[0].pid)))
                self.sizes["driver"].append((now, resident(me.pid)))

    def at(self, who: str, second: float) -> int:
        """Bytes at the last look before a second."""
        sizes = self.sizes[who]
        return max((each for each in sizes if each[0] <= second), default=sizes[0])[1]


def _title(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def sweep(num_trials: int, num_slots: int, sleep: float) -> dict[str, Any]:
    """One sweep of sleeping trials."""
    from symnoise_ray.sweep.run import run_sweep

    served = partial(sleeping_slot, sleep)
    with tempfile.TemporaryDirectory() as name, patch.object(slots, "run_slot", served):
        folder, memory = Path(name), _Memory()
        (folder / "space.yaml").write_text(yaml.safe_dump(space(num_trials, num_slots)))
        memory.start()
        result = run_sweep(
            str(folder / "space.yaml"), [], folder / "out", Console(quiet=True), resume=False
        )
        memory.done.set()
        assert [trial.status for trial in result.trials] == ["done"] * num_trials
        seconds, closed = result.seconds, time.monotonic() - memory.began
        slept = num_trials * sleep / num_slots
        ended = seconds["wall"] - seconds["start"] - seconds["search"]
        middle, end = (seconds["start"] + part * seconds["search"] for part in (0.5, 1))
        growth = {who: memory.at(who, end) - memory.at(who, middle) for who in memory.sizes}
        return {
            "trials": num_trials,
            "search_s": seconds["search"],
            "overhead_per_trial_s": round((seconds["search"] - slept) / num_trials, 4),
            "trial_processes": len(memory.trials),
            "end_s": round(ended, 2),
            "closing_s": round(closed - seconds["wall"], 2),
            "driver_kb_per_trial": round(growth["driver"] / 1e3 / (num_trials / 2), 1),
            "hub_kb_per_trial": round(growth["hub"] / 1e3 / (num_trials / 2), 1),
            "driver_end_mb": round((resident(os.getpid()) - memory.at("driver", end)) / 1e6, 1),
            "report_mb": _megabytes(folder / "out" / "report.html"),
            "journal_mb": _megabytes(folder / "out" / "journal.jsonl"),
        }


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 2)


def exponent(rows: Sequence[dict[str, Any]], what: str) -> float:
    """Slope of log seconds over log trials, by least squares."""
    points = [(math.log(row["trials"]), math.log(row[what])) for row in rows]
    return round(statistics.linear_regression(*zip(*points, strict=True)).slope, 3)


async def _slot(hub: Any, name: str, phase: float, waits: list[float]) -> None:
    """A slot that sends a record every half second, at a phase of its own."""
    assert await hub.slot_up.remote(name, "pool", name, 0, 1, 0, ray.cloudpickle.dumps(None))
    while (task := await hub.take.remote(name, name, 0)) is None:
        pass
    await asyncio.sleep(phase * SECONDS_BETWEEN_RECORDS)
    for step in range(NUM_RECORDS):
        await asyncio.sleep(SECONDS_BETWEEN_RECORDS)
        began = time.perf_counter()
        await hub.tell.remote(name, name, task["name"], [{"step": step}])
        waits.append(time.perf_counter() - began)
    await hub.finish.remote(name, name, task["name"], 0, Outcome("done"))


async def _trial(hub: Any, name: str) -> None:
    """A trial that follows its records to its end."""
    await hub.submit.remote(name, {"config": {"train": {"micro_batch_size": 1}}}, "pool", "key")
    watched = hub.wait_cancel.remote(name)
    seen, outcome = 0, None
    while outcome is None:
        events, outcome = await hub.events.remote(name, seen, 2.0)
        seen += len(events)
    await watched
    assert seen == NUM_RECORDS


async def _serve(hub: Any, num_slots: int) -> list[float]:
    waits: list[float] = []
    await asyncio.gather(
        *(_trial(hub, f"trial-{index}") for index in range(num_slots)),
        *(_slot(hub, f"slot-{index}", index / num_slots, waits) for index in range(num_slots)),
    )
    return waits


def hub_with(num_slots: int) -> dict[str, Any]:
    """How long records wait for a hub with so many slots, milliseconds."""
    hub = ray.remote(num_cpus=0, max_concurrency=1000)(Hub).remote()
    waits = sorted(asyncio.run(_serve(hub, num_slots)))
    ray.kill(hub)
    return {
        "slots": num_slots,
        "median_ms": round(1e3 * statistics.median(waits), 2),
        "p95_ms": round(1e3 * waits[int(0.95 * len(waits))], 2),
    }


def measure(
    trials: Sequence[int], num_slots: Sequence[int], sweep_slots: int, sleep: float
) -> dict[str, Any]:
    """All tables."""
    ray.init(
        address="local",
        num_cpus=sweep_slots,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    hubs = [_told(hub_with(number)) for number in num_slots]
    ray.shutdown()
    rows = [_told(sweep(number, sweep_slots, sleep)) for number in trials]
    figures: dict[str, Any] = {
        "trials": rows,
        "slots": hubs,
        "sweep_slots": sweep_slots,
        "sleep_s": sleep,
    }
    if len(rows) > 1:
        figures["exponent_search"] = exponent(rows, "search_s")
    return figures


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Show a row at once, since the next one may take long."""
    print(row, file=sys.stderr, flush=True)
    return row


def numbers(text: str) -> list[int]:
    """`10,100` as numbers."""
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=numbers, default=[10, 100, 1000])
    parser.add_argument("--slots", type=numbers, default=[1, 10, 50, 200])
    parser.add_argument("--sweep-slots", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=SLEEP_SECONDS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.trials, arguments.slots, arguments.sweep_slots, arguments.sleep)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        for row in value if isinstance(value, list) else [value]:
            print(name, row)


if __name__ == "__main__":
    main()
