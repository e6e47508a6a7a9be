"""The front door for Python: run a sweep, or read one, from a script or a notebook.

In: what the command line takes, as Python values. Out: a `SweepResult`. Errors are exceptions of
`errors`. `symnoise_ray.run` and `symnoise_ray.load` lead here.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from rich.console import Console

from symnoise_ray.errors import UserError
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report.board import make_console
from symnoise_ray.sweep.run import run_sweep
from symnoise_ray.workers.session import is_left_open


def run(
    space: str | PathLike[str],
    settings: Mapping[str, Any],
    output: str | PathLike[str] | None,
    *,
    resume: bool,
    quiet: bool,
) -> SweepResult:
    """Run a sweep; see `symnoise_ray.run`."""
    _require_main_process()
    if is_left_open():
        raise UserError(
            "a sweep of this process was interrupted or lost its Ray, and is still connected to "
            "it; restart the process or kernel, then go on with resume=True"
        )
    overrides = [f"{name}={_as_yaml(name, value)}" for name, value in settings.items()]
    console = Console(quiet=True) if quiet else make_console()
    directory = None if output is None else Path(output)
    return run_sweep(fspath(space), overrides, directory, console, resume=resume)


def _as_yaml(name: str, value: Any) -> str:
    """A value as an override holds it; JSON is YAML."""
    try:
        return json.dumps(str(value) if isinstance(value, Path) else value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(
            f"{name}: must be a number, text, true, false, none, a list or a mapping of them, but "
            f"is a {type(value).__name__}"
        ) from None


def _require_main_process() -> None:
    """Refuse a sweep that a child process would start while it imports the script anew.

    `multiprocessing` runs a script again in every child that it spawns. Without the guard each
    child would start a sweep of its own.
    """
    # The attribute by which multiprocessing itself knows a child that is still importing.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "a sweep must be started by the main process, but this script is being imported by a "
            'child process; put the call under if __name__ == "__main__":'
        )
