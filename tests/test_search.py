"""What Optuna is asked and told: baselines first, each point once, failures as FAIL."""

import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.plans import SweepPlans
from symnoise_ray.search import SweepSearch
from symnoise_ray.space import check_sweep, search_size

PLAIN = {"noise.type": "none"}
NOISY = {"noise.type": "symnoise", "noise.alpha": 5}


def sweep(**settings: Any) -> SweepConfig:
    """A sweep over alpha of one noise type, with plain fine-tuning outside the space."""
    values = {
        "name": "asked",
        "parameters": {
            "noise.type": {"type": "categorical", "choices": ["symnoise"]},
            "noise.alpha": {"type": "float", "low": 1, "high": 10},
        },
        "baselines": [PLAIN, NOISY],
        "search": {"sampler": "random", "num_trials": 3},
    }
    config = SweepConfig.model_validate(values | settings)
    check_sweep(config)
    return config


def search_for(config: SweepConfig, tmp_path: Path) -> SweepSearch:
    return SweepSearch(SweepPlans(config, tmp_path), tmp_path / "optuna.db")


def states(config: SweepConfig, tmp_path: Path) -> list[str]:
    study = optuna.load_study(study_name=config.name, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    return [trial.state.name for trial in study.trials]


def suggestions(search: SweepSearch, count: int) -> list[dict[str, Any]]:
    found = [search.suggest(f"trial-{number}") for number in range(count)]
    assert [suggestion["index"] for suggestion in found if suggestion] == list(range(count))
    return [suggestion["point"] for suggestion in found if suggestion]


def test_baselines_come_first_and_in_order(tmp_path: Path):
    config = sweep()
    points = suggestions(search_for(config, tmp_path), 5)
    assert points[:2] == [PLAIN, NOISY]
    assert all(1 <= point["noise.alpha"] <= 10 for point in points[2:])


def test_baselines_in_the_space_are_told_to_optuna_and_others_are_not(tmp_path: Path):
    config = sweep()
    search = search_for(config, tmp_path)
    suggestions(search, 3)
    search.on_trial_complete("trial-0", {"win_rate": 0.5})
    search.on_trial_complete("trial-1", {"win_rate": 0.6})
    search.on_trial_complete("trial-2", None, error=True)
    assert states(config, tmp_path) == ["COMPLETE", "FAIL"]


def test_reports_on_the_way_are_not_scores(tmp_path: Path):
    config = sweep()
    search = search_for(config, tmp_path)
    suggestions(search, 2)
    search.on_trial_result("trial-1", {"training_iteration": 1})
    assert states(config, tmp_path) == ["RUNNING"]


def test_a_grid_is_run_once_and_leaves_out_what_the_baselines_have(tmp_path: Path):
    config = sweep(
        parameters={
            "noise.type": {"type": "categorical", "choices": ["symnoise", "bernoulli"]},
            "noise.alpha": {"type": "categorical", "choices": [5, 10]},
        },
        search={"sampler": "grid"},
    )
    assert search_size(config) == 3
    points = suggestions(search_for(config, tmp_path), 5)
    assert points[:2] == [PLAIN, NOISY]
    rest = sorted((point["noise.type"], point["noise.alpha"]) for point in points[2:])
    assert rest == [("bernoulli", 5), ("bernoulli", 10), ("symnoise", 10)]


def test_a_sweep_may_have_baselines_only(tmp_path: Path):
    config = sweep(parameters={}, search={"num_trials": 0})
    assert search_size(config) == 0
    assert suggestions(search_for(config, tmp_path), 2) == [PLAIN, NOISY]
    assert states(config, tmp_path) == []


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_proposes_the_same_points(sampler: str, tmp_path: Path):
    config = sweep(search={"sampler": sampler, "num_trials": 6, "seed": 3})
    proposed = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        proposed.append(suggestions(search_for(config, folder), 8))
    assert proposed[0] == proposed[1]


def test_the_searcher_can_be_saved(tmp_path: Path):
    """Tune writes its searcher to disk from time to time."""
    search = search_for(sweep(), tmp_path)
    suggestions(search, 2)
    search.save(str(tmp_path / "searcher"))
    assert pickle.loads((tmp_path / "searcher").read_bytes())["num_suggested"] == 2
