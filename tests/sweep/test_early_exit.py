"""Trials that are behind in their own arm are stopped, and a stop is final and no failure."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from pydantic import ValidationError
from rich.console import Console

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.errors import UserError
from symnoise_ray.records.files import read_json, read_lines, write_lines
from symnoise_ray.records.results import TrialResult, read_result
from symnoise_ray.report.board import Board
from symnoise_ray.report.trial_tables import trial_tables
from symnoise_ray.space.trials import SweepPlans, TrialPlan
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.early_exit import EarlyExit
from symnoise_ray.sweep.proposals import Proposals
from symnoise_ray.sweep.results import status
from symnoise_ray.sweep.search import SweepSearch
from tests.sweep.test_run import (
    kill_and_see_it_gone,
    left_by,
    runs_by_name,
    study_states,
    told_of,
    tune,
)

NUM_EVALS = 8
BAD, GOOD = 1e-6, 2e-3
SYMNOISE = {"noise.type": "symnoise", "noise.alpha": 5}


def sweep(**values: Any) -> SweepConfig:
    settings = {
        "name": "early",
        "trial": {"train": {"num_evals": NUM_EVALS}},
        "parameters": {
            "noise.type": {"type": "categorical", "choices": ["symnoise", "neftune"]},
            "noise.alpha": {"type": "categorical", "choices": [5]},
            "optim.lr": {"type": "float", "low": BAD, "high": GOOD, "log": True},
        },
        "baselines": [{"noise.type": "none"}, {**SYMNOISE, "optim.lr": BAD}],
        "search": {"num_trials": 9, "early_exit": "on"},
    }
    return SweepConfig.model_validate(settings | values)


class Sweep:
    """The part of a search that decides, without the trials themselves."""

    def __init__(self, directory: Path) -> None:
        self.plans = SweepPlans(sweep(), directory)
        self.cancelled: list[str] = []
        workers = SimpleNamespace(cancel=self.cancelled.append)
        self.exits = EarlyExit(self.plans, workers)  # type: ignore[arg-type]

    def plan(self, index: int, arm: str = "symnoise") -> TrialPlan:
        """A searched trial of an arm, or a baseline."""
        point = {**SYMNOISE, "noise.type": arm, "optim.lr": GOOD}
        return self.plans.search(index, self.plans.sweep.baselines[0] if index == 0 else point)

    def report(self, index: int, loss: float, evals: int, arm: str = "symnoise") -> str:
        """A trial measures its loss for so many times in all; what is decided at the end."""
        plan, told = self.plan(index, arm), ""
        trial = SimpleNamespace(config={"index": index, "point": plan.params})
        for number in range(evals + 1):
            record = {"step": 10 * number, "clean_loss": loss}
            plan.directory.mkdir(parents=True, exist_ok=True)
            told = self.exits.on_trial_result(None, trial, record)
            if told == "STOP":
                break
        return told


@pytest.fixture
def search(tmp_path: Path) -> Sweep:
    """An arm in which three trials have come to their end."""
    running = Sweep(tmp_path)
    for index in (2, 3, 4):
        assert running.report(index, 1.0, NUM_EVALS) == "CONTINUE"
    return running


# What is stopped


def test_a_trial_behind_is_stopped_and_its_slot_is_freed(search: Sweep):
    assert search.report(5, 4.0, NUM_EVALS) == "STOP"
    assert search.cancelled == ["005-symnoise"]
    result = read_result(search.plan(5).directory)
    assert result is not None
    assert (result.status, result.is_done, result.is_stopped) == ("stopped", False, True)
    assert re.match(r"its clean loss of 4 after [0-9.]+ % of its training had", result.reason)
    assert "rank 4 among the 4 trials of symnoise" in result.reason
    assert result.last_step == result["stopped_at"] > 0
    assert (result["clean_loss"], result.win_rate) == (4.0, None)
    assert result.seconds["train"] >= 0


def test_arms_do_not_compete(search: Sweep):
    assert search.report(5, 4.0, NUM_EVALS, "neftune") == "CONTINUE"
    assert search.cancelled == []


def test_a_baseline_is_never_stopped_and_nobody_is_compared_with_it(tmp_path: Path):
    running = Sweep(tmp_path)
    for index in (0, 1):
        assert running.report(index, 0.1 if index == 0 else 9.0, NUM_EVALS) == "CONTINUE"
    assert running.exits.arms == {}


def test_the_confirmation_is_not_searched(tmp_path: Path):
    running = Sweep(tmp_path)
    plan = running.plans.confirm(SYMNOISE, 0)
    running.exits.take_up(plan, plan.result("done"))
    assert running.exits.arms == {}


def test_reports_without_a_loss_decide_nothing(search: Sweep):
    trial = SimpleNamespace(config={"index": 5, "point": search.plan(5).params})
    assert search.exits.on_trial_result(None, trial, {"win_rate": 0.5}) == "CONTINUE"


# What a stop means


def stopped(plan: TrialPlan) -> TrialResult:
    return plan.result(
        "stopped", reason="it was behind", values={"stopped_at": 27, "clean_loss": 4.0}
    )


def test_a_stop_is_no_failure(search: Sweep):
    done, failed = search.plan(2).result("done"), search.plan(3).result("failed")
    assert status([done, stopped(search.plan(4))]) == "whole"
    assert status([done, stopped(search.plan(4)), failed]) == "partial"


def test_people_read_at_which_step_it_was(search: Sweep):
    result = stopped(search.plan(5))
    console = Console(record=True, width=200)
    board = Board(console, "a sweep")
    board.start(result.trial, "symnoise", baseline=False, confirms=False)
    board.end(result.trial, result)
    board.summary()
    text = console.export_text()
    assert text.count("stopped early at step 27") == 3
    assert "005-symnoise stopped early at step 27, it was behind" in text
    (table,) = trial_tables([result])
    assert table.rows[0][2:] == ("stopped early at step 27", "\u2013", "it was behind")


def test_optuna_is_told_that_it_was_pruned_and_where_it_stood(tmp_path: Path):
    plans = SweepPlans(sweep(), tmp_path)
    free = Budget(plans.sweep, JudgeConfig(), list)
    asked = SweepSearch(Proposals(plans, tmp_path / "optuna.db"), range(2, 5), free)
    for name in ("a", "b", "c"):
        asked.suggest(name)
    asked.on_trial_complete("a", {"win_rate": 0.6})
    asked.on_trial_complete("b", {"step": 27, "clean_loss": 4.0})
    later = Proposals(plans, tmp_path / "optuna.db")
    later.settle({3: None, 4: None}, {4: (27, 5.0)})
    study = optuna.load_study(study_name="early", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [trial.intermediate_values for trial in study.trials] == [{}, {27: -4.0}, {27: -5.0}]


# A sweep that goes on


def test_trials_of_an_earlier_part_are_compared_with(search: Sweep, tmp_path: Path):
    later = Sweep(tmp_path)
    for index in (2, 3, 4):
        plan = later.plan(index)
        records = [{"step": 10 * n, "clean_loss": 1.0} for n in range(NUM_EVALS + 1)]
        write_lines(records, plan.directory / "metrics.jsonl")
        later.exits.take_up(plan, plan.result("done"))
    assert later.report(5, 4.0, NUM_EVALS) == "STOP"
    assert search.report(5, 4.0, NUM_EVALS) == "STOP"
    first, second = (read_result(each.plan(5).directory) for each in (search, later))
    assert first is not None
    assert second is not None
    assert first.values == second.values


def test_a_trial_that_goes_on_from_a_checkpoint_has_its_earlier_losses(search: Sweep):
    plan = search.plan(5)
    records = [{"step": 10 * n, "clean_loss": 4.0, "loss": 1.0} for n in range(4)]
    write_lines([*records, {"step": 33, "loss": 1.0}], plan.directory / "metrics.jsonl")
    trial = SimpleNamespace(config={"index": 5, "point": plan.params})
    told = search.exits.on_trial_result(None, trial, {"step": 40, "clean_loss": 4.0})
    assert told == "STOP"
    assert len(search.exits.arms["symnoise"].curves[plan.name]) == 5


# Settings


def test_it_is_off_unless_it_is_asked_for_and_yaml_keeps_the_words(tmp_path: Path):
    assert sweep(search={"num_trials": 1}).search.early_exit == "off"
    for word in ("on", "off"):
        file = tmp_path / f"{word}.yaml"
        file.write_text(
            f"name: a\nbaselines: [{{noise.type: none}}]\nsearch: {{early_exit: {word}}}\n"
        )
        assert load_sweep(str(file), ())[0].search.early_exit == word
        assert load_sweep(str(file), (f"search.early_exit={word}",))[0].search.early_exit == word
    with pytest.raises(UserError, match="early_exit"):
        load_sweep(str(file), ("search.early_exit=true",))


@pytest.mark.parametrize("name", ["data.max_length", "model.name", "train.num_evals"])
def test_losses_that_are_measured_otherwise_are_not_compared(name: str):
    varied = {name: {"type": "categorical", "choices": [1, 2]}}
    with pytest.raises(ValidationError, match=f"{name} differs between them"):
        sweep(parameters=varied)
    assert sweep(parameters=varied, search={"num_trials": 1}).search.early_exit == "off"


def test_the_loss_must_be_measured_on_the_way():
    with pytest.raises(ValidationError, match=r"train\.num_evals >= 2"):
        sweep(trial={"train": {"num_evals": 1}})


# A whole sweep

SPACE = f"""
name: early
trial:
  data: {{max_eval_prompts: 12}}
  train: {{max_steps: 96, global_batch_size: 8, num_clean_rows: 16, num_evals: 16, STEPS}}
  generate: {{max_new_tokens: 6}}
