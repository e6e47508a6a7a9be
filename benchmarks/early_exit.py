"""What early exit saves and what it costs: its rule, replayed on recorded trainings.

    python benchmarks/early_exit.py [--draws 500] [--tune] [--json]

For every noise type of every file in `benchmarks/curves/` (see `record_curves.py`), sweeps are
drawn: which 8 to 12 of its trials are in the sweep (all, where there are no more), in which order,
and how fast each runs, two at a time. Told are the share of all steps that was spent, and how often
the same winner came out: the trial with the best final win rate ran to its end, or one within one
standard error of it. `--tune` compares rungs, reductions and windows. Everything is a function of
the arguments.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from symnoise_ray.statistics.early_exit import (
    RULE,
    Arm,
    Curve,
    Rule,
    curve_of,
    loss_at,
    stop_evidence,
)

CURVES = Path(__file__).parent / "curves"
CONCURRENT = 2
SIZES = (8, 12)
BARS = {"steps": 0.5, "same_winner": 0.9}
"""At most this share of the steps, and at least this share of the sweeps."""


class Run(NamedTuple):
    """One recorded trial."""

    curve: Curve
    win_rate: float
    standard_error: float


def read(folder: Path = CURVES) -> dict[str, list[Run]]:
    """`model/noise type` -> its trials."""
    arms: dict[str, list[Run]] = {}
    for file in sorted(folder.glob("*.json")):
        for row in json.loads(file.read_text())["trials"]:
            points = zip(row["steps"], row["clean_loss"], strict=True)
            curve = curve_of({"step": step, "clean_loss": loss} for step, loss in points)
            run = Run(curve, row["win_rate"], row["standard_error"])
            arms.setdefault(f"{file.stem}/{row['noise']}", []).append(run)
    return arms


def every(curve: Curve, step: int) -> Curve:
    """The curve of a trial that measured its loss only at every so manieth time."""
    return list(curve[::step])


def replay(runs: list[Run], rng: np.random.Generator, rule: Rule = RULE) -> tuple[float, list[Run]]:
    """One arm of a sweep, its trials in this order, two at a time, each at a speed of its own.

    Returns:
        The share of all steps that was spent, and the trials that ran to their end.
    """
    arm, spent, ended = Arm(rule), 0.0, []
    pace = rng.uniform(0.8, 1.25, size=len(runs))
    waiting = iter(range(len(runs)))
    # (time, trial, number of its points so far)
    events = [(0.0, index, 1) for index in itertools.islice(waiting, CONCURRENT)]
    while events:
        now, index, count = heapq.heappop(events)
        curve = runs[index].curve
        decision = arm.report(str(index), curve[:count])
        stopped = decision is not None and not decision.goes_on
        if stopped or count == len(curve):
            spent += curve[count - 1].share
            if not stopped:
                ended.append(runs[index])
            following = next(waiting, None)
            if following is not None:
                heapq.heappush(events, (now, following, 1))
        else:
            took = (curve[count].share - curve[count - 1].share) * float(pace[index])
            heapq.heappush(events, (now + took, index, count + 1))
    return spent / len(runs), ended


def same_winner(runs: list[Run], ended: list[Run]) -> bool:
    """Whether the best trial ended, or one that is within one standard error of it."""
    best = max(runs, key=lambda run: run.win_rate)
    return max(run.win_rate for run in ended) >= best.win_rate - best.standard_error


def figures(runs: list[Run], draws: int, rule: Rule = RULE, step: int = 1) -> dict[str, float]:
    """Mean share of steps, share of sweeps with the same winner, and mean loss of win rate."""
    rng = np.random.default_rng(0)
    shares, same, lost = [], [], []
    for _ in range(draws):
        size = min(int(rng.integers(SIZES[0], SIZES[1] + 1)), len(runs))
        chosen = [runs[i] for i in rng.permutation(len(runs))[:size]]
        drawn = [run._replace(curve=every(run.curve, step)) for run in chosen]
        share, ended = replay(drawn, rng, rule)
        shares.append(share)
        same.append(same_winner(drawn, ended))
        best, found = (max(run.win_rate for run in some) for some in (drawn, ended))
        lost.append(best - found)
    return {
        "steps": float(np.mean(shares)),
        "same_winner": float(np.mean(same)),
        "win_rate_lost": float(np.mean(lost)),
    }


def evidence(runs: list[Run], rule: Rule = RULE) -> float | None:
    """Rank correlation of the loss on the first rung with the final win rate, over all trials."""
    losses = [loss_at(run.curve, rule.rungs[0], rule) or 0.0 for run in runs]
    return stop_evidence(losses, [run.win_rate for run in runs], ["one"] * len(runs)).correlation


def tune(arms: dict[str, list[Run]], draws: int) -> None:
    """Rules by the steps they spend and the winners they keep: the mean and the worst arm."""
    choices = itertools.product(
        [(1 / 4,), (1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 8, 1 / 4, 1 / 2), (3 / 8,), (1 / 8, 1 / 2)],
        [1.5, 2, 3, 4],
        [1, 2, 3],
    )
    for rungs, reduction, window in choices:
        rule = Rule(rungs, reduction, window)
        told = [figures(runs, draws, rule) for runs in arms.values()]
        steps, same = ([each[name] for each in told] for name in ("steps", "same_winner"))
        print(
            f"{np.mean(steps):.3f} {max(steps):.3f}  {np.mean(same):.3f} {min(same):.3f}  "
            f"rungs {', '.join(f'{rung:g}' for rung in rungs)}, reduction {reduction:g}, "
            f"window {window}"
        )


def main() -> None:
    """Print the figures of every arm, or compare rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--every", type=int, default=1, help="use every so manieth clean loss")
    parser.add_argument("--tune", action="store_true", help="compare rules")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    arms = read()
    if options.tune:
        tune(arms, options.draws)
        return
    told: dict[str, Any] = {
        name: figures(runs, options.draws, step=options.every) | {"correlation": evidence(runs)}
        for name, runs in arms.items()
    }
    told["all"] = {
        name: float(np.mean([told[arm][name] for arm in arms]))
        for name in ("steps", "same_winner", "win_rate_lost")
    }
    if options.json:
        print(json.dumps({"rule": asdict(RULE), "draws": options.draws, "bars": BARS, **told}))
        return
    for name, row in told.items():
        print(name.ljust(24), "  ".join(f"{key} {value:.3f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
