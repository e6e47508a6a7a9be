"""Ends what a private Ray leaves behind when its driver is killed, above all while it starts.

In: the driver's process number, a mark in the environment of all that it starts, and a pipe that
closes when the driver is gone, whatever ended it. Ray's own processes watch for that as well, but
only once they are up: one that still starts waits for minutes for a Ray that will never be there.
The guard is a process of its own, and this file its script, so it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import psutil

MARK = "SYMNOISE_RAY_SESSION"
"""Environment variable with the mark. Some of Ray's processes overwrite their environment when they
give themselves a title, so the guard also notes the driver's descendants while Ray starts."""
POLL_SECONDS = 0.5
END_SECONDS = 10.0
"""For so long after the driver's end the guard looks for what still comes up."""
_UP, _DONE = b"u", b"d"


class Guard:
    """The driver's side: a context around everything that its Ray runs in."""

    def __enter__(self) -> Self:
        mark = secrets.token_hex(16)
        command = [sys.executable, "-P", __file__, str(os.getpid()), mark]
        # A session of its own, so that Ctrl-C does not reach it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.environ[MARK] = mark
        return self

    def is_up(self) -> None:
        """Ray is up, and its processes watch for the driver's end themselves."""
        self._say(_UP)

    def _say(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody ended the guard
            self._process.stdin.write(word)
            self._process.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.environ.pop(MARK, None)
        self._say(_DONE)
        try:
            self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def watch(pid: int, mark: str) -> None:
    """Wait for the driver's end; if it could not say that it ends, end what it has started."""
    seen: set[psutil.Process] = set()
    own, is_up = psutil.Process(), False
    while True:
        ready, _, _ = select.select([0], [], [], None if is_up else POLL_SECONDS)
        words = os.read(0, 16) if ready else None
        if words == b"":
            break
        if words and _DONE in words:
            return
        is_up = is_up or bool(words)
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(pid).children(recursive=True):
                # Those of before this guard are not Ray's: a server of the notebook, say.
                if process.create_time() >= own.create_time() and process != own:
                    seen.add(process)
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        for process in {*_marked(mark), *seen}:
            with contextlib.suppress(psutil.Error):
                if process.is_running():  # and not another process of the same number
                    process.kill()
        time.sleep(POLL_SECONDS)


def _marked(mark: str) -> list[psutil.Process]:
    """The processes that have the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2])
