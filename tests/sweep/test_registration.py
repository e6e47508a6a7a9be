"""What a sweep declares before its first trial stays; what was done otherwise is told."""

from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import DESIGN, LOCK, SWEEP, TRIALS
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.registration import departures, register
from symnoise_ray.sweep.resume import begin
from tests.sweep.played import sweep


def sibling(folder: Path, *trials: str) -> None:
    """Another sweep of the folder, which had these trials."""
    write_json({"name": folder.name}, folder / SWEEP)
    for name in trials:
        (folder / TRIALS / name).mkdir(parents=True)


def test_the_design_is_written_before_the_first_trial(tmp_path: Path) -> None:
    written = register(sweep(question={"effect": 0.05}), tmp_path / "run", 0)
    assert written == read_json(tmp_path / "run" / DESIGN)
    assert written["question"] == {
        "treatment": "noise.type", "reference": "none", "effect": 0.05,
        "population": "these_groups",
    }  # fmt: skip
    assert written["trials_by_arm"] == {"none": 4, "neftune": 4, "symnoise": 4}
    assert [look["num_seeds"] for look in written["looks"]] == [2, 3]
    assert sum(look["share"] for look in written["looks"]) == pytest.approx(0.9)
    assert written["fresh_seeds_from"] == 1000
    assert written["parts"] == [{"looks": [2, 3], "num_trials": None, "arms": 1}]


def test_going_on_without_growth_changes_nothing(tmp_path: Path) -> None:
    first = register(sweep(), tmp_path / "run", 0)
    sibling(tmp_path / "later", "confirm-none-seed1000")
    assert register(sweep(), tmp_path / "run", 0) == first


def test_growth_after_a_verdict_adds_a_part_and_leaves_what_was_declared(tmp_path: Path) -> None:
    first = register(sweep(), tmp_path / "run", 0)
    grown = sweep(confirm={"arms": 2, "looks": [2, 3, 6]})
    for _ in range(2):  # an interruption of the new part adds no other one
        second = register(grown, tmp_path / "run", 1)
        assert [part["looks"] for part in second["parts"]] == [[2, 3], [2, 3, 6]]
    third = register(sweep(confirm={"arms": 2, "looks": [2, 3, 6, 9]}), tmp_path / "run", 2)
    assert [part["looks"] for part in third["parts"]] == [[2, 3], [2, 3, 6], [2, 3, 6, 9]]
    assert {key: third[key] for key in first if key != "parts"} == {
        key: first[key] for key in first if key != "parts"
    }


def test_added_prompts_are_a_part_after_a_verdict_and_change_the_part_before_one(
    tmp_path: Path,
) -> None:
    first = register(sweep(), tmp_path / "run", 0)
    early = register(sweep(), tmp_path / "run", 0, 90)
    assert early["parts"] == [{**first["parts"][0], "prompts": 90}]
    later = register(sweep(), tmp_path / "run", 1, 120)
    assert [part["prompts"] for part in later["parts"]] == [90, 120]
    assert later["power"] == first["power"]


def test_looks_that_are_added_before_any_verdict_are_taken_and_the_declaration_stays(
    tmp_path: Path,
) -> None:
    first = register(sweep(), tmp_path / "run", 0)
    more = register(sweep(confirm={"arms": 1, "looks": [2, 3, 6]}), tmp_path / "run", 0)
    assert [part["looks"] for part in more["parts"]] == [[2, 3, 6]]
    assert more["looks"] == first["looks"]


# Fresh seeds


def test_fresh_seeds_pass_over_those_that_sweeps_of_the_folder_confirmed_on(
    tmp_path: Path,
) -> None:
    sibling(tmp_path / "a", "000-none", "confirm-none-seed1004", "confirm-symnoise-seed1004")
    sibling(tmp_path / "b", "confirm-rank-8-seed2000-setting2")
    sibling(tmp_path / "searched-only", "3000-none")
    written = register(sweep(), tmp_path / "run", 0)
    assert written["fresh_seeds_from"] == 3000
    plans = SweepPlans(sweep(), tmp_path / "run", written["fresh_seeds_from"])
    plan = plans.confirm({"noise.type": "none", "optim.lr": 1e-4}, 2)
    assert (plan.name, plan.config.train.seed) == ("confirm-none-seed3002", 3002)


