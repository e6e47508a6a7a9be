"""A real sweep that is steered while it runs: seen, paused, stopped, added to, and killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.records.files import read_json
from tests.sweep.test_run import MARK, SPACE, left_by, study_states

pytestmark = pytest.mark.slow

STEERED = SPACE.replace("num_trials: 1", "num_trials: 3").replace("max_steps: 8", "max_steps: 100")
PATIENCE_SECONDS = 600
ADDED = "noise.type=symnoise noise.alpha=7 optim.lr=0.002"


def ctl(folder: Path, *order: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray", "ctl", str(folder / "runs/small"), *order]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> row of the list; empty as long as no orders are taken."""
    run = ctl(folder, "list", "--json")
    return {row["trial"]: row for row in json.loads(run.stdout)["trials"]} if run.stdout else {}


def until(ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process of its own."""
    command = [sys.executable, "-m", "symnoise_ray.tune", "small.yaml", *options]
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, text=True,
            env={**os.environ, MARK: str(folder)},
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def test_a_sweep_is_steered_killed_and_still_as_it_was_ordered(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(STEERED)

    def runs(name: str) -> bool:
        return bool(trials(tmp_path).get(name, {}).get("step"))

    with started(tmp_path) as process:
        until(lambda: runs("001-symnoise"))
        row = trials(tmp_path)["001-symnoise"]
        assert (row["status"], row["slot"]) == ("running", "slot-0")
        stopped = ctl(tmp_path, "stop", "001")
        assert "001-symnoise is stopped; its slot was free after" in stopped.stdout
        assert ctl(tmp_path, "pause").stdout.startswith("paused; trials that run go on")
        until(lambda: all(row["status"] != "running" for row in trials(tmp_path).values()))
        before = {name for name, row in trials(tmp_path).items() if row["step"]}
        assert "added1-symnoise is added" in ctl(tmp_path, "add", *ADDED.split()).stdout
        assert {name for name, row in trials(tmp_path).items() if row["step"]} == before
        process.kill()
        until(lambda: not left_by(tmp_path))
    dead = ctl(tmp_path, "list")
    assert (dead.returncode, dead.stdout, dead.stderr.count("\n")) == (2, "", 1)
    with started(tmp_path, "--resume") as process:
        until(lambda: trials(tmp_path))
        assert " (paused)" in ctl(tmp_path, "list").stdout
        assert ctl(tmp_path, "resume").stdout == "resumed\n"
        until(lambda: process.poll() is not None)
        assert process.returncode == 0, (tmp_path / "out.txt").read_text()
    directory = tmp_path / "runs/small"
    found = {each["trial"]: each for each in read_json(directory / "results.json")["trials"]}
    assert found["001-symnoise"]["status"] == "stopped"
    assert found["001-symnoise"]["stopped_at"] >= 1
    assert found["added1-symnoise"]["status"] == "done"
    states = study_states(directory, "small")
    assert (states.count("PRUNED"), states.count("COMPLETE")) == (1, 3)
    report = (directory / "report.md").read_text()
    for line in ("001-symnoise is stopped", "added1-symnoise is added", "resumed"):
        assert line in report
    assert "symnoise 3 + 1 - 1" in report
    assert ctl(tmp_path, "pause").returncode == 2, "it has come to its end"
    assert left_by(tmp_path) == []
