"""Rows 27 and 36: clocks that step, and surroundings that a person's machine may have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from symnoise_ray.records.files import read_lines
from symnoise_ray.tracking.journal import Journal

VALIDATE = [sys.executable, "-m", "symnoise_ray", "validate", "quickstart"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
        {"HOME": "/proc/nowhere"},
        {"TERM": "dumb", "COLUMNS": "20"},
    ],
    ids=["locale without UTF-8", "no home", "no terminal"],
)
def test_row_36_a_check_works_in_poor_surroundings(surroundings: dict[str, str], tmp_path: Path):
    environment = {**os.environ, **surroundings}
    run = subprocess.run(
        VALIDATE, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "all settings, files and the model are usable" in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_row_36_an_output_that_takes_nothing_is_one_line(tmp_path: Path):
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            VALIDATE, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
        )
    assert run.returncode != 0
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr


def test_row_27_events_keep_their_order_when_the_clock_steps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What follows what is told by the place in the journal, and times are only shown."""
    clock = iter([5000.0, 100.0, 4000.0, 1.0])
    monkeypatch.setattr("symnoise_ray.tracking.journal.time.time", lambda: next(clock))
    journal = Journal(tmp_path)
    journal.append("start", "trial", parent="", params={}, tags={})
    for step in (1, 2):
        journal.append("metrics", "trial", records=[{"step": step}])
    journal.append("end", "trial", status="FINISHED", tags={})
    assert [event["kind"] for event in read_lines(journal.path)] == [
        "start",
        *["metrics"] * 2,
        "end",
    ]
    assert Journal(tmp_path).history() == ({"trial": 2}, {"trial"})