def test_fresh_seeds_begin_from_the_sweeps_own_seed(tmp_path: Path) -> None:
    sibling(tmp_path / "a", "confirm-none-seed1004")
    own = sweep(trial={"train": {"seed": 500}})
    assert register(own, tmp_path / "run", 0)["fresh_seeds_from"] == 1000
    sibling(tmp_path / "b", "confirm-none-seed1700")
    assert register(own, tmp_path / "other", 0)["fresh_seeds_from"] == 2000


def declared(directory: Path, **changes: Any) -> int:
    """The first fresh seed of a sweep that has begun, and has not confirmed yet."""
    own = sweep(**changes)
    begin(own, directory, {"files": {}})
    plans = SweepPlans(own, directory, register(own, directory, 0)["fresh_seeds_from"])
    return plans.confirm(own.baselines[0], 0).config.train.seed


def test_sweeps_that_are_declared_before_either_confirms_share_no_seed(tmp_path: Path) -> None:
    begins = [declared(tmp_path / name) for name in ("a", "b", "c")]
    assert begins == [1000, 2000, 3000]
    assert declared(tmp_path / "d", trial={"train": {"seed": 3500}}) == 4500
    assert declared(tmp_path / "e") == 5000, "another seed of the search is counted with"


def test_a_seed_that_only_baselines_have_is_none_that_the_confirmation_begins_from(
    tmp_path: Path,
) -> None:
    points = [{**point, "train.seed": 700} for point in sweep().model_dump()["baselines"]]
    own = {"baselines": points, "search": {"sampler": "tpe", "num_trials": 8}}
    sibling(tmp_path / "old", "confirm-none-seed1004")
    assert declared(tmp_path / "a", **own) == 2000
    assert declared(tmp_path / "b", **own) == 3000


def test_a_sweep_that_confirms_nothing_takes_no_seeds(tmp_path: Path) -> None:
    declared(tmp_path / "a", confirm={"arms": 0})
    assert declared(tmp_path / "b") == 1000


@pytest.mark.parametrize(
    "design", ["{", "[]", "{}", '{"arms_confirmed": 1, "fresh_seeds_from": "x", "parts": 3}']
)
def test_a_broken_declaration_of_another_sweep_ends_nothing(design: str, tmp_path: Path) -> None:
    declared(tmp_path / "a")
    (tmp_path / "a" / DESIGN).write_text(design)
    assert declared(tmp_path / "b") == 1000


def test_the_sweeps_own_confirmed_seeds_are_not_passed_over(tmp_path: Path) -> None:
    sibling(tmp_path / "run", "confirm-none-seed1000")
    assert register(sweep(), tmp_path / "run", 0)["fresh_seeds_from"] == 1000


# Departures


def go_on(directory: Path, **changes: Any) -> SweepConfig:
    changed = sweep(**changes)
    begin(changed, directory, {"files": {}})
    return changed


def test_what_changed_is_told_by_its_part_and_whether_a_verdict_was_seen(tmp_path: Path) -> None:
    assert departures(tmp_path) == ()
    go_on(tmp_path)
    go_on(tmp_path, confirm={"arms": 2, "looks": [2, 3]})
    told = {"decisions": [{"arm": "symnoise", "verdict": "better", "comparisons": []}]}
    comparison = {
        "arm": "symnoise", "win_rate": 0.6, "interval_95": [0.5, 0.7], "p_value": 0.1,
        "p_holm": 0.1, "num_prompts": 4, "num_seeds": 2, "verdict": "better",
    }  # fmt: skip
    told["decisions"][0]["comparisons"] = [comparison]  # type: ignore[assignment]
    write_json({"verdict": told}, tmp_path / "results.json")
    go_on(tmp_path, confirm={"arms": 2, "looks": [2, 3, 6]})
    assert departures(tmp_path) == (
        "part 2, before a verdict: confirm.arms 1 -> 2",
        "part 3, after a verdict: confirm.looks [2, 3] -> [2, 3, 6]",
    )


def test_resources_and_limits_are_no_departure(tmp_path: Path) -> None:
    workers = {"gpus_per_worker": 0}
    go_on(tmp_path, workers=workers, trial={"judge": {"max_calls": 4}})
    go_on(tmp_path, workers={**workers, "max_slots": 3}, trial={"judge": {"max_calls": 5}})
    assert len(read_json(tmp_path / LOCK)["resumed"][0]["changed"]) == 2
    assert departures(tmp_path) == ()
