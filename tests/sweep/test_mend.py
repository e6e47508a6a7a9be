"""What a sweep finds damaged when it goes on is set aside, and made again from what is whole."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.records.files import read_json, read_lines, write_json, write_lines
from symnoise_ray.records.layout import damaged_name
from symnoise_ray.records.results import SweepResult, TrialResult, read_result
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.mend import mend
from symnoise_ray.sweep.proposals import Proposals
from symnoise_ray.sweep.results import settle
from symnoise_ray.sweep.search import _take_up
from symnoise_ray.tracking.journal import Journal
from tests.sweep.played import Played, played_search, sweep

SKILL = {"none": 0.4, "neftune": 0.5, "symnoise": 0.6}


def adaptive() -> SweepConfig:
    """A sweep whose points Optuna proposes, but for the baseline's."""
    return sweep(search={"sampler": "tpe", "num_trials": 8})


def begun(directory: Path, config: SweepConfig | None = None) -> SweepPlans:
    """The plans of a sweep in which the search has ended, as its files tell it."""
    plans = SweepPlans(config or sweep(), directory)
    if config is None:
        played_search(plans, Played(lambda trial: SKILL[trial.noise.type]))
    return plans


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """The directory of a trial that has ended."""
    plans = begun(tmp_path)
    folder = plans.search_directory(1)
    assert read_result(folder) is not None
    assert mend(tmp_path) == [], "whole files are left alone"
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["trial.json", "completions.jsonl", "preferences.jsonl"])
@pytest.mark.parametrize(
    "damage",
    [cut, flip, lambda path: path.write_text(""), lambda path: path.write_bytes(b"\xff\xfe\x00\n")],
    ids=["truncated", "flipped", "empty", "garbage"],
)
def test_a_trial_with_a_damaged_file_is_run_again(
    name: str, damage: Callable[[Path], object], trial: Path
):
    damage(trial / name)
    told = mend(trial.parents[1])
    assert len(told) == 1
    assert f"{name} is damaged (" in told[0]
    assert told[0].endswith(f"and was set aside: {trial.name} is run again")
    assert (trial / damaged_name(name)).exists()
    assert not (trial / "trial.json").exists()
    assert not (trial / "outcome.json").exists(), "its answers are made again as well"
    assert mend(trial.parents[1]) == []


def test_answers_that_are_gone_are_made_again(trial: Path):
    (trial / "completions.jsonl").unlink()
    (told,) = mend(trial.parents[1])
    assert "completions.jsonl is damaged (it is gone)" in told
    assert read_result(trial) is None


def test_a_damaged_curve_of_a_running_trial_takes_its_checkpoints_along(trial: Path):
    (trial / "trial.json").unlink()
    (trial / "checkpoints" / "3").mkdir(parents=True)
    (trial / "metrics.jsonl").write_bytes(b'{"step": 1}\n\x00\xff\n')
    mend(trial.parents[1])
    assert not (trial / "checkpoints").exists(), "the steps before them would be missing"


def test_damaged_verdicts_of_a_pair_are_judged_again_and_cost_no_training(trial: Path):
    (trial / "preferences-against-000-none.jsonl").write_text("{")
    (told,) = mend(trial.parents[1])
    assert told.endswith("these answers are judged again")
    assert read_result(trial) is not None


def test_a_trial_of_an_older_version_has_no_digests_and_is_left_alone(trial: Path):
    (trial / "digests.json").unlink()
    assert mend(trial.parents[1]) == []


# The study


def scores_of(study: Proposals) -> dict[int, Any]:
    return {index: (each.params, each.values) for index, each in study.known().items()}


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b"\x00" * 4096)])
def test_a_damaged_study_is_built_again_from_the_trials(
    damage: Callable[[Path], object], tmp_path: Path
):
    plans = begun(tmp_path, adaptive())
    study, taken = Proposals(plans, tmp_path / "optuna.db"), {}
    for index in range(5):
        plan = plans.search(index, study.propose(index))
        write_json(plan.result("done", values={"win_rate": 0.1 * index}).to_json(),
                   plan.directory / "trial.json")  # fmt: skip
        study.tell(index, 0.1 * index)
        taken[plan.name] = index
    running = plans.search(5, study.propose(5)).directory
    write_json({}, running / "outcome.json")
    before = {index: each for index, each in scores_of(study).items() if index != 5}
    study.storage.engine.dispose()
    damage(tmp_path / "optuna.db")
    (told,) = mend(tmp_path)
    assert told.endswith("Optuna's study is built again from the trials")
    assert not running.exists(), "what it was trained with is not known any more"
    again = Proposals(plans, tmp_path / "optuna.db")
    watch = SimpleNamespace(take_up=lambda plan: read_result(plan.directory))
    assert _take_up(plans, again, watch, None) == [*range(5, len(plans.cells))]  # type: ignore[arg-type]
    assert scores_of(again) == before


