"""metrics.jsonl, one line per logged step; and the phases that a trial's time is counted by.

In: records with a `step`. Out: the file, which a reader may follow while it grows.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TextIO

from symnoise_ray.records.files import read_lines, write_lines

PHASES = ("start", "load", "train", "generate", "harness", "judge", "track")
"""Where the time of a trial goes: waiting for a worker, loading model and data, training,
answering, the upstream check (where there is one), judging, and logging (which runs beside the
others)."""
OWN_PHASES = tuple(phase for phase in PHASES if phase != "track")
"""Phases that take a trial's own time; tracking runs beside them."""
UPSTREAM = "harness/"
"""What the names of scores in lm-evaluation-harness begin with: `harness/<task>/<metric>`."""


def plain_name(name: str) -> str:
    """A name of letters, digits and the few signs that MLflow accepts; `/` begins a group."""
    return re.sub(r"[^\w./: -]", "_", name)


class Metrics:
    """A trial's metrics.jsonl; what an earlier attempt wrote from the first step on is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which has a `step`, and put it on disk."""
        if self._file is None:
            earlier = [row for row in read_lines(self.path) if row["step"] < record["step"]]
            write_lines(earlier, self.path)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


class Tail:
    """Reads what is new in a growing JSON-lines file of steps.

    A file that starts over (its trial was lost and runs again) is read again from its beginning;
    steps that were read before are left out, and those up to `last_step`.
    """

    def __init__(self, path: Path, last_step: int = -1) -> None:
        self.path = path
        self._offset = 0
        self._last_step = last_step

    def new(self) -> list[dict[str, Any]]:
        """Records since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:
                self._offset = 0
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        try:
            records = [json.loads(line) for line in whole.split(b"\n")[:-1]]
        except json.JSONDecodeError:
            if self._offset == len(whole):
                raise  # read from its beginning, the file itself is broken
            # The file started over and has outgrown the old offset: we stand within a line.
            self._offset = 0
            return self.new()
        records = [record for record in records if record["step"] > self._last_step]
        if records:
            self._last_step = records[-1]["step"]
        return records


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the wall time of a block to `seconds[phase]`."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - began
