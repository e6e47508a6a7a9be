"""The names of metrics in MLflow, in groups by "/": the one place that makes them.

In: the names of measured values, as a trial's files have them. Out: names such as `judge/win_rate`.
The interface draws one section of charts per group, so curves and single results lie apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from symnoise_ray.records.metrics import UPSTREAM, plain_name
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Comparison

KEY_TAG = "symnoise.key"
"""Tag that says which run of which sweep directory this is, or this model comes from."""
DIGEST_TAG = "symnoise.key_digest"
"""Tag with its hash, which a run is found by again."""
CURVES = {
    "train": ("loss", "grad_norm", "lr"),
    "eval": (
        "clean_loss",
        "noisy_loss",
        "curvature",
        "first_difference",
        "text_loss",
        "heldout_loss",
        "gold_loss",
    ),
}
"""Group -> values that are measured by step, the lines of metrics.jsonl."""
RESULTS = {
    "judge": (
        "win_rate",
        "discrete_win_rate",
        "length_controlled_win_rate",
        "standard_error",
        "n_total",
        "n_wins",
        "n_wins_reference",
        "n_draws",
        "n_invalid",
        "n_judged",
        "position_bias",
    ),
    "answers": (
        "num_answers",
        "avg_length",
        "longer_rate",
        "length_mean",
        "length_median",
        "words_mean",
        "empty_rate",
        "refusal_rate",
        "distinct_rate",
        "compression_ratio",
        "num_diversity",
        "repetition_2",
        "log_diversity",
    ),
    "cost": (
        "num_answer_tokens",
        "num_passed_tokens",
        "num_passed_rows",
        "tokens_per_second",
        "peak_memory_gib",
        "flops_utilization",
        "micro_batch_size",
        "attempts",
    ),
}
"""Group -> values that a trial has once, when it has ended; what is a curve is not among them."""
MEANS = ("win_rate", "length_controlled_win_rate", "clean_loss", "length_mean", "words_mean")
"""Values whose mean over the seeds a confirmed setting has."""
_GROUPS = {
    value: group for groups in (CURVES, RESULTS) for group, values in groups.items()
    for value in values
}  # fmt: skip


def title(sweep: str, directory: Path) -> str:
    """What a sweep is called where others are beside it: its name, told apart by its directory."""
    place = directory.name
    return place if place.startswith(sweep) else f"{sweep}-{place}"


def run_name(sweep: str, directory: Path, run: str) -> str:
    """The name of a run below a sweep; the trials of all sweeps are numbered alike."""
    return f"{title(sweep, directory)}/{run}"


def metric_name(value: str) -> str:
    """The name of a measured value; one that is in no group, or names its own, keeps its name."""
    return f"{_GROUPS[value]}/{value}" if value in _GROUPS else value


def seconds_name(phase: str) -> str:
    """The name of the time that a phase took."""
    return f"seconds/{phase}"


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """One line of metrics.jsonl with MLflow's names; `step` stays."""
    return {metric_name(name): value for name, value in record.items()}


def of_result(values: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """What a trial measured once, with the ends of its intervals and its times."""
    wanted = [name for names in RESULTS.values() for name in names]
    found = {metric_name(name): values[name] for name in wanted if values.get(name) is not None}
    found |= {name: value for name, value in values.items() if name.startswith(UPSTREAM)}
    for prefix in ("", "length_controlled_"):
        if ends := values.get(f"{prefix}interval_95"):
            rate = metric_name(f"{prefix}win_rate")
            found |= {f"{rate}_low_95": ends[0], f"{rate}_high_95": ends[1]}
    return found | {seconds_name(phase): value for phase, value in seconds.items()}


def of_sweep(result: SweepResult, report_seconds: float) -> dict[str, float]:
    """What a sweep found, and where its time went; by arm where something was confirmed."""
    searched = [trial for trial in result.part("search") if trial.win_rate is not None]
    found: dict[str, float] = {"sweep/num_trials": len(result.trials)}
    if searched:
        found["sweep/best_win_rate"] = max(trial["win_rate"] for trial in searched)
    for phase, value in {**result.seconds, "report": report_seconds}.items():
        found[seconds_name(phase)] = value
    for phase, value in result.by_phase.items():
        found[seconds_name(f"trials/{phase}")] = value
    for comparison in result.comparisons:
        if not comparison.over:
            found |= of_comparison(comparison, f"verdict/{_plain(comparison.arm)}")
    return found


def of_setting(
    trials: Sequence[TrialResult], comparisons: Sequence[Comparison]
) -> dict[str, float]:
    """A setting of the confirmation: means over its seeds, and how it compares."""
    found: dict[str, float] = {"verdict/num_seeds": sum(trial.is_done for trial in trials)}
    for value in MEANS:
        if known := [trial[value] for trial in trials if trial.get(value) is not None]:
            found[metric_name(value)] = fmean(known)
    for comparison in comparisons:
        found |= of_comparison(comparison)
    return found


def of_comparison(comparison: Comparison, group: str = "verdict") -> dict[str, float]:
    """A comparison of the confirmation: its win rate, and both ends of its interval.

    Against the reference's best, and against the reference at the arm's own shared settings.
    """
    kind = "_same_settings" if comparison.opponent == "shared" else ""
    low, high = comparison.interval_95
    return {
        f"{group}/win_rate{kind}": comparison.win_rate,
        f"{group}/win_rate{kind}_low": low,
        f"{group}/win_rate{kind}_high": high,
    }


def _plain(arm: str) -> str:
    """An arm as one part of a name, without groups of its own; a treatment may hold any text."""
    return re.sub("[/:]", "_", plain_name(arm))
