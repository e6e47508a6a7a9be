"""One step in this process: `python -m benchmarks.gpu_checks MODULE --result FILE ...`.

`benchmarks/gpu.py` starts it. In: the name of a module with a function `check`. Out: FILE, with
`status`, `line` and `figures`. Tracebacks, and shortly before the limit the stacks of all threads,
go to the standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.gpu_checks.step import SkippedError, Step


def main() -> None:
    """Run the check, and write down how it ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    faulthandler.dump_traceback_later(0.95 * given.limit)
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
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
