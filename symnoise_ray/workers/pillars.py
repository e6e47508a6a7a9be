"""Notices at once that a private Ray has lost one of the two processes that it stands on.

In: the processes that Ray has started. Out: a signal to this process, and which one is lost. Left
alone, Ray ends the driver a quarter of a minute after its raylet and a minute after its GCS, with
lines of its own log in place of a reason. Until then a call that asks the lost process does not
return, and the main thread of Python hears no signal within such a call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import psutil

PILLARS = ("raylet", "gcs_server")
POLL_SECONDS = 1.0
HEED_SECONDS = 10.0
"""How long the main thread may take to hear the signal."""
END_SECONDS = 30.0
"""How long the block may take to end after that; it may ask the lost process as well."""


class Pillars:
    """A context around all that needs Ray; `lost` names the process that is gone, or is empty.

    The signal is SIGTERM, since Ray Tune hears SIGINT itself.

    Args:
        started: What Ray has started.
        heard: Set by whoever handles the signal.
        give_up: Ends this process; called where the block does not end in time.
    """

    def __init__(
        self,
        started: Iterable[psutil.Process],
        heard: threading.Event,
        give_up: Callable[[str], None],
    ) -> None:
        self.lost = ""
        self._heard, self._give_up = heard, give_up
        self._watched = {name: each for each in started if (name := name_of(each)) in PILLARS}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.lost = next((name for name, each in self._watched.items() if not _runs(each)), "")
            if self.lost:
                os.kill(os.getpid(), signal.SIGTERM)
                if not (self._heard.wait(HEED_SECONDS) and self._done.wait(END_SECONDS)):
                    self._give_up(self.lost)
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()


def name_of(process: psutil.Process) -> str:
    """Its name; empty if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
