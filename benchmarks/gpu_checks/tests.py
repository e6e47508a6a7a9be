"""The tests that are marked `gpu`; a rehearsal only collects them."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.gpu_checks.step import Step

TESTS = Path(__file__).resolve().parent.parent.parent / "tests"


def check(step: Step) -> str:
    """Run them, and count."""
    step.needs("pytest", "pytest pytest-timeout")
    step.needs("pytest_timeout", "pytest pytest-timeout")  # pyproject.toml sets its option
    # Importing all test files would take longer than the tests.
    files = [str(path) for path in sorted(TESTS.rglob("test_*.py")) if marked(path)]
    assert files, f"no test below {TESTS} is marked gpu"
    report = step.scratch / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *files]
    if step.rehearse:
        run = subprocess.run([*command, "--collect-only", "-q"], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        names = [line for line in run.stdout.splitlines() if "::" in line]
        step.note(collected=names)
        return f"{len(names)} collected; they run on a GPU alone"
    status = subprocess.run([*command, f"--junitxml={report}"], check=False).returncode
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, "pytest left no report"
    counts = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    step.note(**counts)
    assert status == 0, f"pytest ended with status {status}: {counts}"
    assert counts["tests"] > counts["skipped"], f"no test ran: {counts}"
    return f"{counts['tests'] - counts['skipped']} passed, {counts['skipped']} skipped"


def marked(path: Path) -> bool:
    """Whether a test of the file may be marked."""
    return "mark.gpu" in path.read_text(encoding="utf-8")
