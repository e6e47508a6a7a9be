"""Simulated sweeps whose truth is known: verdicts and intervals are right as often as they say.

The simulations are those of benchmarks/judging_statistics.py, fewer of them, with fixed seeds.
"""

import json
import math
import subprocess
import sys

import pytest

from benchmarks.judging_statistics import (
    Effects,
    early_decisions,
    false_verdicts,
    graded_coverage,
    length_comparison_coverage,
    length_coverage,
    trial_coverage,
)
from tests.conftest import ROOT


def error(rate: float, count: int) -> float:
    """Two standard errors of a rate seen in so many simulations."""
    return 2 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("num_seeds", [2, 3, 10])
def test_sweeps_without_a_difference_hardly_ever_get_a_verdict(num_seeds: int) -> None:
    found = false_verdicts(300, 4, 60, num_seeds, Effects())
    assert found["false_verdicts"] <= 0.05
    # A few seeds tell little of how much seeds differ, so their interval is on the wide side.
    assert 0.95 - error(0.95, 300) <= found["coverage"] <= 0.995


def test_one_seed_holds_its_level_where_seeds_do_not_differ() -> None:
    found = false_verdicts(300, 4, 60, 1, Effects(seed=0, opponent=0))
    assert found["false_verdicts"] <= 0.05 + error(0.05, 300)
    assert found["coverage"] == pytest.approx(0.95, abs=error(0.95, 300))


def test_one_seed_does_not_cover_what_another_training_would_do() -> None:
    assert false_verdicts(100, 4, 60, 1, Effects())["false_verdicts"] > 0.2


@pytest.mark.sampled(1)
@pytest.mark.parametrize("asked", [1, 3])
def test_a_trials_interval_holds_the_truth_as_often_as_it_says(asked: int) -> None:
    found = trial_coverage(200, 60, asked)
    assert found["coverage"] == pytest.approx(0.95, abs=0.01 + error(0.95, 200))


@pytest.mark.parametrize(
    ("num_prompts", "win_rate"),
    [(2, 0.5), (2, 0.026), (3, 0.1), (5, 0.026), (10, 0.1), (30, 0.5), (30, 0.026)],
)
def test_a_judge_that_is_sure_of_itself_makes_no_verdict_surer(num_prompts: int, win_rate: float):
    """Verdicts of 0.9999 have next to no spread, as long as none was seen of the other side."""
    found = graded_coverage(200, num_prompts, win_rate)
    assert found["coverage"] >= 0.95 - error(0.95, 200)
    assert found["coverage_of_verdicts"] >= 0.95 - error(0.95, 200)
    assert found["wrong_verdicts"] <= 0.05 + error(0.05, 200)


def test_a_length_controlled_interval_holds_the_truth_as_often_as_it_says() -> None:
    assert length_coverage(100, 80, 400)["coverage"] >= 0.95 - error(0.95, 100)


def test_a_length_controlled_comparison_holds_the_truth_as_often_as_it_says() -> None:
    assert length_comparison_coverage(150, 80, 2)["coverage"] >= 0.95 - error(0.95, 150)


def test_early_decided_judging_saves_items_and_keeps_the_side() -> None:
    found = early_decisions(60, 400, 0.6)
    assert found["items_used"] <= 0.64
    assert found["flips"] <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [2, 3, 10])
def test_a_thousand_sweeps_without_a_difference_get_few_verdicts(num_seeds: int) -> None:
    found = false_verdicts(1000, 4, 100, num_seeds, Effects())
    assert found["false_verdicts"] <= 0.05
    assert 0.93 <= found["coverage"] <= 0.98, "wide with few seeds"


@pytest.mark.slow
def test_many_prompts_of_one_topic_make_a_comparison_too_sure() -> None:
    found = false_verdicts(1000, 4, 100, 10, Effects(topic=0.3))
    assert 0.05 < found["false_verdicts"] < 0.2, "the documents warn of it"


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("num_prompts", [50, 200])
def test_a_thousand_trial_intervals_hold_the_truth(num_prompts: int) -> None:
    assert 0.93 <= trial_coverage(1000, num_prompts)["coverage"] <= 0.97


@pytest.mark.slow
@pytest.mark.nightly
def test_a_thousand_length_controlled_intervals_hold_the_truth() -> None:
    assert 0.93 <= length_coverage(1000, 100)["coverage"] <= 0.97


@pytest.mark.slow
def test_the_benchmark_tells_every_figure_as_json() -> None:
    script = str(ROOT / "benchmarks" / "judging_statistics.py")
    command = [sys.executable, script, "--sweeps", "20", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout)
    assert len(figures) > 15
    values = [value for rates in figures.values() for value in rates.values()]
    assert all(math.isfinite(value) and value >= 0 for value in values)
