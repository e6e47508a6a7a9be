"""A sweep as a job on a running cluster: `ray start --head`, then `ray job submit`."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
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
TRIAL_SECONDS = 1200
"""A bound on the wait for the first trial; alone on a machine it takes less than one."""
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


def job(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `ray job`, once the head takes jobs."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        run = subprocess.run(
            [RAY, "job", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
        )
        if "No available agent" not in run.stderr or time.monotonic() > deadline:
            return run
        time.sleep(2)


def submit(
    environment: dict[str, str],
    space: str,
    tmp_path: Path,
    *words: str,
    options: Sequence[str] = ("--working-dir", str(ROOT)),
    python: Sequence[str] = ("python",),
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Submit a sweep and wait for its end; `words` are the sweep's."""
    (tmp_path / "space.yaml").write_text(space)
    output = tmp_path / "out"
    sweep = (
        *("-m", "symnoise_ray.tune", str(tmp_path / "space.yaml"), *words),
        *("--output", str(output)),
    )
    return job(environment, "submit", *options, "--", *python, *sweep), output


@pytest.mark.nightly
def test_a_job_fails_when_some_trials_failed(cluster: dict[str, str], tmp_path: Path):
    space = SPACE.replace("choices: [0.002]", "choices: [1.0e+30]").replace("arms: 1", "arms: 0")
    run, output = submit(cluster, space, tmp_path)
    assert run.returncode == 1
    assert "failed with exit code 3" in run.stdout + run.stderr
    assert read_json(output / "results.json")["status"] == "partial"


@pytest.mark.nightly
def test_a_job_is_steered_by_its_address(cluster: dict[str, str], tmp_path: Path):
    space = SPACE.replace("max_steps: 8", "max_steps: 100").replace("arms: 1", "arms: 0")
    options = ("--working-dir", str(ROOT), "--submission-id", "steered", "--no-wait")
    run, output = submit(cluster, space, tmp_path, options=options)
    assert run.returncode == 0, run.stdout + run.stderr

    def ctl(*order: str) -> subprocess.CompletedProcess[str]:
        address = f"{cluster['RAY_API_SERVER_ADDRESS']}/steered"
        command = [sys.executable, "-m", "symnoise_ray", "ctl", address, *order]
        return subprocess.run(command, env=cluster, capture_output=True, text=True, check=False)

    deadline = time.monotonic() + 600
    while (told := ctl("pause")).returncode == 2 and time.monotonic() < deadline:
        time.sleep(1)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("paused; trials that run go on to their end")
    again = ctl("pause")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: pause: the sweep must not be paused already")
    point = ("noise.type=symnoise", "noise.alpha=3", "optim.lr=0.002")
    assert "added1-symnoise is added" in ctl("add", *point).stdout
    assert ctl("resume").stdout == "resumed\n"
    while not (output / "report.md").exists():
        assert time.monotonic() < deadline
        time.sleep(1)
    assert "added1-symnoise is added" in (output / "report.md").read_text()
    ended = ctl("list")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_a_job_that_was_stopped_goes_on_and_succeeds_when_it_is_submitted_again(
    cluster: dict[str, str], tmp_path: Path
):
    space = SPACE.replace("max_steps: 8", "max_steps: 40")
    patient = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}})
    options = ("--working-dir", str(ROOT), "--runtime-env-json", patient)
    first = ("--submission-id", "first", "--no-wait")
    # The same words both times, as a scheduler has them: the first time there is nothing yet.
    begun, output = submit(cluster, space, tmp_path, "--resume", options=(*options, *first))
    assert begun.returncode == 0, begun.stdout + begun.stderr
    deadline = time.monotonic() + TRIAL_SECONDS
    while not (done := list(output.glob("trials/*/trial.json"))):
        assert time.monotonic() < deadline, job(cluster, "logs", "first").stdout
        time.sleep(0.1)
    before = {path: path.stat().st_mtime_ns for path in done}
    job(cluster, "stop", "first")
    status = job(cluster, "status", "first")
    assert "STOPPED" in (status.stdout + status.stderr).upper()
    assert read_json(output / "results.json")["status"] == "interrupted"

    again, _ = submit(cluster, space, tmp_path, "--resume", options=options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "succeeded" in again.stdout + again.stderr
    assert "Verdict: Whether symnoise at " in again.stdout
    assert read_json(output / "results.json")["status"] == "whole"
    assert {path: path.stat().st_mtime_ns for path in done} == before


@pytest.mark.nightly
def test_a_job_runs_from_a_wheel_that_ray_installs_without_a_checkout(
    cluster: dict[str, str], tmp_path: Path
):
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    # The machines have all that the wheel needs, so pip asks no index.
    pip = {"packages": [str(wheel)], "pip_install_options": ["--no-deps", "--no-index"]}
    environment = json.dumps({"pip": pip})
    run, output = submit(
        {**cluster, "PYTHONPATH": ""},
        SPACE.replace("arms: 1", "arms: 0"),
        tmp_path,
        options=("--runtime-env-json", environment),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert read_json(output / "results.json")["status"] == "whole"


@pytest.mark.nightly
def test_a_job_runs_by_uv_in_the_environment_of_the_machines(
    cluster: dict[str, str], tmp_path: Path
):
    uv = pytest.importorskip("uv").find_uv_bin()
    run, output = submit(
        cluster,
        SPACE.replace("arms: 1", "arms: 0"),
        tmp_path,
        python=(uv, "run", "--no-project", "--offline", "--python", sys.executable, "python"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert read_json(output / "results.json")["status"] == "whole"
