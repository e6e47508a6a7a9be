"""What judging all pairs of seeds gains in a confirmation, and whether the level is kept.

    python benchmarks/pairs.py [--json] [--tables 2000] [--worlds "NAME;NAME"]

Only who wins which prompt is simulated (benchmarks/simulated.py, with a judge that is drawn faster:
in a share of the cases it is sure, else it gives its chance, with the same mean and variance). The
analysis, the looks and the rulings are the project's own. For worlds without an effect: how often
one comparison is false, at one look of 3, 5 or 8 seeds at 5 %, and at any of the three looks, which
have 4.5 % together. Against one opponent, since of two both must be wrong. `pooled` is what was
tried and left out: the seeds' mean square averaged over two opponents, with 1.6 times the degrees
of freedom. For an arm that is 3 points better than two opponents: how often it is found, how often
`no difference` is said of one that is not, and with how many trainings.

Run it with OMP_NUM_THREADS=1 and the repository on PYTHONPATH. 604 prompts, looks at 3, 5, 8 seeds.

Shape letters: P prompts, S seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit
from scipy.stats import beta

from benchmarks.simulated import Drawn, World
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.crossed import by_seed
from symnoise_ray.statistics.decision import BETTER, SAME, ruled
from symnoise_ray.statistics.groups import by_group
from symnoise_ray.statistics.looks import SIGNIFICANCE, declared_looks
from symnoise_ray.statistics.power import stopped
from symnoise_ray.statistics.two_way import TwoWay

PROMPTS, EFFECT = 604, 0.03
LOOKS = declared_looks([3, 5, 8])
FREEDOM = 1.6
"""Degrees of freedom of a mean of two variances whose estimates correlate by a quarter, over one's:
both opponents meet the same trainings of the arm."""


class Case(NamedTuple):
    """A world; factors of the seeds' standard deviation, of the arm and of both opponents."""

    world: World
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    prompts: int = PROMPTS


NULL = {
    "seeds 1 point": Case(World()),
    "seeds 2 points": Case(World(seeds=0.02)),
    "seeds t3 5 points": Case(World(seeds=0.05, heavy=True)),
    "plain alone varies": Case(World(seeds=0.02, plain_alone=True)),
    "seed x topic": Case(World(topics=18, seed_by_topic=0.03)),
    "position bias": Case(World(bias=1.5)),
    "12 random topics": Case(World(topics=12, by_topic=0.05, population="other_groups")),
    "same seeds independent": Case(World(seeds=0.02, same_seed=0.0)),
    "same seeds nearly equal": Case(World(seeds=0.02, same_seed=0.9)),
    "judge 0.8": Case(World(judge=0.8)),
    "judge 0.8, seeds do not differ": Case(World(judge=0.8, seeds=0.0)),
    "judge 0.8, seeds t3 5 points": Case(World(judge=0.8, seeds=0.05, heavy=True)),
    "judge 0.8, 60 prompts": Case(World(judge=0.8), prompts=60),
    "rare collapse": Case(World(collapse=0.1)),
    "second opponent steady": Case(World(seeds=0.02), (0.1, 1.0, 0.1)),
    "first opponent 4 times": Case(World(), (1.0, 4.0, 1.0)),
}
"""Without an effect. In the last two the seeds of the opponents differ by unequal amounts."""
POOLED = ("seeds 2 points", "second opponent steady", "first opponent 4 times")
"""Worlds in which pooling over two opponents is measured as well."""
GAIN = {
    f"judge {judge}, seeds {points} point{'s' * (points > 1)}": Case(
        World(judge=judge, seeds=points / 100)
    )
    for judge in (0.5, 0.8)
    for points in (1, 2)
}


class Pooled:
    """An analysis whose seeds' mean square is the mean over several."""

    def __init__(self, own: TwoWay, every: Sequence[TwoWay]) -> None:
        self.own, self.mean = own, own.mean
        self.seeds = float(np.mean([float(np.asarray(each.squares.seeds)) for each in every]))
        self.rest = float(np.mean([float(np.asarray(each.squares.rest)) for each in every]))

    def half_width(self, confidence: float) -> float:
        """As that of one table, with more degrees of freedom of the seeds."""
        own, quantile = self.own, 0.5 + confidence / 2
        prompts = float(np.asarray(own.squares.prompts))
        by_prompt = stdtrit(own.num_prompts - 1, quantile) ** 2 * prompts
        by_seed = stdtrit(FREEDOM * (own.num_seeds - 1), quantile) ** 2 * self.seeds
        squared = by_prompt + max(0.0, by_seed - ndtri(quantile) ** 2 * self.rest)
        return math.sqrt(squared / (own.num_prompts * own.num_seeds))


def tables(case: Case, gain: float, name: str, number: int) -> Iterator[Floats]:
    """Scores (P, S, S) of an arm over each of two opponents; the second one is drawn if asked."""
    world = replace(case.world, gains=(gain,), curve="flat")
    drawn = Drawn(world, np.random.default_rng([zlib.crc32(name.encode()), number]))
    seeds = range(LOOKS[-1].num_seeds)
    skills = []
    for arm, factor in zip((1, 0, 0), case.factors, strict=True):
        setting = drawn.setting(arm, 0.0, case.prompts)
        drawn.world = replace(world, seeds=world.seeds * factor)
        skills.append((setting, drawn.trained(setting, seeds)))
        drawn.world = world
        if arm == 0:
            (own, own_PS), (other, other_PS) = skills[0], skills[-1]
            yield scored(drawn, drawn.chances(own, own_PS[:, :, None], other, other_PS[:, None, :]))


