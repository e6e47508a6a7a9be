"""MLflow on PostgreSQL: four trials at once, a server that is killed, and no password anywhere.

What a sweep logs there is compared with what the same sweep logs into an SQLite file.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import optuna
import pytest

from symnoise_ray.records.files import read_json, read_lines
from symnoise_ray.records.layout import APPLIED, JOURNAL, RESULTS
from symnoise_ray.records.sqlite import sqlite_uri
from symnoise_ray.tracking.journal import Journal
from symnoise_ray.tracking.mlflow_runs import KEY_TAG, replay
from tests.servers.postgres import Postgres, running
from tests.tracking.test_misbehaving import sweep_in
from tests.tracking.test_tracking import EXPERIMENT, check_whole, ended, started, write

SPACE = """
name: four
trial:
  data: {max_eval_prompts: 24}
  train: {max_steps: 8, global_batch_size: 16, num_clean_rows: 16, num_evals: 2}
  generate: {max_new_tokens: 12}
parameters:
  noise.type: {type: categorical, choices: [none, symnoise]}
  noise.alpha: {type: categorical, choices: [5], when: {noise.type: [symnoise]}}
  optim.lr: {type: categorical, choices: [0.001, 0.002, 0.003]}
baselines:
  - {noise.type: none, optim.lr: 0.004}
  - {noise.type: symnoise, noise.alpha: 5, optim.lr: 0.004}
search: {sampler: grid}
confirm: {arms: 1, looks: [2]}
workers: {max_slots: 4}
tracking: {traces: all, experiment: NAME, uri: ADDRESS}
"""
NUM_PROPOSED = 6
"""Trials of the grid; the baselines lie outside it, and so outside the study."""
RUN = """
import os, sys
from pathlib import Path
os.cpu_count = lambda: 5  # so that Ray has room for four slots on any machine
import symnoise_ray
if __name__ == "__main__":
    symnoise_ray.run(sys.argv[1], output=Path(sys.argv[2]))
"""
MEASURED = ("seconds/", "cost/")
"""Groups of metrics that differ between two runs of the same sweep."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server without tables."""
    with running() as server:
        yield server


class Swept(NamedTuple):
    """A sweep that is on its way or has ended."""

    process: subprocess.Popen[str]
    directory: Path
    temporary: Path

    def told(self) -> str:
        """All that it said, once it has ended well."""
        said, _ = self.process.communicate(timeout=1500)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for Ray, whose sockets must have short paths."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def sweep(folder: Path, temporary: Path, name: str, uri: str) -> Swept:
    """Start a sweep of four trials at once in a folder of its own."""
    (folder / "runs").mkdir()
    space = SPACE.replace("NAME", name).replace("ADDRESS", uri)
    (folder / "space.yaml").write_text(space)
    command = [sys.executable, "-c", RUN, str(folder / "space.yaml"), str(folder / "runs" / "four")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, "RAY_TMPDIR": str(temporary)},
    )  # fmt: skip
    return Swept(process, folder / "runs" / "four", temporary)


def logged(uri: str, name: str) -> dict[str, dict[str, Any]]:
    """What MLflow has of every run of an experiment, without what a clock decides."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    runs = {run.data.tags[KEY_TAG].partition("#")[2]: run for run in found}
    assert len(runs) == len(found), "one run each"
    return {name: _of_run(client, experiment.experiment_id, run) for name, run in runs.items()}


def _of_run(client: Any, experiment: str, run: Any) -> dict[str, Any]:
    run_id = run.info.run_id
    return {
        "status": run.info.status,
        "params": run.data.params,
        "curves": {
            name: [
                (each.step, None if name.startswith(MEASURED) else each.value)
                for each in sorted(client.get_metric_history(run_id, name), key=lambda m: m.step)
            ]
            for name in run.data.metrics
        },
        "files": sorted(each.path for each in client.list_artifacts(run_id)),
        "inputs": sorted(each.dataset.digest for each in run.inputs.dataset_inputs),
        "traces": sorted(_of_trace(each) for each in _traces(client, experiment, run_id)),
    }


def _traces(client: Any, experiment: str, run_id: str) -> list[Any]:
    found = client.search_traces(locations=[experiment], run_id=run_id, max_results=500)
    return list(found)


def _of_trace(trace: Any) -> tuple[str, ...]:
    (span,) = trace.data.spans
    said = {each.name: str(each.value) for each in trace.info.assessments}
    assert len(said) == len(trace.info.assessments), "each assessment once"
    return (str(span.inputs), str(span.outputs), str(sorted(said.items())))


def found_by(swept: Swept) -> dict[str, Any]:
    """The verdict of a sweep, and of every trial what no clock decides."""
    results = read_json(swept.directory / RESULTS)
    trials = {
        trial["trial"]: [trial.get(name) for name in ("status", "params", "win_rate", "clean_loss")]
        for trial in results["trials"]
    }
    return {"verdict": results["verdict"]["sentence"], "trials": trials}


def assert_no_password(postgres: Postgres, swept: Swept, said: str) -> None:
    """None in what the sweep said and left, Ray's logs among it."""
    folders = (swept.directory.parent, swept.temporary)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert [path for path in files if postgres.shown_in(path.read_bytes())] == []
    assert not postgres.shown_in(said.encode())


