"""How often a whole sweep's verdict is right: simulated searches, choices and confirmations.

    python benchmarks/verdict.py [--json] [--sweeps 1000] [--worlds NAME,NAME]

Only who wins which prompt is simulated (benchmarks/simulated.py). The design, the sampler, early
exit, the choice, the looks and every decision are the project's own. Told are, for worlds in which
no arm has an effect, how many sweeps say `better` or `worse`; for worlds with an effect, how many
say `better` of an arm that is better, and with how many trainings. A training that stopped early
counts by its share of the steps. Everything but `seconds` is a function of the arguments.

Run it with OMP_NUM_THREADS=1 and the repository on PYTHONPATH. In it are 805 prompts, a quarter for
the search and three quarters for the confirmation, and five arms, plain fine-tuning among them.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta

from benchmarks.simulated import CELL, SAME_SEED, Drawn, Setting, World, clean_losses
from symnoise_ray.config import SweepConfig
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.comparison import compare
from symnoise_ray.statistics.decision import BETTER, SAME, WORSE, rule
from symnoise_ray.statistics.groups import by_group
from symnoise_ray.statistics.looks import Look, declared_looks
from symnoise_ray.statistics.power import power, stopped
from symnoise_ray.statistics.two_way import Spread, TwoWay
from symnoise_ray.statistics.win_rate import mean_over
from symnoise_ray.sweep.choice import choose, confirmed_arms
from symnoise_ray.sweep.questions import rivals
from symnoise_ray.sweep.rates import opponents


def optional(name: str) -> Any:
    """A module, or None where there is no such one."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


early_exit = optional("symnoise_ray.statistics.early_exit")
PROMPTS = {"search": 201, "confirm": 604, "half": 402}
ARMS = ("none", "bernoulli", "gaussian", "neftune", "symnoise")
LOWEST, HIGHEST = 5e-4, 5e-3
ASSUMED_SHARE = 0.5
"""Share of its steps that a searched trial takes, where early exit is not there to say."""
BARS = {"level": 0.05, "upper_95": 0.065, "right": 0.66}
"""Most wrong verdicts, most that their upper bound may be, and least that must be right."""
TOPICS = 12

NULL = {
    "seeds 2 points": World(seeds=0.02),
    "seeds t3 5 points": World(seeds=0.05, heavy=True),
    "plain alone varies": World(seeds=0.02, plain_alone=True),
    "seed x topic": World(topics=18, seed_by_topic=0.03),
    "position bias": World(bias=1.5),
    "12 random topics": World(topics=TOPICS, by_topic=0.05, population="other_groups"),
    "equal curves": World(),
    "unequal curves": World(curve="shifted"),
    "cliff": World(curve="cliff"),
    "adaptive with one arm": World(gains=(0.0,), sampler="tpe"),
    "rare collapse": World(collapse=0.1),
}
"""Worlds without any effect of noise."""
EXCUSED = frozenset({"rare collapse"})
"""Worlds that break the level, and are told of: no method mends rare collapse."""
GAINS = (0.03, 0.015, 0.0, 0.0)
EFFECT = {
    "effect with equal curves": World(gains=GAINS),
    "effect with unequal curves": World(gains=GAINS, curve="shifted"),
    "effect with cliff": World(gains=GAINS, curve="cliff"),
    "effect with no curve": World(gains=GAINS, curve="flat"),
}
THREE_POINTS = {
    "all 3 points better": World(gains=(0.03,) * 4, curve="flat"),
    "all 3 points worse": World(gains=(-0.03,) * 4, curve="flat"),
    "all 3 points better with seeds t3": World(
        gains=(0.03,) * 4, curve="flat", seeds=0.05, heavy=True
    ),
}


class Design(NamedTuple):
    """Trials of each arm in the search, and the looks of the confirmation."""

    trials_per_arm: int = 4
    looks: tuple[int, ...] = (3, 5, 8)
    early_exit: bool = False


