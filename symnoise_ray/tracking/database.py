"""MLflow's own database, where a sweep writes into it without a server between.

In: the address of a store. Out: an SQLite file that MLflow can use, and where files of runs go.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from symnoise_ray.records.sqlite import sqlite_path, sqlite_uri
from symnoise_ray.tracking.store import DATABASE_SERVERS


def make_database(uri: str) -> None:
    """Make the SQLite file of a store, whole or not at all; other stores are left to MLflow.

    MLflow makes its tables in many steps; a process that is killed among them, or two that make
    them at once, leave a database that it can neither use nor mend.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        mlflow.MlflowClient(sqlite_uri(partial)).get_experiment_by_name("Default")
        _put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _put_in_place(partial: Path, path: Path) -> None:
    """Give a whole database its name, unless another process was first."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:
        # Storage without hard links. Two processes could pass this question at once, but only
        # within the same microseconds.
        if not path.exists():
            partial.replace(path)


def artifact_location(uri: str, sweep: Path) -> str | None:
    """Where the files of runs go, as an address; None for a server, which knows its own place.

    They lie beside an SQLite file. Another database holds no files: they lie beside the sweep, and
    not in whatever folder it was started from, which is MLflow's choice.
    """
    path = sqlite_path(uri)
    if path is None and not uri.startswith(("sqlite", *DATABASE_SERVERS)):
        return None
    return ((path or sweep).resolve().parent / "mlartifacts").as_uri()
