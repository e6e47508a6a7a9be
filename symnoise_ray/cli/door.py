"""The way into every command: Ctrl-C is quiet before anything of the commands is imported."""

from __future__ import annotations

from collections.abc import Sequence

from symnoise_ray.cli.interrupt import leaving_at_once


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    with leaving_at_once():
        from symnoise_ray.cli.main import main as run
    return run(argv)