DESIGN = Design()
"""The quickstart's, with five arms: of the designs that take 38 trainings on average, none that was
tried with this code is right more often."""
WITH_EXIT = Design(trials_per_arm=5, looks=(3, 6, 10), early_exit=True)
"""What early exit saves is spent on more trials and seeds."""
ADAPTIVE = Design(trials_per_arm=14)
"""With more than the ten blocks that come before a sampler proposes."""


class Outcome(NamedTuple):
    """One sweep: the arm and what was said of it, its true gain, and full-length trainings.

    `gaps` are the true differences of the settings that were compared, one per opponent.
    """

    arm: int
    verdict: str
    gain: float
    searched: float
    confirmed: int
    gaps: tuple[float, ...] = ()

    @property
    def false_of_settings(self) -> bool:
        """Whether the verdict is wrong even of the very settings that it names."""
        better, worse = self.verdict == BETTER, self.verdict == WORSE
        return any((better and gap <= 0) or (worse and gap >= 0) for gap in self.gaps)

    @property
    def trainings(self) -> float:
        """Of the search and the confirmation."""
        return self.searched + self.confirmed


def rng_of(*names: object) -> np.random.Generator:
    """A generator that depends on names alone."""
    return np.random.default_rng([zlib.crc32(str(name).encode()) for name in names])


def config(world: World, made: Design, seed: int) -> SweepConfig:
    """The sweep of a world, as a user would declare it."""
    arms = ARMS[: len(world.gains) + 1]
    rate = {"type": "float", "low": LOWEST, "high": HIGHEST, "log": True}
    return SweepConfig.model_validate(
        {
            "name": "simulated",
            "parameters": {
                "noise.type": {"type": "categorical", "choices": arms},
                "optim.lr": rate,
            },
            "baselines": [{"noise.type": "none", "optim.lr": math.sqrt(LOWEST * HIGHEST)}],
            "search": {
                "sampler": world.sampler,
                "num_trials": made.trials_per_arm * len(arms) - 1,
                "seed": seed,
            },
            "question": {"population": world.population},
            "confirm": {"arms": 1, "looks": made.looks},
        }
    )


def place(point: Mapping[str, Any]) -> tuple[int, float]:
    """A point of the space in the simulated world: its arm and its learning rate."""
    share = math.log(point["optim.lr"] / LOWEST) / math.log(HIGHEST / LOWEST)
    return ARMS.index(point["noise.type"]), share


def setting(drawn: Drawn, point: Mapping[str, Any], num_prompts: int) -> Setting:
    """A point of the space as it meets new prompts."""
    return drawn.setting(*place(point), num_prompts)


def value_of(drawn: Drawn, point: Mapping[str, Any]) -> float:
    """The true value of a point."""
    return drawn.value(*place(point))