@pytest.mark.parametrize("name", ["50%41", "a?b", "#1", "two words"])
def test_a_whole_study_is_read_in_a_folder_of_any_name(name: str, tmp_path: Path):
    directory = tmp_path / name / "small"
    directory.mkdir(parents=True)
    plans = begun(directory, adaptive())
    study = Proposals(plans, directory / "optuna.db")
    running = plans.search(0, study.propose(0)).directory
    write_json({}, running / "outcome.json")
    study.storage.engine.dispose()
    assert mend(directory) == []
    assert running.exists(), "a trial that was on its way goes on from where it was"
    assert [path.name for path in tmp_path.iterdir()] == [name], "no other file was made"


def test_an_empty_study_is_no_damage(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "optuna.db")):
        pass
    assert mend(tmp_path) == []


# The journal


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{", b"[]", b'{"kind": 3}'])
def test_a_damaged_journal_keeps_its_whole_events_and_all_are_sent_again(
    line: bytes, tmp_path: Path
):
    journal = Journal(tmp_path)
    for name in ("first", "second"):
        journal.append("start", name, parent="", params={}, tags={})
    events = read_lines(journal.path)
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([lines[0], line, *lines[1:]]))
    known = {"num_applied": 2, "runs": {"first": "1", "second": "2"}}
    write_json(known, tmp_path / "journal.applied.json")
    (told,) = mend(tmp_path)
    assert told.endswith("its 2 whole events are kept")
    assert read_lines(journal.path) == events
    assert read_json(tmp_path / "journal.applied.json") == {**known, "num_applied": 0}


def test_a_lost_count_of_sent_events_is_made_anew(tmp_path: Path):
    write_lines([{"kind": "end", "run": "a"}], tmp_path / "journal.jsonl")
    (tmp_path / "journal.applied.json").write_text("{")
    (told,) = mend(tmp_path)
    assert told.endswith("MLflow is compared with the journal")


# What was seen


def seen(directory: Path, status: str, *, verdict: bool) -> SweepResult:
    told = Comparison("symnoise", 0.6, (0.5, 0.7), 0.04, 0.08, 40, 3, "cannot tell yet")
    decisions = (Decision("symnoise", "cannot tell yet", (told,)),) if verdict else ()
    shown = Verdict("It is so." if verdict else "", decisions=decisions)
    write_json({"name": "played"}, directory / "sweep.json")
    write_json({"parts": [], "power": None}, directory / "design.json")
    result = SweepResult(
        SweepResult.from_json({"name": "", "status": ""}, directory).paths, "played", status, shown
    )
    write_json(result.to_json(), result.paths.results)
    return result


@pytest.mark.parametrize(
    ("status", "verdict"), [("whole", True), ("partial", True), ("whole", False)]
)
def test_a_part_that_does_not_end_leaves_a_finished_result_as_it_is(
    status: str, verdict: bool, tmp_path: Path
):
    before = seen(tmp_path, status, verdict=verdict)
    written = before.paths.results.read_bytes()
    cut_off = SweepResult(before.paths, "played", "interrupted", parts=2)
    assert settle(cut_off, ended=False).to_json() == before.to_json()
    assert before.paths.results.read_bytes() == written


def test_a_part_that_does_not_end_tells_all_trials_that_have_ended(tmp_path: Path):
    plans = begun(tmp_path)
    before = seen(tmp_path, "interrupted", verdict=False)
    met = read_result(plans.search_directory(0))
    assert isinstance(met, TrialResult)
    cut_off = SweepResult(before.paths, "played", "interrupted", trials=(met,))
    settle(cut_off, ended=False)
    told = json.loads(before.paths.results.read_text())
    assert len(told["trials"]) == len(plans.cells)
    assert read_json(before.paths.results)["status"] == "interrupted"
