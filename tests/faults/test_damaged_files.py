"""Rows 9, 12, 28 and 29: files that were cut, flipped or filled with garbage, and what was seen."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from symnoise_ray.records.files import read_json, write_json
from tests.faults.conftest import SHORT
from tests.sweep.test_run import runs_by_name, start_and_signal, told_of

pytestmark = pytest.mark.slow
Resume = Callable[..., tuple[int, str]]
GARBAGE = b"\x00\xff\xfe{[\n" * 20


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])


def assert_like(sweep: Path, oracle: Path) -> None:
    """The same table, choices and verdict; nothing lost and nothing doubled, in MLflow too."""
    found, expected = (read_json(each / "out" / "results.json") for each in (sweep, oracle))
    assert told_of(found) == told_of(expected)
    assert found["choices"] == expected["choices"]
    assert found["status"] == "whole"
    runs = runs_by_name(sweep / "mlflow.db")
    assert set(runs) == set(runs_by_name(oracle / "mlflow.db"))
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


@pytest.mark.nightly
def test_rows_12_and_29_damage_everywhere_at_once_is_mended(
    oracle: Path, sweep: Path, resume: Resume
):
    """Each file is set aside with a line; what is trained again gives the same numbers."""
    out = sweep / "out"
    damaged = {
        "optuna.db": lambda path: path.write_bytes(GARBAGE),
        "results.json": cut,
        "journal.jsonl": lambda path: path.write_bytes(GARBAGE + path.read_bytes()),
        "trials/000-none/completions.jsonl": flip,
        "trials/001-symnoise/trial.json": cut,
        "trials/confirm-none-seed1000/metrics.jsonl": lambda path: path.write_bytes(GARBAGE),
        "trials/confirm-symnoise-seed1001/preferences.jsonl": lambda path: path.write_text(""),
    }
    for name, damage in damaged.items():
        damage(out / name)
    (table,) = (out / "tokens").iterdir()
    flip(table / "input_ids.npy")
    status, said = resume()
    assert status == 0, said
    assert "Traceback" not in said
    assert said.count(" is damaged (") == len(damaged)
    for name in damaged:
        assert f"out/{name} is damaged (" in said
    assert_like(sweep, oracle)


@pytest.mark.nightly
def test_row_29_a_trial_that_failed_for_its_surroundings_is_tried_again(
    oracle: Path, sweep: Path, resume: Resume
):
    """What a trial could not read may be there again, so no such failure is for good."""
    failed = sweep / "out" / "trials" / "001-symnoise"
    result = read_json(failed / "trial.json")
    kept = {n: result[n] for n in ("trial", "part", "arm", "label", "params", "seed", "baseline")}
    why = {"status": "failed", "kind": "data", "reason": "no completions"}
    write_json({**kept, **why}, failed / "trial.json")
    (failed / "digests.json").unlink()
    status, said = resume()
    assert status == 0, said
    assert_like(sweep, oracle)


def test_row_9_a_finished_verdict_outlives_an_interrupted_resume(sweep: Path):
    shown = {each: (sweep / "out" / each).read_bytes() for each in ("results.json", "report.html")}
    process, _ = start_and_signal(
        sweep, signal.SIGINT, "worker group", space=SHORT, wait=lambda: time.sleep(3)
    )
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 130, output
    for name, content in shown.items():
        assert (sweep / "out" / name).read_bytes() == content
