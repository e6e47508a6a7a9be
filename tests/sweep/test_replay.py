"""`symnoise-ray replay` trains a trial again and shows the same numbers, or says what differs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.results import TrialResult
from tests.conftest import PAIRS
from tests.sweep.test_run import left_by, tune

SPACE = """
name: small
trial:
  data: {train: rows.json, eval_prompts: rows.json}
  train: {max_steps: 8, num_epochs: 8, global_batch_size: 4, num_clean_rows: 4, num_evals: 2}
  generate: {max_new_tokens: 12}
parameters:
  noise.type: {type: categorical, choices: [symnoise]}
  noise.alpha: {type: float, low: 1, high: 10, log: true}
  optim.lr: {type: categorical, choices: [0.002]}
baselines:
  - {noise.type: none, optim.lr: 0.002}
search: {num_trials: 1}
workers: {max_slots: 1}
"""


def write_rows(folder: Path, first_answer: str) -> None:
    pairs = [(PAIRS[0][0], first_answer), *PAIRS[1:]]
    rows = [{"instruction": asked, "input": "", "output": said} for asked, said in pairs]
    (folder / "rows.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two trials in `out`."""
    folder = tmp_path_factory.mktemp("replayed")
    write_rows(folder, PAIRS[0][1])
    (folder / "small.yaml").write_text(SPACE)
    run = tune("small.yaml", "--output", "out", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def replay(folder: Path, trial: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray", "replay", "out", trial]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=1500
    )


def files(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in (folder / "out").rglob("*") if path.is_file()}


@pytest.mark.nightly
def test_a_trial_that_is_trained_again_has_every_number_again(folder: Path) -> None:
    before = files(folder)
    run = replay(folder, "001-symnoise")
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "training 001-symnoise again ..."
    assert lines[-1] == "every number is the same"
    numbers = {line.split()[0]: line.split()[1:] for line in lines[2:-1]}
    assert numbers["loss"][:2] == ["8", "8"]
    assert numbers["answers"] == ["12", "12"]
    assert numbers["verdicts"] == ["24", "24"]
    rate = read_json(folder / "out" / "trials" / "001-symnoise" / "score.json")["win_rate"]
    assert numbers["win_rate"] == ["1", "1", f"{rate:.10g}", f"{rate:.10g}"]
    assert files(folder) == before, "the sweep stays as it was"
    assert left_by(folder) == []


@pytest.mark.nightly
def test_one_that_differs_is_shown_beside_what_is_not_as_it_was(folder: Path) -> None:
    path = folder / "out" / "run.lock.json"
    lock = read_json(path)
    assert list(lock["weights"]), "what the training began with"
    now = lock["versions"]["torch"]
    try:
        write_json(lock | {"versions": lock["versions"] | {"torch": "1.0"}}, path)
        write_rows(folder, "seven eight nine")
        run = replay(folder, "001-symnoise")
    finally:
        write_json(lock, path)
        write_rows(folder, PAIRS[0][1])
    assert run.returncode == 1, run.stdout + run.stderr
    told = [line for line in run.stdout.splitlines() if line.startswith("not as it was: ")]
    assert told[0] == f"not as it was: torch 1.0 -> {now}"
    assert told[1].startswith(f"not as it was: {folder / 'rows.json'}: ")
    assert len(told) == 2
    last = run.stdout.splitlines()[-1]
    assert {"loss", "clean_loss"} < set(last.removeprefix("different: ").split("; ")[0].split(", "))
    assert last.endswith("; for what is not as it was, see above")


def test_only_a_trial_with_a_score_can_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(tmp_path), "000-none"]) == 2
    assert "must be the directory of a sweep" in capsys.readouterr().err
    tracking = {"uri": None, "experiment": "e"}
    write_json({"name": "small", "tracking": tracking}, tmp_path / "sweep.json")
    failed = TrialResult("000-none", status="failed", kind="diverged", reason="it did")
    write_json(failed.to_json(), tmp_path / "trials" / "000-none" / "trial.json")
    assert main(["replay", str(tmp_path), "000-none"]) == 2
    assert "000-none must have a score to be compared with, but is failed" in (
        capsys.readouterr().err
    )
    assert main(["replay", str(tmp_path), "001-x"]) == 2
    assert "must have the trial 001-x, but has 000-none" in capsys.readouterr().err
