"""What a sweep says to the tracker: runs that start and end, their metrics, tables and files.

In: plans and results, as the sweep has them. Out: events in the journal. A sweep is one run. Below
it lie the trials of its search, and the settings that it confirms, each with a trial per seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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
    sweep_directory,
)
from symnoise_ray.records.results import STOPPED, SweepResult, TrialResult
from symnoise_ray.space.parameters import flat
from symnoise_ray.space.trials import SweepPlans, TrialPlan, first_point
from symnoise_ray.statistics.words import decision_text
from symnoise_ray.tracking import names, views
from symnoise_ray.tracking.answers import judged_answers
from symnoise_ray.tracking.description import describe
from symnoise_ray.tracking.inputs import data_inputs
from symnoise_ray.tracking.journal import KILLED
from symnoise_ray.tracking.mlflow_runs import Tracker
from symnoise_ray.tracking.registry import Refused, registration
from symnoise_ray.tracking.traces import AT_ONCE

TABLES = {COMPLETIONS: "answers.json", PREFERENCES: "verdicts.json"}
"""File of a trial -> the table that the tracker shows it as."""
FILES = (DESIGN, RESULTS, REPORT_HTML, REPORT_MARKDOWN, SWEEP, LOCK)
"""Files of a sweep that its run gets."""


def start_sweep(tracker: Tracker, plans: SweepPlans, parts: int) -> None:
    """The sweep's own run: what is fixed, and how it searches; logged once, whatever the parts."""
    config = plans.sweep
    title = names.title(config.name, plans.directory)
    tags = {
        "mlflow.runName": title,
        "symnoise.sweep": title,
        "symnoise.part": "sweep",
        "symnoise.parts": str(parts),
    }
    begun = tracker.journal.path.exists()
    params = {} if begun else _fixed(config, plans)
    sets = _sweep_inputs(plans)
    _start(tracker, config.name, "", params, tags)
    tracker.log("inputs", config.name, data=sets)
    _save_views(tracker, config, plans.directory)


