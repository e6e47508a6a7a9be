"""One sweep at a time in a directory, whoever was killed, asleep or on another machine."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symnoise_ray.errors import UserError
from symnoise_ray.sweep import lease
from symnoise_ray.sweep.lease import OWNER, STALE_SECONDS, hold

HOLDER = """
import sys, time
from pathlib import Path
from symnoise_ray.sweep import lease
lease.BEAT_SECONDS = 0.1
with lease.hold(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a directory."""
    command = [sys.executable, "-c", HOLDER, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield process
    finally:
        process.kill()
        process.wait()


def of_elsewhere(directory: Path, age: float) -> None:
    """The file of an owner on another machine, which gave its last sign of life so long ago."""
    path = directory / OWNER
    path.write_text(
        json.dumps({"id": "x", "user": "ada", "host": "far", "processes": "", "pid": 7})
    )
    seen = path.stat().st_mtime - age
    os.utime(path, (seen, seen))


def test_an_owner_is_alone_and_leaves_nothing(tmp_path: Path):
    with hold(tmp_path):
        with (
            pytest.raises(UserError, match=rf"one sweep at a time.*process {os.getpid()}.*old"),
            hold(tmp_path),
        ):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [OWNER]
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_was_killed_here_is_replaced_at_once(tmp_path: Path):
    with holder(tmp_path) as process:
        with pytest.raises(UserError, match=rf"process {process.pid}"), hold(tmp_path):
            pass
        process.kill()
        process.wait()
        with hold(tmp_path):
            assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()


def test_an_owner_elsewhere_is_replaced_when_it_gave_no_sign_of_life_for_long(tmp_path: Path):
    of_elsewhere(tmp_path, STALE_SECONDS / 2)
    told = r"ada on far .process 7.*if it is dead, try again after 30"
    with pytest.raises(UserError, match=told), hold(tmp_path):
        pass
    of_elsewhere(tmp_path, STALE_SECONDS + 5)
    with hold(tmp_path):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()


def test_an_owner_whose_name_cannot_be_read_is_told_as_such(tmp_path: Path):
    (tmp_path / OWNER).write_text("garbage")
    told = r"somebody whose name in owner.json cannot be read has one in it.*try again after 30 s"
    with pytest.raises(UserError, match=told), hold(tmp_path):
        pass


def test_an_owner_gives_signs_of_life(tmp_path: Path):
    with holder(tmp_path):
        path = tmp_path / OWNER
        os.utime(path, (0, 0))
        moved = threading.Event()
        for _ in range(3000):
            if path.stat().st_mtime > 0:
                break
            moved.wait(0.1)
        assert path.stat().st_mtime > 0


def test_an_owner_that_slept_and_was_replaced_is_interrupted(tmp_path: Path):
    with holder(tmp_path) as process:
        of_elsewhere(tmp_path, 0)
        assert process.wait(timeout=300) == -signal.SIGTERM
        assert json.loads((tmp_path / OWNER).read_text())["user"] == "ada", "and takes nothing back"


def test_a_name_that_was_written_by_half_is_waited_for(tmp_path: Path):
    (tmp_path / OWNER).write_text('{"id": "x", "us')
    with pytest.raises(UserError, match="one sweep at a time"), hold(tmp_path):
        pass
    os.utime(tmp_path / OWNER, (0, 0))
    with hold(tmp_path):
        pass


def test_of_two_that_take_over_at_once_one_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    of_elsewhere(tmp_path, STALE_SECONDS + 5)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 1.0)
    done = threading.Event()
    outcomes: list[str] = []

    def take() -> None:
        try:
            with hold(tmp_path):
                outcomes.append("mine")
                done.wait(300)
        except UserError:
            outcomes.append("refused")
        done.set()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["mine", "refused"]
