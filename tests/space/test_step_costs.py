"""The cost of a step: what a sweep measured, and how a trial's number of steps follows from it."""

from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import NoiseConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import STEP_COSTS
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.paths import read_space
from symnoise_ray.space.step_costs import cost_name, costs_notes
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.training.schedule import num_steps

SPACE = """
name: equal-seconds
trial:
  train: {max_steps: 40, global_batch_size: 16, compute_match: gpu_seconds}
parameters:
  noise.type: {type: categorical, choices: [symnoise]}
  noise.alpha: {type: categorical, choices: [5.0], when: {noise.type: [symnoise]}}
  optim.lr: {type: categorical, choices: [0.002]}
baselines:
  - {noise.type: none, optim.lr: 0.002}
search: {num_trials: 1}
confirm: {arms: 1, looks: [2]}
"""
POINT = {"noise.type": "symnoise", "noise.alpha": 5.0, "optim.lr": 0.002}


def plans(folder: Path, text: str = SPACE) -> SweepPlans:
    path = folder / "space.yaml"
    path.write_text(text)
    sweep, document = read_space(str(path), ())
    check_sweep(sweep, document)
    return SweepPlans(sweep, folder)


def trial(**train: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {"train": {"max_steps": 40, "global_batch_size": 16, **train}}
    )


@pytest.mark.parametrize(("cost", "steps"), [(1.0, 40), (1.6, 25), (2.0, 20), (500.0, 1)])
def test_the_steps_are_divided_by_the_cost_of_one(cost: float, steps: int):
    assert num_steps(trial(compute_match="gpu_seconds", step_cost=cost), 10_000) == steps


def test_the_cost_counts_only_where_seconds_are_matched():
    assert num_steps(trial(step_cost=2.0), 10_000) == 40


def test_a_single_trial_must_say_its_cost():
    with pytest.raises(UserError, match=r"needs train\.step_cost, which a sweep measures"):
        num_steps(trial(compute_match="gpu_seconds"), 10_000)


def test_a_sweep_s_trials_have_the_measured_cost_of_their_noise(tmp_path: Path):
    sweep = plans(tmp_path)
    assert sweep.config(POINT).train.step_cost is None, "nothing is measured yet"
    write_json({"costs": {"none": 1.0, "symnoise": 1.9}}, tmp_path / STEP_COSTS)
    assert sweep.config(POINT).train.step_cost == 1.9
    assert sweep.search(0, {"noise.type": "none", "optim.lr": 0.002}).config.train.step_cost == 1.0
    assert sweep.confirm(POINT, 0).config.train.step_cost == 1.9
    assert "symnoise 1.90" in costs_notes(tmp_path)[0]


def test_noise_that_was_not_measured_is_refused(tmp_path: Path):
    write_json({"costs": {"none": 1.0, "symnoise": 1.9}}, tmp_path / STEP_COSTS)
    with pytest.raises(UserError, match=r"'adversarial' takes, but the sweep measured only none"):
        plans(tmp_path).config({**POINT, "noise.type": "adversarial"})


def test_kinds_of_noise_differ_by_what_changes_the_time_of_a_step():
    weak, strong = (NoiseConfig(type="symnoise", alpha=alpha) for alpha in (1.0, 15.0))
    assert cost_name(weak) == cost_name(strong) == "symnoise"
    together = NoiseConfig(type="symnoise", alpha=5.0, execution="concat", include_clean=True)
    assert cost_name(together) == "symnoise, execution=concat, include_clean=True"


def test_a_forecast_takes_passes_for_time_and_says_so(tmp_path: Path):
    need = forecast(plans(tmp_path).config(POINT), 1, Options())
    assert need.num_steps == 20
    assert "steps are counted as if time went by passes" in need.notes[-1]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("max_steps: 40", "max_steps: 40, step_cost: 2", 4),
        ("  optim.lr: {type", "  train.step_cost: {type", 8),
        ("baselines:\n  - {noise", "baselines:\n  - {train.step_cost: 2, noise", 10),
    ],
)
def test_a_sweep_takes_no_cost_from_its_file(old: str, new: str, line: int, tmp_path: Path):
    with pytest.raises(UserError, match=rf"yaml:{line}: train\.step_cost must be left out"):
        plans(tmp_path, SPACE.replace(old, new))
