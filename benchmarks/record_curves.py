"""Train the same model at many learning rates to the end, and keep the curves of the clean loss.

    python benchmarks/record_curves.py demo [--rates 12] [--output benchmarks/curves]
    python benchmarks/record_curves.py path/to/model --train rows.json --prompts prompts.json

`benchmarks/early_exit.py` replays the rule of `search.early_exit` on these curves. A sweep without
early exit trains every noise type at learning rates that are spread log-uniformly; every trial is
judged against one plain trial. One JSON per model: noise type, learning rate, alpha, clean loss by
step, final win rate with its standard error and number of prompts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import symnoise_ray
from symnoise_ray.records.files import read_lines
from symnoise_ray.records.layout import METRICS
from symnoise_ray.records.results import SweepResult

NUM_EVALS = 16
DIGITS = 4
ALPHA = 5


def space(options: argparse.Namespace) -> dict[str, Any]:
    """The sweep of one model: a grid of noise types and learning rates."""
    low, high = options.range
    rates = [float(f"{rate:.3g}") for rate in np.geomspace(low, high, options.rates)]
    data: dict[str, Any] = {"train": "demo", "max_eval_prompts": options.num_prompts}
    if options.train:
        data |= {"train": options.train, "eval_prompts": options.prompts}
    noisy = [arm for arm in options.arms if arm != "none"]
    return {
        "name": "curves",
        "trial": {
            "model": {"name": options.model},
            "data": data,
            "train": {
                "num_epochs": 3,
                "max_steps": options.steps,
                "global_batch_size": options.batch,
                "micro_batch_size": options.batch,
                "num_evals": NUM_EVALS,
                "probe_alpha": 0,
                "checkpoint_minutes": 0,
            },
            "generate": {"max_new_tokens": 32, "batch_size": 64},
        },
        "parameters": {
            "noise.type": {"type": "categorical", "choices": options.arms},
            "noise.alpha": {
                "type": "categorical",
                "choices": [ALPHA],
                "when": {"noise.type": noisy},
            },
            "optim.lr": {"type": "categorical", "choices": rates},
        },
        "baselines": [{"noise.type": "none", "optim.lr": float(f"{(low * high) ** 0.5:.3g}")}],
        "search": {"sampler": "grid"},
        "workers": {"max_slots": options.slots},
    }


def curves(result: SweepResult) -> list[dict[str, Any]]:
    """One row per trial of the search that came to its end; the baseline is not searched."""
    rows = []
    for trial in result.part("search"):
        if trial.baseline or not trial.is_done:
            continue
        records = read_lines(result.paths.trial(trial.trial) / METRICS)
        measured = [record for record in records if "clean_loss" in record]
        rows.append(
            {
                "noise": trial.arm,
                "lr": trial.params["optim.lr"],
                "alpha": trial.params.get("noise.alpha"),
                "steps": [record["step"] for record in measured],
                "clean_loss": [round(record["clean_loss"], DIGITS) for record in measured],
                "win_rate": round(trial["win_rate"], DIGITS),
                "standard_error": round(trial["standard_error"], DIGITS),
                "num_prompts": trial["n_total"],
            }
        )
    return rows


def main() -> None:
    """Run the sweep in a folder that is thrown away, and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="`demo`, or the folder of a model")
    parser.add_argument("--name", help="of the file; by default that of the model")
    parser.add_argument("--train", help="training rows; by default the demo's")
    parser.add_argument("--prompts", help="prompts with gold answers, for other training rows")
    parser.add_argument("--arms", nargs="+", default=["none", "neftune", "symnoise"])
    parser.add_argument("--rates", type=int, default=12, help="learning rates of every noise type")
    parser.add_argument("--range", type=float, nargs=2, default=[1e-4, 2e-2])
    parser.add_argument("--steps", type=int, default=None, help="most steps of a trial")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--num-prompts", type=int, default=None)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "curves")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "curves.yaml"
        file.write_text(json.dumps(space(options)))  # JSON is YAML
        result = symnoise_ray.run(file, output=Path(folder) / "sweep")
        rows = curves(result)
    content = {"model": Path(options.name or options.model).name, "trials": rows}
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{content['model']}.json"
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"model": {json.dumps(content["model"])}, "trials": [\n{lines}\n]}}\n')
    print(f"{len(rows)} curves in {path}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
