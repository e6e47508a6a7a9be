"""The journal of tracking events: written first, applied to the tracker later.

In: events. Out: journal.jsonl, which any process may append to and `sync` replays.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from symnoise_ray.records.files import read_lines
from symnoise_ray.records.layout import JOURNAL

KILLED = "KILLED"
"""Status of a run that was interrupted."""
PART_BYTES = 1 << 18
"""What is read of a journal at a time: some hundred events."""


class Journal:
    """The events of a sweep in order, in one file that any process may append to."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / JOURNAL
        self._lock = threading.Lock()
        _cut_broken_line(self.path)

    def append(self, kind: str, run: str, **values: Any) -> None:
        """Write one event; `run` is the trial's name, or the sweep's for the parent."""
        event = {"kind": kind, "run": run, "time_ms": int(time.time() * 1000), **values}
        line = json.dumps(event, ensure_ascii=False) + "\n"
        # A lone surrogate has no UTF-8 form, and MLflow takes none: it becomes a question mark.
        with self._lock, self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(line)

    def history(self) -> tuple[dict[str, int], set[str]]:
        """Of an earlier part of the sweep: each run's last step, and the runs that had ended."""
        steps: dict[str, int] = {}
        ended: set[str] = set()
        for event in read_lines(self.path):
            run = event["run"]
            if event["kind"] == "metrics":
                # What is measured once has step 0, also after the curve's last step.
                logged = [record["step"] for record in event["records"]]
                steps[run] = max([steps.get(run, -1), *logged])
            elif event["kind"] == "end" and event["status"] != KILLED:
                ended.add(run)
            elif event["kind"] == "start":
                ended.discard(run)
        return steps, ended


class Unread:
    """The events that were appended since they were last asked for; each line is parsed once.

    A tracker that is slow or away leaves a journal of any length, so it is read in parts.
    """

    def __init__(self, directory: Path, num_known: int = 0) -> None:
        self.path = directory / JOURNAL
        self._place = 0
        while num_known > 0 and (lines := self._lines()):
            passed = lines[:num_known]
            self._place += sum(map(len, passed))
            num_known -= len(passed)

    def _lines(self) -> list[bytes]:
        """The next whole lines, as many as a part has; none at the journal's end."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._place)
            return [line for line in file.readlines(PART_BYTES) if line.endswith(b"\n")]

    def new(self) -> list[dict[str, Any]]:
        """Events since the last call, the first ones where there are many; none at the end.

        Half a line is left for the next call.
        """
        lines = self._lines()
        self._place += sum(map(len, lines))
        return [json.loads(line) for line in lines]


def _cut_broken_line(path: Path) -> None:
    """A writer that was killed leaves half a line, which the next event must not be part of."""
    if path.exists():
        with path.open("rb+") as file:
            text = file.read()
            file.truncate(text.rfind(b"\n") + 1)
