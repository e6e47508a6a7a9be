"""Every secret that a user can hold is used, and found nowhere: files, logs, MLflow, Ray's records.

A sweep runs as a job on a cluster whose head has the secrets in its environment, as docs/launch.md
tells people to. Its judge's endpoint quotes the key in its errors, and its tracker is down.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import JOURNAL
from tests.cluster.test_job import RAY, head, submit
from tests.servers.endpoint import serving
from tests.sweep.test_run import SPACE

pytestmark = pytest.mark.slow

NAMES = (
    *("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HTTPS_PROXY", "MLFLOW_TRACKING_URI"),
)
MARKS = {name: secrets.token_urlsafe(18) for name in NAMES}
"""Drawn, since the job carries a copy of this repository; of 64 signs, since logs are full of
hexadecimal numbers."""
SECRETS = {
    **MARKS,
    **{
        name: f"http://me:{MARKS[name]}@127.0.0.1:9"
        for name in ("HTTPS_PROXY", "MLFLOW_TRACKING_URI")
    },
}


def shown_in(text: bytes) -> list[str]:
    """Names of the secrets of which a text has eight characters in a row."""
    return [
        name
        for name, mark in MARKS.items()
        if any(mark[i : i + 8].encode() in text for i in range(len(mark) - 7))
    ]


def leaks(*folders: Path) -> list[str]:
    """Files below some folders, each with the secrets that it shows."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    return [f"{path}: {found}" for path in files if (found := shown_in(path.read_bytes()))]


def test_no_secret_reaches_a_file_a_log_or_a_record(tmp_path: Path) -> None:
    home, runs = tmp_path / "home", tmp_path / "runs"
    home.mkdir()
    runs.mkdir()
    with serving() as endpoint, head(home, **SECRETS, HF_HUB_OFFLINE="1") as environment:
        endpoint.trouble = lambda number, body: "status 400" if number % 40 == 7 else ""
        judge = (
            f"judge: {{type: api, model: m, base_url: '{endpoint.url}', min_coverage: 0.5, "
            "api_key_env: OPENAI_API_KEY, self_check: false}"
        )
        space = SPACE.replace("  train: {", f"  {judge}\n  train: {{")
        run, output = submit(environment, space, runs)
        assert run.returncode == 0, run.stdout + run.stderr
        assert endpoint.keys == {f"Bearer {SECRETS['OPENAI_API_KEY']}"}, "the key was used"
        records = subprocess.run(
            [RAY, "job", "list"], env=environment, capture_output=True, check=True
        )
        assert b"symnoise_ray.tune" in records.stdout
        # While the head lives, since its folder goes away with it.
        assert leaks(runs, home, Path(environment["RAY_TMPDIR"])) == []
    assert "not everything reached MLflow" in run.stdout
    assert "***" in run.stdout
    told = run.stdout + run.stderr
    assert shown_in(told.encode() + records.stdout + records.stderr) == []
    assert read_json(output / "results.json")["status"] == "whole"
    sync_and_look(output, runs)


def sync_and_look(output: Path, runs: Path) -> None:
    """MLflow gets the whole journal, and no secret in it."""
    uri = f"sqlite:///{runs / 'other.db'}"
    command = [sys.executable, "-m", "symnoise_ray", "sync", str(output), "--uri", uri]
    run = subprocess.run(
        command, env={**os.environ, **SECRETS}, capture_output=True, text=True, check=True
    )
    events = (output / JOURNAL).read_text().count("\n")
    assert run.stdout == f"{events} events sent\n"
    assert mlflow.MlflowClient(uri).get_experiment_by_name("symnoise_ray") is not None
    assert leaks(runs) == []
    assert shown_in((run.stdout + run.stderr).encode()) == []
