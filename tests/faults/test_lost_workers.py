"""Rows 5, 21, 22 and 23: workers that die, hang, are ended for their memory, or never come."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from symnoise_ray.config import WorkersConfig
from symnoise_ray.records.files import read_lines
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.pool import Pool
from tests.sweep.test_run import SPACE, left_by, tune
from tests.workers.test_workers import answers, run, short_trial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One warm slot of two workers on a private Ray."""
    storage = tmp_path_factory.mktemp("slots")
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        with Pool(WorkersConfig(num_workers=2), 1, short_trial(), storage) as opened:
            opened.wait_until_up()
            yield opened
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="row 23", marks=pytest.mark.nightly),
        pytest.param(signal.SIGSTOP, id="row 22"),
    ],
)
def test_one_rank_of_two_that_dies_or_hangs_is_replaced_with_its_peer_and_the_bits_are_the_same(
    number: int, pair: Pool, tmp_path: Path
):
    run(pair, f"undisturbed-{number}", short_trial(), tmp_path / "undisturbed")
    pids = ray.get(pair.hub.state.remote())["slots"]["slot-0"]["pids"]
    running = pair.workers.run(f"disturbed-{number}", short_trial(), tmp_path / "disturbed")
    assert next(running) is not None
    os.kill(pids[1], number)
    finished = list(running)[-1]
    assert isinstance(finished, Outcome)
    assert finished.attempts == 2
    one, other = tmp_path / "disturbed", tmp_path / "undisturbed"
    assert read_lines(one / "metrics.jsonl") == read_lines(other / "metrics.jsonl")
    assert answers(one) == answers(other)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids.values()):
        assert time.monotonic() < deadline, "a rank of the old group is still there"
        time.sleep(0.2)


@pytest.mark.nightly
def test_row_5_capacity_that_never_comes_ends_the_sweep_with_one_line(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(SPACE)
    words = ("workers.num_workers=16", "workers.max_slots=1", "workers.start_minutes=0.1")
    ended = tune("small.yaml", *words, "--output", "out", cwd=tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    message = "error: a worker group must be up within workers.start_minutes=0.1, but"
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert left_by(tmp_path) == []


@pytest.mark.nightly
def test_row_21_workers_that_rays_memory_monitor_ends_again_and_again_end_the_sweep_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By this threshold the memory of any machine is too full, for this sweep's own Ray alone."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "250")
    (tmp_path / "small.yaml").write_text(SPACE)
    ended = tune("small.yaml", "workers.start_minutes=0.5", "--output", "out", cwd=tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "killed due to the node running low on memory" in line
    assert left_by(tmp_path) == []
