"""What a sweep finds damaged when it goes on: set aside, and made again from what is whole.

In: the directory of a sweep that was begun. Out: the same directory, in which every file can be
read, and a line for each that was set aside. A damaged file is kept under its name with `.damaged`
behind it. A trial that lost a file is trained again and gets the same numbers; the study and the
journal are built again from what is left.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from symnoise_ray.errors import reason_of
from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.files import (
    digest,
    read_json,
    read_lines,
    short_path,
    write_json,
    write_lines,
)
from symnoise_ray.records.layout import (
    APPLIED,
    CHECKPOINTS,
    COMPLETIONS,
    CONFIG,
    DIGESTS,
    JOURNAL,
    METRICS,
    OUTCOME,
    PREFERENCES,
    RESULT,
    RESULTS,
    STUDY,
    TRIALS,
    damaged_name,
    preferences_against,
    usage_against,
)
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.workers.outcome import Outcome

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, sqlite3.Error)
"""What a damaged file may raise in its reader."""


def mend(directory: Path) -> list[str]:
    """Set aside every damaged file of a sweep; a line for each, which says what follows from it."""
    told = []
    why = _damage(directory / STUDY, _read_study)
    if not (directory / STUDY).exists():
        _forget_running(directory)
    if why:
        _set_aside(directory / STUDY)
        _forget_running(directory)
        told.append(_line(directory / STUDY, why, "Optuna's study is built again from the trials"))
    why = _damage(directory / RESULTS, lambda path: _read_results(path, directory))
    if why:
        _set_aside(directory / RESULTS)
        told.append(_line(directory / RESULTS, why, "it is written again at the end"))
    told += _mend_journal(directory)
    for folder in sorted((directory / TRIALS).glob("*")):
        told += _mend_trial(folder)
    return told


def _line(path: Path, why: str, follows: str) -> str:
    return f"{short_path(path)} is damaged ({why}) and was set aside: {follows}"


def _damage(path: Path, read: Callable[[Path], Any]) -> str:
    """Why a file cannot be read; empty for one that can, and for one that is not there."""
    if not path.exists():
        return ""
    try:
        read(path)
    except _UNREADABLE as error:
        return reason_of(error)[:200]
    return ""


def _set_aside(path: Path) -> None:
    if path.exists():
        path.replace(path.with_name(damaged_name(path.name)))


def _read_study(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
    if found != "ok":
        raise ValueError(found)


def _read_results(path: Path, directory: Path) -> None:
    SweepResult.from_json(read_json(path), directory)


def _forget_running(directory: Path) -> None:
    """Remove what trials of the search without a result have done.

    Their points are lost with the study; with other points the same files would mean others.
    """
    for folder in (directory / TRIALS).glob("[0-9]*"):
        if not (folder / RESULT).exists():
            shutil.rmtree(folder)


# The journal of the tracker.


def _mend_journal(directory: Path) -> list[str]:
    told = []
    applied = _damage(directory / APPLIED, lambda path: read_json(path)["num_applied"])
    journal = _damage(directory / JOURNAL, lambda path: [*map(_event, _lines(path))])
    # All events are sent again, of which MLflow takes none twice.
    if applied:
        _set_aside(directory / APPLIED)
    elif journal and (directory / APPLIED).exists():
        write_json({**read_json(directory / APPLIED), "num_applied": 0}, directory / APPLIED)
    if journal:
        whole = [event for line in _lines(directory / JOURNAL) if (event := _event_or_none(line))]
        _set_aside(directory / JOURNAL)
        write_lines(whole, directory / JOURNAL)
        told.append(_line(directory / JOURNAL, journal, f"its {len(whole)} whole events are kept"))
    elif applied:
        told.append(_line(directory / APPLIED, applied, "MLflow is compared with the journal"))
    return told


def _lines(path: Path) -> list[bytes]:
    """Lines that were written to their end; that of a writer that was killed is no damage."""
    return [line for line in path.read_bytes().split(b"\n")[:-1] if line]


def _event(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(line)
    if not all(isinstance(event[name], str) for name in ("kind", "run")):
        raise ValueError("an event must name its kind and its run")
    return event


def _event_or_none(line: bytes) -> dict[str, Any] | None:
    try:
        return _event(line)
    except _UNREADABLE:
        return None


# The files of a trial.


def _read_result(path: Path) -> None:
    result = TrialResult.from_json(read_json(path))
    if result.trial != path.parent.name:
        raise ValueError(f"it must be the result of {path.parent.name}")


_READERS: dict[str, Callable[[Path], Any]] = {
    CONFIG: read_json,
    METRICS: lambda path: [row["step"] for row in read_lines(path)],
    COMPLETIONS: read_completions,
    OUTCOME: lambda path: Outcome.from_json(read_json(path)),
    PREFERENCES: read_annotations,
    RESULT: _read_result,
}
"""File of a trial -> what must be able to read it."""


def _mend_trial(folder: Path) -> list[str]:
    found = _damages(folder)
    if found:
        for name in {*found, OUTCOME, RESULT}:
            _set_aside(folder / name)
        if METRICS in found:  # the steps before a checkpoint would be missing
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    follows = f"{folder.name} is run again"
    told = [_line(folder / name, why, follows) for name, why in found.items()]
    for path in sorted(folder.glob(preferences_against("*"))):
        why = _damage(path, read_annotations)
        if why:
            _set_aside(path)
            told.append(_line(path, why, "these answers are judged again"))
    for path in sorted(folder.glob(usage_against("*"))):
        why = _damage(path, lambda file: read_json(file).items())
        if why:
            _set_aside(path)
            told.append(_line(path, why, "what this judging cost is not counted"))
    return told


def _damages(folder: Path) -> dict[str, str]:
    """The damaged files of a trial, with the reason."""
    found = {name: _damage(folder / name, read) for name, read in _READERS.items()}
    found[DIGESTS] = _damage(folder / DIGESTS, read_json)
    if (folder / RESULT).exists() and not any(found.values()) and (folder / DIGESTS).exists():
        for name, written in read_json(folder / DIGESTS).items():
            path = folder / name
            if not path.exists():
                found[name] = "it is gone"
            elif digest(path) != written:
                found[name] = "it is not as it was written"
    return {name: why for name, why in found.items() if why}
