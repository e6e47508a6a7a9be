"""Runs in MLflow, through a journal on disk: the only importer of mlflow.

In: events (a run starts, metrics, a file, a run ends). Out: a sweep as a parent run with its
trials as children. Every event is appended to journal.jsonl first and applied by a thread
beside the sweep, so a slow or absent tracker never delays a trial; what could not be applied is
applied later by `replay`, each event once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from symnoise_ray.errors import one_line
from symnoise_ray.records.files import read_lines, write_json
from symnoise_ray.records.layout import APPLIED, JOURNAL
from symnoise_ray.tracking.journal import Journal

log = logging.getLogger(__name__)

KEY_TAG = "symnoise.key"
RETRY_SECONDS = 2.0
CLOSE_SECONDS = 30.0
_SQLITE = "sqlite:///"
_MAX_PARAMS = 100  # per call, MLflow's limit
_MAX_METRICS = 1000
_MAX_VALUE = 6000  # characters of a parameter's value


def _make_database(path: Path) -> None:
    """Make MLflow's database, whole or not at all.

    MLflow makes its tables in many steps; a process that is killed among them, or two that make
    them at once, leave a database that it can neither use nor mend.
    """
    if path.exists():
        return
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        mlflow.MlflowClient(f"{_SQLITE}{partial}").get_experiment_by_name("Default")
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Applier:
    """Applies the journal's events to MLflow, from where it last stopped."""

    def __init__(self, directory: Path, uri: str, experiment: str) -> None:
        self.directory = directory
        self.uri = uri
        self.experiment = experiment
        self.seconds: dict[str, float] = {}
        self._state_path = directory / APPLIED
        state = json.loads(self._state_path.read_text()) if self._state_path.exists() else {}
        self._num_applied: int = state.get("num_applied", 0)
        self._runs: dict[str, str] = state.get("runs", {})
        self._client: Any = None
        self._experiment_id = ""

    def apply_new(self) -> int:
        """Apply all events that are not applied yet; returns their number.

        Raises:
            mlflow.exceptions.MlflowException: the tracker refused or did not answer.
        """
        events = read_lines(self.directory / JOURNAL)[self._num_applied :]
        for event in events:
            began = time.monotonic()
            getattr(self, f"_{event['kind']}")(event)
            self._num_applied += 1
            run = event["run"]
            self.seconds[run] = self.seconds.get(run, 0.0) + time.monotonic() - began
        if events:
            write_json({"num_applied": self._num_applied, "runs": self._runs}, self._state_path)
        return len(events)

    def _connect(self) -> Any:
        if self._client is None:
            # A tracker that is down must fail in seconds: the journal keeps what it misses.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            import mlflow  # over a second, paid beside the sweep's own start

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)
            if self.uri.startswith(_SQLITE) and "?" not in self.uri:
                _make_database(Path(self.uri.removeprefix(_SQLITE)))
            client = mlflow.MlflowClient(self.uri)
            self._experiment_id = self._find_experiment(client)
            self._client = client
        return self._client

    def _find_experiment(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            place = self._artifact_location()
            try:
                made: str = client.create_experiment(self.experiment, artifact_location=place)
                return made
            except MlflowException:  # perhaps another sweep has made it just now
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        """Files beside a local database; a server knows its own place."""
        if not self.uri.startswith(_SQLITE):
            return None
        return (Path(self.uri.removeprefix(_SQLITE)).resolve().parent / "mlartifacts").as_uri()

    def _start(self, event: dict[str, Any]) -> None:
        client = self._connect()
        key = f"{self.directory.resolve()}#{event['run']}"
        tags = {**event["tags"], KEY_TAG: key, "mlflow.runName": event["run"]}
        if event["parent"]:
            tags["mlflow.parentRunId"] = self._runs[event["parent"]]
        # A crash may lie between creating the run and remembering it: look before creating.
        found = client.search_runs(
            [self._experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1
        )
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            run = client.create_run(self._experiment_id, start_time=event["time_ms"], tags=tags)
            run_id = run.info.run_id
        self._runs[event["run"]] = run_id
        self._log_params(run_id, event["params"])

    def _log_params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        entities = [Param(name, str(value)[:_MAX_VALUE]) for name, value in params.items()]
        for start in range(0, len(entities), _MAX_PARAMS):
            self._client.log_batch(run_id, params=entities[start : start + _MAX_PARAMS])

    def _metrics(self, event: dict[str, Any]) -> None:
        client = self._connect()
        from mlflow.entities import Metric

        entities = [
            Metric(name, float(value), event["time_ms"], record["step"])
            for record in event["records"]
            for name, value in record.items()
            if name != "step"
        ]
        for start in range(0, len(entities), _MAX_METRICS):
            batch = entities[start : start + _MAX_METRICS]
            client.log_batch(self._runs[event["run"]], metrics=batch)

    def _table(self, event: dict[str, Any]) -> None:
        """A JSON-lines file of the sweep as a table that the UI shows."""
        rows = read_lines(self.directory / event["path"])
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
        run_id, file = self._runs[event["run"]], event["file"]
        client = self._connect()
        present = {artifact.path for artifact in client.list_artifacts(run_id)}
        if columns and file not in present:  # log_table appends, and a replay must not
            client.log_table(run_id, columns, artifact_file=file)

    def _file(self, event: dict[str, Any]) -> None:
        client = self._connect()
        client.log_artifact(self._runs[event["run"]], str(self.directory / event["path"]))

    def _end(self, event: dict[str, Any]) -> None:
        client = self._connect()
        run_id = self._runs[event["run"]]
        for name, value in event["tags"].items():
            client.set_tag(run_id, name, value)
        client.set_terminated(run_id, status=event["status"], end_time=event["time_ms"])


class Tracker:
    """The journal and, beside the sweep, the thread that applies it."""

    def __init__(self, directory: Path, uri: str, experiment: str) -> None:
        self.journal = Journal(directory)
        self.applier = Applier(directory, uri, experiment)
        self.problem = ""
        self._wake = threading.Event()
        self._begun = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def log(self, kind: str, run: str, **values: Any) -> None:
        """Journal one event; returns at once.

        MLflow is imported, and its tables are made, when a trial has taken its first step: until
        then the machine has better things to do.
        """
        self.journal.append(kind, run, **values)
        self._wake.set()
        if kind != "start":
            self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        while True:
            self._wake.wait(RETRY_SECONDS)
            self._wake.clear()
            closing = self._closing
            try:
                self.applier.apply_new()
                self.problem = ""
            except Exception as error:
                # Whatever the tracker does, trials go on; the journal keeps the events.
                self.problem = one_line(error)
                log.debug("tracking failed", exc_info=True)
            if closing:
                return

    def close(self, timeout: float = CLOSE_SECONDS) -> str:
        """Apply what is left; returns the problem if some events could not be applied."""
        self._closing = True
        self._begun.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            return self.problem or f"the tracker did not answer within {timeout:g} s"
        return self.problem


def replay(directory: Path, uri: str, experiment: str) -> int:
    """Apply the journal's remaining events to MLflow; returns their number."""
    return Applier(directory, uri, experiment).apply_new()