class Search:
    """The search of one sweep: its trials in order, each judged against the first baseline, and at
    the end against the best trials of the reference."""

    def __init__(self, plans: SweepPlans, drawn: Drawn, *, early: bool, prompts: int) -> None:
        self.plans, self.drawn, self.prompts = plans, drawn, prompts
        self.exits = {arm: early_exit.Arm() for arm in ARMS} if early and early_exit else {}
        self.assumed = ASSUMED_SHARE if early and not early_exit else 1.0
        self.spent = 0.0
        adaptive = any(cell.point is None for cell in plans.cells)
        self.proposals = _proposals(plans) if adaptive else None
        baseline = plans.sweep.baselines[0]
        self.reference = setting(drawn, baseline, prompts)
        self.reference_P1 = drawn.trained(self.reference, [plans.cells[0].block])
        self.models: dict[str, tuple[Setting, Floats]] = {}

    def results(self) -> list[TrialResult]:
        """All trials that came to their end, with the win rates that settings are chosen by."""
        found = [self._trial(index) for index in range(len(self.plans.cells))]
        done = [each for each in found if each is not None]
        plain = [each for each in done if each.arm == "none"]
        rivals = [each.trial for each in opponents(plain, self.plans.sweep.search.opponents)]
        return done if len(rivals) < 2 else self._over(done, rivals)

    def _over(self, done: Sequence[TrialResult], rivals: Sequence[str]) -> list[TrialResult]:
        """The trials with their mean win rates over some of them; each pair is judged once."""
        pairs: dict[tuple[str, str], Floats] = {}
        found = []
        for trial in done:
            scores: list[dict[int, float] | None] = []
            for rival in rivals:
                if rival == trial.trial:
                    scores.append(None)
                    continue
                if (rival, trial.trial) in pairs:
                    judged = 1 - pairs[rival, trial.trial]
                else:
                    own, other = self.models[trial.trial], self.models[rival]
                    judged = self.drawn.judged(*own, *other)[:, 0]
                pairs[trial.trial, rival] = judged
                scores.append(dict(enumerate(judged.tolist())))
            rate, error = mean_over(scores)
            values = {**trial.values, "win_rate": rate, "standard_error": error}
            found.append(replace(trial, values=values))
        return found

    def _trial(self, index: int) -> TrialResult | None:
        cell = self.plans.cells[index]
        point = self.proposals.propose(index) if self.proposals else cell.point
        assert point is not None
        name = f"{index:03d}-{cell.arm}"
        share = self._share(name, point) if index else 1.0
        self.spent += share * (self.assumed if index else 1.0)
        if share < 1:
            return None
        scores_P = self._scores(index, point, name)
        error = float(scores_P.std(ddof=1)) / math.sqrt(self.prompts)
        values = {"win_rate": float(scores_P.mean()), "standard_error": error}
        if self.proposals:
            self.proposals.tell(index, values["win_rate"])
        return TrialResult(name, arm=cell.arm, params=point, values=values)

    def _scores(self, index: int, point: Mapping[str, Any], name: str) -> Floats:
        if index == 0:
            self.models[name] = self.reference, self.reference_P1
            return np.full(self.prompts, 0.5)
        own = setting(self.drawn, point, self.prompts)
        skill_P1 = self.drawn.trained(own, [self.plans.cells[index].block])
        self.models[name] = own, skill_P1
        return self.drawn.judged(own, skill_P1, self.reference, self.reference_P1)[:, 0]

    def _share(self, name: str, point: Mapping[str, Any]) -> float:
        """Share of its steps that a trial takes by the project's rule."""
        if not self.exits:
            return 1.0
        arm, rate = place(point)
        deficit = (0.0, *self.drawn.world.gains)[arm] - self.drawn.value(arm, rate)
        losses = clean_losses(self.drawn.rng, rate, deficit)
        shares = np.linspace(0, 1, len(losses)).tolist()
        curve = [early_exit.Point(*each) for each in zip(shares, losses.tolist(), strict=True)]
        for count in range(1, len(curve) + 1):
            decision = self.exits[ARMS[arm]].report(name, curve[:count])
            if decision is not None and not decision.goes_on:
                return float(curve[count - 1].share)
        return 1.0


def _proposals(plans: SweepPlans) -> Any:
    """Optuna's study in memory; its import takes a second."""
    from symnoise_ray.sweep.proposals import Proposals

    return Proposals(plans, Path(":memory:"))


def sweep(world: World, made: Design, number: int, name: str) -> Outcome:
    """One whole sweep: search, choice, confirmation, verdict."""
    drawn = Drawn(world, rng_of(name, made, number))
    plans = SweepPlans(config(world, made, number), Path("simulated"))
    search = Search(plans, drawn, early=made.early_exit, prompts=PROMPTS["search"])
    choices = choose(search.results(), plans)
    (arm,) = confirmed_arms(choices, plans.sweep.confirm, "none")
    best, point = dict(choices["none"].params), dict(choices[arm].params)
    compared = list(rivals(plans.arms, best, point).values())
    verdict, confirmed = confirmation(drawn, point, compared, made.looks)
    index = ARMS.index(arm)
    gaps = tuple(value_of(drawn, point) - value_of(drawn, each) for each in compared)
    return Outcome(index, verdict, world.gains[index - 1], search.spent, confirmed, gaps)


