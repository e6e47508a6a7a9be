"""The Ray session of a sweep bears a machine that is too busy to start Ray in time."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from symnoise_ray.errors import InfrastructureError
from symnoise_ray.workers.session import TIMED_OUT, ray_session


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


@pytest.mark.slow
def test_a_ray_of_its_own_has_no_process_that_a_sweep_never_asks():
    before = set(psutil.Process().children())
    with ray_session(print):  # on a busy machine it says that Ray is started once more
        # A process of Ray that is Python's own names its script among its first words.
        words = [each.cmdline()[:4] for each in set(psutil.Process().children()) - before]
    started = {Path(word).name for line in words for word in line}
    assert {"raylet", "gcs_server"} <= started
    assert not {"dashboard.py", "log_monitor.py", "monitor.py"} & started


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
