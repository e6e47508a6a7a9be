"""Which MLflow a sweep logs to, and what its address looks like to people.

In: the space's own keys, MLflow's environment variables, and what an earlier part wrote down. Out:
a `Store`. The process uses the whole address; files and screens get it without a password.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from symnoise_ray.config import TrackingConfig
from symnoise_ray.config.redaction import hides_password, without_password, without_secrets
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.records.files import short_path
from symnoise_ray.records.layout import default_tracking_uri

URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
"""Environment variables that MLflow's users know."""
LOCAL = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers."""
DEFAULT_EXPERIMENT = "symnoise_ray"
DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
"""Begin the addresses of databases that MLflow writes into without a server of its own."""


@dataclass(frozen=True)
class Store:
    """A tracking URI, perhaps with a password, and the name of an experiment."""

    uri: str
    experiment: str

    @property
    def shown(self) -> str:
        """The address without a password."""
        return without_password(self.uri)


def choose_store(tracking: TrackingConfig, directory: Path, environ: Mapping[str, str]) -> Store:
    """The store of a sweep: its own keys go first, then the environment, then the default."""
    return Store(
        tracking.uri or environ.get(URI) or default_tracking_uri(directory),
        tracking.experiment or environ.get(EXPERIMENT) or DEFAULT_EXPERIMENT,
    )


def require_driver(store: Store) -> None:
    """Refuse a database server that nothing here can talk to; it need not answer yet.

    Raises:
        UserError: its driver is not installed, or the address has not the form of one.
    """
    if not store.uri.startswith(DATABASE_SERVERS):
        return
    import sqlalchemy

    try:
        sqlalchemy.make_url(store.uri).get_dialect().import_dbapi()
    except (ImportError, ValueError, sqlalchemy.exc.ArgumentError) as error:
        # Of the address the scheme alone: where it has not the form of one, nobody can tell what
        # of it is the password.
        raise UserError(
            f"tracking.uri {store.uri.partition(':')[0]}:...: must be the address of a database "
            f"whose driver is installed, but {without_secrets(one_line(error), store.uri)}; for "
            "PostgreSQL run pip install 'psycopg[binary]', or name an MLflow server, "
            "http://HOST:5000"
        ) from None


def written_down(tracking: TrackingConfig, store: Store, directory: Path) -> TrackingConfig:
    """The store as the files of a sweep name it.

    The default is left open, since a runs folder may be moved with all that is in it.
    """
    own = store.uri == default_tracking_uri(directory)
    named = {"uri": None if own else store.shown, "experiment": store.experiment}
    return tracking.model_copy(update=named)


def opening(store: Store, page: str) -> list[str]:
    """What a person types or opens to see the runs; `page` comes after a server's address.

    One worker is enough for one reader, and comes up on a busy machine. The interface runs without
    the jobs that MLflow starts beside it.
    """
    if store.uri.startswith(("http://", "https://")):
        return [f"runs:    {store.shown.rstrip('/')}/{page}"]
    python = shlex.quote(short_path(Path(sys.executable)))
    command = (
        f"runs:    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {python} -m mlflow ui --workers 1 "
        f"--backend-store-uri {shlex.quote(store.shown)}"
    )
    return [command, f"         then open {LOCAL}/{page}"] if page else [command]


def store_again(
    shown: str, experiment: str, given: str | None, environ: Mapping[str, str]
) -> Store:
    """The store of a sweep that was logged before.

    Args:
        shown: Its address, as the sweep's files have it.
        experiment: Its experiment.
        given: Another address, which goes first.
        environ: Where the address is with its password, if it has one.

    Raises:
        UserError: the password is nowhere.
    """
    if given or not hides_password(shown):
        return Store(given or shown, experiment)
    whole = environ.get(URI, "")
    if without_password(whole) != shown:
        raise UserError(
            f"{URI} must hold the address with its password, which no file keeps; the sweep was "
            f"logged to {shown}, but the variable is {without_password(whole) or 'not set'}; set "
            "it, or name another address with --uri"
        )
    return Store(whole, experiment)
