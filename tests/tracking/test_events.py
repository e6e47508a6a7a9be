"""A sweep in MLflow: its search below it, and its settings with their seeds below them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_json, write_lines, write_text
from symnoise_ray.records.layout import COMPLETIONS, PREFERENCES, SweepPaths
from symnoise_ray.records.preferences import Preference
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.space.trials import SweepPlans, TrialPlan
from symnoise_ray.tracking import events, views
from symnoise_ray.tracking.experiment import KIND_TAG
from symnoise_ray.tracking.mlflow_runs import KEY_TAG, Tracker, replay

NOWHERE = "http://127.0.0.1:9"
EXPERIMENT = "tests"
PLAIN, NOISY = (
    {"noise.type": "none", "optim.lr": 2e-3},
    {"noise.type": "symnoise", "noise.alpha": 5.0, "optim.lr": 2e-3},
)
SEARCH = ("000-none", "001-symnoise")
SETTINGS = ("confirm-none", "confirm-symnoise")
RATES = {"000-none": 0.5, "001-symnoise": 0.6, "confirm-none-seed1000": 0.5,
         "confirm-none-seed1001": 0.5, "confirm-symnoise-seed1000": 0.7,
         "confirm-symnoise-seed1001": 0.8}  # fmt: skip


def plans_in(directory: Path, traces: str) -> SweepPlans:
    """A sweep of one baseline, one searched trial and their confirmation on two seeds."""
    config = SweepConfig.model_validate(
        {
            "name": "small",
            "parameters": {"noise.type": {"type": "categorical", "choices": ["none", "symnoise"]}},
            "baselines": [PLAIN],
            "search": {"num_trials": 1},
            "confirm": {"arms": 1, "looks": [2]},
            "tracking": {"traces": traces},
        }
    )
    return SweepPlans(config, directory)


def trial_plans(plans: SweepPlans) -> list[TrialPlan]:
    """Its trials in their order."""
    confirmed = [plans.confirm(point, n) for point in (PLAIN, NOISY) for n in range(2)]
    return [plans.search(0, PLAIN), plans.search(1, NOISY), *confirmed]


def verdict() -> Verdict:
    """What it decided."""
    comparison = Comparison(
        "symnoise", 0.75, (0.6, 0.9), 0.01, 0.01, 20, 2, "better",
        opponent="best", against="none, lr=0.002", label="symnoise, alpha=5, lr=0.002",
    )  # fmt: skip
    decision = Decision(
        "symnoise", "better", (comparison,), label=comparison.label, num_seeds=2, num_settings=1
    )
    return Verdict("symnoise at alpha=5, lr=0.002 is better.", decisions=(decision,))


def answer(plan: TrialPlan) -> None:
    """The answers and verdicts of a trial: a win, a loss, and one without a number."""
    said = [Completion(f"Q{i}?", f"A{i} of {plan.name}", plan.name, gold=f"A{i}") for i in range(3)]
    write_lines(said, plan.directory / COMPLETIONS)
    verdicts = [
        Preference(
            i, f"Q{i}?", "", f"R{i}", "reference", said[i].output, plan.name, "judge", order, value
        )
        for i, value in enumerate((2.0, 1.25, None))
        for order in ("reference first", "trial first")
    ]
    write_lines(verdicts, plan.directory / PREFERENCES)


def play(directory: Path, uri: str, *, parts: int = 1, traces: str = "none") -> str:
    """Log a whole sweep as `sweep/` does; returns the problem that the tracker had, if any."""
    for file in events.FILES:
        write_text("a file", directory / file)
    plans = plans_in(directory, traces)
    tracker = Tracker(directory, uri, EXPERIMENT, {"mlflow.source.name": "small.yaml"})
    events.start_sweep(tracker, plans, parts)
    results: list[TrialResult] = []
    settings: dict[str, list[str]] = {}
    for plan in trial_plans(plans):
        if plan.setting and plan.setting not in settings:
            events.start_setting(tracker, "small", plan)
        if plan.setting:
            settings.setdefault(plan.setting, []).append(plan.name)
        events.start_trial(tracker, "small", plan)
        events.log_records(tracker, plan.name, [{"step": 1, "loss": 2.0, "clean_loss": 1.5}])
        answer(plan)
        values = {"win_rate": RATES[plan.name], "clean_loss": 1.5}
        result = plan.result("done", values=values, seconds={"train": 2.0})
        write_json(result.to_json(), plan.directory / "trial.json")
        events.end_trial(tracker, plan, result)
        results.append(result)
    found = SweepResult(
        SweepPaths(directory), "small", "whole", verdict=verdict(), trials=tuple(results)
    )
    events.end_sweep(tracker, plans.sweep, found, settings, 0.5)
    return tracker.close(timeout=600)


def found_in(uri: str) -> dict[str, Any]:
    """Journal key -> run, of the only sweep in a store; each is there once."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    listed = client.search_runs([experiment.experiment_id])
    runs = {run.data.tags[KEY_TAG].partition("#")[2]: run for run in listed}
    assert len(runs) == len(listed)
    return runs


