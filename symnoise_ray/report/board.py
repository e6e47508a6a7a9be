"""What a person sees while a sweep runs: a live view on a terminal, else one line per event.

In: trials as they start, move and end. Out: text on the given console. Knows nothing of Ray.
Without a terminal that can redraw itself (a file, a pipe, a notebook, `TERM=dumb`) each event is a
line with its time. No control character of a name, a reason or an answer reaches a terminal.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from symnoise_ray.records.results import TrialResult
from symnoise_ray.report.standing import Line, Standing, rows, score_text
from symnoise_ray.report.table import trial_table
from symnoise_ray.report.words import printable

PLAIN_WIDTH = 140
"""Columns of the table where there is no terminal to ask."""
REFRESHES = 4
"""Of the live view, per second."""


def make_console() -> Console:
    """Standard output: its own width on a terminal, wide enough for the table without one."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def failure_text(result: TrialResult) -> str:
    """Why a trial has no score."""
    return result.reason if result.is_stopped else f"{result.kind}: {result.reason}"


class Board:
    """The trials of a sweep; a context manager that draws while it is open."""

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self.standing = Standing()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        if terminal and not self.console.is_jupyter:
            self._live = Live(
                self, console=self.console, refresh_per_second=REFRESHES, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def is_live(self) -> bool:
        """Whether the view redraws itself."""
        return self._live is not None

    def __rich__(self) -> Group:
        """The view as it is now: as many trials as the screen has lines, and how the sweep stands.

        The status line is the last one, so that it stays where it is.
        """
        width, height = self.console.size
        found = rows(self.standing, self.standing.slots, newest_first=True)
        room = max(1, height - 4)  # heading, what is left out, status, and one line to spare
        shown = found if len(found) <= room else found[:room]
        parts: list[Any] = [trial_table(shown, width)] if shown else []
        if len(shown) < len(found):
            parts.append(Text(f"... and {len(found) - len(shown)} more that have ended or wait"))
        status = Text(printable(self.standing.status_line()), style="bold", no_wrap=True)
        status.truncate(width, overflow="ellipsis")
        return Group(*parts, status)

    def say(self, text: str) -> None:
        """One line for the person, above the table."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def _event(self, text: str) -> None:
        """A line on an event, with its time; the live view shows it otherwise."""
        if not self.is_live:
            self.say(f"{datetime.now():%H:%M:%S}  {text}")

    def start(self, name: str, varied: str, *, baseline: bool, confirms: bool) -> None:
        """A trial was handed to the workers."""
        self.standing.lines[name] = Line(name, varied, baseline, confirms)

    def move(self, name: str, record: dict[str, Any]) -> None:
        """A running trial reported."""
        line = self.standing.lines[name]
        if line.status == "waiting":
            line.status, line.began = "running", time.monotonic()
            self._event(f"{name:<24} started   {line.varied}")
        line.step = record["step"]
        line.loss = record.get("loss", line.loss)
        line.clean_loss = record.get("clean_loss", line.clean_loss)

    def judge(self, name: str) -> None:
        """A trial has freed its slot, and its answers are being judged."""
        self.standing.lines[name].status = "judging"

    def end(self, name: str, result: TrialResult, *, before: bool = False) -> None:
        """A trial ended, in whatever way; `before` in an earlier part of the sweep."""
        line = self.standing.lines[name]
        line.status, line.result, line.ended = result.status, result, time.monotonic()
        line.step = result.last_step or line.step
        if line.clean_loss is None:
            line.clean_loss = result.get("clean_loss")
        spent = "before" if before else f"{time.monotonic() - line.began:.1f} s"
        found = score_text(result) or failure_text(result)
        self._event(f"{name:<24} {line.status_text:<9} {found}  {spent}")

    def summary(self) -> None:
        """The table for good, and why trials failed."""
        self.console.print(self.title, highlight=False, markup=False, soft_wrap=True)
        self.console.print(trial_table(rows(self.standing, {}), self.console.width))
        for line in self.standing.lines.values():
            if line.result is not None and line.result.reason:
                self.say(f"{line.name} {line.status_text}, {failure_text(line.result)}")
