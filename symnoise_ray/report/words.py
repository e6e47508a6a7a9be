"""Rates, intervals, settings and durations as the report prints them."""

from __future__ import annotations

from typing import Any

Trial = dict[str, Any]
DASH = "\u2013"


def percent(rate: float | None) -> str:
    """A fraction in percent with one decimal, a dash where there is none."""
    return DASH if rate is None else f"{100 * rate:.1f}"


def interval(row: dict[str, Any]) -> str:
    """The 95 % interval in percent."""
    low, high = row.get("interval_95") or (None, None)
    return DASH if low is None else f"{percent(low)} to {percent(high)}"


def role(trial: Trial) -> str:
    """What a trial is beside a candidate, in brackets."""
    baseline = " (baseline)" if trial.get("baseline") else ""
    return " (reference)" if trial.get("is_reference") else baseline


def setting(trial: Trial) -> str:
    """A trial's noise and learning rate in a few words."""
    label = str(trial.get("label") or trial.get("arm"))
    rate = (trial.get("params") or {}).get("optim.lr")
    return label if rate is None or "lr " in label else f"{label}, lr {rate:.2g}"


def duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
