"""Row 7 at its worst moment: the driver is killed while its Ray starts."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from symnoise_ray.workers.guard import END_SECONDS, Guard

START = """
from symnoise_ray.workers.session import ray_session
with ray_session(print):
    print("up", flush=True)
    import time
    time.sleep(600)
"""


def descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def is_there(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("last", ["gcs_server", "raylet", "ray::DashboardAgent", "up"])
def test_row_7_a_kill_during_the_start_leaves_no_process(last: str):
    """All are gone when the guard is through with looking, wherever in the start the kill fell."""
    driver = subprocess.Popen(
        [sys.executable, "-c", START], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    seen: set[psutil.Process] = set()
    try:
        assert driver.stdout is not None
        if last == "up":
            assert "up" in driver.stdout.readline()
        while last != "up" and last not in {each.name() for each in seen if is_there(each)}:
            assert driver.poll() is None, "the driver ended by itself"
            seen |= set(descendants(driver.pid))
        seen |= set(descendants(driver.pid))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    finally:
        driver.kill()
    _, left = psutil.wait_procs([each for each in seen if is_there(each)], timeout=2 * END_SECONDS)
    assert [each.name() for each in left if is_there(each)] == []


@pytest.mark.nightly
def test_row_6_a_ray_whose_raylet_dies_while_it_starts_is_started_once_more():
    """As one that is too slow: the driver cannot tell these apart."""
    other = psutil.Popen(["sleep", "600"])
    driver = subprocess.Popen(
        [sys.executable, "-c", START],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_raylet_start_wait_time_s": "5"},
    )
    try:
        assert driver.stdout is not None
        while not (found := [each for each in descendants(driver.pid) if each.name() == "raylet"]):
            assert driver.poll() is None, "the driver ended by itself"
        found[0].kill()
        assert driver.stdout.readline() == (
            "Ray did not start in time, as on a machine that is too busy; it is started once more\n"
        )
        assert driver.stdout.readline() == "up\n"
        assert is_there(other), "a process that is not of this Ray is left alone"
    finally:
        started = descendants(driver.pid)
        for process in (driver, other):
            process.kill()
            process.wait()
        psutil.wait_procs(started, timeout=2 * END_SECONDS)


def test_a_guard_ends_what_carries_its_mark_and_nothing_else():
    code = (
        "import subprocess, sys, time\n"
        "from symnoise_ray.workers.guard import Guard\n"
        "with Guard():\n"
        "    marked = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    print(marked.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    other = psutil.Popen(["sleep", "600"])
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        marked = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
        driver.wait()
        deadline = time.monotonic() + 60
        while is_there(marked):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert is_there(other)
    finally:
        other.kill()
        other.wait()


def test_a_guard_leaves_with_its_driver_and_marks_nothing_afterwards():
    before = set(psutil.Process().children())
    with Guard() as guard:
        guard.is_up()
        assert len(set(psutil.Process().children()) - before) == 1
    assert set(psutil.Process().children()) - before == set()
    assert "SYMNOISE_RAY_SESSION" not in os.environ
