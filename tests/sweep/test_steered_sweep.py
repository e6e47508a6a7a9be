"""A real sweep that is steered while it runs: seen, paused, stopped, added to, and killed.

It runs on a terminal of 80 columns and 24 lines, whose screen is read.
"""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest

from symnoise_ray.records.files import read_json
from tests.sweep.test_run import MARK, SPACE, left_by, study_states

pytestmark = pytest.mark.slow

STEERED = (
    SPACE.replace("num_trials: 1", "num_trials: 3")
    .replace("max_steps: 8", "max_steps: 100")
    .replace("arms: 1", "arms: 0")
)
PATIENCE_SECONDS = 600
LOOK_SECONDS, ASK_SECONDS = 0.1, 2.0
"""Between two looks at the screen, and between two commands, each of which keeps a core busy for
a second."""
ADDED = "noise.type=symnoise noise.alpha=7 optim.lr=0.002"


def ctl(folder: Path, *order: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray", "ctl", str(folder / "runs/small"), *order]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> row of the list; empty as long as no orders are taken."""
    run = ctl(folder, "list", "--json")
    return {row["trial"]: row for row in json.loads(run.stdout)["trials"]} if run.stdout else {}


def until(ready: Callable[[], Any], pause: float = LOOK_SECONDS) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(pause)
    return found


class Screen:
    """A terminal of 80 columns and 24 lines, and what stands on it."""

    def __init__(self) -> None:
        self.main, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.screen = pyte.HistoryScreen(80, 24, history=1000)
        self.stream = pyte.ByteStream(self.screen)
        self.lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                read = os.read(self.main, 4096)
            except OSError:  # whoever wrote is gone
                return
            with self.lock:
                self.stream.feed(read)

    def lines(self) -> list[str]:
        """Lines that are not empty, from the top."""
        with self.lock:
            return [line.rstrip() for line in self.screen.display if line.strip()]


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    """A sweep in a process of its own, and its terminal."""
    command = [sys.executable, "-m", "symnoise_ray.tune", "small.yaml", *options]
    screen = Screen()
    environment = {**os.environ, MARK: str(folder), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=screen.end, stderr=screen.end
    )
    os.close(screen.end)
    try:
        yield process, screen
    finally:
        process.terminate()
        process.wait(60)


def on_top_once_one_is_done(lines: list[str], name: str) -> list[str]:
    """The lines from a trial on, if it is the first one of the table and another has ended.

    A trial may begin while the one before it is still judged.
    """
    number = next((n for n, line in enumerate(lines) if line.startswith("trial ")), len(lines))
    rest = lines[number + 1 :]
    return rest if len(rest) > 1 and rest[0].startswith(name) and rest[-1][:2] == "1 " else []


def test_a_sweep_is_steered_killed_and_still_as_it_was_ordered(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(STEERED)

    with started(tmp_path) as (process, screen):
        until(lambda: any(line.endswith("of 1 slots up") for line in screen.lines()))
        records = tmp_path / "runs/small/trials/001-symnoise/metrics.jsonl"
        until(lambda: records.exists() and records.stat().st_size)
        table = until(lambda: on_top_once_one_is_done(screen.lines(), "001-symnoise"))
        assert table[0].split()[:2] == ["001-symnoise", "symnoise,"], "its name is whole"
        status = r"1 of 4 done \| 0:\d\d:\d\d \| \d+ to \d+ \w+ left \| search"
        assert re.match(status, table[-1])
        row = trials(tmp_path)["001-symnoise"]
        assert (row["status"], row["slot"]) == ("running", "slot-0")
        answered = ctl(tmp_path, "answer", "001", "Name an animal.")
        assert (answered.returncode, bool(answered.stdout)) == (0, True), answered.stderr
        stopped = ctl(tmp_path, "stop", "001")
        assert "001-symnoise is stopped; its slot was free after" in stopped.stdout
        assert ctl(tmp_path, "pause").stdout.startswith("paused; trials that run go on")
        until(
            lambda: all(row["status"] != "running" for row in trials(tmp_path).values()),
            ASK_SECONDS,
        )
        before = {name for name, row in trials(tmp_path).items() if row["step"]}
        assert "added1-symnoise is added" in ctl(tmp_path, "add", *ADDED.split()).stdout
        assert {name for name, row in trials(tmp_path).items() if row["step"]} == before
        process.kill()
        until(lambda: not left_by(tmp_path))
    dead = ctl(tmp_path, "list")
    assert (dead.returncode, dead.stdout, dead.stderr.count("\n")) == (2, "", 1)
    with started(tmp_path, "--resume") as (process, screen):
        until(lambda: trials(tmp_path), ASK_SECONDS)
        assert "| paused" in ctl(tmp_path, "list").stdout
        until(lambda: any("| paused" in line for line in screen.lines()))
        assert ctl(tmp_path, "resume").stdout == "resumed\n"
        until(lambda: process.poll() is not None)
        assert process.returncode == 0, screen.lines()
        assert any(line.startswith("report:") for line in screen.lines())
    directory = tmp_path / "runs/small"
    found = {each["trial"]: each for each in read_json(directory / "results.json")["trials"]}
    assert found["001-symnoise"]["status"] == "stopped"
    assert found["001-symnoise"]["stopped_at"] >= 1
    assert found["added1-symnoise"]["status"] == "done"
    states = study_states(directory, "small")
    assert (states.count("PRUNED"), states.count("COMPLETE")) == (1, 3)
    report = (directory / "report.md").read_text()
    for line in (
        "001-symnoise is asked a prompt",
        "001-symnoise is stopped",
        "added1-symnoise is added",
        "resumed",
    ):
        assert line in report
    assert "none 1 + 0 - 0, symnoise 3 + 1 - 1" in report
    assert ctl(tmp_path, "pause").returncode == 2, "it has come to its end"
    assert left_by(tmp_path) == []
