"""Verdicts on disk, so that no process asks again for one that was given to any of them.

In: keys made from all that a verdict depends on. Out: preferences, and what a sweep has spent.
The store is a folder of append-only files, one per process. No process writes into another's file,
so nothing is locked, and the store works on shared file systems, where SQLite's write-ahead log
does not. A killed process leaves at most one broken last line, which readers skip. Failed verdicts
are not stored; their cost is.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.errors import DataError
from symnoise_ray.judges.protocol import NOTHING, Judge, Pair, Usage, Verdict

SYNC_SECONDS = 0.2
"""A power cut may lose the verdicts of this time; a killed process loses no written one."""


class VerdictStore:
    """The stored verdicts of one folder, and what was spent under one scope (a sweep).

    Several threads may use it; several processes, on several machines, may use the folder.
    """

    def __init__(self, folder: Path, scope: str) -> None:
        self.folder, self.scope = folder, scope
        self._verdicts: dict[str, float] = {}
        self._spent = NOTHING
        self._read: dict[str, int] = {}
        self._own: int | None = None
        self._own_names: set[str] = set()
        self._synced = 0.0
        self._lock = threading.Lock()

    def get(self, key: str) -> float | None:
        """The preference that any process had stored by the last `refresh`; None without one."""
        return self._verdicts.get(key)

    def spent_elsewhere(self) -> Usage:
        """The cost of this scope's verdicts, failed ones too, without those of this store."""
        self.refresh()
        return self._spent

    def refresh(self) -> None:
        """Read what all processes have written since the last time.

        Raises:
            DataError: a complete line is not a record.
        """
        with self._lock:
            if not self.folder.is_dir():
                return
            for path in sorted(self.folder.glob("*.jsonl")):
                if path.is_file():
                    self._read_on(path)

    def _read_on(self, path: Path) -> None:
        start = self._read.get(path.name, 0)
        if path.stat().st_size <= start:
            return
        with path.open("rb") as file:
            file.seek(start)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.split(b"\n")[:-1]:
            try:
                self._take(json.loads(line), own=path.name in self._own_names)
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{path}: must hold one verdict a line, but a line after byte {start} is "
                    "not a verdict; remove the file, and its verdicts are asked for again"
                ) from None
        self._read[path.name] = start + len(whole)

    def _take(self, record: dict[str, Any], *, own: bool) -> None:
        preference = record["preference"]
        if preference is not None and not _is_preference(preference):
            raise ValueError(f"{preference!r} is not a preference")
        if record["scope"] == self.scope and not own:
            self._spent += Usage(*map(int, record["usage"]))
        if preference is not None:
            # Two processes may have asked for the same verdict; the first that is read counts.
            self._verdicts.setdefault(record["key"], float(preference))

    def put(self, key: str, verdict: Verdict) -> None:
        """Store a verdict, or of a failed one its cost."""
        usage = verdict.usage
        record = {
            "key": key if verdict.preference is not None else None,
            "preference": verdict.preference,
            "scope": self.scope,
            "usage": [usage.calls, usage.input_tokens, usage.output_tokens],
        }
        line = (json.dumps(record) + "\n").encode()
        with self._lock:
            if self._own is None:
                self._own = self._create()
            written = os.write(self._own, line)
            if written < len(line):
                # The broken line must stay the last one of its file: go on in another.
                os.close(self._own)
                self._own = None
                raise OSError(f"{self.folder}: only {written} of {len(line)} bytes were written")
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._own)
                self._synced = time.monotonic()

    def _create(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        host = socket.gethostname().split(".")[0]
        name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._own_names.add(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        return os.open(self.folder / name, flags, 0o644)

    def close(self) -> None:
        """Sync this process's file to the disk and close it."""
        with self._lock:
            if self._own is not None:
                os.fsync(self._own)
                os.close(self._own)
                self._own = None


def _is_preference(value: Any) -> bool:
    """Whether it is a number in [1, 2], which text and `true` are not."""
    return type(value) in (int, float) and 1 <= value <= 2


def key_of(identity: Mapping[str, Any], pair: Pair) -> str:
    """Hash of all that a verdict depends on: the judge's identity, the instruction, both answers in
    their order, and the earlier turns.

    The gold answer is left out, since no judge whose verdicts are stored reads it.
    """
    values: list[Any] = [identity, pair.instruction, pair.first, pair.second]
    if pair.first_turns or pair.second_turns:
        values += [pair.first_turns, pair.second_turns]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class CachedJudge:
    """A judge that asks another one only for verdicts that are not stored, and for each once.

    After a verdict that says `over`, it asks no more.
    """

    def __init__(self, inner: Judge, store: VerdictStore) -> None:
        self.inner, self.store = inner, store
        self.name = inner.name
        self._over: Verdict | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of the judge that is asked."""
        return self.inner.identity

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield stored verdicts at once, then the others; each is stored before it is yielded."""
        self.store.refresh()
        waiting: dict[str, list[int]] = {}
        for index, pair in enumerate(pairs):
            key = key_of(self.identity, pair)
            stored = self.store.get(key)
            if stored is None:
                waiting.setdefault(key, []).append(index)
            else:
                yield index, Verdict(stored, cached=True)
        keys = list(waiting)
        if self._over is not None:
            yield from ((index, self._over) for key in keys for index in waiting[key])
            return
        try:
            asked = self.inner.judge([pairs[waiting[key][0]] for key in keys]) if keys else ()
            for number, verdict in asked:
                self.store.put(keys[number], verdict)
                if verdict.over:
                    self._over = verdict._replace(usage=NOTHING)
                first, *repeated = waiting[keys[number]]
                yield first, verdict
                for index in repeated:
                    yield index, verdict._replace(usage=NOTHING, cached=True)
        finally:
            self.store.close()
