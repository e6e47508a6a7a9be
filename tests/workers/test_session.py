"""The Ray session of a sweep bears a machine that is too busy to start Ray in time."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from symnoise_ray.errors import EXIT_FAILED, InfrastructureError, UserError
from symnoise_ray.workers import session
from symnoise_ray.workers.guard import POLL_SECONDS
from symnoise_ray.workers.session import TIMED_OUT, ray_session

DRIVER = """
import subprocess, sys, time
from symnoise_ray.workers.guard import Guard

def sleeper():
    return subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid

print(sleeper(), flush=True)
time.sleep(0.1)  # times of birth are counted in hundredths of a second
with Guard():
    print(sleeper(), flush=True)
    sys.stdin.read()
"""


def fail_first(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Ray starts, but so many starts end as on a machine that was too slow for them."""
    start, failures = ray.init, iter(range(times))

    def init(**settings: Any) -> Any:
        context = start(**settings)
        if next(failures, None) is not None:
            ray.shutdown()
            raise Exception(f"The current node {TIMED_OUT}.")
        return context

    monkeypatch.setattr(ray, "init", init)


@pytest.mark.slow
def test_a_ray_that_never_starts_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch):
    fail_first(monkeypatch, 2)
    # Other tests may have left a helper of this process, such as that of multiprocessing.
    before = set(psutil.Process().children())
    with pytest.raises(InfrastructureError, match=r"Ray must start, but failed twice: .*too busy"):
        ray_session(lambda line: None).__enter__()
    assert set(psutil.Process().children()) - before == set()


def test_a_session_of_the_caller_is_used_and_left_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("the caller's session was ended"))
    with ray_session(pytest.fail):
        assert ray.is_initialized()


def test_a_thread_beside_the_main_one_is_refused_with_what_to_do():
    refused: list[UserError] = []

    def begin() -> None:
        try:
            with ray_session(pytest.fail):
                pytest.fail("it began")
        except UserError as error:
            refused.append(error)

    thread = threading.Thread(target=begin, name="beside")
    thread.start()
    thread.join()
    assert "by the main thread" in refused[0].message
    assert "beside" in refused[0].message


def test_signals_are_left_as_they_were_found(monkeypatch: pytest.MonkeyPatch):
    @contextmanager
    def connected(*_: Any) -> Iterator[None]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        yield

    def own(*_: Any) -> None:
        """The program's own."""

    monkeypatch.setattr(session, "_connected", connected)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, own) for number in numbers]
    try:
        for _ in range(2):
            with contextlib.suppress(session.Interrupted), ray_session(pytest.fail):
                assert not session._interrupted.is_set(), "that was an earlier sweep"
                signal.raise_signal(signal.SIGTERM)
            assert session._interrupted.is_set()
            assert [signal.getsignal(number) for number in numbers] == [own, own]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_the_guard_of_a_killed_driver_ends_what_came_after_it_and_nothing_older():
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    older, younger = (psutil.Process(int(driver.stdout.readline())) for _ in range(2))
    time.sleep(4 * POLL_SECONDS)  # for the guard to look
    driver.kill()
    driver.wait()
    assert younger in psutil.wait_procs([younger], timeout=60)[0]
    time.sleep(POLL_SECONDS)
    assert older.is_running()
    older.kill()


@pytest.mark.slow
def test_a_ray_of_its_own_has_no_process_that_a_sweep_never_asks():
    before = set(psutil.Process().children())
    with ray_session(print):  # on a busy machine it says that Ray is started once more
        # A process of Ray that is Python's own names its script among its first words.
        words = [each.cmdline()[:4] for each in set(psutil.Process().children()) - before]
    started = {Path(word).name for line in words for word in line}
    assert {"raylet", "gcs_server"} <= started
    assert not {"dashboard.py", "log_monitor.py", "monitor.py"} & started


IMPORTING = """
import os, ray
from symnoise_ray.sweep import run

os.register_at_fork = lambda **hooks: print(hooks) if "after_in_parent" in hooks else None
run._import_next()
"""
"""Prints whatever asks for a word after a fork."""


def test_nothing_that_is_imported_while_ray_starts_minds_a_fork():
    command = [sys.executable, "-c", IMPORTING]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == ""


LITTERING = """
import gc, threading, time
import ray
from symnoise_ray.workers.session import ray_session

class Node: pass

def litter():
    while references and not ended:
        node = Node()
        node.itself, node.reference = node, references.pop()
        time.sleep(1e-5)

ended = []
gc.set_threshold(10)
with ray_session(print):
    stored = ray.put(0)
    references = [ray.ObjectRef(stored.binary()) for _ in range(100_000)]
    threading.Thread(target=litter).start()
ended.append(True)
print("ended", bool(references))
"""
"""A thread leaves circles that hold a reference of Ray: only the garbage collection frees those."""


@pytest.mark.slow
def test_a_thread_that_leaves_garbage_does_not_end_the_process_with_its_ray():
    command = [sys.executable, "-c", LITTERING]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "ended True\n"), run.stderr


LOSING = """
import sys, threading, time
import psutil, ray
from ray import tune
from symnoise_ray.errors import InfrastructureError
from symnoise_ray.workers.session import THREAD_PREFIX, leave, ray_session

ended = threading.Event()
waiter = threading.Thread(target=ended.wait, name=THREAD_PREFIX)

def lose(victim, wait):
    with ray_session(print):
        tune.register_trainable("unregistered when the process ends", print)
        waiter.start()
        for each in psutil.Process().children(recursive=True):
            if each.name() == victim:
                each.kill()
        while True:
            wait()

"""
"""A driver whose Ray is lost while a thread of it waits for an answer."""
COMMAND = """
try:
    lose({victim!r}, {wait})
except InfrastructureError as error:
    ended.set()
    waiter.join()
    print("error:", error.message)
    leave(error.exit_code)
"""
SCRIPT = """
try:
    lose({victim!r}, {wait})
finally:
    ended.set()
"""
IN_PYTHON = "lambda: time.sleep(1)"
IN_RAY = "ray.cluster_resources"
"""Asks the lost GCS; the main thread hears no signal before Ray gives up."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "victim", "wait"),
    [
        pytest.param(COMMAND, "gcs_server", IN_PYTHON, id="gcs"),
        pytest.param(COMMAND, "gcs_server", IN_RAY, id="gcs-asked"),
        pytest.param(COMMAND, "raylet", IN_PYTHON, id="raylet"),
        pytest.param(SCRIPT, "gcs_server", IN_PYTHON, id="gcs-script"),
    ],
)
def test_whoever_waits_for_a_lost_ray_ends_with_its_reason_before_ray_ends_it(
    driver: str, victim: str, wait: str
):
    before = set(psutil.Process().children())
    command = [sys.executable, "-c", LOSING + driver.format(victim=victim, wait=wait)]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    *traceback, line = run.stdout.splitlines()
    reason = line.partition(": ")[2]
    assert reason.startswith(f"Ray must run to the end, but its process {victim} was lost; ")
    assert reason.endswith(
        "give the same command again; for tune add --resume: what was done is kept"
    )
    assert bool(traceback) == (driver is SCRIPT), run.stdout
    assert run.returncode == EXIT_FAILED
    assert set(psutil.Process().children()) - before == set()
