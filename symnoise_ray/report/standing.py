"""How a sweep stands while it runs: its trials, what it is doing, what is left and what was spent.

In: trials as they start, move and end, and what the sweep says of itself. Out: rows and one status
line, for the screen and for `symnoise-ray ctl DIR list`. Plain values, no drawing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import TrialResult
from symnoise_ray.report import words
from symnoise_ray.report.words import duration, percent

_TAKEN = tuple(phase for phase in PHASES if phase not in ("start", "track"))
"""Phases in which a trial holds a slot, or is judged beside the next one."""


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
    `limits` gives what is spent and what may be by the name of each limit, and `slots` the trial of
    each slot.
    """

    lines: dict[str, Line] = field(default_factory=dict)
    phase: str = "starting"
    num_searched: int = 0
    by_look: tuple[int, ...] = ()
    look: int = 0
    num_looks: int = 0
    num_slots: int = 1
    paused: bool = False
    began: float = field(default_factory=time.monotonic)
    limits: Callable[[], Mapping[str, tuple[float, float]]] = dict

    @property
    def num_done(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(line.result is not None for line in self.lines.values())

    @property
    def most(self) -> int:
        """Trials at most."""
        return self.num_searched + (self.by_look[-1] if self.by_look else 0)

    def begin_look(self, number: int, of: int) -> None:
        """The confirmation comes to one of its looks, counted from 1."""
        self.phase, self.look, self.num_looks = "confirmation", number, of

    def now(self) -> str:
        """What the sweep is doing, in words."""
        look = f", look {self.look} of {self.num_looks}" if self.look else ""
        return self.phase + look + (" (paused)" if self.paused else "")

    def seconds_left(self) -> tuple[float, float] | None:
        """Seconds at least and at most, if trials take what they took; None where none has ended.

        At least: the confirmation is decided at its next look. At most: at its last one. Each is
        with twice the standard error of the mean time of a trial.
        """
        ended = [line.result for line in self.lines.values() if line.result is not None]
        took = [seconds for each in ended if (seconds := _seconds(each))]
        if not took:
            return None
        mean = fmean(took)
        error = 2 * stdev(took) / math.sqrt(len(took)) if len(took) > 1 else mean / 2
        done = self.num_done
        place = min(max(0, self.look - 1), len(self.by_look) - 1)
        next_look = self.by_look[place] if self.by_look else 0
        least = max(0, self.num_searched + next_look - done)
        most = max(0, self.most - done)
        slots = max(1, self.num_slots)
        return least * max(0.0, mean - error) / slots, most * (mean + error) / slots

    def status_line(self) -> str:
        """Done of all, elapsed, what is left, what it is doing, what was spent."""
        parts = [
            f"{self.num_done} of {'at most ' if self.by_look else ''}{self.most} done",
            duration(round(time.monotonic() - self.began)),
            _left(self.seconds_left()),
            self.now(),
            *(f"{name} {spent:.3g}/{limit:.3g}" for name, (spent, limit) in self.limits().items()),
        ]
        return " | ".join(part for part in parts if part)


def _seconds(result: TrialResult) -> float:
    return sum(result.seconds.get(phase, 0.0) for phase in _TAKEN)


def _left(seconds: tuple[float, float] | None) -> str:
    if seconds is None:
        return "time left not known yet"
    low, high = (duration(round(each)) for each in seconds)
    return f"{low} to {high} left" if low != high else f"{low} left"


def rows(standing: Standing, slots: Mapping[str, str]) -> list[dict[str, Any]]:
    """The trials as plain values, running ones first, then those that wait, then the others.

    Args:
        standing: The sweep.
        slots: Slot -> the trial that it runs.
    """
    place = {trial: slot for slot, trial in slots.items() if trial}
    found = [
        {
            "trial": line.name,
            "settings": line.varied,
            "status": state(line, place),
            "slot": place.get(line.name, ""),
            "step": line.step,
            "loss": line.loss,
            "clean_loss": line.clean_loss,
            "wins": score_text(line.result),
        }
        for line in ordered(standing.lines.values())
    ]
    return sorted(found, key=lambda row: RANKS.get(str(row["status"]), len(RANKS)))


RANKS = {"running": 0, "judging": 1, "waiting": 2}
"""Order of states in a list; the others have ended."""


def state(line: Line, place: Mapping[str, str]) -> str:
    """What a trial is doing now, or how it ended."""
    if line.result is not None:
        return line.status_text
    if line.name in place:
        return "running"
    return "judging" if line.status == "judging" else "waiting"


def ordered(lines: Any) -> list[Line]:
    """All lines, those of the confirmation last."""
    return sorted(lines, key=lambda line: (line.confirms, line.name))
