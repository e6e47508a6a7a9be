"""What a person sees while a sweep runs: a live table on a terminal, else one line per event.

In: trials as they start, move and end. Out: text on the given console. Knows nothing of Ray.
"""

from __future__ import annotations

import time
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from symnoise_ray.records.results import STOPPED, TrialResult
from symnoise_ray.report.standing import Line, Standing, ordered, score_text

PLAIN_WIDTH = 140
"""Columns of the table where there is no terminal to ask."""
STATUS_STYLES = {
    "done": "green",
    STOPPED: "blue",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "judging": "cyan",
}


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
        if self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich__(self) -> Table:
        """The table as it is now."""
        return self.table()

    def say(self, text: str) -> None:
        """One line for the person, above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, name: str, varied: str, *, baseline: bool, confirms: bool) -> None:
        """A trial was handed to the workers."""
        self.standing.lines[name] = Line(name, varied, baseline, confirms)

    def move(self, name: str, record: dict[str, Any]) -> None:
        """A running trial reported."""
        line = self.standing.lines[name]
        if line.status == "waiting":
            line.status, line.began = "running", time.monotonic()
            if self._live is None:
                self.say(f"{name:<24} started   {line.varied}")
        line.step = record["step"]
        line.loss = record.get("loss", line.loss)
        line.clean_loss = record.get("clean_loss", line.clean_loss)

    def judge(self, name: str) -> None:
        """A trial has freed its slot, and its answers are being judged."""
        self.standing.lines[name].status = "judging"

    def end(self, name: str, result: TrialResult, *, before: bool = False) -> None:
        """A trial ended, in whatever way; `before` in an earlier part of the sweep."""
        line = self.standing.lines[name]
        line.status, line.result = result.status, result
        line.step = result.last_step or line.step
        if line.clean_loss is None:
            line.clean_loss = result.get("clean_loss")
        if self._live is None:
            spent = "before" if before else f"{time.monotonic() - line.began:.1f} s"
            found = score_text(result) or failure_text(result)
            self.say(f"{name:<24} {line.status_text:<9} {found}  {spent}")

    def summary(self) -> None:
        """The table for good, and why trials failed."""
        self.console.print(self.table())
        for line in self.standing.lines.values():
            if line.result is not None and line.result.reason:
                self.say(f"{line.name} {line.status_text}, {failure_text(line.result)}")

    def table(self) -> Table:
        """All trials, those of the confirmation last."""
        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        for heading, justify in (
            ("trial", "left"),
            ("settings", "left"),
            ("step", "right"),
            ("clean loss", "right"),
            ("wins against the reference, 95 %", "right"),
            ("status", "left"),
        ):
            table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for line in ordered(self.standing.lines.values()):
            style = STATUS_STYLES.get(line.status, "dim")
            table.add_row(
                line.name,
                line.varied + ("  (baseline)" if line.baseline else ""),
                str(line.step or ""),
                "" if line.clean_loss is None else f"{line.clean_loss:.3f}",
                score_text(line.result),
                f"[{style}]{line.status_text}[/]",
            )
        return table