def _start(
    tracker: Tracker, run: str, parent: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> None:
    tracker.log("start", run, parent=parent, params=params, tags={**tracker.tags, **tags})


def _sweep_inputs(plans: SweepPlans) -> list[dict[str, str]]:
    parts = ("eval", "confirm") if plans.sweep.confirm.arms else ("eval",)
    return data_inputs(plans.config(first_point(plans.sweep)).data, parts)


def _varied(config: SweepConfig) -> list[str]:
    return list(dict.fromkeys([*config.parameters, *(k for p in config.baselines for k in p)]))


def _save_views(tracker: Tracker, config: SweepConfig, directory: Path) -> None:
    title, varied = names.title(config.name, directory), _varied(config)
    states = {views.SEARCH: views.search_view(title, varied)}
    if config.confirm.arms:
        states[views.CONFIRMATION] = views.confirmation_view(title, varied)
    for view, state in states.items():
        key = views.view_key(directory, view)
        tracker.log("view", config.name, key=key, name=f"{view} ({title})", state=state)


def _fixed(config: SweepConfig, plans: SweepPlans) -> dict[str, Any]:
    fixed = flat(plans.config(first_point(config)))
    varied = _varied(config)
    params = {name: value for name, value in fixed.items() if name not in varied}
    for section in ("question", "search", "confirm", "budget", "workers"):
        values = getattr(config, section).model_dump(mode="json")
        params |= {f"{section}.{name}": value for name, value in values.items()}
    for name, parameter in config.parameters.items():
        params[f"parameters.{name}"] = parameter.model_dump(mode="json", exclude_defaults=True)
    return params


def end_sweep(
    tracker: Tracker,
    config: SweepConfig,
    result: SweepResult,
    settings: Mapping[str, Sequence[str]],
    report_seconds: float,
) -> None:
    """The sweep's numbers, its files, its verdict, and its end; and that of its settings.

    Args:
        tracker: Where it is logged.
        config: The sweep.
        result: What it found.
        settings: Those that were confirmed -> the names of their trials.
        report_seconds: What the report took.
    """
    # A run that is killed is one that a sweep goes on with.
    status = {"whole": "FINISHED", "partial": "FINISHED", "failed": "FAILED"}
    ended = status.get(result.status, KILLED)
    for setting, trials in settings.items():
        _end_setting(tracker, result, setting, trials, ended)
    # Of a sweep in several parts, each logs its own numbers: the last ones count.
    record = {"step": result.parts - 1, **names.of_sweep(result, report_seconds)}
    tracker.log("metrics", result.name, records=[record])
    for file in FILES:
        tracker.log("file", result.name, path=file)
    shown = _shown(config.tracking.traces, result, settings)
    tracker.log(
        "end",
        result.name,
        status=ended,
        tags={
            "mlflow.note.content": describe(result, list(settings), shown),
            "symnoise.status": result.status,
        },
    )
    # Last, since they take longest; and not before the end, where they would slow down training.
    for name in shown:
        _log_traces(tracker, result.paths.trial(name), name)


def register_winner(tracker: Tracker, config: SweepConfig, result: SweepResult) -> str:
    """Register the sweep's winner, if that is asked for; returns what people are told.

    Its weights are sent last: they are the largest, and all else is there if they cannot be.
    """
    if config.tracking.registered_model is None:
        return ""
    asked = registration(config.tracking, result)
    if isinstance(asked, Refused):
        return f"nothing is registered as {config.tracking.registered_model}: {asked.reason}"
    tracker.log("register", asked.trial, **asked.event())
    return f"{asked.trial} is registered as {asked.name}, alias {asked.alias}"


def _shown(wanted: str, result: SweepResult, settings: Mapping[str, Sequence[str]]) -> list[str]:
    """The trials whose answers are logged as traces."""
    if wanted == "none" or result.status not in ("whole", "partial"):
        return []
    if wanted == "all":
        chosen = {trial.trial for trial in result.trials}
    else:
        chosen = {min(trials) for trials in settings.values()}
        chosen = chosen or {trial.trial for trial in result.trials if trial.baseline}
    return [trial.trial for trial in result.trials if trial.is_done and trial.trial in chosen]


def _log_traces(tracker: Tracker, directory: Path, name: str) -> None:
    if not all((directory / file).exists() for file in TABLES):
        return
    number = len(judged_answers(directory))
    for first in range(0, number, AT_ONCE):
        items = [first, min(first + AT_ONCE, number)]
        tracker.log("traces", name, path=f"{TRIALS}/{name}", items=items)


def start_setting(tracker: Tracker, sweep: str, plan: TrialPlan) -> None:
    """The run of a setting that is confirmed, told by one of its trials; these lie below it."""
    params = flat(plan.config)
    del params["train.seed"]
    tags = _place(sweep, plan, plan.setting) | {"symnoise.part": "setting"}
    _start(tracker, plan.setting, sweep, params, tags)
    tracker.log("inputs", plan.setting, data=data_inputs(plan.config.data, ("confirm",)))


def _end_setting(
    tracker: Tracker, result: SweepResult, setting: str, trials: Sequence[str], ended: str
) -> None:
    own = [trial for trial in result.trials if trial.trial in trials]
    arm = own[0].arm if own else ""
    decisions = [each for each in result.verdict.decisions if each.arm == arm and not each.over]
    compared = [each for decision in decisions for each in decision.comparisons]
    _log_results(tracker, setting, names.of_setting(own, compared))
    tags = {}
    for decision in decisions:
        tags["symnoise.verdict"] = decision.verdict
        if decision.comparisons:
            tags["mlflow.note.content"] = decision_text(decision, result.verdict)
    tracker.log("end", setting, status=ended, tags=tags)


def page(tracker: Tracker, result: SweepResult) -> str:
    """The page of MLflow that shows what a sweep found; empty where MLflow did not answer."""
    experiment_id = tracker.applier.experiment_id
    name = views.CONFIRMATION if result.part("confirm") else views.SEARCH
    address = views.view_address(views.view_key(result.paths.directory, name))
    return views.fill(address, experiment_id, {}) if experiment_id else ""


def start_trial(tracker: Tracker, sweep: str, plan: TrialPlan) -> None:
    """A trial's run: its complete configuration, and its place in the sweep."""
    params = {**flat(plan.config), "config.digest": plan.config.digest()}
    _start(tracker, plan.name, plan.setting or sweep, params, _place(sweep, plan, plan.name))
    data = plan.config.data
    tracker.log("inputs", plan.name, data=data_inputs(data, (data.prompts,)))


def _place(sweep: str, plan: TrialPlan, run: str) -> dict[str, str]:
    """Tags that tell where in which sweep a run belongs."""
    directory = sweep_directory(plan.directory)
    return {
        "mlflow.runName": names.run_name(sweep, directory, run),
        "symnoise.sweep": names.title(sweep, directory),
        "symnoise.part": plan.part,
        "symnoise.arm": plan.arm,
        "symnoise.baseline": str(plan.baseline).lower(),
        "symnoise.varied": ", ".join(plan.params),
    }


def log_records(tracker: Tracker, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Lines of a trial's metrics.jsonl."""
    tracker.log("metrics", name, records=[names.of_record(record) for record in records])


def end_trial(tracker: Tracker, plan: TrialPlan, result: TrialResult) -> None:
    """A trial's scores, its answers and verdicts as tables, and its end."""
    _log_results(tracker, plan.name, names.of_result(result.values, result.seconds))
    for file, table in TABLES.items():
        if (plan.directory / file).exists():
            tracker.log("table", plan.name, path=f"{TRIALS}/{plan.name}/{file}", file=table)
    # A trial that was stopped is over.
    status = {"done": "FINISHED", STOPPED: "FINISHED", "failed": "FAILED"}
    tags = {"symnoise.reason": result.reason} if result.reason else {}
    if result.is_stopped:
        tags["symnoise.stopped_at"] = str(result.last_step)
    tracker.log("end", plan.name, status=status.get(result.status, KILLED), tags=tags)


def log_tracking_time(tracker: Tracker, result: TrialResult) -> None:
    """The time that logging a trial took, known only when all of it is logged."""
    name = names.seconds_name("track")
    _log_results(tracker, result.trial, {name: result.seconds["track"]})


def _log_results(tracker: Tracker, name: str, values: Mapping[str, Any]) -> None:
    """What is measured once; at step 0 the interface draws it as bars, and not as a curve."""
    tracker.log("metrics", name, records=[{"step": 0, **values}])


def abandon_trial(tracker: Tracker, name: str) -> None:
    """The sweep was interrupted while this trial ran."""
    tracker.log("end", name, status=KILLED, tags={})
