"""Fine-tune language models with embedding noise, and find out honestly whether it helps.

A trial is a pure description that flows one way:
config -> data -> noise -> train -> generate -> judge -> score -> track.
A sweep is many trials and one honest verdict.

`run` runs a sweep and `load` reads one; both give a `SweepResult`. Nothing heavy is imported
before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from typing import Any

    from symnoise_ray.records.results import SweepResult

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run"]


def run(
    space: str | PathLike[str] = "quickstart",
    settings: Mapping[str, Any] | None = None,
    *,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> SweepResult:
    """Run a sweep to its verdict, as `symnoise-ray tune` does.

    Call it from the main process: in a script below `if __name__ == "__main__":`, in a notebook
    from a cell.

    Args:
        space: A search space: a YAML file, or the name of a shipped one.
        settings: Settings by dotted path, such as `{"search.num_trials": 4, "optim.lr": 1e-3}`.
        output: A new or empty directory; `runs/NAME` in the working directory by default.
        resume: Go on with the sweep that is in `output`.
        quiet: Print nothing.

    Raises:
        UserError: the input is not usable, and nothing was created.
        SymnoiseError: the sweep as a whole failed. Trials that fail do not raise: the result's
            status says so.
        KeyboardInterrupt: it was interrupted; what was done is kept, for `resume`.
    """
    from symnoise_ray.sweep.front_door import run as run_in_this_process

    return run_in_this_process(space, settings or {}, output, resume=resume, quiet=quiet)


def load(directory: str | PathLike[str]) -> SweepResult:
    """What a sweep found: one that came to its end, or what there is of one that did not.

    Args:
        directory: Of the sweep, such as `runs/quickstart`.

    Raises:
        UserError: it holds no sweep.
        DataError: a file of it is broken.
    """
    from pathlib import Path

    from symnoise_ray.records.results import read_sweep

    return read_sweep(Path(directory))
