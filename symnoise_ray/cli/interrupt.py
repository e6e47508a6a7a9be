"""Ctrl-C while modules are imported, which takes a second or more.

A KeyboardInterrupt there is a traceback out of a module that is half read, and some code that runs
during imports swallows it. Nothing has begun by then, so nothing need be left in good order: the
process ends where it is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from symnoise_ray.errors import EXIT_SIGINT


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """For imports before anything has begun: Ctrl-C ends the process with one line.

    Where Ctrl-C means something else, as in a program around this one, it goes on meaning that.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted; nothing was begun\n")
    os._exit(EXIT_SIGINT)
