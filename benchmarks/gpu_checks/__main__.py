"""One step in this process: `python -m benchmarks.gpu_checks MODULE --result FILE ...`.

`benchmarks/gpu.py` starts it. In: the name of a module with a function `check`. Out: FILE, with
`status`, `line` and `figures`. Tracebacks go to the standard error; so do the stacks of all threads
at SIGUSR1, which ends the process.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import signal
import traceback
from pathlib import Path

from benchmarks.gpu_checks.step import SkippedError, Step


def main() -> None:
    """Run the check, and write down how it ended."""
    faulthandler.register(signal.SIGUSR1, chain=True)
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    step = Step(given.result, given.scratch, given.rehearse)
    try:
        line = importlib.import_module(given.module).check(step, *given.arguments)
        step.end("passed", line)
    except SkippedError as reason:
        step.end("skipped", str(reason))
    except Exception as error:
        traceback.print_exc()
        words = " ".join(f"{type(error).__name__}: {error}".split())
        step.end("failed", words[:400])


if __name__ == "__main__":
    main()
