"""What a check is given: its device, its scratch folder, and where its figures go.

In: a command line. Out: the file of the step, written again with every figure, so that a check that
hangs or crashes leaves what it had found.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class SkippedError(Exception):
    """The step cannot run here; the message says why."""


class Step:
    """One step as its check sees it; `scratch` is emptied afterwards, `out` is what stays."""

    def __init__(self, result: Path, scratch: Path, rehearse: bool) -> None:
        self.result, self.scratch, self.rehearse = result, scratch, rehearse
        self.out = result.parent
        self.figures: dict[str, Any] = {}
        self.end("running", "")

    @property
    def device(self) -> str:
        """`cuda`, or in a rehearsal `cpu`."""
        return "cpu" if self.rehearse else "cuda"

    def note(self, **figures: Any) -> None:
        """Add figures, and write them down at once."""
        self.figures |= figures
        self.end("running", "")

    def end(self, status: str, line: str) -> None:
        """Write down how the step stands."""
        found = {"status": status, "line": line, "figures": self.figures}
        self.result.write_text(json.dumps(found, indent=1) + "\n")

    def needs(self, package: str, install: str) -> None:
        """Skip the step where a package is missing.

        Raises:
            SkippedError: it is not installed.
        """
        if importlib.util.find_spec(package) is None:
            raise SkippedError(f"{package} is not installed: pip install {install}")

    def benchmark(self, script: str, *arguments: str) -> dict[str, Any]:
        """The figures of one of the benchmarks beside this package, tiny in a rehearsal.

        Raises:
            RuntimeError: it failed; the message has its last words, the log has all.
        """
        path = str(Path(__file__).parent.parent / script)
        command = [sys.executable, path, "--json", *arguments, *["--tiny"] * self.rehearse]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{script} ended with status {run.returncode}: {self.last_words()}")
        figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        self.note(**figures)
        return figures

    def last_words(self) -> str:
        """The last line that this step, or a process that it started, has printed."""
        log = self.result.with_suffix(".log")
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
