"""The study of a sweep is worth opening in optuna-dashboard: names, intervals, losses, notes."""

import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.records.files import write_json, write_lines
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.proposals import Proposals

SWEEP = {
    "name": "small",
    "parameters": {
        "noise.type": {"type": "categorical", "choices": ["none", "symnoise"]},
        "noise.alpha": {
            "type": "float", "low": 1, "high": 10, "when": {"noise.type": ["symnoise"]},
        },
        "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    },
    "baselines": [{"noise.type": "none", "optim.lr": 1e-3}],
    "search": {"num_trials": 3, "sampler": "random"},
    "tracking": {"uri": "http://me:***@host:5000"},
}  # fmt: skip
DONE, STOPPED, FAILED = 0, 1, 2
LOSSES = {0: 3.0, 4: 2.5, 8: 2.25}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sweep whose first three trials ended in the three ways, and whose fourth one runs."""
    folder = tmp_path / "small"
    folder.mkdir()
    plans = SweepPlans(SweepConfig.model_validate(SWEEP), folder)
    proposals = Proposals(plans, folder / "optuna.db")
    ends: dict[int, tuple[str, dict[str, Any]]] = {
        DONE: ("done", {"values": {"win_rate": 0.75, "interval_95": [0.6, 0.9],
                                   "clean_loss": 2.25}}),
        STOPPED: ("stopped", {"reason": "it was behind", "values": {"stopped_at": 8,
                                                                     "clean_loss": 2.25}}),
        FAILED: ("failed", {"kind": "diverged", "reason": "the loss was inf"}),
    }  # fmt: skip
    for index in range(4):
        plan = plans.search(index, proposals.propose(index))
        if index in ends:
            status, values = ends[index]
            rows = [{"step": step, "loss": 9.0, "clean_loss": loss}
                    for step, loss in LOSSES.items()]  # fmt: skip
            write_lines(
                [*rows[:2], {"step": 5, "loss": 9.0}, rows[2]], plan.directory / "metrics.jsonl"
            )
            write_json(plan.result(status, **values).to_json(), plan.directory / "trial.json")
            stopped = (8, 2.25) if index == STOPPED else None
            proposals.tell(index, 0.75 if index == DONE else None, stopped=stopped)
    return folder


def storage(directory: Path) -> str:
    return f"sqlite:///{directory / 'optuna.db'}"


def test_optuna_reads_names_intervals_and_losses_by_step(directory: Path) -> None:
    study = optuna.load_study(study_name="small", storage=storage(directory))
    assert study.metric_names == ["win rate"]
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    done, stopped, failed, running = study.trials
    assert done.user_attrs["trial"] == "000-none"
    assert all(trial.user_attrs["trial"][:3] == f"00{trial.number}" for trial in study.trials)
    assert (done.user_attrs["win_rate_low_95"], done.user_attrs["win_rate_high_95"]) == (0.6, 0.9)
    assert done.value == 0.75
    for trial in (done, stopped, failed):
        assert trial.intermediate_values == {step: -loss for step, loss in LOSSES.items()}
    assert stopped.value == -2.25, "as Optuna's own tell: the last report"
    assert stopped.user_attrs["reason"] == "it was behind"
    assert failed.user_attrs["reason"] == "the loss was inf"
    assert running.intermediate_values == {}


def test_a_sweep_that_goes_on_leaves_a_note_that_somebody_edited(directory: Path) -> None:
    study = optuna.load_study(study_name="small", storage=storage(directory))
    study._storage.set_study_system_attr(study._study_id, "dashboard:note_str:0", "mine")
    plans = SweepPlans(SweepConfig.model_validate(SWEEP), directory)
    Proposals(plans, directory / "optuna.db")
    kept = study._storage.get_study_system_attrs(study._study_id)
    assert kept["dashboard:note_str:0"] == "mine"


def get(app: Any, path: str) -> Any:
    """What the dashboard answers to its own pages."""
    status: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }  # fmt: skip
    body = b"".join(app(environ, lambda given, headers, *_: status.append(given)))
    assert status == ["200 OK"], body
    return json.loads(body)


def test_the_dashboard_shows_them(directory: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    app = dashboard.wsgi(storage(directory))
    (listed,) = get(app, "/api/studies")["study_summaries"]
    shown = get(app, f"/api/studies/{listed['study_id']}")
    assert shown["objective_names"] == ["win rate"]
    assert shown["has_intermediate_values"]
    assert [trial["state"] for trial in shown["trials"]] == [
        "Complete", "Pruned", "Fail", "Running",
    ]  # fmt: skip
    note = shown["note"]["body"]
    assert (directory / "report.html").as_uri() in note
    assert "MLflow: http://me:***@host:5000" in note
    done = shown["trials"][DONE]
    assert {"key": "trial", "value": "000-none"} in done["user_attrs"]
    assert {"key": "win_rate_low_95", "value": "0.6"} in done["user_attrs"]
    assert done["intermediate_values"][-1] == {"step": 8, "value": -2.25}
    assert done["note"]["body"].startswith("# 000-none\n")
    assert "wins: 75.0 %, 95 % interval" in done["note"]["body"]
    assert shown["trials"][FAILED]["note"]["body"].count("the loss was inf") == 1
