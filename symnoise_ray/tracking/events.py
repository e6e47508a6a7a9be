"""What a sweep says to the tracker: runs that start and end, their metrics, tables and files.

In: plans and results, as the sweep has them. Out: events in the journal. A sweep is one run, and
each of its trials a run below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from symnoise_ray.config import SweepConfig
from symnoise_ray.records.layout import (
    COMPLETIONS,
    DESIGN,
    LOCK,
    PREFERENCES,
    REPORT_HTML,
    REPORT_MARKDOWN,
    RESULTS,
    SWEEP,
    TRIALS,
)
from symnoise_ray.records.metrics import UPSTREAM
from symnoise_ray.records.results import STOPPED, SweepResult, TrialResult
from symnoise_ray.space.parameters import flat
from symnoise_ray.space.trials import SweepPlans, TrialPlan, first_point
from symnoise_ray.tracking.journal import KILLED
from symnoise_ray.tracking.mlflow_runs import Tracker

SCORES = (
    "win_rate",
    "discrete_win_rate",
    "length_controlled_win_rate",
    "standard_error",
    "n_total",
    "n_wins",
    "n_wins_reference",
    "n_draws",
    "n_invalid",
    "position_bias",
    "avg_length",
    "longer_rate",
    "n_judged",
    "num_answers",
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
    "first_clean_loss",
    "num_answer_tokens",
    "num_passed_tokens",
    "num_passed_rows",
    "tokens_per_second",
    "peak_memory_gib",
    "flops_utilization",
    "micro_batch_size",
    "attempts",
)
"""Measured values of a trial's result that its run gets."""
TABLES = {COMPLETIONS: "answers.json", PREFERENCES: "verdicts.json"}
"""File of a trial -> the table that the tracker shows it as."""
FILES = (DESIGN, RESULTS, REPORT_HTML, REPORT_MARKDOWN, SWEEP, LOCK)
"""Files of a sweep that its run gets."""


def start_sweep(tracker: Tracker, plans: SweepPlans, parts: int) -> None:
    """The sweep's own run: what is fixed, and how it searches; logged once, whatever the parts."""
    config = plans.sweep
    tags = {"symnoise.part": "sweep", "symnoise.parts": str(parts)}
    begun = tracker.journal.path.exists()
    params = {} if begun else _fixed(config, plans)
    tracker.log("start", config.name, parent=None, params=params, tags=tags)


def _fixed(config: SweepConfig, plans: SweepPlans) -> dict[str, Any]:
    fixed = flat(plans.config(first_point(config)))
    varied = {name for point in config.baselines for name in point} | set(config.parameters)
    params = {name: value for name, value in fixed.items() if name not in varied}
    for section in ("question", "search", "confirm", "budget", "workers"):
        values = getattr(config, section).model_dump(mode="json")
        params |= {f"{section}.{name}": value for name, value in values.items()}
    for name, parameter in config.parameters.items():
        params[f"parameters.{name}"] = parameter.model_dump(mode="json", exclude_defaults=True)
    return params


def end_sweep(tracker: Tracker, result: SweepResult, report_seconds: float) -> None:
    """The sweep's numbers, its files, its verdict, and its end."""
    searched = [trial for trial in result.part("search") if trial.win_rate is not None]
    # Of a sweep in several parts, each logs its own numbers: the last ones count.
    record: dict[str, Any] = {"step": result.parts - 1, "num_trials": len(result.trials)}
    if searched:
        record["best_win_rate"] = max(trial["win_rate"] for trial in searched)
    for phase, value in {**result.seconds, "report": report_seconds}.items():
        record[f"seconds/{phase}"] = value
    for phase, value in result.by_phase.items():
        record[f"seconds/trials/{phase}"] = value
    for comparison in result.comparisons:
        if not comparison.over:
            # Against the reference's best, and against the reference at the arm's settings.
            kind = "_same_settings" if comparison.opponent == "shared" else ""
            record[f"confirmed_win_rate{kind}/{comparison.arm}"] = comparison.win_rate
    tracker.log("metrics", result.name, records=[record])
    for file in FILES:
        tracker.log("file", result.name, path=file)
    status = {"whole": "FINISHED", "partial": "FINISHED", "failed": "FAILED"}
    tracker.log(
        "end",
        result.name,
        status=status.get(result.status, KILLED),
        tags={
            "mlflow.note.content": result.verdict.sentence,
            "symnoise.status": result.status,
        },
    )


def start_trial(tracker: Tracker, sweep: str, plan: TrialPlan) -> None:
    """A trial's run: its complete configuration, and its place in the sweep."""
    tracker.log(
        "start",
        plan.name,
        parent=sweep,
        params={**flat(plan.config), "config.digest": plan.config.digest()},
        tags={
            "symnoise.part": plan.part,
            "symnoise.arm": plan.arm,
            "symnoise.baseline": str(plan.baseline).lower(),
            "symnoise.varied": ", ".join(plan.params),
        },
    )


def log_records(tracker: Tracker, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Lines of a trial's metrics.jsonl."""
    tracker.log("metrics", name, records=records)


def end_trial(tracker: Tracker, plan: TrialPlan, result: TrialResult) -> None:
    """A trial's scores, its answers and verdicts as tables, and its end."""
    scores = {name: result[name] for name in SCORES if result.get(name) is not None}
    scores |= {name: result[name] for name in result.values if name.startswith(UPSTREAM)}
    for prefix in ("", "length_controlled_"):
        if ends := result.get(f"{prefix}interval_95"):
            scores |= {f"{prefix}win_rate_low_95": ends[0], f"{prefix}win_rate_high_95": ends[1]}
    scores |= {f"seconds/{phase}": value for phase, value in result.seconds.items()}
    log_records(tracker, plan.name, [{"step": result.last_step, **scores}])
    for file, table in TABLES.items():
        if (plan.directory / file).exists():
            tracker.log("table", plan.name, path=f"{TRIALS}/{plan.name}/{file}", file=table)
    # A run that is killed is one that a sweep goes on with; a trial that was stopped is over.
    status = {"done": "FINISHED", STOPPED: "FINISHED", "failed": "FAILED"}
    tags = {"symnoise.reason": result.reason} if result.reason else {}
    if result.is_stopped:
        tags["symnoise.stopped_at"] = str(result.last_step)
    tracker.log("end", plan.name, status=status.get(result.status, KILLED), tags=tags)


def log_tracking_time(tracker: Tracker, result: TrialResult) -> None:
    """The time that logging a trial took, known only when all of it is logged."""
    record = {"step": result.last_step, "seconds/track": result.seconds["track"]}
    log_records(tracker, result.trial, [record])


def abandon_trial(tracker: Tracker, name: str) -> None:
    """The sweep was interrupted while this trial ran."""
    tracker.log("end", name, status=KILLED, tags={})