def tables(
    drawn: Drawn,
    point: Mapping[str, Any],
    compared: Iterable[Mapping[str, Any]],
    num_prompts: int,
    num_seeds: int,
) -> list[Floats]:
    """Scores (P, S) of a point over each that it is compared with, on fresh prompts and seeds."""
    seeds = range(1000, 1000 + num_seeds)
    own = setting(drawn, point, num_prompts)
    own_PS, found = drawn.trained(own, seeds), []
    for each in compared:
        rival = setting(drawn, each, num_prompts)
        found.append(drawn.judged(own, own_PS, rival, drawn.trained(rival, seeds)))
    return found


def confirmation(
    drawn: Drawn,
    point: Mapping[str, Any],
    compared: Sequence[Mapping[str, Any]],
    looks: Sequence[int],
) -> tuple[str, int]:
    """The verdict on one arm, look by look, and the trainings that it took."""
    scores = tables(drawn, point, compared, PROMPTS["confirm"], looks[-1])
    return decided(scores, declared_looks(looks), drawn)


def decided(scores: Sequence[Floats], looks: Sequence[Look], drawn: Drawn) -> tuple[str, int]:
    """The verdict of tables (P, S), of which each look sees the first seeds."""
    effect, topics = 0.03, drawn.topics(len(scores[0])).tolist()
    for look in looks:
        seen = [table_PS[:, : look.num_seeds] for table_PS in scores]
        if drawn.world.population == "other_groups":
            seen = [by_group(table_PS, topics) for table_PS in seen]
        tests = [TwoWay(table) for table in seen]
        verdict = rule({"arm": (tests, look.share, effect)})["arm"].verdict
        if stopped(verdict, tests, look, looks[-1], effect, 1):
            break
    return verdict, (1 + len(scores)) * look.num_seeds


def sweep_before(
    world: World, trials: int, num_seeds: int, number: int, name: str
) -> tuple[Outcome, ...]:
    """A sweep of the design of before: one outcome for each of its two arms.

    Every trial draws its arm and learning rate by chance, the largest win rate is chosen, the best
    two arms meet plain fine-tuning at its own best on half of the prompts and a fixed number of
    seeds, and Holm's correction is over both.
    """
    drawn, half = Drawn(world, rng_of("before", name, trials, num_seeds, number)), PROMPTS["half"]
    first = {"noise.type": "none", "optim.lr": math.sqrt(LOWEST * HIGHEST)}
    reference = setting(drawn, first, half)
    reference_P1 = drawn.trained(reference, [0])
    best: dict[str, tuple[float, dict[str, Any]]] = {"none": (0.5, first)}
    for _ in range(trials - 1):
        lr = LOWEST * (HIGHEST / LOWEST) ** drawn.rng.random()
        point = {"noise.type": str(drawn.rng.choice(ARMS)), "optim.lr": lr}
        own = setting(drawn, point, half)
        rate = drawn.judged(own, drawn.trained(own, [0]), reference, reference_P1).mean()
        known = best.get(point["noise.type"], (0.0, {}))
        best[point["noise.type"]] = max(known, (float(rate), point), key=lambda each: each[0])
    plain = best.pop("none")[1]
    arms = sorted(best, key=lambda arm: -best[arm][0])[:2]
    seeds = range(1000, 1000 + num_seeds)
    rival = setting(drawn, plain, half)
    rival_PS, scores = drawn.trained(rival, seeds), {}
    for arm in arms:
        own = setting(drawn, best[arm][1], half)
        scores[arm] = drawn.judged(own, drawn.trained(own, seeds), rival, rival_PS)
    indices = {arm: ARMS.index(arm) for arm in arms}
    return tuple(
        Outcome(
            indices[found.arm], found.verdict, world.gains[indices[found.arm] - 1],
            trials, num_seeds * (1 + len(arms)),
        )
        for found in compare(scores)
    )  # fmt: skip


