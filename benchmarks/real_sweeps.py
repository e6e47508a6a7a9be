"""Whole real sweeps whose answer is known: the same setting twice, and an effect that is there.

    python benchmarks/real_sweeps.py FOLDER [--sweeps 10] [--only same,planted] [--json]

`same`: plain fine-tuning under two names. The treatment is the training seed, so that both arms are
tuned, trained and judged apart, and nothing distinguishes them but chance. `planted`: 20 steps of
training against 72. Every sweep has seeds of its own. It runs as a user would start it, on the
embedded demo; what lies in the folder is not run again. Told are all verdicts, and for the planted
effect the power that `plan` gives for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from symnoise_ray import load
from symnoise_ray.preflight.forecast import Options
from symnoise_ray.preflight.plan import plan, to_json

APART = 100_000
"""Distance of the seeds of two arms, and of two sweeps."""


def same(number: int) -> dict[str, Any]:
    """Plain fine-tuning against itself."""
    seeds = [2 * number * APART, (2 * number + 1) * APART]
    return {
        "parameters": {"train.seed": {"type": "categorical", "choices": seeds}},
        "baselines": [{"train.seed": seeds[0], "optim.lr": 1.6e-3}],
        "question": {"treatment": "train.seed", "reference": seeds[0], "effect": 0.05},
        "trial": {"train": {"num_epochs": 1}},
    }


def planted(number: int) -> dict[str, Any]:
    """Seventy-two steps against twenty."""
    return {
        "parameters": {"train.max_steps": {"type": "categorical", "choices": [20, 72]}},
        "baselines": [{"train.max_steps": 20, "optim.lr": 1.6e-3}],
        "question": {"treatment": "train.max_steps", "reference": 20, "effect": 0.11},
        "trial": {"train": {"seed": number * APART}},
    }


KINDS = {"same": same, "planted": planted}


def space(kind: str, number: int) -> dict[str, Any]:
    """One sweep, as its file holds it."""
    own = KINDS[kind](number)
    rate = {"type": "float", "low": 5e-4, "high": 5e-3, "log": True}
    train = {"global_batch_size": 16, "micro_batch_size": 16, **own["trial"]["train"]}
    return {
        **own,
        "name": f"{kind}-{number}",
        "trial": {"model": {"name": "demo"}, "noise": {"type": "none"}, "train": train},
        "parameters": {**own["parameters"], "optim.lr": rate},
        "search": {"sampler": "qmc", "num_trials": 7, "seed": number},
        "confirm": {"arms": 1, "looks": [3, 5]},
    }


def run(kind: str, number: int, folder: Path) -> dict[str, Any]:
    """Run one sweep, unless its end is there already; what it said."""
    file, output = folder / f"{kind}-{number}.yaml", folder / f"{kind}-{number}"
    if not (output / "results.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(space(kind, number)), encoding="utf-8")
        command = [sys.executable, "-m", "symnoise_ray.tune", str(file), "--output", str(output)]
        resume = ["--resume"] if (output / "run.lock.json").exists() else []
        with (folder / f"{kind}-{number}.txt").open("wb") as log:
            subprocess.run([*command, *resume], check=True, stdout=log, stderr=subprocess.STDOUT)
    result = load(output)
    (decision,) = result.verdict.decisions
    best = decision.comparisons[0]
    return {
        "sweep": f"{kind}-{number}",
        "verdict": decision.verdict,
        "win_rates": [round(each.win_rate, 4) for each in decision.comparisons],
        "interval": [round(end, 4) for end in best.interval_95],
        "trainings": len(result.trials),
        "seconds": round(result.seconds["wall"]),
    }


def planned_power(folder: Path) -> float:
    """The power that `plan` gives for the planted effect, of the first sweep's design."""
    file = folder / "planted-0.yaml"
    told = to_json(plan(str(file), [], Options()))
    power: float = told["confirmation"]["power"]
    return power


def main() -> None:
    """Run what is missing, and print all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    told: dict[str, Any] = {}
    for kind in arguments.only.split(","):
        told[kind] = []
        for number in range(arguments.sweeps):
            told[kind].append(run(kind, number, arguments.folder))
            if not arguments.json:
                print(json.dumps(told[kind][-1]), flush=True)
    if "planted" in told:
        told["planned_power"] = planned_power(arguments.folder)
        if not arguments.json:
            print(f"planned power: {told['planned_power']}")
    if arguments.json:
        print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
