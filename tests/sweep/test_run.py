"""Whole sweeps through real Ray, DeepSpeed, Optuna and MLflow, run as a user runs them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest

from symnoise_ray.errors import UserError
from symnoise_ray.records.files import read_json, read_lines
from symnoise_ray.records.layout import PREFLIGHT
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.sweep.directory import claim_directory
from symnoise_ray.tracking.mlflow_runs import KEY_TAG
from tests.servers.endpoint import serving

SPACE = """
name: small
trial:
  data: {max_eval_prompts: 24}
  train: {max_steps: 8, global_batch_size: 16, num_clean_rows: 16, num_evals: 2}
  generate: {max_new_tokens: 12}
parameters:
  noise.type: {type: categorical, choices: [symnoise]}
  noise.alpha: {type: float, low: 1, high: 10, log: true, when: {noise.type: [symnoise]}}
  optim.lr: {type: categorical, choices: [0.002]}
baselines:
  - {noise.type: none, optim.lr: 0.002}
search: {num_trials: 1}
confirm: {arms: 1, looks: [2]}
workers: {max_slots: 1}
"""


SPENT = tuple(phase for phase in PHASES if phase != "harness")
"""Phases that take time where no tasks of lm-evaluation-harness are asked for."""
MARK = "SYMNOISE_TEST_SWEEP"
"""Environment variable that every process of a sweep inherits."""


def tune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray.tune", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=1500,
        env={**os.environ, MARK: str(cwd)},
    )


def left_by(cwd: Path) -> list[str]:
    """Names of the processes that a sweep of this directory left behind."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(cwd):
                found.append(process.name())
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a sweep of one baseline, one searched trial, and their confirmation."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.yaml").write_text(SPACE)
    run = tune("small.yaml", cwd=folder)
    (folder / "stdout.txt").write_text(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert left_by(folder) == []
    return folder


def study_states(directory: Path, name: str) -> list[str]:
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{directory / 'optuna.db'}")
    return [trial.state.name for trial in study.trials]


def runs_by_name(database: Path) -> dict[str, Any]:
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("symnoise_ray")
    found = client.search_runs([experiment.experiment_id], max_results=100)
    runs = {run.data.tags[KEY_TAG].partition("#")[2]: run for run in found}
    assert len(runs) == len(found), "one run each"
    return runs


def test_the_screen_ends_with_table_verdict_and_what_to_open(small: Path):
    text = (small / "stdout.txt").read_text()
    assert "001-symnoise" in text
    address = f"sqlite:///{small / 'runs' / 'mlflow.db'}"
    assert f"runs are logged in MLflow at {address}, experiment symnoise_ray\n" in text
    assert "50.0 % [50.0, 50.0]" in text
    assert "Verdict: Whether symnoise at " in text
    assert "; 2 fresh seeds, 24 fresh prompts of 15 groups" in text
    report, runs, page = text.strip().splitlines()[-3:]
    assert report.startswith("report:")
    assert "report.html" in report
    assert "mlflow ui --workers 1 --backend-store-uri sqlite:///" in runs
    key = re.search(r"#/experiments/1/runs\?.*viewStateShareKey=(\w+)$", page)
    assert key is not None
    client = mlflow.MlflowClient(f"sqlite:///{small / 'runs' / 'mlflow.db'}")
    view = json.loads(client.get_experiment("1").tags[f"mlflow.sharedViewState.{key[1]}"])
    assert view["name"] == "Confirmation (small)"


def test_every_trial_leaves_its_files(small: Path):
    trials = small / "runs" / "small" / "trials"
    names = {path.name for path in trials.iterdir()}
    confirmed = {
        f"confirm-{arm}-seed{seed}" for arm in ("none", "symnoise") for seed in (1000, 1001)
    }
    assert names == {"000-none", "001-symnoise"} | confirmed
    for folder in trials.iterdir():
        files = {path.name for path in folder.iterdir()}
        assert files == {
            "config.json",
            "metrics.jsonl",
            "completions.jsonl",
            "outcome.json",
            "preferences.jsonl",
            "score.json",
            "digests.json",
            "trial.json",
        }
        assert set(read_json(folder / "trial.json")["seconds"]) >= set(SPENT) - {"track"}


def test_the_sweep_says_what_it_found_and_where_the_time_went(small: Path):
    results = read_json(small / "runs" / "small" / "results.json")
    assert results["status"] == "whole"
    assert len(results["trials"]) == 6
    assert all(set(trial["seconds"]) == set(SPENT) for trial in results["trials"])
    assert set(results["seconds"]["by_phase"]) == set(SPENT)
    assert {"start", "search", "confirm", "wall"} <= set(results["seconds"])
    (decision,) = results["verdict"]["decisions"]
    assert (decision["arm"], decision["looks"]) == ("symnoise", [2])
    assert (decision["num_settings"], decision["num_reference_settings"]) == (1, 1)
    # One learning rate: the reference's own best setting is the one that both share.
    (comparison,) = decision["comparisons"]
    assert (comparison["opponent"], comparison["num_seeds"]) == ("best", 2)
    reference = next(trial for trial in results["trials"] if trial["trial"] == "000-none")
    assert reference["is_reference"]
    assert reference["win_rate"] == 0.5


def test_the_study_is_on_disk_and_holds_the_search_alone(small: Path):
    assert study_states(small / "runs" / "small", "small") == ["COMPLETE"]


def test_mlflow_shows_the_trials_below_their_sweep(small: Path):
    runs = runs_by_name(small / "runs" / "mlflow.db")
    parent = runs["small"]
    settings = ("confirm-none", "confirm-symnoise")
    assert len(runs) == 7 + len(settings)
    for name, run in runs.items():
        assert run.info.status == "FINISHED"
        if name != "small":
            above = runs[name.partition("-seed")[0] if "-seed" in name else "small"]
            assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
            assert run.info.run_name == f"small/{name}"
    assert runs["confirm-symnoise"].data.tags["symnoise.verdict"] == "cannot tell yet"
    assert parent.data.params["train.max_steps"] == "8"
    assert parent.data.params["search.sampler"] == "tpe"
    assert "plain fine-tuning" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["mlflow.source.name"] == "small.yaml"
    assert {f"seconds/trials/{phase}" for phase in SPENT} <= set(parent.data.metrics)


def test_mlflow_has_every_setting_metrics_by_step_and_tables(small: Path):
    run = runs_by_name(small / "runs" / "mlflow.db")["001-symnoise"]
    config = read_json(small / "runs" / "small" / "trials" / "001-symnoise" / "config.json")
    for section, settings in config.items():
        for name, value in settings.items():
            assert run.data.params[f"{section}.{name}"] == str(value)
    assert {f"seconds/{phase}" for phase in SPENT} <= set(run.data.metrics)
    score = read_json(small / "runs" / "small" / "trials" / "001-symnoise" / "score.json")
    assert run.data.metrics["judge/win_rate"] == score["win_rate"]
    client = mlflow.MlflowClient(f"sqlite:///{small / 'runs' / 'mlflow.db'}")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 9))
    groups = {"train", "eval", "judge", "answers", "cost", "seconds"}
    assert {name.partition("/")[0] for name in run.data.metrics} == groups, "none has no group"
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert files == {"answers.json", "verdicts.json"}
    table = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert {entry["type"] for entry in table} == {"table"}


