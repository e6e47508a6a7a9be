"""What Optuna is asked and told: baselines first, each point once, failures as FAIL."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import CONFIG
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.design import NUM_STARTUP, search_size
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.proposals import Proposals
from symnoise_ray.sweep.search import SweepSearch, _take_up
from symnoise_ray.sweep.search_trial import SearchTrial

PLAIN = {"noise.type": "none"}
NOISY = {"noise.type": "symnoise", "noise.alpha": 5}


VALUES: dict[str, Any] = {
    "name": "asked",
    "parameters": {
        "noise.type": {"type": "categorical", "choices": ["symnoise"]},
        "noise.alpha": {"type": "float", "low": 1, "high": 10},
    },
    "baselines": [PLAIN, NOISY],
    "search": {"sampler": "random", "num_trials": 3},
}


def sweep(**settings: Any) -> SweepConfig:
    """A sweep over alpha of one noise type, with plain fine-tuning outside the space."""
    config = SweepConfig.model_validate(VALUES | settings)
    check_sweep(config)
    return config


def proposals(config: SweepConfig, tmp_path: Path) -> Proposals:
    return Proposals(SweepPlans(config, tmp_path), tmp_path / "optuna.db")


def unlimited(config: SweepConfig) -> Budget:
    return Budget(config, JudgeConfig(), list)


def search_for(config: SweepConfig, tmp_path: Path) -> SweepSearch:
    return SweepSearch(
        proposals(config, tmp_path), range(len(config.baselines) + 9), unlimited(config)
    )


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


@pytest.mark.parametrize("name", ["100%25", "süß #1?", "{SCHEMA_VERSION}", "it's"])
def test_the_study_lies_in_the_directory_of_the_sweep_whatever_it_is_called(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    asked = proposals(sweep(), folder)
    point = asked.propose(2)
    assert [each.name for each in folder.iterdir()] == ["optuna.db"]
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert proposals(sweep(), folder).propose(2) == point


def test_no_trial_asks_for_a_slot_before_the_first_baseline_has(tmp_path: Path):
    plans = SweepPlans(sweep(), tmp_path)
    first, second = (SearchTrial.__new__(SearchTrial) for _ in range(2))
    for index, (trial, point) in enumerate(((first, PLAIN), (second, NOISY))):
        trial.plans, trial.plan = plans, plans.search(index, point)
    assert first._may_begin()
    assert not second._may_begin()
    write_json({}, first.plan.directory / CONFIG)
    assert second._may_begin()


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


def test_after_the_last_trial_tune_is_told_that_there_are_no_more(tmp_path: Path):
    search = SweepSearch(proposals(sweep(), tmp_path), [0], unlimited(sweep()))
    assert search.suggest("one") == {"index": 0, "point": PLAIN}
    assert search.suggest("two") is None, "while it runs, an order may still add one"
    search.on_trial_complete("one", {"win_rate": 0.5})
    assert search.suggest("two") == "FINISHED"


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


# Samplers that learn


ARMS = {
    "parameters": {
        "noise.type": {"type": "categorical", "choices": ["none", "symnoise"]},
        "noise.alpha": {
            "type": "float",
            "low": 1,
            "high": 10,
            "when": {"noise.type": ["symnoise"]},
        },
        "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    },
    "baselines": [],
    "confirm": {"arms": 1},
}
FIRST = 2 * NUM_STARTUP
"""The number of the first trial that a sampler chooses itself."""


def learning(sampler: str, tmp_path: Path, scores: Callable[[str, float], float | None]) -> Any:
    """The two points that are proposed after ten blocks with these scores by arm and rate."""
    tmp_path.mkdir()
    search = {"sampler": sampler, "num_trials": FIRST + 2}
    values = {"name": "learns", "search": search} | ARMS
    config = SweepConfig.model_validate(values)
    mine = proposals(config, tmp_path)
    for index in range(FIRST):
        point = mine.propose(index)
        mine.tell(index, scores(point["noise.type"], point["optim.lr"]))
    assert mine.given(FIRST) is None
    return [mine.propose(index) for index in (FIRST, FIRST + 1)]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_no_arm_learns_from_another(sampler: str, tmp_path: Path):
    high = learning(sampler, tmp_path / "a", lambda arm, rate: rate if arm == "none" else -rate)
    low = learning(sampler, tmp_path / "b", lambda arm, rate: -rate)
    assert high[1] == low[1], "plain fine-tuning's scores tell symnoise nothing"
    assert high[0] != low[0]
    assert high[0]["optim.lr"] > low[0]["optim.lr"]
    plain, noisy = high
    assert (plain["noise.type"], noisy["noise.type"]) == ("none", "symnoise"), "by turns"
    assert set(plain) == {"noise.type", "optim.lr"}
    assert set(noisy) == {"noise.type", "noise.alpha", "optim.lr"}


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_an_arm_whose_trials_all_failed_is_proposed_points_all_the_same(
    sampler: str, tmp_path: Path
):
    points = learning(sampler, tmp_path / "a", lambda arm, rate: None if arm == "none" else rate)
    assert [point["noise.type"] for point in points] == ["none", "symnoise"]


# A sweep that goes on after its process has gone


def score(index: int) -> float | None:
    """What a trial comes to; every fifth fails."""
    return None if index % 5 == 4 else 1 / (1 + index)


def go_through(config: SweepConfig, tmp_path: Path, part: range) -> list[Any]:
    """Propose trials in a process of their own making, and tell each before the next one."""
    mine = proposals(config, tmp_path)
    points = []
    for index in part:
        points.append(mine.propose(index))
        mine.tell(index, score(index))
    return points


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_an_interrupted_sweep_is_proposed_the_points_of_an_undisturbed_one(
    sampler: str, tmp_path: Path
):
    config = sweep(search={"sampler": sampler, "num_trials": 20, "seed": 3})
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = go_through(config, tmp_path / "whole", range(22))
    parts = [
        point
        for start, end in ((0, 1), (1, 4), (4, 15), (15, 22))
        for point in go_through(config, tmp_path / "parts", range(start, end))
    ]
    assert parts == whole
    assert len({repr(point) for point in whole}) == 22
    assert states(config, tmp_path / "parts") == states(config, tmp_path / "whole")


def test_a_trial_that_was_running_keeps_its_point_and_is_told_once(tmp_path: Path):
    config = sweep()
    first = proposals(config, tmp_path)
    points = [first.propose(index) for index in range(4)]
    later = proposals(config, tmp_path)
    assert [later.propose(index) for index in range(4)] == points
    for _ in range(2):
        later.tell(2, 0.5)
    assert states(config, tmp_path) == ["RUNNING", "COMPLETE", "RUNNING"]


def test_what_was_found_out_and_not_told_is_told_first(tmp_path: Path):
    config = sweep()
    first = proposals(config, tmp_path)
    for index in range(5):
        first.propose(index)
    proposals(config, tmp_path).settle({0: 0.5, 1: 0.6, 2: None})
    assert states(config, tmp_path) == ["COMPLETE", "FAIL", "RUNNING", "RUNNING"]


def test_a_failed_trial_that_is_run_again_has_its_point_and_a_second_place(tmp_path: Path):
    config = sweep()
    first = proposals(config, tmp_path)
    points = [first.propose(index) for index in range(4)]
    first.tell(1, None)
    first.tell(3, None)
    later = proposals(config, tmp_path)
    assert [later.propose(1), later.propose(3)] == [points[1], points[3]]
    later.tell(1, 0.7)
    assert states(config, tmp_path) == ["FAIL", "RUNNING", "FAIL", "COMPLETE", "RUNNING"]


def test_the_study_on_disk_is_read_once_however_many_trials_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = sweep(search={"sampler": "tpe", "num_trials": 20})
    mine = proposals(config, tmp_path)
    reads: list[int] = []
    read = mine.study.get_trials
    monkeypatch.setattr(mine.study, "get_trials", lambda **how: reads.append(1) or read(**how))
    for index in range(22):
        mine.propose(index)
        mine.tell(index, score(index))
    assert len(reads) == 1, "by the sampler, for its arm"
    assert len(states(config, tmp_path)) == 21


def test_a_range_that_shrank_moves_no_trial_that_was_proposed_before(tmp_path: Path):
    config = sweep(search={"sampler": "random", "num_trials": 8})
    first = proposals(config, tmp_path)
    points = [first.propose(index) for index in range(6)]
    alpha = {"type": "float", "low": 4, "high": 6}
    shrunk = sweep(
        parameters={**VALUES["parameters"], "noise.alpha": alpha},
        search={"sampler": "random", "num_trials": 8},
    )
    taken: list[Any] = []
    watch = SimpleNamespace(take_up=lambda plan: taken.append(plan.params))
    later = proposals(shrunk, tmp_path)
    assert _take_up(later.plans, later, watch, None) == list(range(10))  # type: ignore[arg-type]
    assert taken[:6] == points
    assert all(4 <= point["noise.alpha"] <= 6 for point in taken[6:])
    assert [later.propose(index) for index in range(6)] == points


def test_the_searcher_can_be_saved(tmp_path: Path):
    """Tune writes its searcher to disk from time to time; ours is the study, which is there."""
    search = search_for(sweep(), tmp_path)
    suggestions(search, 2)
    search.save_to_dir(str(tmp_path), "now")
    assert vars(pickle.loads(pickle.dumps(search))) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.db"]
