"""Orders to a sweep that runs: who may give them, what they do, and what is told of them."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.errors import UserError
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import DESIGN, ORDERS, OUTCOME, RESULTS, STOP, SWEEP
from symnoise_ray.report.board import Board
from symnoise_ray.space.trials import ADDED, SweepPlans, search_index
from symnoise_ray.sweep import ordered
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.lease import hold
from symnoise_ray.sweep.orders import Desk, give
from symnoise_ray.sweep.proposals import Proposals
from symnoise_ray.sweep.registration import register
from symnoise_ray.sweep.search import SweepSearch
from symnoise_ray.sweep.steering import Steering, require_point
from symnoise_ray.sweep.trial import stop_by_order
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.tracking.journal import Journal
from tests.sweep.played import sweep
from tests.sweep.test_run import study_states

POINT = {"noise.type": "symnoise", "noise.alpha": 5.0, "optim.lr": 0.002}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a sweep that has begun."""
    config = space()
    write_json(config.model_dump(mode="json"), tmp_path / "run" / SWEEP)
    register(config, tmp_path / "run", 0)
    return tmp_path / "run"


def space(**values: Any) -> SweepConfig:
    """Three arms, of which two have a strength, over a range of learning rates."""
    return sweep(
        parameters={
            "noise.type": {"type": "categorical", "choices": ["none", "neftune", "symnoise"]},
            "noise.alpha": {
                "type": "float", "low": 1, "high": 10,
                "when": {"noise.type": ["neftune", "symnoise"]},
            },
            "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        },
        baselines=[{"noise.type": "none", "optim.lr": 0.002}],
        search={"num_trials": 5},
        **values,
    )  # fmt: skip


class Workers:
    """Stands for the slots: remembers what it was told."""

    def __init__(self, running: str = "") -> None:
        self.running, self.cancelled, self.held = running, list[str](), False

    def cancel(self, name: str) -> bool:
        """Free the slot of a trial that runs; False for any other."""
        self.cancelled.append(name)
        ran, self.running = self.running == name, ""
        return ran

    def hold(self, held: bool) -> None:
        """Hand out no trials, or hand them out again."""
        self.held = held

    def slots(self) -> dict[str, str]:
        """One slot, and the trial that it runs."""
        return {"slot-0": self.running}


@contextmanager
def running(directory: Path, workers: Workers | None = None) -> Iterator[Steering]:
    """A sweep that takes orders, without its trials."""
    plans = SweepPlans(space(), directory)
    journal = Journal(directory)
    tracker: Any = SimpleNamespace(journal=journal, log=journal.append, tags={})
    watch = Watch("sweep", Board(Console(quiet=True), "sweep"), tracker)
    budget = Budget(plans.sweep, JudgeConfig(), lambda: watch.results)
    slots: Any = workers or Workers()
    with hold(directory), Steering(plans, watch, budget).of(slots) as steering:
        yield steering


# Who may give orders, and to whom


def test_a_directory_without_a_sweep_is_no_place_for_orders(tmp_path: Path):
    with pytest.raises(UserError, match="must be the directory of a sweep that runs"):
        give(tmp_path, "pause")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_sweep_and_a_finished_one_take_no_orders(directory: Path):
    with pytest.raises(UserError, match=r"this one was interrupted.*--resume"):
        give(directory, "pause")
    write_json({"status": "whole"}, directory / RESULTS)
    with pytest.raises(UserError, match="it has come to its end"):
        give(directory, "pause")
    assert not (directory / ORDERS).exists()


def test_a_sweep_that_starts_or_ends_says_so(directory: Path):
    with hold(directory), pytest.raises(UserError, match="starting or ending"):
        give(directory, "pause")


def test_whoever_may_not_write_into_the_directory_may_give_no_orders(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("symnoise_ray.sweep.orders.os.access", lambda path, mode: False)
    with running(directory), pytest.raises(UserError, match="must be allowed to write into it"):
        give(directory, "pause")


def test_a_sweep_of_another_user_can_read_an_order(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    modes: list[int] = []

    def answered(_directory: Path, order: Path, answer: Path) -> None:
        modes.append(order.stat().st_mode & 0o777)
        write_json({"said": "so it is", "refused": False}, answer)

    monkeypatch.setattr("symnoise_ray.sweep.orders._wait", answered)
    with hold(directory), Desk(directory):
        before = os.umask(0o077)
        try:
            give(directory, "pause")
        finally:
            os.umask(before)
    assert modes == [0o644]


def test_an_order_is_answered_and_leaves_no_file(directory: Path):
    with running(directory):
        assert give(directory, "list")["rows"] == []
        assert list((directory / ORDERS).iterdir()) == []
    assert not (directory / ORDERS).exists()


def test_an_unknown_order_and_a_broken_file_do_no_harm(directory: Path):
    with running(directory):
        (directory / ORDERS / "0.order").write_text("{")
        with pytest.raises(UserError, match=r"paus: is no order. Did you mean 'pause'"):
            give(directory, "paus")
        assert not (directory / ORDERS / "0.order").exists()


def test_an_order_that_the_sweep_did_not_live_to_answer_is_taken_back(directory: Path):
    told: list[UserError] = []

    def order() -> None:
        try:
            give(directory, "pause")
        except UserError as error:
            told.append(error)

    with hold(directory), Desk(directory) as desk:
        thread = threading.Thread(target=order)
        thread.start()
        while not list(desk.pending()):
            time.sleep(0.01)
        with Desk(directory):  # the sweep was killed and goes on
            thread.join()
    assert "started anew" in told[0].message


# Pausing


def test_a_paused_sweep_is_paused_after_it_was_killed_until_it_is_resumed(directory: Path):
    slots = Workers()
    with running(directory, slots):
        give(directory, "pause")
        assert slots.held
        with pytest.raises(UserError, match="must not be paused already"):
            give(directory, "pause")
    with running(directory) as later:
        assert later.paused
        give(directory, "resume")
        with pytest.raises(UserError, match="must be paused"):
            give(directory, "resume")
    assert not ordered.is_paused(directory)
    assert [event["verb"] for event in ordered.orders(directory)] == ["pause", "resume"]


# Stopping


def test_a_trial_that_runs_is_stopped_and_registered(directory: Path):
    slots = Workers("001-symnoise")
    with running(directory, slots) as steering:
        plan = steering.plans.search(1, POINT)
        steering.watch._plans[plan.name] = plan
        said = give(directory, "stop", trial="001")["said"]
    assert "001-symnoise is stopped; its slot was free after" in said
    assert slots.cancelled == ["001-symnoise"]
    (line, unequal) = ordered.departures(directory)
    assert line.endswith("001-symnoise is stopped")
    assert "none 2 + 0 - 0, neftune 2 + 0 - 0, symnoise 2 + 0 - 1" in unequal
    result = stop_by_order(plan)
    assert (result.status, result.last_step, result.win_rate) == ("stopped", 0, None)
    assert result.reason.startswith("by order of ")


def test_a_trial_that_is_being_judged_ends_by_itself(directory: Path):
    with running(directory) as steering:
        plan = steering.plans.search(1, POINT)
        steering.watch._plans[plan.name] = plan
        write_json({}, plan.directory / OUTCOME)
        with pytest.raises(UserError, match="is being judged; it ends by itself"):
            give(directory, "stop", trial=plan.name)
        assert not (plan.directory / STOP).exists()
    assert ordered.orders(directory) == []


def test_what_the_verdict_rests_on_is_not_stopped(directory: Path):
    with running(directory) as steering:
        for plan in (steering.plans.search(0, {"noise.type": "none", "optim.lr": 0.002}),
                     steering.plans.confirm(POINT, 0)):  # fmt: skip
            steering.watch._plans[plan.name] = plan
        with pytest.raises(UserError, match="the verdict rests on all trials of the confirmation"):
            give(directory, "stop", trial="confirm")
        with pytest.raises(UserError, match="all trials are judged against its answers"):
            give(directory, "stop", trial="000-none")
        with pytest.raises(UserError, match="'00x' must be one trial that runs"):
            give(directory, "stop", trial="00x")


def test_optuna_is_told_that_a_stopped_trial_was_pruned_though_it_measured_nothing(
    directory: Path,
):
    plans = SweepPlans(space(), directory)
    proposals = Proposals(plans, directory / "optuna.db")
    for index in (1, 2):
        proposals.propose(index)
    proposals.tell(1, None, stopped=(0, None))
    proposals.tell(2, None, stopped=(6, 1.5))
    assert study_states(directory, plans.sweep.name) == ["PRUNED", "PRUNED"]


# Adding


def test_an_added_point_is_a_trial_of_its_arm_and_the_imbalance_is_said(directory: Path):
    with running(directory) as steering:
        said = give(directory, "add", point=POINT)["said"]
        assert steering.added == {ADDED: POINT}
    assert said == "added1-symnoise is added: symnoise, alpha=5, lr=0.002"
    assert "symnoise 2 + 1 - 0" in ordered.departures(directory)[-1]
    with running(directory) as later:
        assert later.added == {ADDED: POINT}, "it outlives the sweep's process"


def test_added_trials_have_numbers_and_seeds_of_their_own(directory: Path):
    plans = SweepPlans(space(), directory)
    one, other = (plans.search(ADDED + number, POINT) for number in range(2))
    assert (one.name, other.name) == ("added1-symnoise", "added2-symnoise")
    assert search_index(other.name) == ADDED + 1
    assert search_index("007-none") == 7
    seeds = {plans.search(n, POINT).config.train.seed for n in range(len(plans.cells))}
    assert one.config.train.seed != other.config.train.seed
    assert not {one.config.train.seed, other.config.train.seed} & seeds


def test_the_search_hands_out_what_was_added_as_long_as_it_goes_on(directory: Path):
    with running(directory) as steering:
        proposals = Proposals(steering.plans, directory / "optuna.db", steering.added)
        searcher = SweepSearch(proposals, [1], steering.budget)
        steering.search = searcher
        assert searcher.suggest("a")["index"] == 1
        assert searcher.suggest("b") is None, "trials run, so one may still be added"
        give(directory, "add", point=POINT)
        assert searcher.suggest("b") == {"index": ADDED, "point": POINT}
        searcher.on_trial_complete("a", {"win_rate": 0.5})
        searcher.on_trial_complete("b", {"win_rate": 0.5})
        assert searcher.suggest("c") == "FINISHED"
        with pytest.raises(UserError, match="a setting that is added after the choice"):
            give(directory, "add", point=POINT)
        assert steering.added == {ADDED: POINT}


@pytest.mark.parametrize(
    ("point", "why"),
    [
        ({**POINT, "noise.alpha": 50}, "noise.alpha must be from 1 to 10"),
        ({**POINT, "noise.type": "nef"}, "noise.alpha has no meaning there"),
        ({"noise.type": "none", "optim.lr": 1}, "optim.lr must be from 0.0001 to 0.01"),
        ({"noise.type": "none"}, "optim.lr is needed there"),
        ({**POINT, "optim.rl": 1}, "optim.rl must be varied by the sweep.*'optim.lr'"),
    ],
)
def test_a_point_outside_the_space_is_refused(directory: Path, point: dict[str, Any], why: str):
    with pytest.raises(UserError, match=why):
        require_point(SweepPlans(space(), directory), point)


# Other limits


def test_a_limit_is_changed_now_and_in_later_parts(directory: Path):
    with running(directory) as steering:
        give(directory, "budget", limits={"trials": 20})
        give(directory, "budget", limits={"trials": 30})
        assert steering.budget.sweep.budget.trials == 30
        with pytest.raises(UserError, match=r"'trails' is not a setting. Did you mean 'trials'"):
            give(directory, "budget", limits={"trails": 3})
        with pytest.raises(UserError, match="greater than or equal to 1"):
            give(directory, "budget", limits={"trials": 0})
    assert ordered.with_ordered_budget(space(), directory).budget.trials == 30
    given = space(budget={"trials": 50})
    assert ordered.with_ordered_budget(given, directory).budget.trials == 50, "said on --resume"
    assert ordered.departures(directory) == (), "limits are no part of the design"
    assert "budget.trials no limit -> 20" in ordered.notes(directory)[0]


def test_orders_are_events_of_the_journal_with_their_giver(directory: Path):
    with running(directory):
        give(directory, "add", point=POINT)
    (line,) = (directory / "journal.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert (event["kind"], event["verb"], event["by"]) == ("order", "add", directory.owner())
    assert read_json(directory / DESIGN)["trials_by_arm"]["symnoise"] == 2, "as declared"
