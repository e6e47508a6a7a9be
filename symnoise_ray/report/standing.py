"""How a sweep stands while it runs: its trials, what it is doing, what is left and what was spent.

In: trials as they start, move and end, and what the sweep says of itself. Out: rows and one status
line, for the screen and for `symnoise-ray ctl DIR list`. Plain values, no drawing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import fmean, stdev
from typing import Any

from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import TrialResult
from symnoise_ray.report import words
from symnoise_ray.report.words import percent

_TAKEN = tuple(phase for phase in PHASES if phase not in ("start", "track"))
"""Phases in which a trial holds a slot, or is judged beside the next one."""
SPENDING_SECONDS = 2.0
"""How long what was spent is taken to be as it was: it may be read from many files."""


@dataclass
class Line:
    """One trial as the table shows it."""

    name: str
    varied: str
    baseline: bool
    confirms: bool = False
    status: str = "waiting"
    step: int = 0
    loss: float | None = None
    clean_loss: float | None = None
    result: TrialResult | None = None
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    @property
    def status_text(self) -> str:
        """How far the trial is, or how it ended."""
        return self.status if self.result is None else words.status(self.result)


def score_text(result: TrialResult | None) -> str:
    """`53.1 % [44.2, 61.9]`, or nothing where there is no score."""
    if result is None or result.win_rate is None or result.interval_95 is None:
        return ""
    low, high = map(percent, result.interval_95)
    return f"{percent(result.win_rate)} % [{low}, {high}]"


@dataclass
class Standing:
    """What is known of a sweep that runs.

    `num_searched` counts the trials of the search, `by_look` those of the confirmation in all up to
    each look, and `look` is the number of the one that is on its way, 0 before the first.
    `slots` gives the trial of each slot that is up, of `num_slots`; None as long as none was asked.
    `spending` gives what is spent by its name, and what may be, or None without a limit.
    """

    lines: dict[str, Line] = field(default_factory=dict)
    phase: str = "starting Ray"
    num_searched: int = 0
    by_look: tuple[int, ...] = ()
    look: int = 0
    num_looks: int = 0
    num_slots: int = 1
    slots: Mapping[str, str] = field(default_factory=dict)
    paused: bool = False
    began: float = field(default_factory=time.monotonic)
    spending: Callable[[], Mapping[str, tuple[float, float | None]]] = dict
    _spent: tuple[float, str] = (0.0, "")

    @property
    def num_done(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(line.result is not None for line in list(self.lines.values()))

    @property
    def most(self) -> int:
        """Trials at most."""
        return self.num_searched + (self.by_look[-1] if self.by_look else 0)

    def begin_look(self, number: int, of: int) -> None:
        """The confirmation comes to one of its looks, counted from 1."""
        self.phase, self.look, self.num_looks = "confirmation", number, of

    def now(self) -> str:
        """What the sweep is doing, in words."""
        if self.paused:
            return "paused"
        if self.phase == "starting slots":
            return f"{len(self.slots)} of {self.num_slots} slots up"
        return f"look {self.look} of {self.num_looks}" if self.look else self.phase

    def seconds_left(self) -> tuple[float, float] | None:
        """Seconds at least and at most, if trials take what they took; None where none has ended.

        At least: the confirmation is decided at its next look. At most: at its last one. Each is
        with twice the standard error of the mean time of a trial.
        """
        ended = [line.result for line in list(self.lines.values()) if line.result is not None]
        took = [seconds for each in ended if (seconds := _seconds(each))]
        if not took:
            return None
        mean = fmean(took)
        error = 2 * stdev(took) / math.sqrt(len(took)) if len(took) > 1 else mean / 2
        place = min(max(0, self.look - 1), len(self.by_look) - 1)
        next_look = self.by_look[place] if self.by_look else 0
        least = max(0, self.num_searched + next_look - len(ended))
        most = max(0, self.most - len(ended))
        slots = max(1, self.num_slots)
        return least * max(0.0, mean - error) / slots, most * (mean + error) / slots

    def status_line(self) -> str:
        """Done of all, elapsed, what is left, what it is doing, what was spent."""
        parts = [
            f"{self.num_done} of {'up to ' * bool(self.by_look)}{self.most} done" * bool(self.most),
            f"{timedelta(seconds=round(time.monotonic() - self.began))}",
            _left(self.seconds_left()),
            self.now(),
            self._spending(),
        ]
        return " | ".join(part for part in parts if part)

    def _spending(self) -> str:
        when, text = self._spent
        if not when or time.monotonic() - when > SPENDING_SECONDS:
            text = ", ".join(
                f"{name} {spent:.3g}" + ("" if limit is None else f"/{limit:.3g}")
                for name, (spent, limit) in self.spending().items()
            )
            self._spent = time.monotonic(), text
        return text


def _seconds(result: TrialResult) -> float:
    return sum(result.seconds.get(phase, 0.0) for phase in _TAKEN)


def _left(seconds: tuple[float, float] | None) -> str:
    """`2 to 14 min left`: both ends in the unit that the longer one needs."""
    if seconds is None:
        return "time left unknown"
    name, unit = next(
        (each for each in (("s", 1), ("min", 60)) if seconds[1] < 100 * each[1]), ("h", 3600)
    )
    low, high = (f"{each / unit:.{int(unit == 3600)}f}" for each in seconds)
    return f"{low} to {high} {name} left" if low != high else f"{low} {name} left"


def rows(
    standing: Standing, slots: Mapping[str, str], *, newest_first: bool = False
) -> list[dict[str, Any]]:
    """The trials as plain values: while slots run, first those on them, then those that wait.

    Args:
        standing: The sweep.
        slots: Slot -> the trial that it runs; empty for a sweep that has ended.
        newest_first: Of those that have ended, the one that ended last comes first; else they come
            by name, those of the confirmation last.
    """
    place = {trial: slot for slot, trial in slots.items() if trial}
    lines = sorted(standing.lines.values(), key=lambda line: (line.confirms, line.name))
    if newest_first:
        lines.sort(key=lambda line: -line.ended)
    lines.sort(key=lambda line: _rank(line, place))
    return [
        {
            "trial": line.name,
            "settings": line.varied + ("  (baseline)" if line.baseline else ""),
            "kind": _state(line, place) if line.result is None else line.result.status,
            "status": _state(line, place),
            "slot": place.get(line.name, ""),
            "step": line.step,
            "loss": line.loss,
            "clean_loss": line.clean_loss,
            "wins": score_text(line.result),
        }
        for line in lines
    ]


_STATES = ("running", "judging", "waiting")
"""What a trial does that has not ended, in the order of a list."""


def _rank(line: Line, place: Mapping[str, str]) -> int:
    return len(_STATES) if line.result is not None else _STATES.index(_state(line, place))


def _state(line: Line, place: Mapping[str, str]) -> str:
    """What a trial is doing now, or how it ended."""
    if line.result is not None:
        return line.status_text
    if line.name in place:
        return "running"
    return "judging" if line.status == "judging" else "waiting"
