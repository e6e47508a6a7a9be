"""What stands above and below a report's sections: its end, its verdict, where its runs are."""

from __future__ import annotations

from datetime import datetime

from symnoise_ray.config.redaction import without_password
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report.words import DASH, duration

STATUS = {
    "whole": "Every trial finished",
    "partial": "Finished, but some trials have no result",
    "failed": "Failed",
    "interrupted": "Interrupted before its end",
}


def status(results: SweepResult) -> str:
    """How the sweep ended, its trials, its time and its version."""
    finished = results.finished
    when = datetime.fromisoformat(finished).strftime("%Y-%m-%d %H:%M %Z") if finished else DASH
    ends = [trial.status for trial in results.trials]
    counted = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends), key=_end_order))
    trials = "1 trial" if len(ends) == 1 else f"{len(ends)} trials"
    took = duration(results.seconds.get("wall"))
    time = f"in {took}" if results.parts < 2 else f"in {results.parts} parts, the last of {took}"
    return (
        f"{STATUS.get(results.status, results.status)}. {trials} ({counted or 'none'}) {time}, "
        f"{when}. symnoise_ray {results.version or DASH}."
    )


def _end_order(status: str) -> tuple[bool, str]:
    return status != "done", status


def sentence(results: SweepResult) -> str:
    """The verdict."""
    return results.verdict.sentence or "The sweep ended before a verdict could be given."


def footer(results: SweepResult) -> str:
    """Where the runs are logged."""
    # A report is passed on; results of an earlier version may hold a password.
    address = without_password(results.tracking_uri or DASH)
    return f"Runs are logged in MLflow at {address}, experiment {results.experiment or DASH}."