parameters:
  noise.type: {{type: categorical, choices: [symnoise]}}
  noise.alpha: {{type: categorical, choices: [5]}}
  optim.lr: {{type: categorical, choices: [0.002, 0.001, 0.003, {BAD}]}}
baselines:
  - {{noise.type: none, optim.lr: 0.002}}
search: {{sampler: grid, early_exit: on}}
workers: {{max_slots: 1}}
""".replace("STEPS", "probe_alpha: 0, checkpoint_minutes: 0.005")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed sweep with early exit."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.yaml").write_text(SPACE)
    run = tune("small.yaml", "--output", "out", cwd=folder)
    (folder / "printed").write_text(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert left_by(folder) == []
    return folder


@pytest.mark.slow
def test_a_sweep_stops_the_trial_with_the_bad_learning_rate(whole: Path):
    results = read_json(whole / "out" / "results.json")
    assert results["status"] == "whole"
    by_rate = {
        trial["params"]["optim.lr"]: trial
        for trial in results["trials"]
        if trial["arm"] == "symnoise"
    }
    states = [trial["status"] for trial in by_rate.values()]
    assert by_rate[BAD]["status"] == "stopped"
    assert states.count("done") >= 2
    assert states.count("done") + states.count("stopped") == 4
    name, step = by_rate[BAD]["trial"], by_rate[BAD]["stopped_at"]
    assert 0 < step <= 24
    assert f"stopped early at step {step}" in (whole / "printed").read_text()
    folder = whole / "out" / "trials" / name
    assert not (folder / "completions.jsonl").exists()
    assert not (folder / "checkpoints").exists()
    assert read_lines(folder / "metrics.jsonl")[-1]["step"] < 96
    pruned = study_states(whole / "out", "early")
    assert pruned.count("PRUNED") == states.count("stopped")
    assert "FAIL" not in pruned
    tracked = runs_by_name(whole / "mlflow.db")[name]
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["symnoise.stopped_at"] == str(step)
    assert f"stopped early at step {step}" in (whole / "out" / "report.md").read_text()


def _decided(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial's result without how far it got while it was told to stop."""
    stopped = trial["status"] == "stopped"
    return {k: v for k, v in trial.items() if not (stopped and k in ("stopped_at", "clean_loss"))}


@pytest.mark.slow
@pytest.mark.nightly
def test_a_sweep_that_is_killed_while_it_stops_a_trial_ends_like_an_undisturbed_one(
    whole: Path, tmp_path: Path
):
    def one_stops() -> None:
        deadline = time.monotonic() + 600
        while not any(
            (found := read_result(folder)) is not None and found.is_stopped
            for folder in (tmp_path / "out" / "trials").glob("*")
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    kill_and_see_it_gone(tmp_path, "001-", space=SPACE, wait=one_stops)
    assert not (tmp_path / "out" / "results.json").exists()
    again = tune("small.yaml", "--output", "out", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    results = [read_json(folder / "out" / "results.json") for folder in (whole, tmp_path)]
    told, undisturbed = (list(map(_decided, told_of(each)[:-1])) for each in results)
    assert told == undisturbed
    assert results[1]["verdict"] == results[0]["verdict"]
    assert study_states(tmp_path / "out", "early") == study_states(whole / "out", "early")
