"""The batch script for Slurm: a job's whole life, with Slurm's commands played by short scripts.

Everything else is real: Ray on two nodes, which here are one machine, and a sweep whose two workers
train together, one on each node.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from symnoise_ray.launch.check import check_launch_file
from symnoise_ray.records.files import read_json
from tests.cluster.test_job import end_processes_of, processes_of
from tests.conftest import ROOT
from tests.sweep.test_run import SPACE

SCRIPT = ROOT / "clusters" / "slurm" / "sweep.sbatch"
SRUN = """#!/bin/bash
# Runs a step's command here; its options say on which node it would run.
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
case $1 in
    show) printf 'node1\\nnode2\\n' ;;
    requeue) echo "$2" >> "$REQUEUED" ;;
esac
"""
TRIAL_SECONDS = 1200
"""A bound on the wait for the first trial; alone on a machine it takes less than one."""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on two nodes with a CPU each."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    # Ray's socket paths must stay under 107 characters, so its folder is a short one.
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if "RAY_AUTH" not in name},
            "HOME": str(tmp_path),
            "TMPDIR": folder,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "REQUEUED": str(tmp_path / "requeued"),
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
        }
        token = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
        subprocess.run(token, env=environment, check=True, capture_output=True, timeout=600)
        try:
            yield environment
        finally:
            end_processes_of(folder)


def start(job: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    (folder / "space.yaml").write_text(SPACE.replace("arms: 1", "arms: 0"))
    command = [
        "bash", str(SCRIPT), "space.yaml", "workers.num_workers=2", "--output", "out"
    ]  # fmt: skip
    log = (folder / "log").open("ab")
    return subprocess.Popen(command, cwd=folder, env=job, stdout=log, stderr=log)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_job_whose_time_is_up_queues_again_and_goes_on(job: dict[str, str], tmp_path: Path):
    log, output = tmp_path / "log", tmp_path / "out"
    first = start(job, tmp_path)
    deadline = time.monotonic() + TRIAL_SECONDS
    while not (done := list(output.glob("trials/*/trial.json"))):
        assert first.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(600) == 143, log.read_text()
    assert (tmp_path / "requeued").read_text().split() == [job["SLURM_JOB_ID"]]
    before = {path: path.stat().st_mtime_ns for path in done}

    assert start(job, tmp_path).wait(1500) == 0, log.read_text()
    assert "report: " in log.read_text()
    assert read_json(output / "results.json")["status"] == "whole"
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert len((tmp_path / "requeued").read_text().split()) == 1
    assert list(Path(job["TMPDIR"]).iterdir()) == []
    assert processes_of(job["TMPDIR"]) == []


def test_a_job_without_a_token_is_refused_in_one_line(job: dict[str, str], tmp_path: Path):
    (tmp_path / ".ray" / "auth_token").unlink()
    assert start(job, tmp_path).wait(600) == 2
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("error: ")
    assert "auth_token must hold a token; run 'ray get-auth-token --generate'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("#SBATCH --nodes=2", "#SBATCH --node=2", "'--node' is not an option of sbatch."),
        ("set -euo", "#SBATCH --qos=high\nset -euo", ""),
        (
            "read -r head <",
            "#SBATCH --qos=high\nread -r head <",
            "Slurm reads #SBATCH above the first",
        ),
        ("#!/bin/bash\n", "", "Slurm needs a first line such as #!/bin/bash"),
        ("read -r head <", "read -r )head <", "bash must read the script, but says"),
        ("--include-dashboard=false", "--include-dashbord=false", "must take its options, but"),
        ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", ""),
        ("export RAY_AUTH_MODE=token", "export X=1 #\nhf_" + "x" * 20, "must hold no secret"),
        (
            '"$@" --resume',
            "--output=/dev/shm/runs --resume",
            "but /dev/shm/runs is one node's own disk",
        ),
    ],
)
def test_a_mistake_in_a_script_is_named_with_its_line(
    old: str, new: str, said: str, tmp_path: Path
):
    path = tmp_path / "job.sbatch"
    text = SCRIPT.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    complaints = check_launch_file(path).complaints
    if not said:
        assert complaints == []
        return
    (complaint,) = complaints
    line = int(complaint.removeprefix(f"{path}:").split(":")[0])
    assert said in complaint
    assert line == text.count("\n", 0, text.index(old)) + 1 + new.startswith("export X")


def test_a_dashboard_open_to_all_needs_a_token(tmp_path: Path):
    path = tmp_path / "job.sbatch"
    text = SCRIPT.read_text().replace("--include-dashboard=false", "--dashboard-host=0.0.0.0")
    path.write_text(text)
    assert check_launch_file(path).complaints == []
    path.write_text(text.replace("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"))
    (complaint,) = check_launch_file(path).complaints
    assert "it listens on 0.0.0.0 without" in complaint