def test_answers_and_verdicts_are_in_alpacaevals_shape(small: Path):
    folder = small / "runs" / "small" / "trials" / "001-symnoise"
    completions = read_lines(folder / "completions.jsonl")
    assert len(completions) == 24
    assert set(completions[0]) >= {"instruction", "output", "generator", "dataset"}
    preferences = read_lines(folder / "preferences.jsonl")
    assert len(preferences) == 2 * 24
    for first, second in zip(preferences[::2], preferences[1::2], strict=True):
        assert first["preference"] == second["preference"], "the order changes nothing"


def test_a_report_can_be_written_again(small: Path):
    directory = small / "runs" / "small"
    before = (directory / "report.html").read_text()
    (directory / "report.html").unlink()
    command = [sys.executable, "-m", "symnoise_ray", "report", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    assert (directory / "report.html").read_text() == before


@pytest.mark.nightly
def test_a_tracker_of_the_environment_is_used_and_its_password_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    (tmp_path / "some.yaml").write_text(SPACE.replace("arms: 1", "arms: 0"))
    run = tune("some.yaml", "--output", "out", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "logged in MLflow at http://me:***@127.0.0.1:9, experiment mine\n" in run.stdout
    assert "not everything reached MLflow" in run.stdout
    assert "canary" not in run.stdout + run.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not any(b"canary" in path.read_bytes() for path in files)
    tracking = {"uri": "http://me:***@127.0.0.1:9", "experiment": "mine"}
    assert read_json(tmp_path / "out" / "results.json")["tracking"] == tracking
    kept = read_json(tmp_path / "out" / "sweep.json")["tracking"]
    assert {name: kept[name] for name in tracking} == tracking


@pytest.mark.slow
def test_trials_that_diverge_are_failed_and_the_rest_goes_on(tmp_path: Path):
    space = SPACE.replace("choices: [0.002]", "choices: [0.002, 1.0e+30]")
    space = space.replace("{num_trials: 1}", "{sampler: grid}").replace("arms: 1", "arms: 0")
    space = space.replace(
        "type: float, low: 1, high: 10, log: true,", "type: int, low: 5, high: 5,"
    )
    (tmp_path / "some.yaml").write_text(space)
    run = tune("some.yaml", "--output", "out", cwd=tmp_path)
    assert run.returncode == 3, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert "failed, diverged: the" in run.stdout
    results = read_json(tmp_path / "out" / "results.json")
    assert results["status"] == "partial"
    states = [trial["status"] for trial in results["trials"]]
    assert sorted(states) == ["done", "done", "failed"]
    failed = next(trial for trial in results["trials"] if trial["status"] == "failed")
    assert failed["kind"] == "diverged"
    assert "win_rate" not in failed
    assert sorted(study_states(tmp_path / "out", "small")) == ["COMPLETE", "FAIL"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_info = next(
        found
        for found in client.search_runs(["1"])
        if found.data.tags["mlflow.runName"].endswith(f"/{failed['trial']}")
    )
    assert run_info.info.status == "FAILED"
    assert "must be finite" in run_info.data.tags["symnoise.reason"]


def start_and_signal(
    tmp_path: Path,
    number: int,
    wanted: str,
    *,
    space: str = SPACE.replace("max_steps: 8", "max_steps: 4000"),
    wait: Callable[[], object] = lambda: None,
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start a sweep, or go on with it, and signal it once a line of its output holds a word.

    Ctrl-C reaches the whole process group, as a terminal sends it; SIGTERM the process alone.

    Returns:
        The sweep, and the processes that it had started by then.
    """
    (tmp_path / "small.yaml").write_text(space)
    words = ["small.yaml", "--resume", "--output", "out"]
    command = [sys.executable, "-u", "-m", "symnoise_ray.tune", *words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        env={**os.environ, MARK: str(tmp_path)},
        # Under a shell that put the tests in the background, children would not hear Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            break
    wait()
    started = psutil.Process(process.pid).children(recursive=True)
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
    return process, started


@pytest.mark.parametrize(
    ("number", "wanted", "status"),
    [
        (signal.SIGINT, "results in", 130),
        pytest.param(signal.SIGINT, "000-none", 130, marks=pytest.mark.slow),
        pytest.param(
            signal.SIGTERM, "000-none", 143, marks=[pytest.mark.slow, pytest.mark.nightly]
        ),
    ],
)
def test_an_interrupted_sweep_leaves_no_process_and_no_traceback(
    number: int, wanted: str, status: int, tmp_path: Path
):
    process, started = start_and_signal(tmp_path, number, wanted)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == status, output
    # The sweep may have said more between the wanted line and the signal.
    said = ("runs are logged in MLflow at ", "starting ", "000-none", "001-")
    *before, last = [line for line in output.splitlines() if not line.startswith(said)]
    assert last == (
        "interrupted; what was done is kept; the same command with --resume goes on from there"
    )
    # MLflow is opened after the first step, and the end of an interrupted sweep waits for nothing.
    assert before == [] or (
        len(before) == 1
        and before[0].startswith("not everything reached MLflow (")
        and before[0].endswith("the journal has it: symnoise-ray sync out")
    )
    _, alive = psutil.wait_procs(started, timeout=300)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    if wanted == "000-none":
        assert read_json(tmp_path / "out" / "results.json")["status"] == "interrupted"


def kill_and_see_it_gone(tmp_path: Path, wanted: str, **more: Any) -> None:
    """SIGKILL a sweep; its Ray ends by itself a little later, or is ended here."""
    process, started = start_and_signal(tmp_path, signal.SIGKILL, wanted, **more)
    process.communicate(timeout=600)
    _, alive = psutil.wait_procs(started, timeout=20)
    for left in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def told_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What a sweep found out, without what it took."""
    left_out = ("seconds", "tokens_per_second", "peak_memory_gib", "resumed_at")
    trials = ({k: v for k, v in t.items() if k not in left_out} for t in results["trials"])
    return [*trials, results["verdict"]]


def test_sweeps_of_one_name_take_directories_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    with claim_directory("small", None) as first, claim_directory("small", None) as second:
        assert (first, second) == (runs / "small", runs / "small-2")
        (second / "sweep.json").write_text("{}")
    assert [path.name for path in runs.iterdir()] == ["small-2"], "an empty one goes away"


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["small-2"], "small-2"),
        (["small", "small-2", "small-10"], "small-10"),
        (["small-3", "small-x", "smaller", "small-03"], "small-3"),
        (["small-x"], "small"),
    ],
    ids=["gap", "highest", "other names", "none"],
)
def test_going_on_takes_the_last_sweep_of_the_name_though_earlier_ones_are_gone(
    there: list[str], taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "sweep.json").write_text('{"name": "small"}')
    with claim_directory("small", None, resume=True) as directory:
        assert directory == tmp_path / "runs" / taken


def test_a_sweep_whose_own_name_ends_in_a_number_is_not_gone_on_with_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("small", "small-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "sweep.json").write_text(f'{{"name": "{name}"}}')
    with claim_directory("small", None, resume=True) as directory:
        assert directory == tmp_path / "runs" / "small"


@pytest.mark.parametrize(
    ("place", "why"), [("file/x", "Not a directory"), ("full", "new or empty")]
)
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, place: str, why: str):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.html").write_text("")
    with pytest.raises(UserError, match=why), claim_directory("small", tmp_path / place):
        pass


def test_a_sweep_that_was_killed_in_its_checks_leaves_a_place_that_is_free(tmp_path: Path):
    (tmp_path / f"{PREFLIGHT}-1234").write_text("")
    with claim_directory("small", tmp_path, resume=True) as directory:
        assert directory == tmp_path


BESIDE = """
name: beside
trial:
  data: {max_eval_prompts: 12}
  train: {max_steps: 2, global_batch_size: 8, num_clean_rows: 8, num_evals: 1}
  generate: {max_new_tokens: 6}
  judge: {type: api, model: judge, concurrency: 1, self_check: false}
baselines:
  - {noise.type: none, optim.lr: 0.002}
  - {noise.type: symnoise, noise.alpha: 5, optim.lr: 0.002}
  - {noise.type: symnoise, noise.alpha: 100, optim.lr: 0.01}
search: {num_trials: 0}
workers: {max_slots: 1}
"""


@pytest.mark.slow
def test_a_trial_is_judged_while_the_next_one_trains_on_the_same_workers(tmp_path: Path):
    (tmp_path / "beside.yaml").write_text(BESIDE)
    with serving() as endpoint:
        endpoint.delay = 0.5
        run = tune("beside.yaml", f"judge.base_url={endpoint.url}", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    trials = tmp_path / "runs" / "beside" / "trials"
    first, second = (trials / name for name in ("001-symnoise", "002-symnoise"))
    assert read_json(first / "trial.json")["judge_usage"]["calls"] >= 10
    answered = (second / "completions.jsonl").stat().st_mtime
    judged = (first / "preferences.jsonl").stat().st_mtime
    assert answered < judged, "the second was trained and had answered before the first was judged"
