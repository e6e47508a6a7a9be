"""A sweep logs where its space, then the environment says, and no file or screen has a password."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import TrackingConfig
from symnoise_ray.config.redaction import without_password
from symnoise_ray.errors import SymnoiseError, UserError
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult
from symnoise_ray.tracking.journal import Journal
from symnoise_ray.tracking.mlflow_runs import Tracker, replay
from symnoise_ray.tracking.store import (
    Store,
    choose_store,
    opening,
    require_driver,
    store_again,
    written_down,
)

SECRET = "canary"
SERVER = f"http://me:{SECRET}@127.0.0.1:9"
SHOWN = "http://me:***@127.0.0.1:9"
DIRECTORY = Path("/runs/small")
DEFAULT = "sqlite:////runs/mlflow.db"


@pytest.mark.parametrize(
    ("keys", "environ", "store"),
    [
        ({}, {}, Store(DEFAULT, "symnoise_ray")),
        ({}, {"MLFLOW_TRACKING_URI": "http://a"}, Store("http://a", "symnoise_ray")),
        ({}, {"MLFLOW_EXPERIMENT_NAME": "mine"}, Store(DEFAULT, "mine")),
        ({"uri": "http://b"}, {"MLFLOW_TRACKING_URI": "http://a"},
         Store("http://b", "symnoise_ray")),
        ({"experiment": "own"}, {"MLFLOW_EXPERIMENT_NAME": "mine"}, Store(DEFAULT, "own")),
        ({}, {"MLFLOW_TRACKING_URI": "", "MLFLOW_EXPERIMENT_NAME": ""},
         Store(DEFAULT, "symnoise_ray")),
    ],
)  # fmt: skip
def test_the_space_goes_before_the_environment_and_that_before_the_default(
    keys: dict[str, str], environ: dict[str, str], store: Store
) -> None:
    assert choose_store(TrackingConfig(**keys), DIRECTORY, environ) == store


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("http://host:5000/team@work", "http://host:5000/team@work"),
        (SERVER, SHOWN),
        (f"https://{SECRET}@host", "https://***@host"),
        (f"https://host/mlflow?token={SECRET}&a=b", "https://host/mlflow?token=***&a=b"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        (f"postgresql+psycopg2://me:{SECRET}@host/db", "postgresql+psycopg2://me:***@host/db"),
        (f"mysql+pymysql://me:{SECRET}/{SECRET}@host/db", "mysql+pymysql://me:***@host/db"),
        (f"postgresql://host/db?user=me&password={SECRET}",
         "postgresql://host/db?user=me&password=***"),
        ("databricks://profile", "databricks://profile"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert without_password(address) == shown
    assert without_password(f"no answer from {address} today") == f"no answer from {shown} today"
    assert without_password(shown) == shown


def test_what_is_written_down_has_no_password_and_leaves_the_default_open() -> None:
    keys = TrackingConfig(traces="all")
    assert written_down(keys, Store(SERVER, "e"), DIRECTORY).uri == SHOWN
    assert written_down(keys, Store("http://host", "e"), DIRECTORY).uri == "http://host"
    assert written_down(keys, Store(DEFAULT, "e"), DIRECTORY) == TrackingConfig(
        experiment="e", traces="all"
    )


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql+pg8000://me:{SECRET}@host/db",
        f"postgresql+nothing://me:{SECRET}@host/db",
        f"mysql://me:{SECRET}@host/db",
        f"postgresql:/me:{SECRET}@host/db",
    ],
)
def test_a_database_without_a_driver_is_refused_in_one_line(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri .* must be the address of") as told:
        require_driver(Store(uri, "e"))
    assert "\n" not in told.value.message
    assert SECRET not in told.value.message


@pytest.mark.parametrize("uri", [DEFAULT, SERVER, f"postgresql://me:{SECRET}@127.0.0.1:9/db"])
def test_a_store_need_not_answer_before_a_sweep_starts(uri: str) -> None:
    require_driver(Store(uri, "e"))


def test_a_password_is_given_again_by_the_environment() -> None:
    environ = {"MLFLOW_TRACKING_URI": SERVER}
    assert store_again(SHOWN, "e", None, environ) == Store(SERVER, "e")
    assert store_again(SHOWN, "e", "http://new", {}) == Store("http://new", "e")
    assert store_again(DEFAULT, "e", None, environ) == Store(DEFAULT, "e"), "it was logged there"


@pytest.mark.parametrize("environ", [{}, {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@other"}])
def test_a_password_that_is_nowhere_is_asked_for(environ: dict[str, str]) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI must hold the address") as told:
        store_again(SHOWN, "e", None, environ)
    assert SECRET not in told.value.message


def test_sync_takes_the_password_from_the_environment_and_shows_none(
    tmp_path: Path,
    store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracking = {"uri": SHOWN, "experiment": "tests"}
    write_json({"name": "small", "tracking": tracking}, tmp_path / "sweep.json")
    Journal(tmp_path).append("start", "small", parent="", params={}, tags={})
    assert main(["sync", str(tmp_path)]) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    assert main(["sync", str(tmp_path)]) == 1, "nobody answers there"
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 2
    assert "MLFLOW_TRACKING_URI must hold the address" in told.err
    assert f"error: {SHOWN}: not every event could be sent" in told.err
    uri = store("other")
    assert main(["sync", str(tmp_path), "--uri", uri]) == 0
    assert main(["sync", str(tmp_path), "--uri", uri]) == 0
    assert capsys.readouterr().out.splitlines() == ["1 events sent", "0 events sent"]
    assert SECRET not in told.err + told.out
    assert SECRET not in "".join(path.read_text() for path in tmp_path.glob("*.json*"))


def test_no_problem_and_no_file_of_a_tracker_has_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(tmp_path, SERVER, "tests")
    tracker.log("start", "small", parent="", params={}, tags={})
    with caplog.at_level("DEBUG", logger="symnoise_ray"):
        problem = tracker.close(timeout=600)
    assert problem
    with pytest.raises(SymnoiseError, match="not every event could be sent") as told:
        replay(tmp_path, SERVER, "tests")
    assert SECRET not in problem + caplog.text + told.value.message
    assert SECRET not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_a_sweep_is_sent_whole_to_another_store(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    directory = tmp_path / "sweep"
    directory.mkdir()
    Journal(directory).append("start", "small", parent="", params={}, tags={})
    for name in ("a", "b"):
        uri = store(name)
        assert replay(directory, uri, "tests") == 1
        experiment = mlflow.MlflowClient(uri).get_experiment_by_name("tests")
        assert experiment is not None
        assert len(mlflow.MlflowClient(uri).search_runs([experiment.experiment_id])) == 1


def test_runs_that_were_moved_with_their_store_are_not_sent_again(
    tmp_path: Path, store: Callable[[str], str]
) -> None:
    directory = tmp_path / "runs" / "small"
    directory.mkdir(parents=True)
    Journal(directory).append("start", "small", parent="", params={}, tags={})
    assert replay(directory, store("runs/mlflow"), "tests") == 1
    (tmp_path / "runs").rename(tmp_path / "moved")
    uri = f"sqlite:///{tmp_path / 'moved' / 'mlflow.db'}"
    assert replay(tmp_path / "moved" / "small", uri, "tests") == 0
    Journal(tmp_path / "moved" / "small").append("start", "small", parent="", params={}, tags={})
    assert replay(tmp_path / "moved" / "small", uri, "tests") == 1
    assert len(mlflow.MlflowClient(uri).search_runs(["1"])) == 1, "the sweep goes on with its run"


def sent(tmp_path: Path, store: Callable[[str], str]) -> Path:
    """The directory of a sweep that has ended in its runs folder, and is whole in the store."""
    directory = tmp_path / "runs" / "small"
    directory.mkdir(parents=True)
    uri = store("runs/mlflow")
    tracking = {"uri": None, "experiment": "tests"}
    write_json({"name": "small", "tracking": tracking}, directory / "sweep.json")
    ended = SweepResult(SweepPaths(directory), "small", "whole", tracking_uri=uri,
                        experiment="tests")  # fmt: skip
    write_json(ended.to_json(), directory / "results.json")
    Journal(directory).append("start", "small", parent="", params={}, tags={})
    assert replay(directory, uri, "tests") == 1
    return directory


def test_sync_sends_nothing_twice_whatever_way_the_directory_is_named(
    tmp_path: Path,
    store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent(tmp_path, store)
    monkeypatch.chdir(tmp_path)
    assert main(["sync", "runs/small"]) == 0
    assert main(["sync", str(tmp_path / "runs" / "small")]) == 0
    assert capsys.readouterr().out.splitlines() == ["0 events sent", "0 events sent"]


def test_sync_of_a_moved_runs_folder_goes_to_the_store_that_moved_with_it(
    tmp_path: Path, store: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    sent(tmp_path, store)
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert main(["sync", str(tmp_path / "moved" / "small")]) == 0
    assert capsys.readouterr().out == "0 events sent\n"
    assert not (tmp_path / "runs").exists(), "nothing is made at the old place"


RESTORE = """
from pathlib import Path
from symnoise_ray.tracking.mlflow_runs import Applier
print(Applier(Path.cwd(), "http://a", "s\\xfc\\xdf").num_applied)
"""


def test_what_was_sent_is_known_where_text_is_not_utf_8_by_default(tmp_path: Path) -> None:
    known = {"store": ["http://a", "süß"], "num_applied": 3, "runs": {}}
    write_json(known, tmp_path / "journal.applied.json")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", RESTORE],
        cwd=tmp_path, env={**os.environ, **plain}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.stdout == "3\n", ended.stderr


PAGE = "#/experiments/1/runs?viewStateShareKey=k"


def test_a_local_store_is_opened_by_a_command_and_then_a_page() -> None:
    command, page = opening(Store(DEFAULT, "e"), PAGE)
    assert command.endswith(f"-m mlflow ui --workers 1 --backend-store-uri {DEFAULT}")
    assert page.endswith(f" http://127.0.0.1:5000/{PAGE}")
    assert opening(Store(DEFAULT, "e"), "") == [command], "MLflow did not answer"


def test_the_page_of_a_server_is_named_without_its_password() -> None:
    assert opening(Store(f"{SERVER}/", "e"), PAGE) == [f"runs:    {SHOWN}/{PAGE}"]
    (command, _) = opening(Store(f"mysql://me:{SECRET}@host/db", "e"), PAGE)
    assert SECRET not in command
