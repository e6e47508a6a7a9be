"""Sweeps that are played: a stand-in for the workers answers by its settings, without training."""

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from symnoise_ray.config import SweepConfig, TrialConfig
from symnoise_ray.errors import DivergedError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.layout import COMPLETIONS, TRIALS
from symnoise_ray.records.results import TrialResult, read_result
from symnoise_ray.records.verdict import Candidate, Choice
from symnoise_ray.report.standing import Standing
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.statistics.win_rate import win_rate
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.confirm import Confirmation
from symnoise_ray.sweep.questions import questions
from symnoise_ray.sweep.schedule import Part
from symnoise_ray.sweep.trial import run_trial
from symnoise_ray.workers.outcome import Outcome

Skill = Callable[[TrialConfig], float]
"""Share of the prompts that a trial answers rightly; below 0, it is far off on all of them."""


QUICK = mock.patch("symnoise_ray.sweep.trial.win_rate", partial(win_rate, num_replicates=20))
"""No decision rests on the bootstrap intervals of single trials, which take most of the time."""


class Played:
    """Stands for the workers: right answers by skill, drawn anew for every setting and seed."""

    def __init__(self, skill: Skill, num_prompts: int = 60, failing: Collection[str] = ()) -> None:
        self.skill, self.num_prompts, self.failing = skill, num_prompts, failing
        self.trained: list[str] = []

    def run(self, name: str, config: TrialConfig, directory: Path) -> Iterator[Outcome]:
        """Write the answers and finish, or diverge."""
        self.trained.append(name)
        if name in self.failing:
            raise DivergedError("the loss is nan at step 3")
        write_lines(self.answers(name, config), directory / COMPLETIONS)
        yield Outcome("done", seconds={"train": 0.1}, summary={"num_steps": 3})

    def answers(self, name: str, config: TrialConfig) -> list[Completion]:
        """One answer per prompt; prompts are of six groups."""
        # The draws are older than this setting, and the tests know what they bring.
        known = repr((config.noise, config.optim)).replace(", kl_weight=1.0", "")
        own = zlib.crc32(known.encode())
        draws = np.random.default_rng([config.train.seed, own]).random(self.num_prompts)
        skill = self.skill(config)
        return [
            Completion(
                f"What does animal {number} say?",
                "miaow" if skill < 0 else gold if draw < skill else gold[:-3] + "baa",
                name,
                f"group {number % 6}",
                gold,
            )
            for number, draw in enumerate(draws)
            for gold in [f"animal {number} says moo"]
        ]


def played_search(plans: SweepPlans, workers: Played) -> list[TrialResult]:
    """Every trial of the search, trained and judged."""
    judges = JudgeSource.of_sweep(
        plans.config(dict(plans.sweep.baselines[0])).judge, plans.directory
    )
    found = []
    for number, cell in enumerate(plans.cells):
        assert cell.point is not None
        plan = plans.search(number, cell.point)
        with QUICK:
            *_, result = run_trial(plan, workers, judges)  # type: ignore[arg-type]
        assert isinstance(result, TrialResult)
        found.append(result)
    return found


def chosen(arm: str, point: dict[str, Any], num_settings: int = 1) -> Choice:
    """The choice of a point that won most of so many settings."""
    names = [f"{number:03d}-{arm}" for number in range(num_settings)]
    candidates = tuple(Candidate(name, name, 0.6 - n / 100, 0.05) for n, name in enumerate(names))
    return Choice(arm, names[0], point, "raw", candidates, num_settings=num_settings)


def played_confirmation(
    plans: SweepPlans,
    workers: Played,
    choices: dict[str, Choice],
    arms: Sequence[str],
    parts: Sequence[Part] | None = None,
) -> Confirmation:
    """The confirmation of some arms, run to its end."""
    parts = parts or [{"looks": list(plans.sweep.confirm.looks)}]
    own, asked = questions(plans, choices, arms, parts)
    confirmation = Confirmation(plans, own, asked, parts)
    judges = JudgeSource.of_sweep(plans.config(own.point).judge, plans.directory)
    board = SimpleNamespace(say=lambda text: None, standing=Standing())
    watch = SimpleNamespace(
        board=board,
        take_up=lambda plan: read_result(plan.directory),
        take_up_confirmed=lambda directory: None,  # results_of reads all directories
        add=lambda plan: None,
    )
    judge = plans.config(own.point).judge
    budget = Budget(plans.sweep, judge, lambda: results_of(plans), num_slots=2)
    with QUICK:
        confirmation.run(workers, judges, watch, budget)  # type: ignore[arg-type]
    return confirmation


def results_of(plans: SweepPlans) -> list[TrialResult]:
    """The results of all trials that lie in a sweep's directory."""
    found = (read_result(folder) for folder in sorted((plans.directory / TRIALS).glob("*")))
    return [result for result in found if result is not None]


def sweep(**values: Any) -> SweepConfig:
    """A sweep of plain fine-tuning, NEFTune and SymNoise over learning rates."""
    noisy = ["neftune", "symnoise"]
    sound: dict[str, Any] = {
        "name": "played",
        "parameters": {
            "noise.type": {"type": "categorical", "choices": ["none", *noisy]},
            "noise.alpha": {"type": "categorical", "choices": [5], "when": {"noise.type": noisy}},
            "optim.lr": {"type": "categorical", "choices": [1e-4, 2e-4, 4e-4, 8e-4]},
        },
        "baselines": [{"noise.type": "none", "optim.lr": 1e-4}],
        "search": {"sampler": "grid", "opponents": 1},
        "confirm": {"arms": 1, "looks": [2, 3]},
    }
    return SweepConfig.model_validate(sound | values)
