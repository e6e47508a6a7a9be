"""What a sweep found, assembled from its trials, its comparisons and its times.

In: the results of its trials, the comparisons of the confirmation, and times. Out: a
`SweepResult`, which results.json, the report and the tracker are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from symnoise_ray import __version__
from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL
from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import (
    INTERRUPTED,
    NO_END,
    Comparison,
    SweepResult,
    TrialResult,
    Verdict,
)
from symnoise_ray.statistics.words import verdict_sentence

_LOOKS = (
    " This is verdict number {looks} of a sweep that was made larger after a verdict: each is one "
    "more chance to be wrong, which the intervals do not count."
)


def assemble(
    sweep: SweepConfig,
    directory: Path,
    trials: Sequence[TrialResult],
    comparisons: Sequence[Comparison],
    labels: Mapping[str, str],
    seconds: Mapping[str, float],
    *,
    uri: str,
    interrupted: bool,
    parts: int = 1,
    looks: int = 1,
) -> SweepResult:
    """What a sweep found.

    Args:
        sweep: Its configuration.
        directory: Its directory.
        trials: Their results, in any order.
        comparisons: Of the confirmation.
        labels: Arm -> its setting in words.
        seconds: Of the sweep's parts.
        uri: Of the tracker.
        interrupted: It did not come to its end.
        parts: How often the sweep was started.
        looks: How often it gave a verdict and was made larger, this verdict included.
    """
    ordered = sorted(trials, key=lambda trial: (trial.part != "search", trial.trial))
    named = [replace(each, label=_label(each, labels)) for each in comparisons]
    sentence = _sentence(sweep, ordered, named, labels, interrupted=interrupted)
    if comparisons and looks > 1:
        sentence += _LOOKS.format(looks=looks)
    return SweepResult(
        paths=SweepPaths(directory),
        name=sweep.name,
        version=__version__,
        status=INTERRUPTED if interrupted else status(ordered),
        parts=parts,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=Verdict(sentence, looks, tuple(named)),
        trials=tuple(ordered),
        seconds=seconds,
        by_phase=_by_phase(ordered),
        tracking_uri=uri,
        experiment=sweep.tracking.experiment,
    )


def _label(comparison: Comparison, labels: Mapping[str, str]) -> str:
    over = f" over {labels[comparison.over]}" if comparison.over else ""
    return labels[comparison.arm] + over


def status(trials: Sequence[TrialResult]) -> str:
    """`whole`, `partial` when some trials did not come to their end, `failed` when none did."""
    done = sum(trial.is_done for trial in trials)
    if not done:
        return "failed"
    return "whole" if done == len(trials) else "partial"


def exit_code(result: SweepResult) -> int:
    """Exit status of a sweep that came to its end."""
    return {"whole": EXIT_OK, "partial": EXIT_PARTIAL}.get(result.status, EXIT_FAILED)


def _sentence(
    sweep: SweepConfig,
    trials: Sequence[TrialResult],
    comparisons: Sequence[Comparison],
    labels: Mapping[str, str],
    *,
    interrupted: bool,
) -> str:
    if interrupted:
        return NO_END
    if sweep.confirm.top_k and not comparisons:
        done = sum(trial.is_done for trial in trials)
        return (
            f"No verdict: only {done} of {len(trials)} trials came to their end, and plain "
            "fine-tuning or every noise type is not among them."
        )
    return verdict_sentence(comparisons, labels)


def _by_phase(trials: Sequence[TrialResult]) -> dict[str, float]:
    """Seconds of all trials by phase; trials overlap, so they add up to more than the wall."""
    return {
        phase: round(sum(trial.seconds.get(phase, 0.0) for trial in trials), 2)
        for phase in PHASES
        if any(phase in trial.seconds for trial in trials)
    }
