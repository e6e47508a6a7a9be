"""What follows the trials bears a full disk, and leaves no result that the sweep does not list."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import DivergedError, InfrastructureError
from symnoise_ray.records.files import write_json, write_lines
from symnoise_ray.records.layout import CONFIG, METRICS, RESULT, TRIALS
from symnoise_ray.records.results import read_result
from symnoise_ray.report.board import Board
from symnoise_ray.space.trials import TrialPlan
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.tracking.journal import Journal


def watch_of(directory: Path, log: Callable[..., None] | None = None) -> Watch:
    journal = Journal(directory)
    tracker: Any = SimpleNamespace(journal=journal, log=log or journal.append, tags={})
    return Watch("sweep", Board(Console(quiet=True), "sweep"), tracker)


def plan_of(directory: Path, name: str) -> TrialPlan:
    return TrialPlan(name, TrialConfig(), directory / TRIALS / name, directory, {})


@pytest.mark.parametrize("failing", ["metrics", "end"])
@pytest.mark.parametrize("error", [OSError("no space left on device"), SystemExit(1)])
def test_what_could_not_be_logged_is_logged_later_and_the_trial_counts_once(
    failing: str, error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logged: list[tuple[str, Any]] = []
    failures = iter([error] * 3)

    def log(kind: str, run: str, **values: Any) -> None:
        if kind == failing and (failure := next(failures, None)):
            raise failure
        logged.append((kind, values.get("records")))

    plan = plan_of(tmp_path, "000-none")
    with watch_of(tmp_path, log) as watch:
        watch.add(plan)
        write_lines([{"step": step, "loss": 1.0} for step in range(3)], plan.directory / METRICS)
        write_json(plan.result("done", values={"win_rate": 0.5}).to_json(), plan.directory / RESULT)
        deadline = time.monotonic() + 60
        while not watch.results and time.monotonic() < deadline:
            time.sleep(0.05)
    assert [result.trial for result in watch.results] == ["000-none"]
    assert len(caplog.records) == 1, "it is told once"
    assert caplog.records[0].exc_info is None
    steps = [row["step"] for kind, rows in logged if kind == "metrics" for row in rows]
    assert steps[:3] == [0, 1, 2]
    assert [kind for kind, _ in logged][-1] == "end"


def test_of_confirmed_trials_no_result_is_left_that_the_sweep_would_not_list(
    tmp_path: Path,
) -> None:
    errors = {"confirm-a-seed1000": DivergedError("loss"), "confirm-b-seed1000": None}
    errors["confirm-c-seed1000"] = InfrastructureError("its workers were lost")
    for name, error in errors.items():
        plan = plan_of(tmp_path, name)
        kind = {} if error is None else {"reason": error.message, "kind": error.kind}
        result = plan.result("failed" if error else "done", **kind)
        write_json(plan.config.model_dump(mode="json"), plan.directory / CONFIG)
        write_json(result.to_json(), plan.directory / RESULT)
    watch = watch_of(tmp_path)
    watch.take_up_confirmed(tmp_path)
    left = [name for name in errors if read_result(tmp_path / TRIALS / name) is not None]
    assert left == [result.trial for result in watch.results] == list(errors)[:2]
