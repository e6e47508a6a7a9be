"""results.json: what a sweep found, in one machine-readable file.

In: the results of its trials, the comparisons of the confirmation, and times. Out: the file that
the report, the tracker and other tools read; rates are fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from symnoise_ray import __version__
from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.statistics.comparison import Comparison
from symnoise_ray.statistics.words import verdict_sentence

_NOT_FOR_THE_TABLE = ("detail",)
_LOOKS = (
    " This is verdict number {looks} of a sweep that was made larger after a verdict: each is one "
    "more chance to be wrong, which the intervals do not count."
)


def assemble(
    sweep: SweepConfig,
    trials: Sequence[dict[str, Any]],
    comparisons: Sequence[Comparison],
    labels: dict[str, str],
    seconds: dict[str, float],
    *,
    uri: str,
    interrupted: bool,
    parts: int = 1,
    looks: int = 1,
) -> dict[str, Any]:
    """The content of results.json.

    `parts` is how often the sweep was started, `looks` how often it told a verdict and was made
    larger, this verdict included.
    """
    ordered = sorted(trials, key=lambda trial: (trial["part"] != "search", trial["trial"]))
    return {
        "name": sweep.name,
        "version": __version__,
        "status": "interrupted" if interrupted else status(ordered),
        "parts": parts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": {
            "sentence": _sentence(sweep, ordered, comparisons, labels, interrupted=interrupted)
            + (_LOOKS.format(looks=looks) if comparisons and looks > 1 else ""),
            "looks": looks,
            "comparisons": [
                {**asdict(comparison), "label": _label(comparison, labels)}
                for comparison in comparisons
            ],
        },
        "trials": [_shown(trial) for trial in ordered],
        "seconds": {**seconds, "by_phase": _by_phase(ordered)},
        "tracking": {"uri": uri, "experiment": sweep.tracking.experiment},
    }


def _label(comparison: Comparison, labels: dict[str, str]) -> str:
    over = f" over {labels[comparison.over]}" if comparison.over else ""
    return labels[comparison.arm] + over


def status(trials: Sequence[dict[str, Any]]) -> str:
    """`whole`, `partial` when some trials did not come to their end, `failed` when none did."""
    done = sum(trial["status"] == "done" for trial in trials)
    if not done:
        return "failed"
    return "whole" if done == len(trials) else "partial"


def exit_code(results: dict[str, Any]) -> int:
    """Exit status of a sweep that came to its end."""
    return {"whole": EXIT_OK, "partial": EXIT_PARTIAL}.get(results["status"], EXIT_FAILED)


def _sentence(
    sweep: SweepConfig,
    trials: Sequence[dict[str, Any]],
    comparisons: Sequence[Comparison],
    labels: dict[str, str],
    *,
    interrupted: bool,
) -> str:
    if interrupted:
        return "The sweep was interrupted before its end, so it gives no verdict."
    if sweep.confirm.top_k and not comparisons:
        done = sum(trial["status"] == "done" for trial in trials)
        return (
            f"No verdict: only {done} of {len(trials)} trials came to their end, and plain "
            "fine-tuning or every noise type is not among them."
        )
    return verdict_sentence(comparisons, labels)


def _shown(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in trial.items() if name not in _NOT_FOR_THE_TABLE}


def _by_phase(trials: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds of all trials by phase; trials overlap, so they add up to more than the wall."""
    return {
        phase: round(sum(trial["seconds"].get(phase, 0.0) for trial in trials), 2)
        for phase in PHASES
        if any(phase in trial["seconds"] for trial in trials)
    }
