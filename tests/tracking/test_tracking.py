"""A sweep reaches MLflow through its journal, each event once, and never waits for it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from symnoise_ray.records.files import read_json, read_lines, write_lines, write_text
from symnoise_ray.records.preferences import Preference
from symnoise_ray.tracking.journal import KILLED, Journal, Unread
from symnoise_ray.tracking.mlflow_runs import KEY_TAG, Applier, Tracker, replay

NOWHERE = "http://127.0.0.1:9"
EXPERIMENT = "tests"
LOSSES = [2.5, 2.0, 1.5]


@pytest.fixture
def uri(store: Callable[[str], str]) -> str:
    """A local MLflow database."""
    return store("mlflow")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a sweep with one trial."""
    folder = tmp_path / "sweep"
    preferences = [
        Preference(i, "Who?", "", "a", "plain", "b", "trial", "judge", "trial first", 2.0)
        for i in range(3)
    ]
    write_lines(preferences, folder / "trials" / "000-symnoise" / "preferences.jsonl")
    write_text("the report", folder / "report.md")
    return folder


def started(sweep: str = "small") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The events of a sweep and its trial up to the trial's curve."""
    yield "start", sweep, {"parent": "", "params": {"search.num_trials": 1}, "tags": {}}
    tags = {"symnoise.arm": "symnoise"}
    params = {"noise.type": "symnoise", "noise.alpha": 5.0, "long": "x" * 9000}
    yield "start", "000-symnoise", {"parent": sweep, "params": params, "tags": tags}
    records = [{"step": step, "loss": loss} for step, loss in enumerate(LOSSES)]
    yield "metrics", "000-symnoise", {"records": records}


