"""The hub, the one actor between trials and workers, dies or falls silent."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from symnoise_ray.records.files import read_lines
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.pool import Pool
from tests.workers.test_workers import actors_of_ray, answers, run, short_trial, warm_slot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One warm slot of one worker on a private Ray, whose hub may be silent for five seconds."""
    with warm_slot(tmp_path_factory.mktemp("slots")) as opened:
        opened.hub_silent_seconds = 5.0
        yield opened


@pytest.fixture(scope="module")
def undisturbed(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a trial that nothing happened to."""
    directory = tmp_path_factory.mktemp("undisturbed")
    run(pool, "undisturbed", short_trial(), directory)
    return directory


@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "is silent"])
def test_trials_go_on_with_a_new_hub_and_the_same_bits(
    number: int, pool: Pool, undisturbed: Path, tmp_path: Path
):
    hub = actors_of_ray()["Hub"]
    running = pool.workers.run(f"by-{number}", short_trial(), tmp_path / "trial")
    assert next(running) is not None
    os.kill(hub.pid, number)
    waiting = pool.workers.run(f"after-{number}", short_trial(), tmp_path / "after")
    next(waiting)  # it is queued at the new hub, or as soon as there is one
    records = [*running]
    assert isinstance(records[-1], Outcome)
    told = [record["step"] for record in records if isinstance(record, dict)]
    assert told == sorted(set(told)), "no step is told twice"
    assert isinstance(list(waiting)[-1], Outcome), "a trial that is queued meanwhile is trained too"
    assert actors_of_ray()["Hub"].pid != hub.pid
    for name in ("trial", "after"):
        files = [each / "metrics.jsonl" for each in (tmp_path / name, undisturbed)]
        assert read_lines(files[0]) == read_lines(files[1])
        assert answers(tmp_path / name) == answers(undisturbed)
    assert_gone(hub)


def assert_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + 60
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the old hub is still there"
        time.sleep(0.1)
