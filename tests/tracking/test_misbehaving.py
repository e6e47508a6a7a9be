"""Whatever a tracker does, a sweep goes on at its own pace, and `sync` brings every event once."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from symnoise_ray.records.files import read_lines, write_lines, write_text
from symnoise_ray.records.layout import default_tracking_uri
from symnoise_ray.tracking.journal import Journal
from symnoise_ray.tracking.mlflow_runs import Tracker, replay
from tests.tracking.test_tracking import (
    EXPERIMENT,
    Preference,
    check_whole,
    ended,
    started,
    write,
)


def sweep_in(folder: Path) -> Path:
    """The directory of a sweep with one trial."""
    preferences = [
        Preference(i, "Who?", "", "a", "plain", "b", "trial", "judge", "trial first", 2.0)
        for i in range(3)
    ]
    write_lines(preferences, folder / "trials" / "000-symnoise" / "preferences.jsonl")
    write_text("the report", folder / "report.md")
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sweep's directory without anything peculiar in its name."""
    return sweep_in(tmp_path / "sweep")


class Bad(BaseHTTPRequestHandler):
    """Answers every call alike: with a status, or not within two minutes."""

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        server = self.server
        assert isinstance(server, BadServer)
        server.num_calls += 1
        if server.status is None:
            server.over.wait(120)
            return
        self.send_response(server.status)
        self.send_header("content-length", "0")
        self.send_header("retry-after", "60")
        self.end_headers()

    do_GET = do_POST = _answer


class BadServer(ThreadingHTTPServer):
    """A tracking server that is ill."""

    daemon_threads = True

    def __init__(self, status: int | None) -> None:
        super().__init__(("127.0.0.1", 0), Bad)
        self.status, self.num_calls, self.over = status, 0, threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture(params=[None, 500, 429], ids=["hangs", "500", "429"])
def bad(request: pytest.FixtureRequest) -> Iterator[BadServer]:
    """A server that hangs, fails, or asks to wait."""
    server = BadServer(request.param)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.sampled(1)
def test_a_server_that_is_ill_delays_no_event_and_loses_none(
    bad: BadServer, directory: Path, store: Callable[[str], str]
) -> None:
    tracker = Tracker(directory, bad.url, EXPERIMENT)
    for kind, run, values in [*started(), *ended()]:
        tracker.log(kind, run, **values)
    assert len(read_lines(directory / "journal.jsonl")) == 8, "before the server has answered"
    assert tracker.close(timeout=30)
    assert bad.num_calls > 0
    assert replay(directory, store("a"), EXPERIMENT) == 8
    check_whole(store("a"), directory)


@pytest.mark.slow
def test_a_database_that_another_program_has_locked_gets_all_later(
    directory: Path, store: Callable[[str], str]
) -> None:
    uri = store("a")
    held = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    tracker = Tracker(directory, uri, EXPERIMENT)
    for kind, run, values in [*started(), *ended()]:
        tracker.log(kind, run, **values)
    assert "locked" in tracker.close(timeout=120)
    held.execute("ROLLBACK")
    held.close()
    replay(directory, uri, EXPERIMENT)
    check_whole(uri, directory)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "name",
    [
        *("it's", 'say "it\'s"', "100 % of it", "two words", "süß-noß", "100%25", "%41%", "a?b=c"),
        *("#1", "a&token=b", "***", "{SCHEMA_VERSION}", "süß #1? 100%25"),
    ],
)
def test_any_name_of_a_folder_will_do(name: str, tmp_path: Path, empty_store: Path) -> None:
    directory = sweep_in(tmp_path / name / "sweep")
    uri = default_tracking_uri(directory)
    (tmp_path / name / "mlflow.db").write_bytes(empty_store.read_bytes())
    write(Journal(directory), started(), ended())
    assert replay(directory, uri, EXPERIMENT) == 8
    (directory / "journal.applied.json").unlink()
    assert replay(directory, uri, EXPERIMENT) == 8, "its runs are found again"
    check_whole(uri, directory)
    assert {path.name for path in tmp_path.iterdir()} == {name}


REPLAY = """
import resource, sys
from pathlib import Path
from symnoise_ray.tracking.mlflow_runs import replay
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
replay(Path(sys.argv[1]), sys.argv[2], "tests")
"""


def replaying(directory: Path, uri: str, largest_file: int = 0) -> subprocess.Popen[str]:
    """A process that sends the journal; files of it grow up to so many bytes, 0 for no limit."""
    command = [sys.executable, "-c", REPLAY, str(directory), uri, str(largest_file)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_and_what_is_missing_comes_later(
    directory: Path, store: Callable[[str], str]
) -> None:
    uri = store("a")
    write(Journal(directory), started(), ended())
    full = Path(uri.removeprefix("sqlite:///")).stat().st_size
    process = replaying(directory, uri, largest_file=full // resource.getpagesize() * 4)
    _, told = process.communicate(timeout=1200)
    assert process.returncode == 1
    assert "not every event could be sent" in told.splitlines()[-1]
    replay(directory, uri, EXPERIMENT)
    check_whole(uri, directory)


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_sends_every_event_once(
    directory: Path, store: Callable[[str], str]
) -> None:
    """Each kill falls on another event, between what the tracker has and what is noted of it."""
    uri = store("a")
    write(Journal(directory), started(), ended())
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"))
    for query, number in (("runs", 1), ("metrics", 2), ("tags", 11)):
        process = replaying(directory, uri)
        deadline = time.monotonic() + 1200
        while connection.execute(f"SELECT count(*) FROM {query}").fetchone()[0] < number:
            assert time.monotonic() < deadline
            if process.poll() is not None:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    connection.close()
    replay(directory, uri, EXPERIMENT)
    check_whole(uri, directory)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert json.loads((directory / "journal.applied.json").read_text())["num_applied"] == 8