def ended(sweep: str = "small") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The events of its end."""
    path = "trials/000-symnoise/preferences.jsonl"
    yield "table", "000-symnoise", {"path": path, "file": "verdicts.json"}
    yield "metrics", "000-symnoise", {"records": [{"step": 3, "win_rate": 0.75}]}
    tags = {"symnoise.reason": "told"}
    yield "end", "000-symnoise", {"status": "FAILED", "tags": tags}
    yield "file", sweep, {"path": "report.md"}
    yield "end", sweep, {"status": "FINISHED", "tags": {}}


def write(journal: Journal, *parts: Any) -> None:
    for part in parts:
        for kind, run, values in part:
            journal.append(kind, run, **values)


def check_whole(uri: str, directory: Path) -> None:
    """The sweep is in MLflow as it was, everything once."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(client.search_runs([experiment.experiment_id])) == len(runs) == 2
    parent, child = runs["small"], runs["000-symnoise"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "mlflow.parentRunId" not in parent.data.tags
    assert child.data.tags["symnoise.arm"] == "symnoise"
    assert child.data.tags["symnoise.reason"] == "told"
    assert child.data.tags[KEY_TAG] == f"{directory.resolve()}#000-symnoise"
    assert (parent.info.status, child.info.status) == ("FINISHED", "FAILED")
    assert parent.data.params == {"search.num_trials": "1"}
    assert child.data.params["noise.alpha"] == "5.0"
    assert child.data.params["noise.type"] == "symnoise"
    assert 1000 < len(child.data.params["long"]) <= 6000
    curve = client.get_metric_history(child.info.run_id, "loss")
    assert [(m.step, m.value) for m in sorted(curve, key=lambda m: m.step)] == list(
        enumerate(LOSSES)
    )
    assert child.data.metrics["win_rate"] == 0.75
    assert [a.path for a in client.list_artifacts(parent.info.run_id)] == ["report.md"]
    assert [a.path for a in client.list_artifacts(child.info.run_id)] == ["verdicts.json"]
    local = client.download_artifacts(child.info.run_id, "verdicts.json")
    table = json.loads(Path(local).read_text())
    assert table["columns"] == [
        name for name in Preference._fields if name not in ("num_items", "earlier_requests")
    ]
    assert len(table["data"]) == 3


def test_a_sweep_is_a_parent_run_with_its_trials_as_children(uri: str, directory: Path) -> None:
    tracker = Tracker(directory, uri, EXPERIMENT)
    for kind, run, values in [*started(), *ended()]:
        tracker.log(kind, run, **values)
    assert tracker.close(timeout=600) == ""
    check_whole(uri, directory)
    assert set(tracker.applier.seconds) == {"small", "000-symnoise"}


def test_a_replay_applies_what_is_new_and_nothing_twice(uri: str, directory: Path) -> None:
    journal = Journal(directory)
    write(journal, started())
    assert replay(directory, uri, EXPERIMENT) == 3
    assert replay(directory, uri, EXPERIMENT) == 0
    write(journal, ended())
    assert replay(directory, uri, EXPERIMENT) == 5
    assert replay(directory, uri, EXPERIMENT) == 0
    check_whole(uri, directory)


def test_a_replay_that_forgot_where_it_was_applies_nothing_twice(uri: str, directory: Path) -> None:
    journal = Journal(directory)
    write(journal, started(), ended())
    assert replay(directory, uri, EXPERIMENT) == 8
    (directory / "journal.applied.json").unlink()
    assert replay(directory, uri, EXPERIMENT) == 8
    check_whole(uri, directory)


def test_a_replay_goes_on_where_an_event_failed(uri: str, directory: Path) -> None:
    write(Journal(directory), started(), ended())
    (directory / "report.md").rename(directory / "aside.md")
    with pytest.raises(Exception, match=r"report\.md"):
        replay(directory, uri, EXPERIMENT)
    (directory / "aside.md").rename(directory / "report.md")
    assert replay(directory, uri, EXPERIMENT) > 0
    check_whole(uri, directory)


def test_a_tracker_that_is_down_delays_nothing_and_loses_nothing(uri: str, directory: Path) -> None:
    tracker = Tracker(directory, NOWHERE, EXPERIMENT)
    began = time.monotonic()
    for kind, run, values in [*started(), *ended()]:
        tracker.log(kind, run, **values)
    assert time.monotonic() - began < 5, "one try to connect takes longer"
    began = time.monotonic()
    problem = tracker.close(timeout=8)
    assert time.monotonic() - began < 60, "MLflow's own tries take minutes"
    assert problem
    assert "\n" not in problem
    assert replay(directory, uri, EXPERIMENT) == 8
    check_whole(uri, directory)


def test_closing_waits_no_longer_than_it_is_told(directory: Path) -> None:
    tracker = Tracker(directory, NOWHERE, EXPERIMENT)
    tracker.log("start", "small", parent="", params={}, tags={})
    began = time.monotonic()
    assert tracker.close(timeout=0)
    assert time.monotonic() - began < 30


def test_an_end_without_events_is_no_problem(uri: str, directory: Path) -> None:
    assert Tracker(directory, uri, EXPERIMENT).close(timeout=600) == ""
    assert replay(directory, uri, EXPERIMENT) == 0


def test_any_text_can_be_journalled(uri: str, directory: Path) -> None:
    tracker = Tracker(directory, uri, EXPERIMENT)
    tracker.log("start", "small", parent="", params={"a": "\u2028 \U0001f600"}, tags={})
    tracker.log("end", "small", status="FAILED", tags={"symnoise.reason": "half \ud83d a pair"})
    assert tracker.close(timeout=600) == ""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.params["a"] == "\u2028 \U0001f600"


def test_an_event_that_is_not_written_whole_is_left_for_later(uri: str, directory: Path) -> None:
    journal = Journal(directory)
    write(journal, started())
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-10])
    assert replay(directory, uri, EXPERIMENT) == 2
    journal.path.write_bytes(whole)
    write(journal, ended())
    assert replay(directory, uri, EXPERIMENT) == 6
    check_whole(uri, directory)


def test_more_parameters_and_metrics_than_one_call_takes_are_all_logged(
    uri: str, directory: Path
) -> None:
    journal = Journal(directory)
    params = {f"p{i}": i for i in range(230)}
    journal.append("start", "small", parent="", params=params, tags={})
    records = [{"step": step, "loss": 1.0, "lr": 0.1} for step in range(600)]
    journal.append("metrics", "small", records=records)
    assert Applier(directory, uri, EXPERIMENT).apply_new() == 2
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert len(run.data.params) == 230
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 600
    assert len(client.get_metric_history(run.info.run_id, "lr")) == 600


def test_metrics_of_trials_that_train_side_by_side_arrive_whole(uri: str, directory: Path) -> None:
    journal = Journal(directory)
    for name in ("small", "a", "b"):
        journal.append("start", name, parent="", params={}, tags={})
    for step in range(400):
        for name in ("a", "b"):
            record = {"step": step, "loss": 1.0 / (step + 1), "lr": 0.1}
            journal.append("metrics", name, records=[record])
        if step == 200:
            journal.append("end", "a", status="FINISHED", tags={})
    assert replay(directory, uri, EXPERIMENT) == 3 + 800 + 1
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    for name in ("a", "b"):
        curve = client.get_metric_history(runs[name].info.run_id, "loss")
        found = [(each.step, each.value) for each in sorted(curve, key=lambda each: each.step)]
        assert found == [(step, 1.0 / (step + 1)) for step in range(400)]
        assert runs[name].data.metrics["loss"] == 1.0 / 400, "the last one stands in the table"
    assert runs["a"].info.status == "FINISHED"