def tree(runs: dict[str, Any]) -> dict[str, str]:
    """Run -> the run above it."""
    names = {run.info.run_id: name for name, run in runs.items()}
    return {
        name: names.get(run.data.tags.get("mlflow.parentRunId", ""), "")
        for name, run in runs.items()
    }


def seeds(setting: str) -> list[str]:
    """The trials of a setting."""
    return [f"{setting}-seed{seed}" for seed in (1000, 1001)]


def test_seeds_lie_below_their_setting_and_settings_below_the_sweep(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    assert play(tmp_path / "small", store("a")) == ""
    runs = found_in(store("a"))
    assert tree(runs) == {
        "small": "",
        **dict.fromkeys((*SEARCH, *SETTINGS), "small"),
        **{seed: setting for setting in SETTINGS for seed in seeds(setting)},
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parts = {name: run.data.tags["symnoise.part"] for name, run in runs.items()}
    assert {parts[name] for name in SETTINGS} == {"setting"}
    assert {parts[name] for name in SEARCH} == {"search"}


def test_a_setting_has_means_over_its_seeds_and_its_verdict(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    play(tmp_path / "small", store("a"))
    runs = found_in(store("a"))
    run = runs["confirm-symnoise"]
    assert run.data.metrics["judge/win_rate"] == pytest.approx(0.75)
    assert run.data.metrics["eval/clean_loss"] == 1.5
    assert run.data.metrics["verdict/num_seeds"] == 2
    assert run.data.metrics["verdict/win_rate_high"] == 0.9
    assert run.data.tags["symnoise.verdict"] == "better"
    assert "symnoise at alpha=5, lr=0.002" in run.data.tags["mlflow.note.content"]
    assert run.data.params["noise.alpha"] == "5.0"
    assert "train.seed" not in run.data.params, "it has several"
    assert "verdict/win_rate" not in runs["confirm-none"].data.metrics
    assert "symnoise.verdict" not in runs["confirm-none"].data.tags


@pytest.mark.parametrize(
    ("place", "title"),
    [("runs/small", "small"), ("runs/small-2", "small-2"), ("elsewhere", "small-elsewhere")],
)
def test_runs_of_two_sweeps_of_one_name_are_told_apart(
    place: str, title: str, tmp_path: Path, store: Callable[[str], str]
) -> None:
    play(tmp_path / place, store("a"))
    runs = found_in(store("a"))
    assert runs["small"].info.run_name == title
    assert runs["000-none"].info.run_name == f"{title}/000-none"
    assert runs["confirm-none"].info.run_name == f"{title}/confirm-none"
    assert {run.data.tags["symnoise.sweep"] for run in runs.values()} == {title}


def told(runs: dict[str, Any]) -> Any:
    """What a store holds of a sweep, the ids apart."""
    ids = {run.info.run_id: name for name, run in runs.items()}
    known = re.compile("|".join(ids))
    return {
        name: (
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.metrics,
            run.data.params,
            {
                key: known.sub(lambda found: ids[found[0]], value)
                for key, value in run.data.tags.items()
                if key != "mlflow.loggedArtifacts"
            },
        )
        for name, run in runs.items()
    }


def test_a_replay_into_an_empty_store_gives_the_same_and_a_second_one_adds_nothing(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    directory = tmp_path / "small"
    assert play(directory, store("a")) == ""
    first = told(found_in(store("a")))
    for _ in range(2):
        (directory / "journal.applied.json").unlink()
        assert replay(directory, store("b"), EXPERIMENT) > 0
        assert told(found_in(store("b"))) == first
    client = mlflow.MlflowClient(store("b"))
    run = found_in(store("b"))["001-symnoise"]
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 1


def test_a_sweep_that_goes_on_keeps_its_runs(tmp_path: Path, store: Callable[[str], str]) -> None:
    directory = tmp_path / "small"
    assert play(directory, NOWHERE) != ""
    assert play(directory, store("a"), parts=2) == ""
    runs = found_in(store("a"))
    assert len(runs) == 1 + len(SETTINGS) + len(RATES)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


# What MLflow's users look for


def test_every_run_names_its_data_and_where_it_came_from(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    play(tmp_path / "small", store("a"))
    runs = found_in(store("a"))
    for run in runs.values():
        assert run.data.tags["mlflow.source.name"] == "small.yaml"
    used = {
        name: {
            (each.dataset.name, each.tags[0].value, each.dataset.digest)
            for each in run.inputs.dataset_inputs
        }
        for name, run in runs.items()
    }
    named = {name: {each[:2] for each in sets} for name, sets in used.items()}
    train, searched, fresh = (
        ("train.jsonl", "training"), ("eval.jsonl", "evaluation"), ("confirm.jsonl", "evaluation"),
    )  # fmt: skip
    assert named["small"] == {train, searched, fresh}
    assert named["001-symnoise"] == {train, searched}
    assert named["confirm-symnoise"] == named["confirm-none-seed1000"] == {train, fresh}
    assert len(set.union(*used.values())) == 3, "the same rows have the same digest everywhere"


def test_the_experiment_opens_on_its_runs_unless_somebody_has_chosen(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    for name, chosen in (("a", None), ("b", "genai_development")):
        client = mlflow.MlflowClient(store(name))
        experiment = client.create_experiment(EXPERIMENT, (tmp_path / "files").as_uri())
        if chosen:
            client.set_experiment_tag(experiment, KIND_TAG, chosen)
        play(tmp_path / name / "small", store(name))
        kind = client.get_experiment(experiment).tags[KIND_TAG]
        assert kind == (chosen or "custom_model_development")


def test_the_description_has_the_verdict_its_numbers_and_links_that_lead_somewhere(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    play(tmp_path / "small", store("a"))
    runs = found_in(store("a"))
    parent = runs["small"]
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("symnoise at alpha=5, lr=0.002 is better.\n\n| setting |")
    assert "| symnoise, alpha=5, lr=0.002 | plain fine-tuning: none, lr=0.002 | 75.0 |" in note
    assert "{" not in note, "every id is known"
    client = mlflow.MlflowClient(store("a"))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    page = f"#/experiments/{experiment.experiment_id}/runs"
    for name in SETTINGS:
        assert f"[{name}]({page}/{runs[name].info.run_id}?" in note
    assert f"[Report]({page}/{parent.info.run_id}/artifacts/report.html?" in note
    artifacts = [each.path for each in client.list_artifacts(parent.info.run_id)]
    assert "report.html" in artifacts
    keys = re.findall(r"viewStateShareKey=(\w+)", note)
    assert len(keys) == 2
    for key in keys:
        assert f"mlflow.sharedViewState.{key}" in experiment.tags


def test_the_saved_views_find_the_search_and_the_confirmation(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    play(tmp_path / "small", store("a"))
    play(tmp_path / "small-2", store("a"))
    client = mlflow.MlflowClient(store("a"))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    saved = [json.loads(v) for key, v in experiment.tags.items() if key.startswith(views.TAG)]
    states = {each["name"]: json.loads(each["state"]) for each in saved}
    assert set(states) == {
        f"{view} ({sweep})" for view in (views.SEARCH, views.CONFIRMATION)
        for sweep in ("small", "small-2")
    }  # fmt: skip
    found = {}
    for name, state in states.items():
        direction = "ASC" if state["orderByAsc"] else "DESC"
        runs = client.search_runs(
            [experiment.experiment_id],
            state["searchFilter"],
            order_by=[f"{state['orderByKey']} {direction}"],
        )
        found[name] = runs
        columns = {key for run in runs for key in (*run.data.metrics, *run.data.params)}
        assert {"judge/win_rate", "noise.type", "eval/clean_loss"} <= columns
    searched = [run.info.run_name for run in found["Search by win rate (small)"]]
    assert searched == ["small/001-symnoise", "small/000-none"], "the best first"
    confirmed = found["Confirmation (small-2)"]
    assert [run.info.run_name.removeprefix("small-2/") for run in confirmed] == [
        name for setting in SETTINGS for name in (setting, *seeds(setting))
    ], "each setting before its seeds"


def test_the_page_that_a_sweep_names_is_a_saved_view(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    tracker = Tracker(tmp_path, store("a"), EXPERIMENT)
    trial = TrialResult("confirm-none-seed1000", part="confirm")
    result = SweepResult(SweepPaths(tmp_path), "small", "whole", trials=(trial,))
    assert events.page(tracker, result) == "", "nothing was sent"
    tracker.log("start", "small", parent="", params={}, tags={})
    assert tracker.close(timeout=600) == ""
    key = views.view_key(tmp_path, views.CONFIRMATION)
    assert events.page(tracker, result) == (
        f"#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey={key}"
    )


# Answers side by side


def traced(uri: str, run: Any) -> dict[str, Any]:
    """Request -> trace, of a run; each is there once."""
    client = mlflow.MlflowClient(uri)
    found = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    traces = {json.loads(trace.data.request): trace for trace in found}
    assert len(traces) == len(found)
    return traces


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("none", set()),
        ("confirmed", {"confirm-none-seed1000", "confirm-symnoise-seed1000"}),
        ("all", set(RATES)),
    ],
)
def test_the_answers_of_the_wanted_trials_are_traces_of_their_runs(
    wanted: str, shown: set[str], tmp_path: Path, store: Callable[[str], str]
) -> None:
    assert play(tmp_path / "small", store("a"), traces=wanted) == ""
    runs = found_in(store("a"))
    assert {name for name, run in runs.items() if traced(store("a"), run)} == shown
    own, other = (runs[f"{setting}-seed1000"].info.run_id for setting in reversed(SETTINGS))
    address = f"runs/{own}/traces?compareToRunUuid={other}"
    assert (address in runs["small"].data.tags["mlflow.note.content"]) == (wanted != "none")


def test_a_trace_has_the_answer_the_right_one_and_the_verdict_of_the_judge(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    directory = tmp_path / "small"
    play(directory, store("a"), traces="confirmed")
    for _ in range(2):
        run = found_in(store("a"))["confirm-symnoise-seed1000"]
        traces = traced(store("a"), run)
        assert set(traces) == {"Q0?", "Q1?", "Q2?"}
        said = {request: json.loads(trace.data.response) for request, trace in traces.items()}
        assert said["Q0?"] == "A0 of confirm-symnoise-seed1000"
        told = {
            request: sorted((each.name, each.value) for each in trace.info.assessments)
            for request, trace in traces.items()
        }
        assert told == {
            "Q0?": [("expected_response", "A0"), ("verdict", "win"), ("win", 1.0)],
            "Q1?": [("expected_response", "A1"), ("verdict", "loss"), ("win", 0.25)],
            "Q2?": [("expected_response", "A2"), ("verdict", "none")],
        }
        (verdict_on,) = (a for a in traces["Q1?"].info.assessments if a.name == "verdict")
        assert verdict_on.source.source_id == "judge"
        assert verdict_on.rationale == (
            "reference first: 0.25 of 1 for the trial\ntrial first: 0.25 of 1 for the trial\n"
            "The reference (reference) answered:\nR1"
        )
        (directory / "journal.applied.json").unlink()
        assert replay(directory, store("a"), EXPERIMENT) > 0, "everything once more adds nothing"