def upper(count: int, num: int) -> float:
    """Upper end of the 95 % interval of Clopper and Pearson (1934) of a rate."""
    return 1.0 if count == num else float(beta.ppf(0.975, count + 1, num - count))


def share_of(flags: Sequence[bool]) -> dict[str, float]:
    """A rate, its upper bound and how many were simulated."""
    count = sum(flags)
    return {"rate": count / len(flags), "upper_95": upper(count, len(flags)), "n": len(flags)}


def null_figures(name: str, num_sweeps: int, made: Design | None = None) -> dict[str, float]:
    """How often a sweep without an effect says that there is one."""
    world = NULL[name]
    made = made or (ADAPTIVE if world.sampler == "tpe" else DESIGN)
    if world.sampler == "tpe":
        num_sweeps = max(1, num_sweeps // 5)  # Optuna takes ten times as long as all the rest
    found = [sweep(world, made, number, name) for number in range(num_sweeps)]
    return {
        **share_of([each.verdict in (BETTER, WORSE) for each in found]),
        "false_of_settings": float(np.mean([each.false_of_settings for each in found])),
        "better": float(np.mean([each.verdict == BETTER for each in found])),
        "worse": float(np.mean([each.verdict == WORSE for each in found])),
        "no_difference": float(np.mean([each.verdict == SAME for each in found])),
        "trainings": float(np.mean([each.trainings for each in found])),
    }


def right_figures(world: World, name: str, num_sweeps: int, made: Design) -> dict[str, float]:
    """How often a sweep with an effect finds it, and at what price."""
    found = [sweep(world, made, number, name) for number in range(num_sweeps)]
    said = [each for each in found if each.verdict == BETTER]
    trainings = [each.trainings for each in found]
    return {
        "right": sum(each.gain > 0 for each in said) / num_sweeps,
        "right_best_arm": sum(each.gain == max(world.gains) for each in said) / num_sweeps,
        "wrong": sum(
            (each.verdict == BETTER and each.gain <= 0)
            or (each.verdict == WORSE and each.gain >= 0)
            for each in found
        ) / num_sweeps,
        "best_arm_confirmed": float(np.mean([each.gain == max(world.gains) for each in found])),
        "search_trainings": float(np.mean([each.searched for each in found])),
        "mean_trainings": float(np.mean(trainings)),
        "most_trainings": float(np.max(trainings)),
        "n": num_sweeps,
    }  # fmt: skip


def no_difference_figures(name: str, num_sweeps: int) -> dict[str, float]:
    """How often `no difference` is said of an arm whose true difference is the effect."""
    world = THREE_POINTS[name]
    found = [sweep(world, DESIGN, number, name) for number in range(num_sweeps)]
    return share_of([each.verdict == SAME for each in found])


def before_figures(num_seeds: int, name: str, num_sweeps: int) -> dict[str, float]:
    """Right and wrong verdicts of the design of before, in a world of `EFFECT` or `NULL`."""
    world = {**EFFECT, **NULL}[name]
    found = [sweep_before(world, 20, num_seeds, number, name) for number in range(num_sweeps)]
    right = [any(e.verdict == BETTER and e.gain > 0 for e in each) for each in found]
    wrong = [
        any(
            (e.verdict == BETTER and e.gain <= 0) or (e.verdict == WORSE and e.gain >= 0)
            for e in each
        )
        for each in found
    ]
    return {
        "right": float(np.mean(right)),
        "wrong": float(np.mean(wrong)),
        "mean_trainings": float(np.mean([each[0].trainings for each in found])),
        "n": num_sweeps,
    }


def confirmed_alone(looks: Sequence[int], num_sweeps: int) -> dict[str, float]:
    """Power of the confirmation of one arm that is 3 points better than two opponents."""
    world, found = World(gains=(0.03,), curve="flat"), []
    for number in range(num_sweeps):
        drawn = Drawn(world, rng_of("alone", *looks, number))
        points = [{"noise.type": arm, "optim.lr": LOWEST} for arm in ("bernoulli", "none", "none")]
        found.append(confirmation(drawn, points[0], points[1:], looks))
    right = float(np.mean([verdict == BETTER for verdict, _ in found]))
    return {"right": right, "mean_trainings": float(np.mean([spent for _, spent in found]))}


def confirmed_alone_before(num_seeds: int, num_sweeps: int) -> dict[str, float]:
    """The same by the design of before: two such arms, half of the prompts, Holm; the first one."""
    world, right = World(gains=(0.03, 0.03), curve="flat"), 0
    for number in range(num_sweeps):
        drawn, half = Drawn(world, rng_of("alone before", num_seeds, number)), PROMPTS["half"]
        settings = [drawn.setting(arm, 0.0, half) for arm in range(3)]
        plain, *arms = [drawn.trained(each, range(num_seeds)) for each in settings]
        scores = {
            str(n): drawn.judged(settings[n + 1], arm, settings[0], plain)
            for n, arm in enumerate(arms)
        }
        right += any(each.arm == "0" and each.verdict == BETTER for each in compare(scores))
    return {"right": right / num_sweeps, "mean_trainings": 3.0 * num_seeds}


LADDER = ((3, 5, 8), (4, 6, 9), (4, 7, 11), (5, 9, 14), (6, 12, 18), (8, 16, 24))
LADDER_BEFORE = (3, 5, 8, 11, 14, 18, 24)


def trainings_for_80(num_sweeps: int) -> dict[str, Any]:
    """The first step of a ladder of seeds with 80 % right, by both designs; None if none has."""
    name, few = "effect with equal curves", max(1, num_sweeps // 3)

    def whole(looks: tuple[int, ...]) -> dict[str, float]:
        return right_figures(EFFECT[name], name, few, DESIGN._replace(looks=looks))

    return {
        "world": name,
        "whole_sweep": _first(LADDER, whole),
        "whole_sweep_before": _first(
            LADDER_BEFORE, lambda seeds: before_figures(seeds, name, few)
        ),
        "confirmation_alone": _first(LADDER, lambda looks: confirmed_alone(looks, few)),
        "confirmation_alone_before": _first(
            LADDER_BEFORE, lambda seeds: confirmed_alone_before(seeds, few)
        ),
    }  # fmt: skip


def _first(ladder: Sequence[Any], measure: Any) -> dict[str, Any]:
    """The first step that is right in 80 %, with its trainings; all that was tried is told."""
    tried = []
    for step in ladder:
        found = measure(step)
        tried.append({"seeds": step, "right": found["right"], "trainings": found["mean_trainings"]})
        if found["right"] >= 0.8:
            return {"trainings": found["mean_trainings"], "tried": tried}
    return {"trainings": None, "tried": tried}


GRID = ((108, 2), (108, 3), (402, 3), (805, 5))
GAPS = (0.02, 0.05, 0.1)


def power_against_plan(num_sweeps: int) -> dict[str, dict[str, float]]:
    """Planned against simulated power, in percent, by prompts, seeds, opponents and gap."""
    spread = Spread(0.15**2, 2 * (1 - SAME_SEED) * 0.01**2, CELL - 0.15**2)
    found = {}
    for (prompts, seeds), num_opponents, gap in itertools.product(GRID, (1, 2), GAPS):
        looks = [Look(seeds, 1.0, 1)]
        planned = power(spread, prompts, looks, 0.03, gap=gap, num_opponents=num_opponents).better
        world = World(gains=(gap,), curve="flat")
        better = 0
        for number in range(num_sweeps):
            drawn = Drawn(world, rng_of("power", prompts, seeds, num_opponents, gap, number))
            points = [{"noise.type": arm, "optim.lr": LOWEST} for arm in ("bernoulli", "none")]
            scores = tables(drawn, points[0], points[1:] * num_opponents, prompts, seeds)
            better += decided(scores, looks, drawn)[0] == BETTER
        name = f"{prompts} x {seeds}, {num_opponents} opponents, {100 * gap:g} points"
        simulated = better / num_sweeps
        found[name] = {
            "plan": 100 * planned,
            "simulated": 100 * simulated,
            "difference": 100 * (planned - simulated),
        }
    return found


def early_exit_figures() -> dict[str, float | None]:
    """What the replay of recorded trainings says of early exit; None where it is not there."""
    replay = optional("benchmarks.early_exit")
    if replay is None:
        return {"early_exit_steps": None, "early_exit_same_winner": None}
    told = [replay.figures(runs, 200) for runs in replay.read().values()]
    return {
        f"early_exit_{name}": float(np.mean([each[name] for each in told]))
        for name in ("steps", "same_winner")
    }


def holds(figures: Mapping[str, float]) -> bool:
    """Whether the level holds: the rate, and from a thousand sweeps on its upper bound."""
    return figures["rate"] <= BARS["level"] and (
        figures["n"] < 1000 or figures["upper_95"] <= BARS["upper_95"]
    )


def measure(num_sweeps: int, worlds: Sequence[str], *, aloud: bool) -> dict[str, Any]:
    """All figures of the chosen worlds; without a choice, the other figures too."""
    began = time.process_time()
    told: dict[str, Any] = {}

    def tell(name: str, figures: Any) -> Any:
        if aloud:
            print(f"{name}: {json.dumps(_rounded(figures))}", flush=True)
        return figures

    def each(known: Mapping[str, World], figures: Any) -> dict[str, Any]:
        chosen = [name for name in known if not worlds or name in worlds]
        return {name: tell(name, figures(name)) for name in chosen}

    told["design"] = {**DESIGN._asdict(), "prompts": PROMPTS, "arms": len(ARMS)}
    told["design_with_early_exit"] = WITH_EXIT._asdict()
    told["early_exit"] = "the project's rule" if early_exit else "assumed: half of the steps"
    told["null_any_verdict"] = each(NULL, lambda name: null_figures(name, num_sweeps))
    told["false_no_difference"] = each(
        THREE_POINTS, lambda name: no_difference_figures(name, num_sweeps)
    )
    told["right_at_3_points"] = each(
        EFFECT, lambda name: right_figures(EFFECT[name], name, num_sweeps, DESIGN)
    )
    told["right_with_early_exit"] = each(
        EFFECT, lambda name: right_figures(EFFECT[name], name, num_sweeps, WITH_EXIT)
    )
    if not worlds:
        told["before"] = {
            name: tell(f"before: {name}", before_figures(3, name, num_sweeps))
            for name in ("equal curves", "unequal curves", *EFFECT)
        }
        told["trainings_for_80"] = tell("trainings for 80 %", trainings_for_80(num_sweeps))
        told["power_against_plan"] = tell("power", power_against_plan(num_sweeps))
        told.update(tell("early exit", early_exit_figures()))
    groups = ("null_any_verdict", "false_no_difference")
    rates = {name: rate for group in groups for name, rate in told[group].items()}
    told["breaks_the_level"] = tell(
        "breaks the level", [name for name, rate in rates.items() if not holds(rate)]
    )
    told["bars"] = BARS
    told["seconds"] = time.process_time() - began
    return told


def _rounded(value: Any) -> Any:
    """Numbers with four digits after the point."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Measure, and print lines or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=1000, help="simulations of each kind")
    parser.add_argument("--worlds", default="", help="only these, by their names")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    worlds = [name.strip() for name in arguments.worlds.split(",") if name.strip()]
    unknown = set(worlds) - {*NULL, *THREE_POINTS, *EFFECT}
    if unknown:
        parser.error(f"no such worlds: {', '.join(sorted(unknown))}")
    told = measure(arguments.sweeps, worlds, aloud=not arguments.json)
    if arguments.json:
        print(json.dumps(_rounded(told), indent=2))
    else:
        print(f"{told['seconds']:.0f} seconds of processor time")


if __name__ == "__main__":
    main()