@pytest.mark.slow
def test_metrics_arrive_while_a_trial_trains_though_nothing_else_happens(
    uri: str, directory: Path
) -> None:
    tracker = Tracker(directory, uri, EXPERIMENT)
    tracker.log("start", "small", parent="", params={}, tags={})
    deadline = time.monotonic() + 600
    for step in range(2):
        tracker.log("metrics", "small", records=[{"step": step, "loss": 1.0}])
        while tracker.applier.num_applied < 2 + step:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert tracker.close(timeout=600) == ""


def test_what_is_unread_of_a_journal_is_given_once_and_half_a_line_later(directory: Path) -> None:
    unread = Unread(directory)
    assert unread.new() == []
    journal = Journal(directory)
    journal.append("end", "süß", status="FINISHED", tags={})
    assert [event["run"] for event in unread.new()] == ["süß"]
    whole = journal.path.read_bytes()
    journal.append("end", "b", status="FINISHED", tags={})
    longer = journal.path.read_bytes()
    journal.path.write_bytes(longer[: len(whole) + 9])
    assert unread.new() == []
    journal.path.write_bytes(longer)
    assert [event["run"] for event in unread.new()] == ["b"]
    assert unread.new() == []


def test_a_long_journal_is_read_in_parts_and_each_event_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symnoise_ray.tracking.journal.PART_BYTES", 300)
    journal = Journal(directory)
    names = [f"run {number}" for number in range(20)]
    for name in names:
        journal.append("end", name, status="FINISHED", tags={})
    for num_known in (0, 1, 7, 20, 99):
        unread = Unread(directory, num_known)
        parts = list(iter(unread.new, []))
        assert [event["run"] for part in parts for event in part] == names[num_known:]
        assert all(len(part) < 6 for part in parts), "memory holds one part"


def test_what_came_in_parts_is_in_the_store_as_if_it_had_come_at_once(
    directory: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symnoise_ray.tracking.journal.PART_BYTES", 1)
    write(Journal(directory), [*started(), *ended()])
    total = len(read_lines(directory / "journal.jsonl"))
    assert replay(directory, uri, EXPERIMENT) == total
    assert read_json(directory / "journal.applied.json")["num_applied"] == total
    check_whole(uri, directory)


# A sweep that goes on


def test_an_event_after_half_a_line_of_a_killed_writer_is_whole(directory: Path) -> None:
    write(Journal(directory), started())
    path = directory / "journal.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"kind": "metr')
    Journal(directory).append("end", "small", status="FINISHED", tags={})
    assert path.read_text().startswith(whole)
    assert [row["kind"] for row in read_lines(path)][-1] == "end"


def test_a_journal_knows_how_far_each_run_came(directory: Path) -> None:
    write(Journal(directory), started())
    steps, ended_before = Journal(directory).history()
    assert (steps, ended_before) == ({"000-symnoise": len(LOSSES) - 1}, set())
    write(Journal(directory), ended())
    assert Journal(directory).history()[1] == {"small", "000-symnoise"}
    journal = Journal(directory)
    journal.append("start", "small", parent="", params={}, tags={})
    journal.append("end", "small", status=KILLED, tags={})
    assert journal.history()[1] == {"000-symnoise"}, "an interrupted run has not ended"


def test_a_run_that_goes_on_is_running_again_and_stays_one_run(uri: str, directory: Path) -> None:
    client, seen = mlflow.MlflowClient(uri), []
    for status in (KILLED, None, "FINISHED"):
        journal = Journal(directory)
        journal.append("start", "small", parent="", params={}, tags={})
        if status:
            journal.append("end", "small", status=status, tags={})
        replay(directory, uri, EXPERIMENT)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        seen.append(run.info.status)
    assert seen == [KILLED, "RUNNING", "FINISHED"]


APPLY = """
import sys
from pathlib import Path
from symnoise_ray.tracking.journal import Journal
from symnoise_ray.tracking.mlflow_runs import replay
directory = Path(sys.argv[1])
Journal(directory).append("start", "small", parent="", params={}, tags={})
replay(directory, sys.argv[2], "tests")
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    """MLflow makes it in many steps, and could not use one that was left among them."""

    def start(name: str) -> subprocess.Popen[bytes]:
        (tmp_path / name).mkdir()
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        return subprocess.Popen([sys.executable, "-c", APPLY, str(tmp_path / name), uri])

    process = start("killed")
    deadline = time.monotonic() + 600
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    processes = [start(name) for name in ("one", "two")]
    assert [process.wait(timeout=1200) for process in processes] == [0, 0], "nor do two at once"
