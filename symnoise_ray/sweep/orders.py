"""Orders to a sweep that runs, and its answers: files in its own directory.

In: what a person wants done. Out: what the sweep says to it. Files work over shared storage and
need no port and no password: whoever may write into the directory may give orders. An order counts
once the sweep has answered it; one that was not answered is taken back.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from symnoise_ray.errors import DataError, InfrastructureError, UserError
from symnoise_ray.records.files import read_json, short_path, write_json
from symnoise_ray.records.layout import ORDERS, OWNER, RESULTS, SWEEP
from symnoise_ray.sweep.lease import has_owner

POLL_SECONDS = 0.05
OWNER_SECONDS = 2.0
"""How often whoever waits for an answer looks whether the sweep still runs."""
PATIENCE_SECONDS = 120.0
_ORDER, _ANSWER = ".order", ".answer"


@dataclass(frozen=True)
class Order:
    """One order; `by` is the owner of its file."""

    id: str
    verb: str
    values: Mapping[str, Any]
    by: str


class Desk:
    """Where a sweep takes orders; a context manager, since it is open only while the sweep runs."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / ORDERS

    def __enter__(self) -> Self:
        # Whoever gave an order to an earlier part of the sweep was told that it did not count.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def pending(self) -> Iterator[Order]:
        """Orders without an answer, in the order of their time; one that cannot be read goes."""
        for path in sorted(self.folder.glob(f"*{_ORDER}")):
            try:
                row = read_json(path)
                yield Order(path.stem, str(row["verb"]), dict(row["values"]), _owner(path))
            except (DataError, LookupError, TypeError, ValueError, FileNotFoundError):
                path.unlink(missing_ok=True)

    def answer(self, order: Order, said: str, *, refused: bool = False, **values: Any) -> None:
        """Answer an order, for good."""
        with suppress(FileNotFoundError):  # the sweep's directory was removed meanwhile
            write_json({"said": said, "refused": refused, **values}, self._path(order, _ANSWER))
            self._path(order, _ORDER).unlink(missing_ok=True)

    def _path(self, order: Order, kind: str) -> Path:
        return self.folder / f"{order.id}{kind}"


def _owner(path: Path) -> str:
    """Who wrote a file, as the file system knows it."""
    try:
        return path.owner()
    except KeyError:  # a user without a name, as in some containers
        return f"user {path.stat().st_uid}"


def give(directory: Path, verb: str, **values: Any) -> dict[str, Any]:
    """Give an order to the sweep that runs in a directory, and wait for its answer.

    Returns:
        The answer: `said`, and what else the order asked for.

    Raises:
        UserError: no sweep runs there, or it refused the order.
        InfrastructureError: it did not answer.
    """
    require_running(directory)
    folder, name = directory / ORDERS, f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    order, answer = folder / f"{name}{_ORDER}", folder / f"{name}{_ANSWER}"
    partial = folder / f".{name}"
    try:
        partial.write_text(json.dumps({"verb": verb, "values": values}), encoding="utf-8")
        # The sweep may be another user's, and must read it whatever the umask is here.
        partial.chmod(0o644)
        partial.replace(order)
        _wait(directory, order, answer)
        found: dict[str, Any] = read_json(answer)
    except FileNotFoundError:
        raise UserError(_not_now(directory)) from None
    except PermissionError:
        raise UserError(_not_yours(directory)) from None
    finally:
        for path in (partial, order, answer):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    if found["refused"]:
        raise UserError(found["said"])
    return found


def _wait(directory: Path, order: Path, answer: Path) -> None:
    began = looked = time.monotonic()
    while not answer.exists():
        if not order.exists() and not answer.exists():
            raise UserError(
                f"{short_path(directory)}: must run until it answers, but its sweep was started "
                "anew meanwhile; give the order again"
            )
        now = time.monotonic()
        if now - began > PATIENCE_SECONDS:
            raise InfrastructureError(
                f"{short_path(directory)}: the sweep must answer within {PATIENCE_SECONDS:.0f} s, "
                "but did not; the order was taken back"
            )
        if now - looked > OWNER_SECONDS:
            require_running(directory)
            looked = now
        time.sleep(POLL_SECONDS)


def require_running(directory: Path) -> None:
    """Refuse a directory in which no sweep runs that takes orders.

    Raises:
        UserError: there is none; the message says what is there.
    """
    where = short_path(directory)
    if not any((directory / name).is_file() for name in (SWEEP, OWNER)):
        raise UserError(f"{where}: must be the directory of a sweep that runs, but has no {SWEEP}")
    if not os.access(directory, os.W_OK):
        raise UserError(_not_yours(directory))
    if not has_owner(directory):
        raise UserError(f"{where}: must be a sweep that runs, but {_state(directory)}")
    if not (directory / ORDERS).is_dir():
        raise UserError(_not_now(directory))


def _not_now(directory: Path) -> str:
    return (
        f"{short_path(directory)}: must be a sweep that takes orders, but this one is starting or "
        "ending; try again in a moment"
    )


def _not_yours(directory: Path) -> str:
    return (
        f"{short_path(directory)}: you must be allowed to write into it, since that is what allows "
        "orders, but you are not"
    )


def _state(directory: Path) -> str:
    """Why no sweep runs in its directory."""
    try:
        status = read_json(directory / RESULTS)["status"]
    except (DataError, LookupError, TypeError):
        status = ""
    if status in ("whole", "partial", "failed"):
        return "it has come to its end; `symnoise-ray verdict` says what it found"
    return "this one was interrupted; the command that began it goes on with --resume"
