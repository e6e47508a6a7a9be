"""Rows 10, 11 and 30: storage that is full, must not be written, or hangs, in a mount namespace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import SHORT
from tests.faults.test_damaged_files import assert_like
from tests.sweep.test_run import SPACE

NAMESPACE = ("unshare", "-Urm", "bash", "-e", "-c")


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """A user may mount what only he sees; some machines do not allow that."""
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this machine gives no mount namespaces to users: {tried.stderr.strip()}")


def within(
    script: str, cwd: Path, namespace: tuple[str, ...] = NAMESPACE
) -> subprocess.CompletedProcess[str]:
    """Run shell lines in a namespace; `$PYTHON` is this interpreter."""
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [*namespace, script]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=1500
    )


def test_row_11_read_only_storage_is_one_line_before_anything_is_started(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(SPACE)
    (tmp_path / "disk").mkdir()
    run = within(
        "mount -t tmpfs tmpfs disk; mount -o remount,ro disk\n"
        "exec $PYTHON -m symnoise_ray.tune small.yaml --output disk/out",
        tmp_path,
    )
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "--output disk/out: must be writable, but" in run.stderr
    assert "Read-only file system" in run.stderr


TRAIN = """
import pathlib, sys, torch
torch.set_num_threads(1)
from symnoise_ray.config import TrialConfig
from symnoise_ray.models.process import choose_device, join_process_group
from symnoise_ray.workers.task import run_task
join_process_group(choose_device())
config = TrialConfig.model_validate({
    "optim": {"lr": 2e-3}, "data": {"max_eval_prompts": 2},
    "train": {"max_steps": 3, "global_batch_size": 8, "num_clean_rows": 8, "num_evals": 1,
              "checkpoint_minutes": 1e-9},
    "generate": {"max_new_tokens": 2},
})
place = pathlib.Path(sys.argv[1])
outcome = run_task(config, place, report=lambda record: None, cancelled=lambda: False)
print(outcome.status, outcome.kind, outcome.reason, sep="|")
"""


@pytest.mark.slow
def test_row_10_a_full_disk_ends_the_trial_with_the_place_and_the_reason(tmp_path: Path):
    """It is no fault of the trial's settings, so the sweep that goes on tries it again."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "disk").mkdir()
    run = within(
        "mount -t tmpfs -o size=400k tmpfs disk; mkdir -p disk/trials\n"
        "$PYTHON train.py disk/trials/000-none; ls -A disk/trials/000-none/checkpoints",
        tmp_path,
    )
    status, kind, reason = run.stdout.splitlines()[-2 if "partial" in run.stdout else -1].split("|")
    assert (status, kind) == ("failed", "infrastructure"), run.stdout + run.stderr
    assert "disk/trials/000-none/checkpoints: a checkpoint must be written, but" in reason
    assert "No space left on device" in reason


HANGING = """
truncate -s 200m img; mkfs.ext4 -q img; mount -o loop img disk
$PYTHON -m symnoise_ray.tune small.yaml --output disk/out & sweep=$!
until [ -e disk/out/trials/001-symnoise/config.json ]; do kill -0 $sweep; sleep 0.05; done
fsfreeze --freeze disk; sleep 40; fsfreeze --unfreeze disk
wait $sweep
cp -r disk/out disk/mlflow.db .
umount disk
"""


@pytest.mark.slow
@pytest.mark.nightly
def test_row_30_storage_that_hangs_for_longer_than_a_worker_may_be_silent_costs_no_trial(
    oracle: Path, tmp_path: Path
):
    """As a file server does that is started anew: whoever reads or writes waits."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("only root can mount a file system that hangs, and only with loop devices")
    (tmp_path / "small.yaml").write_text(SHORT)
    (tmp_path / "disk").mkdir()
    run = within(HANGING, tmp_path, namespace=("unshare", "-m", "bash", "-e", "-c"))
    assert run.returncode == 0, run.stdout + run.stderr
    assert_like(tmp_path, oracle)
