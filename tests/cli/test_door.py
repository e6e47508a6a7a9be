"""Ctrl-C before a command has begun anything: one line, status 130, and nothing is left."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symnoise_ray.cli.interrupt import leaving_at_once
from symnoise_ray.errors import EXIT_SIGINT
from tests.sweep.test_run import MARK, left_by

SCRIPT = "import sys; from symnoise_ray.cli.door import main; sys.exit(main())"
"""What pip writes into bin/symnoise-ray."""
DOORS = {
    "symnoise-ray tune": ["-c", SCRIPT, "tune"],
    "symnoise-ray validate": ["-c", SCRIPT, "validate"],
    "python -m symnoise_ray": ["-m", "symnoise_ray", "tune"],
    "python -m symnoise_ray.tune": ["-m", "symnoise_ray.tune"],
    "python -m symnoise_ray.train": ["-m", "symnoise_ray.train", "config.json"],
}
SMALLEST_PIPE = 4096
"""Bytes: a command that tells of every import cannot run far ahead of its reader."""


def interrupted_after(module: str, command: list[str], cwd: Path) -> tuple[int, list[str]]:
    """Send Ctrl-C once a command has imported a module; its status, and what it said."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command],
        stdout=writing,
        stderr=writing,
        cwd=cwd,
        env={**os.environ, MARK: str(cwd)},
        # Under a shell that put the tests in the background, children would not hear Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(writing)
    with os.fdopen(reading) as output:
        seen = next((line for line in output if line.rpartition("|")[2].strip() == module), "")
        assert seen, f"{module} was not imported"
        process.send_signal(signal.SIGINT)
        said = [line.rstrip() for line in output if not line.startswith("import time:")]
    return process.wait(), said


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("module", ["symnoise_ray.cli.completion", "pydantic"])
def test_ctrl_c_while_a_command_is_imported_is_one_line(door: str, module: str, tmp_path: Path):
    status, said = interrupted_after(module, DOORS[door], tmp_path)
    assert (status, said) == (EXIT_SIGINT, ["interrupted; nothing was begun"])
    assert list(tmp_path.iterdir()) == []
    assert left_by(tmp_path) == []


def test_ctrl_c_while_a_sweep_is_imported_is_one_line(tmp_path: Path):
    status, said = interrupted_after(
        "symnoise_ray.report.board", ["-m", "symnoise_ray.tune"], tmp_path
    )
    assert (status, said) == (EXIT_SIGINT, ["interrupted; nothing was begun"])
    assert list(tmp_path.iterdir()) == []
    assert left_by(tmp_path) == []


def test_a_program_that_hears_ctrl_c_itself_goes_on_hearing_it():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with leaving_at_once():
            signal.raise_signal(signal.SIGINT)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGINT, before)


def test_after_the_imports_ctrl_c_is_what_it_was():
    with leaving_at_once():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
