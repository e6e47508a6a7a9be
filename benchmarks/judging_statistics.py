"""How often the statistics of judging are right: simulated sweeps whose truth is known.

    python benchmarks/judging_statistics.py [--sweeps 1000] [--json]

Told are: sweeps without any difference that got a verdict (family-wise, at most 5 %), how often
95 % intervals hold the truth, what early-decided judging saves and how often it flips, and the
seconds of a length-controlled bootstrap (2,000 replicates, 805 items, one core: set
OMP_NUM_THREADS=1). Everything but the seconds is a function of the arguments. The file is not
called statistics.py, which would hide Python's own module from the other benchmarks.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from symnoise_ray.statistics.bootstrap import Floats, draws, interval
from symnoise_ray.statistics.comparison import compare
from symnoise_ray.statistics.early_stopping import EarlyDecision
from symnoise_ray.statistics.length_control import Items, fit_length, replicate, shares
from symnoise_ray.statistics.win_rate import bootstrap_interval

Rates = dict[str, float]


class Effects(NamedTuple):
    """Standard deviations, on the logit scale, of what makes a verdict of one arm and seed.

    `topic` is shared by 10 prompts of one topic, in all arms: what no comparison here knows of.
    `prompt` by all arms, `own` is an arm's own on a prompt, and `seed` that of a training. The
    plain model of a seed is the opponent of all arms, so `opponent` is shared by the arms.
    """

    topic: float = 0.0
    prompt: float = 0.5
    own: float = 0.5
    seed: float = 0.2
    opponent: float = 0.2


def sweep(
    rng: np.random.Generator, num_arms: int, num_prompts: int, num_seeds: int, effects: Effects
) -> Floats:
    """Scores of arms by prompts by seeds (A, P, S), without any difference in truth.

    Each cell is judged in both orders; opposite verdicts average to a tie.
    """
    shape = (num_arms, num_prompts, num_seeds)
    topics = rng.normal(size=-(-num_prompts // 10)).repeat(10)[:num_prompts]
    logits_APS = (
        effects.topic * topics[None, :, None]
        + effects.prompt * rng.normal(size=(1, num_prompts, 1))
        + effects.own * rng.normal(size=(num_arms, num_prompts, 1))
        + effects.seed * rng.normal(size=(num_arms, 1, num_seeds))
        + effects.opponent * rng.normal(size=(1, 1, num_seeds))
        + rng.normal(size=shape)
    )
    first, second = (rng.logistic(size=shape) < 2 * logits_APS for _ in range(2))
    return np.asarray((first + 1.0 * second) / 2)


def false_verdicts(
    num_sweeps: int, num_arms: int, num_prompts: int, num_seeds: int, effects: Effects
) -> Rates:
    """Family-wise rate of verdicts without a difference, and coverage of the arms' intervals."""
    rng = np.random.default_rng([num_arms, num_prompts, num_seeds])
    told = covered = 0
    for _ in range(num_sweeps):
        scores_APS = sweep(rng, num_arms, num_prompts, num_seeds, effects)
        found = compare({str(arm): scores for arm, scores in enumerate(scores_APS)})
        told += any(arm.verdict != "cannot tell yet" for arm in found)
        covered += sum(arm.interval_95[0] <= 0.5 <= arm.interval_95[1] for arm in found)
    return {"false_verdicts": told / num_sweeps, "coverage": covered / num_sweeps / num_arms}


def trial_coverage(num_trials: int, num_prompts: int, asked: int = 1) -> Rates:
    """Coverage of a single trial's bootstrap interval; each prompt is asked so many times."""
    rng = np.random.default_rng([num_prompts, asked])
    clusters = np.repeat(np.arange(num_prompts), asked).tolist()
    centre, covered = 0.4, 0
    truth = float(expit(centre + 2 * rng.normal(size=2_000_000)).mean())
    for _ in range(num_trials):
        chances = expit(centre + 2 * rng.normal(size=num_prompts)).repeat(asked)
        scores = (rng.random((2, len(chances))) < chances).mean(axis=0)
        low, high = bootstrap_interval(scores, clusters)
        covered += low <= truth <= high
    return {"coverage": covered / num_trials}


