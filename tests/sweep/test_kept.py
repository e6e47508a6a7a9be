"""Which kept model takes the place of a training, once prompts were added."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import KEPT, MODEL, RESULT
from symnoise_ray.space.trials import SweepPlans, TrialPlan
from symnoise_ray.sweep.kept import kept_model
from tests.sweep.played import Played, chosen, played_confirmation, sweep

PLAIN = {"noise.type": "none", "optim.lr": 1e-4}
NOISY = {"noise.type": "symnoise", "noise.alpha": 5, "optim.lr": 1e-4}


def plans_of(folder: Path, **trial: Any) -> tuple[TrialPlan, TrialPlan]:
    """The plans of one seed at first, and on 90 prompts."""
    plans = SweepPlans(sweep(trial=trial), folder)
    return plans.confirm(NOISY, 0), plans.confirm(NOISY, 0, num_prompts=90)


def keep(plan: TrialPlan, status: str = "done") -> Path:
    """A trial that ended and kept its model."""
    write_json(plan.result(status).to_json(), plan.directory / RESULT)
    (plan.directory / MODEL).mkdir()
    return plan.directory


def test_the_model_of_the_same_training_is_found(tmp_path: Path) -> None:
    first, later = plans_of(tmp_path)
    assert kept_model(later, first) is None
    other = first.directory.with_name(f"{first.name}-setting2")
    keep(replace(first, name=other.name, directory=other))
    assert kept_model(later, first) is None, "another setting is another training"
    between = first.directory.with_name(f"{first.name}-prompts70")
    keep(replace(first, name=between.name, directory=between))
    assert kept_model(later, first) == between
    assert kept_model(later, first) != keep(first) == kept_model(later, first)


def test_a_model_of_a_trial_without_a_result_is_not_whole(tmp_path: Path) -> None:
    first, later = plans_of(tmp_path)
    (first.directory / MODEL).mkdir(parents=True)
    assert kept_model(later, first) is None
    write_json(first.result("failed").to_json(), first.directory / RESULT)
    assert kept_model(later, first) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": {"rank": 4, "quantize": "nf4", "merge": False}, "model": {"dtype": "bf16"}},
        {"train": {"zero_stage": 3}},
    ],
)
def test_a_model_that_no_worker_can_load_as_it_was_is_trained_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    first, later = plans_of(tmp_path, **settings)
    keep(first)
    assert kept_model(later, first) is None


def test_a_sweep_names_the_kept_model_to_its_workers_as_long_as_it_is_there(
    tmp_path: Path,
) -> None:
    plans = SweepPlans(sweep(), tmp_path)
    choices = {"none": chosen("none", PLAIN), "symnoise": chosen("symnoise", NOISY)}
    played_confirmation(plans, Played(lambda _: 0.5, 12), choices, ["symnoise"])
    for name in ("confirm-none-seed1000", "confirm-symnoise-seed1000"):
        (plans.directory / "trials" / name / MODEL).mkdir()
    parts = [{"looks": [2, 3]}, {"looks": [2, 3], "prompts": 40}]
    stale = plans.directory / "trials" / "confirm-none-seed1001-prompts40"
    write_json("gone", stale / KEPT)
    played_confirmation(plans, Played(lambda _: 0.5, 40), choices, ["symnoise"], parts)
    named = {path.parent.name: read_json(path) for path in plans.directory.glob(f"trials/*/{KEPT}")}
    assert named == {
        f"{name}-prompts40": str(plans.directory / "trials" / name)
        for name in ("confirm-none-seed1000", "confirm-symnoise-seed1000")
    }
