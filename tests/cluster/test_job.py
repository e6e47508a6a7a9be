"""A sweep as a job on a running cluster: `ray start --head`, then `ray job submit`."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from symnoise_ray.records.files import read_json
from tests.conftest import ROOT
from tests.ranks import free_port
from tests.sweep.test_run import SPACE

pytestmark = pytest.mark.slow

AGENT_SECONDS = 120
"""`ray start` ends before the head takes jobs: on a busy machine long before."""
RAY = str(Path(sys.executable).parent / "ray")


START_TRIES = 3
"""Ray gives a node 30 s to start, which are too few on a busy machine."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh head of our own."""
    with head(tmp_path_factory.mktemp("home")) as environment:
        yield environment


@contextmanager
def head(home: Path, **more: str) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh head; `more` is set on both sides.

    The head is ended by its processes' ids.
    """
    # Ray's socket paths must stay under 107 characters, so its folder is a short one.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        # A Ray that ran in this process leaves its own ways to authenticate behind.
        environment = {
            **{name: value for name, value in os.environ.items() if "RAY_AUTH" not in name},
            "HOME": str(home),
            "RAY_TMPDIR": folder,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **more,
        }
        for left in reversed(range(START_TRIES)):
            port = free_port()
            environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
            run = start_head(environment, port)
            if run.returncode == 0:
                break
            end_processes_of(folder)
            assert left, run.stdout + run.stderr
        try:
            yield environment
        finally:
            end_processes_of(folder)


def start_head(environment: dict[str, str], port: int) -> subprocess.CompletedProcess[str]:
    # All agents ask for one default port; beside another Ray this one would take no jobs.
    start = [
        RAY, "start", "--head", f"--port={free_port()}", f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}",
        "--num-cpus=2", "--object-store-memory=200000000", "--disable-usage-stats",
    ]  # fmt: skip
    return subprocess.run(
        start, env=environment, check=False, capture_output=True, text=True, timeout=600
    )


def processes_of(folder: str) -> list[psutil.Process]:
    """Other processes that have our own Ray folder in their command line or environment."""
    own = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            named = any(folder in word for word in process.cmdline())
            in_it = process.environ().get("RAY_TMPDIR", "").startswith(folder)
            if (named or in_it) and process.pid != os.getpid():
                own.append(process)
    return own


def end_processes_of(folder: str) -> None:
    """Kill them."""
    own = processes_of(folder)
    for process in own:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(own, timeout=10)


def submit(
    environment: dict[str, str], space: str, tmp_path: Path
) -> tuple[subprocess.CompletedProcess[str], Path]:
    (tmp_path / "space.yaml").write_text(space)
    output = tmp_path / "out"
    command = [
        RAY, "job", "submit", "--working-dir", str(ROOT), "--", "python", "-m",
        "symnoise_ray.tune", str(tmp_path / "space.yaml"), "--output", str(output),
    ]  # fmt: skip
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=1500
        )
        if "No available agent" not in run.stderr or time.monotonic() > deadline:
            return run, output
        time.sleep(2)


def test_a_job_succeeds_with_a_whole_sweep(cluster: dict[str, str], tmp_path: Path):
    run, output = submit(cluster, SPACE, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "succeeded" in run.stdout + run.stderr
    assert "Verdict: Whether symnoise at " in run.stdout
    assert read_json(output / "results.json")["status"] == "whole"


def test_a_job_fails_when_some_trials_failed(cluster: dict[str, str], tmp_path: Path):
    space = SPACE.replace("choices: [0.002]", "choices: [1.0e+30]").replace("arms: 1", "arms: 0")
    run, output = submit(cluster, space, tmp_path)
    assert run.returncode == 1
    assert "failed with exit code 3" in run.stdout + run.stderr
    assert read_json(output / "results.json")["status"] == "partial"