def test_events_that_are_sent_again_are_there_once(postgres: Postgres, tmp_path: Path) -> None:
    directory = sweep_in(tmp_path / "sweep")
    write(Journal(directory), started(), ended())
    assert replay(directory, postgres.uri, EXPERIMENT) == 8
    (directory / APPLIED).unlink()
    assert replay(directory, postgres.uri, EXPERIMENT) == 8
    check_whole(postgres.uri, directory)
    assert (tmp_path / "mlartifacts").is_dir(), "the database has no place for files"


@pytest.mark.slow
@pytest.mark.nightly
def test_four_trials_at_once_log_there_what_they_log_into_a_file(
    postgres: Postgres, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "server").mkdir()
    uri = sqlite_uri(tmp_path / "file" / "mlflow.db")
    plain = sweep(tmp_path / "file", temporary, "whole", uri)
    plain.told()
    other = sweep(tmp_path / "server", temporary, "whole", postgres.uri)
    said = other.told()
    assert "not everything reached MLflow" not in said
    assert found_by(other) == found_by(plain)
    assert logged(postgres.uri, "whole") == logged(uri, "whole")
    assert_no_password(postgres, other, said)
    storage = sqlite_uri(other.directory / "optuna.db")
    study = optuna.load_study(study_name="four", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * NUM_PROPOSED


@pytest.mark.nightly
@pytest.mark.slow
def test_a_server_that_is_killed_in_mid_sweep_gets_all_later_and_once(
    postgres: Postgres, tmp_path: Path, temporary: Path
) -> None:
    swept = sweep(tmp_path, temporary, "killed", postgres.uri)
    before = postgres.count("metrics")
    while postgres.count("metrics") <= before:
        assert swept.process.poll() is None, swept.told()
        time.sleep(0.1)
    postgres.kill()
    said = swept.told()
    assert "not everything reached MLflow" in said
    assert "Traceback" not in said
    assert_no_password(postgres, swept, said)
    postgres.start()
    events = len(read_lines(swept.directory / JOURNAL))
    missing = events - read_json(swept.directory / APPLIED)["num_applied"]
    assert 0 < missing < events
    assert sync(swept, postgres) == f"{missing} events sent\n"
    whole = logged(postgres.uri, "killed")
    (swept.directory / APPLIED).unlink()
    assert sync(swept, postgres) == f"{events} events sent\n", "it has forgotten what it sent"
    assert logged(postgres.uri, "killed") == whole
    assert_logged_once(swept, whole)


def sync(swept: Swept, postgres: Postgres) -> str:
    """What `symnoise-ray sync` says."""
    run = subprocess.run(
        [sys.executable, "-m", "symnoise_ray", "sync", str(swept.directory)],
        env={**os.environ, "MLFLOW_TRACKING_URI": postgres.uri},
        capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert not postgres.shown_in((run.stdout + run.stderr).encode())
    return run.stdout


def assert_logged_once(swept: Swept, runs: dict[str, dict[str, Any]]) -> None:
    """Every value, answer and end of the journal is in MLflow, and no value twice."""
    values: dict[tuple[str, str], list[int]] = {}
    for event in read_lines(swept.directory / JOURNAL):
        for record in event.get("records", []):
            for name in record.keys() - {"step"}:
                values.setdefault((event["run"], name), []).append(record["step"])
    assert len(values) > 100
    curves = {
        (run, name): [step for step, _ in curve]
        for run, found in runs.items()
        for name, curve in found["curves"].items()
    }
    assert curves == {key: sorted(steps) for key, steps in values.items()}
    assert {found["status"] for found in runs.values()} == {"FINISHED"}
    trials = read_json(swept.directory / RESULTS)["trials"]
    assert {len(runs[trial["trial"]]["traces"]) for trial in trials} == {24}