def graded_coverage(num_models: int, num_prompts: int, win_rate: float) -> Rates:
    """Of a judge that is nearly sure of every verdict: graded scores, all of them near 0 or 1.

    Coverage of the bootstrap interval and of the verdict's, and the rate of wrong verdicts.
    """
    rng = np.random.default_rng([num_prompts, int(1000 * win_rate)])
    doubt = 0.002
    truth = win_rate + doubt * (1 - 2 * win_rate)
    bootstrapped = tested = wrong = 0
    for _ in range(num_models):
        doubts = rng.beta(0.3, 0.3 / doubt - 0.3, size=num_prompts)
        scores = np.where(rng.random(num_prompts) < win_rate, 1 - doubts, doubts)
        low, high = bootstrap_interval(scores)
        (found,) = compare({"model": scores[:, None]})
        bootstrapped += low <= truth <= high
        tested += found.interval_95[0] <= truth <= found.interval_95[1]
        right = "better" if truth > 0.5 else "worse" if truth < 0.5 else "cannot tell yet"
        wrong += found.verdict not in ("cannot tell yet", right)
    rates = {"coverage": bootstrapped, "coverage_of_verdicts": tested, "wrong_verdicts": wrong}
    return {name: count / num_models for name, count in rates.items()}


def judged_lengths(rng: np.random.Generator, count: int, seed_shift: float = 0.0) -> Items:
    """Verdicts that like length as the model says; the truth at equal lengths is sigmoid(0.3)."""
    deltas = rng.normal(-60, 200, size=count)
    chances = expit(-1.2 * np.tanh(deltas / 200) + 0.3 + seed_shift)
    return Items((rng.random((2, count)) < chances).mean(axis=0), deltas)


def length_coverage(num_trials: int, num_prompts: int, num_replicates: int = 2000) -> Rates:
    """Coverage of the length-controlled bootstrap interval of a single trial."""
    rng = np.random.default_rng(num_prompts)
    covered, truth = 0, float(expit(0.3))
    drawn_RP = draws(range(num_prompts), num_replicates)
    for _ in range(num_trials):
        items = judged_lengths(rng, num_prompts)
        low, high = interval(replicate(items, drawn_RP, fit_length(items)), num_prompts)
        covered += low <= truth <= high
    return {"coverage": covered / num_trials}


def length_comparison_coverage(num_sweeps: int, num_prompts: int, num_seeds: int) -> Rates:
    """Coverage of the length-controlled interval of a comparison, over prompts and seeds."""
    rng = np.random.default_rng([num_prompts, num_seeds])
    shift = 0.0 if num_seeds == 1 else 0.15
    truth = float(expit(0.3 + shift * rng.normal(size=2_000_000)).mean())
    covered = 0
    for _ in range(num_sweeps):
        seeds = [judged_lengths(rng, num_prompts, shift * rng.normal()) for _ in range(num_seeds)]
        shares_PS = np.stack([shares(items, fit_length(items)) for items in seeds], axis=1)
        (found,) = compare({"a": shares_PS})
        covered += found.interval_95[0] <= truth <= found.interval_95[1]
    return {"coverage": covered / num_sweeps}


def early_decisions(num_sets: int, num_items: int, win_rate: float, batch: int = 32) -> Rates:
    """Share of the items that early-decided judging uses, and of decisions that it flips."""
    rng = np.random.default_rng([num_items, int(1000 * win_rate)])
    used = flips = 0
    for _ in range(num_sets):
        scores = (rng.random(num_items) < win_rate).astype(float)
        early = EarlyDecision(num_items)
        for first in range(0, num_items, batch):
            if early.add(scores[first : first + batch].tolist()):
                break
        lead = scores.mean() - 0.5
        side = "better" if lead > 0 else "worse" if lead < 0 else "equal"
        used += early.num_judged
        flips += early.verdict != side
    return {"items_used": used / num_sets / num_items, "flips": flips / num_sets}


