"""The way into every command: Ctrl-C is quiet before anything of the commands is imported."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence

from symnoise_ray.cli.interrupt import leaving_at_once


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    # What is left when the process ends goes with it: Python's search for cycles in it takes over
    # a second after a sweep.
    atexit.register(gc.freeze)
    gc.disable()  # nor is there anything to find in what is imported
    with leaving_at_once():
        from symnoise_ray.cli.main import main as run
    gc.enable()
    return run(argv)
