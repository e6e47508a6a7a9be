"""Rates, intervals, settings and durations as the report and the board print them."""

from __future__ import annotations

from collections.abc import Sequence

from symnoise_ray.records.results import TrialResult
from symnoise_ray.records.verdict import Comparison

DASH = "\u2013"


def percent(rate: float | None) -> str:
    """A fraction in percent with one decimal, a dash where there is none."""
    return DASH if rate is None else f"{100 * rate:.1f}"


def interval(ends: Sequence[float] | None) -> str:
    """An interval in percent."""
    return f"{percent(ends[0])} to {percent(ends[1])}" if ends else DASH


def role(trial: TrialResult) -> str:
    """What a trial is beside a candidate, in brackets."""
    baseline = " (baseline)" if trial.baseline else ""
    return " (reference)" if trial.is_reference else baseline


def status(trial: TrialResult) -> str:
    """How a trial ended."""
    return f"stopped early at step {trial.last_step}" if trial.is_stopped else trial.status


def setting(row: TrialResult | Comparison) -> str:
    """The noise and learning rate of a trial or a compared arm in a few words."""
    label = row.label or row.arm
    rate = row.params.get("optim.lr") if isinstance(row, TrialResult) else None
    return label if rate is None or "lr " in label else f"{label}, lr {rate:.2g}"


def verdict(given: str, withheld: str) -> str:
    """A verdict, marked where the one that the numbers give is withheld for some reason."""
    return given + (" (withheld)" if withheld else "")


def printable(text: str) -> str:
    """The text with control characters as numbers, so that it cannot steer a terminal.

    Names, answers and reasons may hold any, such as the escape that begins a sequence.
    """
    return "".join(
        char if char in "\n\t" or char.isprintable() else f"\\x{ord(char):02x}" for char in text
    )


def duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