def scored(drawn: Drawn, chances: Floats) -> Floats:
    """Scores with the mean and variance of the beta distribution's."""
    sure, drawn_at = 1 / (drawn.latent.precision + 1), drawn.rng.random(chances.shape)
    found: Floats = np.where(drawn_at < sure, drawn_at < sure * chances, chances)
    return found


def analysed(case: Case, scores_PSS: Floats, num_seeds: int) -> dict[str, TwoWay]:
    """The analyses of the first seeds, by pairs."""
    seen = scores_PSS[:, :num_seeds, :num_seeds]
    found = {"same": np.einsum("pss->ps", seen), "all": by_seed(seen)}
    if case.world.population == "other_groups":
        topics = (np.arange(case.prompts) % case.world.topics).tolist()
        found = {name: by_group(table_PS, topics) for name, table_PS in found.items()}
    return {name: TwoWay(table_PS) for name, table_PS in found.items()}


def level_figures(name: str, num_tables: int) -> dict[str, dict[str, float]]:
    """How often one comparison without an effect is false, by analysis and look."""
    case, false = NULL[name], Counter[tuple[str, str]]()
    with_second = name in POOLED
    for number in range(num_tables):
        drawn = tables(case, 0.0, name, number)
        opponents = [next(drawn), *(drawn if with_second else ())]
        ever = set()
        for look in LOOKS:
            tests = [analysed(case, each, look.num_seeds) for each in opponents]
            first: dict[str, TwoWay | Pooled] = dict(tests[0])
            if with_second:
                for pairs in ("same", "all"):
                    every = [each[pairs] for each in tests]
                    first[f"{pairs}, pooled"] = Pooled(every[0], every)
            for pairs, test in first.items():
                gap = abs(test.mean - 0.5)
                false[pairs, str(look.num_seeds)] += gap > test.half_width(1 - SIGNIFICANCE)
                if gap > test.half_width(1 - SIGNIFICANCE * look.share):
                    ever.add(pairs)
        false.update((pairs, "any look") for pairs in ever)
    found: dict[str, dict[str, float]] = {}
    for pairs in dict.fromkeys(pairs for pairs, _ in false):
        kinds = (*(str(look.num_seeds) for look in LOOKS), "any look")
        found[pairs] = {kind: false[pairs, kind] / num_tables for kind in kinds}
        found[pairs]["upper_95"] = upper(false[pairs, "any look"], num_tables)
    return found


def upper(count: int, num: int) -> float:
    """Upper end of the 95 % interval of Clopper and Pearson (1934) of a rate."""
    return 1.0 if count == num else float(beta.ppf(0.975, count + 1, num - count))


def gain_figures(name: str, num_tables: int) -> dict[str, dict[str, float]]:
    """How often 3 points over two opponents are found, and no difference where there is none."""
    case, found = GAIN[name], Counter[tuple[str, str]]()
    for gain, wanted in ((EFFECT, BETTER), (0.0, SAME)):
        for number in range(num_tables):
            scores = list(tables(case, gain, name, number))
            for pairs in ("same", "all"):
                verdict, trainings = decided(case, scores, pairs)
                found[pairs, wanted] += verdict == wanted
                found[pairs, f"trainings, {wanted}"] += trainings
    told: dict[str, dict[str, float]] = {}
    for (pairs, kind), count in found.items():
        told.setdefault(pairs, {})[kind] = count / num_tables
    return told


def decided(case: Case, scores: Sequence[Floats], pairs: str) -> tuple[str, int]:
    """The verdict, look by look, and the trainings that it took."""
    for look in LOOKS:
        tests = [analysed(case, each, look.num_seeds)[pairs] for each in scores]
        ends = np.array([test.interval(1 - SIGNIFICANCE * look.share) for test in tests])
        verdict = str(ruled(ends[:, 0], ends[:, 1], EFFECT))
        if stopped(verdict, tests, look, LOOKS[-1], EFFECT, 1):
            break
    return verdict, (1 + len(scores)) * look.num_seeds


def rounded(value: object) -> object:
    """Numbers with four digits after the point."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Measure, and print lines or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=int, default=2000, help="simulations of each world")
    parser.add_argument("--worlds", default="", help="only these, by their names, with semicolons")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    kinds: Mapping[str, tuple[Mapping[str, Case], Callable[..., object]]] = {
        "level": (NULL, level_figures),
        "gain": (GAIN, gain_figures),
    }
    told: dict[str, dict[str, object]] = {}
    for kind, (cases, figures) in kinds.items():
        for name in cases:
            if options.worlds and name not in options.worlds.split(";"):
                continue
            told.setdefault(kind, {})[name] = rounded(figures(name, options.tables))
            if not options.json:
                print(f"{kind}: {name}: {json.dumps(told[kind][name])}", flush=True)
    if options.json:
        print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