def bootstrap_seconds(num_items: int = 805) -> Rates:
    """Processor seconds of a length-controlled bootstrap of 2,000 replicates; best of three."""
    items = judged_lengths(np.random.default_rng(0), num_items)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        replicate(items, draws(range(num_items)), fit_length(items))
        seconds.append(time.process_time() - began)
    return {"seconds": min(seconds)}


def plan(count: int) -> dict[str, Callable[[], Rates]]:
    """Every measurement by its name."""
    plain, topics = Effects(), Effects(topic=0.3)
    few = max(1, count // 5)
    return {
        "no difference, 4 arms, 100 prompts, 2 seeds": lambda: false_verdicts(
            count, 4, 100, 2, plain
        ),
        "no difference, 4 arms, 100 prompts, 3 seeds": lambda: false_verdicts(
            count, 4, 100, 3, plain
        ),
        "no difference, 4 arms, 100 prompts, 5 seeds": lambda: false_verdicts(
            count, 4, 100, 5, plain
        ),
        "no difference, 4 arms, 100 prompts, 10 seeds": lambda: false_verdicts(
            count, 4, 100, 10, plain
        ),
        "no difference, 4 arms, 100 prompts, 1 seed without effect": lambda: false_verdicts(
            count, 4, 100, 1, Effects(seed=0, opponent=0)
        ),
        "no difference, 4 arms, 100 prompts, 1 seed with effect": lambda: false_verdicts(
            count, 4, 100, 1, plain
        ),
        "no difference, 4 arms, 100 prompts in 10 topics, 3 seeds": lambda: false_verdicts(
            count, 4, 100, 3, topics
        ),
        "no difference, 4 arms, 100 prompts in 10 topics, 10 seeds": lambda: false_verdicts(
            count, 4, 100, 10, topics
        ),
        "win rate of a trial, 50 prompts": lambda: trial_coverage(count, 50),
        "win rate of a trial, 200 prompts": lambda: trial_coverage(count, 200),
        "win rate of a trial, 100 prompts asked 3 times": lambda: trial_coverage(count, 100, 3),
        **{
            f"a judge that is sure, {prompts} prompts, win rate {100 * rate:g} %": partial(
                graded_coverage, few, prompts, rate
            )
            for rate in (0.5, 0.026)
            for prompts in (3, 10, 30, 100)
        },
        "length-controlled, 100 prompts": lambda: length_coverage(count, 100),
        "length-controlled, 400 prompts": lambda: length_coverage(few, 400),
        "length-controlled comparison, 200 prompts, 1 seed": lambda: length_comparison_coverage(
            count, 200, 1
        ),
        "length-controlled comparison, 200 prompts, 3 seeds": lambda: length_comparison_coverage(
            count, 200, 3
        ),
        "early, 805 items, win rate 60 %": lambda: early_decisions(few, 805, 0.6),
        "early, 805 items, win rate 55 %": lambda: early_decisions(few, 805, 0.55),
        "early, 200 items, win rate 60 %": lambda: early_decisions(count, 200, 0.6),
        "early, 200 items, win rate 50 %": lambda: early_decisions(count, 200, 0.5),
        "bootstrap, 805 items": bootstrap_seconds,
    }


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=1000, help="simulations of each kind")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    found = {}
    for name, measure in plan(arguments.sweeps).items():
        found[name] = {key: round(value, 4) for key, value in measure().items()}
        if not arguments.json:
            told = ", ".join(f"{key} {value:g}" for key, value in found[name].items())
            print(f"{name}: {told}", flush=True)
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
