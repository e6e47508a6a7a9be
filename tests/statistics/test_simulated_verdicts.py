"""Whole sweeps whose truth is known: search, choice, confirmation and verdict, simulated.

The simulations are those of benchmarks/verdict.py, fewer of them; they are functions of the names
of their worlds.
"""

import json
import math
import os
import subprocess
import sys

import pytest

from benchmarks.simulated import World
from benchmarks.verdict import (
    DESIGN,
    EFFECT,
    EXCUSED,
    NULL,
    THREE_POINTS,
    WITH_EXIT,
    early_exit,
    no_difference_figures,
    null_figures,
    right_figures,
    sweep,
)
from symnoise_ray.config import ConfirmConfig
from symnoise_ray.records.verdict import Candidate, Choice
from symnoise_ray.statistics.decision import BETTER
from symnoise_ray.sweep.choice import confirmed_arms
from tests.conftest import ROOT


def most(rate: float, count: int) -> float:
    """A rate that is seen with a chance of about one in a thousand at most if this is the truth."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("world", ["equal curves", "seeds t3 5 points"])
def test_a_sweep_hardly_ever_tells_a_difference_where_there_is_none(world: str) -> None:
    found = null_figures(world, 120)
    assert found["rate"] <= most(0.05, 120)
    assert found["trainings"] <= 44


@pytest.mark.slow
def test_no_difference_is_hardly_ever_said_of_three_points() -> None:
    assert no_difference_figures("all 3 points better", 100)["rate"] <= most(0.05, 100)


def test_a_large_effect_is_found_and_costs_few_trainings() -> None:
    found = right_figures(World(gains=(0.12,) * 4), "twelve points", 40, DESIGN)
    assert found["right"] >= 0.9
    assert found["mean_trainings"] <= 35, "the first look decides"


def test_a_sweep_is_a_function_of_its_world_design_and_number() -> None:
    one, again, other = (sweep(EFFECT["effect with cliff"], DESIGN, n, "same") for n in (1, 1, 2))
    assert one == again
    assert one != other


def test_an_adaptive_search_is_simulated_by_the_project_s_own_proposals() -> None:
    found = [sweep(NULL["adaptive with one arm"], DESIGN, n, "adaptive") for n in range(2)]
    assert all(each.searched > 0 for each in found)


def test_a_gain_of_thirty_points_is_better_in_every_sweep() -> None:
    found = [sweep(World(gains=(0.3, 0.3)), DESIGN, n, "thirty points") for n in range(5)]
    assert all(each.verdict == BETTER for each in found)


def test_arms_are_ranked_by_more_than_one_lucky_setting() -> None:
    def choice(arm: str, rates: list[float]) -> Choice:
        tried = tuple(Candidate(str(n), "", rate, 0.03) for n, rate in enumerate(rates))
        return Choice(arm, str(rates.index(max(rates))), {}, "raw", tried)

    choices = {
        "none": choice("none", [0.5, 0.5, 0.5, 0.5]),
        "lucky": choice("lucky", [0.58, 0.50, 0.49, 0.48]),
        "steady": choice("steady", [0.55, 0.54, 0.54, 0.10]),
    }
    assert confirmed_arms(choices, ConfirmConfig(arms=1), "none") == ["steady"]


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize("world", sorted(set(NULL) - EXCUSED))
def test_hundreds_of_sweeps_without_an_effect_keep_the_level(world: str) -> None:
    assert null_figures(world, 300)["rate"] <= most(0.05, 300)


@pytest.mark.slow
def test_with_unequal_curves_the_verdict_is_right_of_the_settings_that_it_names() -> None:
    assert null_figures("unequal curves", 300)["false_of_settings"] <= most(0.01, 300)


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("world", sorted(THREE_POINTS))
def test_hundreds_of_sweeps_do_not_deny_three_points(world: str) -> None:
    assert no_difference_figures(world, 300)["rate"] <= most(0.05, 300)


@pytest.mark.slow
@pytest.mark.skipif(early_exit is None, reason="without early exit its saving is assumed")
def test_early_exit_saves_a_quarter_of_the_search() -> None:
    name = "effect with equal curves"
    found = right_figures(EFFECT[name], name, 50, WITH_EXIT)
    assert found["search_trainings"] <= 0.75 * 5 * WITH_EXIT.trials_per_arm


@pytest.mark.slow
def test_the_benchmark_tells_every_figure_as_json() -> None:
    script = str(ROOT / "benchmarks" / "verdict.py")
    run = subprocess.run(
        [sys.executable, script, "--sweeps", "3", "--json"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    figures = json.loads(run.stdout)
    assert figures["null_any_verdict"].keys() == NULL.keys()
    assert figures["right_at_3_points"].keys() == EFFECT.keys()
    assert figures.keys() >= {
        "false_no_difference",
        "trainings_for_80",
        "early_exit_steps",
        "early_exit_same_winner",
        "power_against_plan",
    }
