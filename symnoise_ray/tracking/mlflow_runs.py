"""Runs in MLflow, through a journal on disk.

In: events (a run starts, metrics, a file, a run ends). Out: runs, each below the one that its
start names. Every event is appended to journal.jsonl first and applied by a thread beside the
sweep, so a slow or absent tracker never delays a trial; what could not be applied is applied later
by `replay`, each event once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from symnoise_ray.config.redaction import without_password, without_secrets
from symnoise_ray.errors import DataError, SymnoiseError, one_line
from symnoise_ray.records.files import read_json, read_lines, write_json
from symnoise_ray.records.layout import APPLIED, default_tracking_uri
from symnoise_ray.tracking import views
from symnoise_ray.tracking.answers import judged_answers
from symnoise_ray.tracking.database import artifact_location, make_database
from symnoise_ray.tracking.experiment import open_experiment
from symnoise_ray.tracking.journal import Journal, Unread
from symnoise_ray.tracking.names import DIGEST_TAG, KEY_TAG
from symnoise_ray.tracking.registry import register
from symnoise_ray.tracking.traces import write_traces

log = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
"""Between two tries to send what is new. A call costs MLflow as much time as a hundred values."""
CLOSE_SECONDS = 30.0
_MAX_PARAMS = 100  # per call, MLflow's limit
_MAX_METRICS = 1000
_MAX_VALUE = 6000  # characters of a parameter's value
_MAX_TAG = 8000  # of a tag's
_TABLES_TAG = "mlflow.loggedArtifacts"  # where MLflow's interface looks for tables


class Applier:
    """Applies the journal's events to MLflow, from where it last stopped."""

    def __init__(self, directory: Path, uri: str, experiment: str) -> None:
        self.directory = directory
        self.uri = uri
        self.experiment = experiment
        self.seconds: dict[str, float] = {}
        self._state_path = directory / APPLIED
        # By its place relative to the sweep where it is the default: a runs folder may be moved.
        own = uri == default_tracking_uri(directory)
        self._store = [None if own else without_password(uri), experiment]
        state = read_json(self._state_path) if self._state_path.exists() else {}
        if state.get("store", self._store) != self._store:
            state = {}  # another store has nothing of this sweep yet
        self.num_applied: int = state.get("num_applied", 0)
        """Events of the journal that the store has."""
        self._unread = Unread(directory, self.num_applied)
        self._waiting: deque[dict[str, Any]] = deque()
        self._runs: dict[str, str] = state.get("runs", {})
        self._tables: dict[str, list[dict[str, str]]] = {}
        self._client: Any = None
        self.experiment_id = ""
        """MLflow's id of the experiment; empty as long as nothing was sent there."""

    def apply_new(self) -> int:
        """Apply all events that are not applied yet; returns their number.

        Raises:
            mlflow.exceptions.MlflowException: the tracker refused or did not answer.
        """
        before = self.num_applied
        self._apply_waiting()  # what the last try left
        while events := self._unread.new():
            self._waiting.extend(events)
            self._apply_waiting()
        return self.num_applied - before

    def _apply_waiting(self) -> None:
        """Apply what was read of the journal, and note how far this came."""
        before = self.num_applied
        try:
            while self._waiting:
                self._apply(self._next())
        finally:
            if self.num_applied > before:
                state = {"store": self._store, "num_applied": self.num_applied, "runs": self._runs}
                write_json(state, self._state_path)

    def _next(self) -> list[dict[str, Any]]:
        """The next event; of metrics, all up to the next other event."""
        metrics = takewhile(lambda event: event["kind"] == "metrics", self._waiting)
        return list(metrics) or [self._waiting[0]]

    def _apply(self, events: Sequence[dict[str, Any]]) -> None:
        """Apply one event, or several of metrics, which take one call for each run."""
        by_run: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            by_run.setdefault(event["run"], []).append(event)
        for run, own in by_run.items():
            began = time.monotonic()
            if own[0]["kind"] == "metrics":
                self._metrics(run, own)
            else:
                getattr(self, f"_{own[0]['kind']}")(own[0])
            self.seconds[run] = self.seconds.get(run, 0.0) + time.monotonic() - began
        self.num_applied += len(events)
        for _ in events:
            self._waiting.popleft()

    def _connect(self) -> Any:
        if self._client is None:
            # A tracker that is down must fail in seconds: the journal keeps what it misses.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            # It would tell its makers which of its functions a sweep calls, and how often.
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            import mlflow  # over a second, paid beside the sweep's own start

            # What fails is told in one line, and not by a traceback across the live table.
            for name in ("mlflow", "alembic", "sqlalchemy"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            make_database(self.uri)
            client = mlflow.MlflowClient(self.uri)
            place = artifact_location(self.uri, self.directory)
            self.experiment_id = open_experiment(client, self.experiment, place)
            self._client = client
        return self._client

    def _find_run(self, client: Any, name: str, digest: str) -> str:
        """The run of a name, if there is one; empty without.

        One that is remembered may have been moved with its sweep, and then has the key of the
        earlier place. One that is not may exist: a crash may lie between making and remembering it.
        """
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # unknown to a store that was made anew
            known = self._runs.get(name)
            if known and client.get_run(known).info.lifecycle_stage == "active":
                return known
        found = client.search_runs(
            [self.experiment_id], filter_string=f"tags.`{DIGEST_TAG}` = '{digest}'", max_results=1
        )
        return str(found[0].info.run_id) if found else ""

    def _start(self, event: dict[str, Any]) -> None:
        client = self._connect()
        key = f"{self.directory.resolve()}#{event['run']}"
        # MLflow's filters have no way to write a quotation mark, which a path may hold.
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        tags = {"mlflow.runName": event["run"], **event["tags"], KEY_TAG: key, DIGEST_TAG: digest}
        if event["parent"]:
            tags["mlflow.parentRunId"] = self._runs[event["parent"]]
        run_id = self._find_run(client, event["run"], digest)
        if run_id:
            client.update_run(run_id, status="RUNNING")
        else:
            run = client.create_run(self.experiment_id, start_time=event["time_ms"], tags=tags)
            run_id = run.info.run_id
            self._tables[event["run"]] = []
        self._runs[event["run"]] = run_id
        self._log_params(run_id, event["params"])

    def _log_params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        entities = [Param(name, str(value)[:_MAX_VALUE]) for name, value in params.items()]
        for start in range(0, len(entities), _MAX_PARAMS):
            self._client.log_batch(run_id, params=entities[start : start + _MAX_PARAMS])

    def _metrics(self, run: str, events: Sequence[dict[str, Any]]) -> None:
        client = self._connect()
        from mlflow.entities import Metric

        entities = [
            Metric(name, float(value), event["time_ms"], record["step"])
            for event in events
            for record in event["records"]
            for name, value in record.items()
            if name != "step"
        ]
        for start in range(0, len(entities), _MAX_METRICS):
            client.log_batch(self._runs[run], metrics=entities[start : start + _MAX_METRICS])

    def _table(self, event: dict[str, Any]) -> None:
        """A JSON-lines file of the sweep as a table that the UI shows.

        MLflow's own `log_table` would append, where a replay must not, and takes twice the time.
        """
        rows = read_lines(self.directory / event["path"])
        if not rows:
            return
        client, run_id = self._connect(), self._runs[event["run"]]
        columns = list(rows[0])
        table = {"columns": columns, "data": [[row.get(name) for name in columns] for row in rows]}
        client.log_text(run_id, json.dumps(table), event["file"])
        known = self._tables.get(event["run"])
        if known is None:  # perhaps an earlier process has sent some; to ask takes most of the time
            known = json.loads(client.get_run(run_id).data.tags.get(_TABLES_TAG, "[]"))
        entry = {"path": event["file"], "type": "table"}
        if entry not in known:
            known = [*known, entry]
            client.set_tag(run_id, _TABLES_TAG, json.dumps(known))
        self._tables[event["run"]] = known

    def _file(self, event: dict[str, Any]) -> None:
        client = self._connect()
        client.log_artifact(self._runs[event["run"]], str(self.directory / event["path"]))

    def _inputs(self, event: dict[str, Any]) -> None:
        """Data sets that a run uses; MLflow keeps one of each name and digest."""
        client = self._connect()
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for each in event["data"]:
            values = dict(each)
            tag = InputTag("mlflow.data.context", values.pop("context"))
            inputs.append(DatasetInput(Dataset(**values), [tag]))
        client.log_inputs(self._runs[event["run"]], inputs)

    def _view(self, event: dict[str, Any]) -> None:
        client = self._connect()
        value = views.stored(event["name"], event["state"], event["time_ms"])
        client.set_experiment_tag(self.experiment_id, f"{views.TAG}{event['key']}", value)

    def _traces(self, event: dict[str, Any]) -> None:
        """Some of a trial's answers, of those that were judged."""
        self._connect()
        answers = judged_answers(self.directory / event["path"])[slice(*event["items"])]
        run_id = self._runs[event["run"]]
        write_traces(self.uri, self.experiment_id, run_id, answers, event["time_ms"])

    def _order(self, event: dict[str, Any]) -> None:
        """What a person ordered while the sweep ran."""
        run_id, said = self._runs[event["run"]], f"{event['said']} (by order of {event['by']})"
        self._connect().set_tag(run_id, f"symnoise.order.{event['time_ms']}", said[:_MAX_TAG])

    def _register(self, event: dict[str, Any]) -> None:
        """A trial's weights as a version of a registered model."""
        client = self._connect()
        key = f"{self.directory.resolve()}#{event['run']}"
        run_id = self._runs[event["run"]]
        register(client, self.experiment_id, run_id, key, self.directory, event)

    def _end(self, event: dict[str, Any]) -> None:
        client = self._connect()
        run_id = self._runs[event["run"]]
        for name, value in event["tags"].items():
            text = views.fill(value, self.experiment_id, self._runs)
            client.set_tag(run_id, name, text[:_MAX_TAG])
        client.set_terminated(run_id, status=event["status"], end_time=event["time_ms"])


class Tracker:
    """The journal and, beside the sweep, the thread that applies it."""

    def __init__(
        self, directory: Path, uri: str, experiment: str, tags: Mapping[str, str] | None = None
    ) -> None:
        self.journal = Journal(directory)
        self.tags = dict(tags or {})
        """Of every run."""
        self.applier = Applier(directory, uri, experiment)
        self.problem = ""
        self._wake = threading.Event()
        self._begun = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def log(self, kind: str, run: str, **values: Any) -> None:
        """Journal one event; returns at once.

        Metrics are sent together, a few seconds' worth at a time; all else is sent at once. MLflow
        is imported, and its tables are made, when a trial has taken its first step: until
        then the machine has better things to do.
        """
        self.journal.append(kind, run, **values)
        if kind != "metrics":
            self._wake.set()
        if kind in ("metrics", "end"):
            self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        while True:
            self._wake.wait(PAUSE_SECONDS)
            self._wake.clear()
            closing = self._closing
            try:
                self.applier.apply_new()
                self.problem = ""
            except Exception as error:
                # Whatever the tracker does, trials go on; the journal keeps the events.
                self.problem = without_secrets(one_line(error), self.applier.uri)
                log.debug("tracking failed: %s", self.problem)
            if closing:
                return

    def close(self, timeout: float = CLOSE_SECONDS, *, patient: bool = False) -> str:
        """Apply what is left; returns the problem if some events could not be applied.

        Args:
            timeout: Seconds to wait.
            patient: Wait so long again whenever some event was applied.
        """
        self._closing = True
        self._begun.set()
        self._wake.set()
        while True:
            before = self.applier.num_applied
            self._thread.join(timeout)
            if not patient or not self._thread.is_alive() or self.applier.num_applied == before:
                break
        if self._thread.is_alive():
            return self.problem or f"the tracker did not answer within {timeout:g} s"
        return self.problem


def replay(directory: Path, uri: str, experiment: str) -> int:
    """Apply the journal's remaining events to MLflow; returns their number.

    Raises:
        DataError: a file of the sweep is gone.
        SymnoiseError: the tracker refused or did not answer; what it has is noted.
    """
    try:
        return Applier(directory, uri, experiment).apply_new()
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename}: must be there to be sent to MLflow, but is gone; the command that "
            "ran the sweep with --resume makes it again, if it can"
        ) from None
    except Exception as error:
        # Not chained: the cause may name the address with its password.
        raise SymnoiseError(
            f"{without_password(uri)}: not every event could be sent: "
            f"{without_secrets(one_line(error), uri)}; the next try goes on from there"
        ) from None
