"""Token rows as flat arrays: in memory, or on disk where every worker maps the same copy.

In: token rows, or a folder and a description of what the tokens are made from. Out: a `TokenTable`.
On disk a table's folder has the hash of that description as its name. It is written under another
name and then renamed, so it is complete or absent, however many processes write it; the process
that comes second deletes its own. Training on other tokens would pass unnoticed, so the folder
holds the digest of every array, and a table that has changed on disk is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symnoise_ray.data.tokens import IGNORE_INDEX, TokenRow, TokenRows
from symnoise_ray.errors import DataError, InfrastructureError
from symnoise_ray.records.files import digest, read_sealed, write_sealed

log = logging.getLogger(__name__)

_ARRAYS = ("input_ids", "labels", "starts")
_FORMAT = 2
"""Raised by one whenever the files of a table change their meaning."""
_ATTEMPTS = 3
"""Other processes may set the same damaged table aside at the same time."""


@dataclass(frozen=True)
class TokenTable:
    """All rows, one behind the other. Shapes: input_ids, labels (T,), int32; starts (rows + 1,),
    int64."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: Counter[str] = field(default_factory=Counter)
    template: str = ""

    @classmethod
    def of(cls, tokens: TokenRows, template: str = "") -> TokenTable:
        """A table with the given rows."""
        lengths = [len(row.input_ids) for row in tokens.rows]
        ids, labels = (
            np.fromiter((token for row in tokens.rows for token in row[part]), np.int32)
            for part in (0, 1)
        )
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        labels[starts[:-1]] = IGNORE_INDEX  # a first token follows nothing
        return cls(ids, labels, starts, tokens.counts, template)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> TokenRow:
        """One row, as views of the arrays."""
        place = slice(self.starts[number], self.starts[number + 1])
        return TokenRow(self.input_ids[place], self.labels[place])  # type: ignore[arg-type]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of every row."""
        return [int(length) for length in np.diff(self.starts)]

    @cached_property
    def num_answer_tokens(self) -> list[int]:
        """Tokens of every row that the loss is summed over."""
        trained = (self.labels != IGNORE_INDEX).astype(np.int64)
        return [int(count) for count in np.add.reduceat(trained, self.starts[:-1])]


def cached(folder: Path, origin: dict[str, Any], make: Callable[[], TokenTable]) -> TokenTable:
    """The table that `origin` describes, made at most once per folder of caches.

    Args:
        folder: Folder of all caches, on storage that the workers share.
        origin: Everything that the tokens depend on, as JSON values.
        make: Makes the table; it is called only if the cache does not hold it whole.

    Raises:
        InfrastructureError: the storage gives back other bytes than were written.
    """
    text = json.dumps({"format": _FORMAT, **origin}, sort_keys=True)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
    for _ in range(_ATTEMPTS):
        if not place.is_dir():
            _write(make(), place, origin)
        try:
            return _read(place)
        except DataError as error:
            log.warning("%s; the table is made again", error.message)
            _remove(place)
    raise InfrastructureError(
        f"{place}: a table of tokens must be as it was written, but was damaged {_ATTEMPTS} times; "
        "look at the storage"
    )


def _write(table: TokenTable, place: Path, origin: dict[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name[:8]}-", dir=place.parent))
    for name in _ARRAYS:
        np.save(partial / f"{name}.npy", getattr(table, name))
    about = {
        "template": table.template,
        "counts": dict(table.counts),
        "origin": origin,
        "digests": {name: digest(partial / f"{name}.npy") for name in _ARRAYS},
    }
    write_sealed(about, partial / "about.json")
    partial.chmod(0o755)
    try:
        partial.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(partial)  # another process was first, and its rows are the same


def _read(place: Path) -> TokenTable:
    """Map a table.

    Raises:
        DataError: it is not as it was written.
    """
    about = read_sealed(place / "about.json")
    for name, written in about["digests"].items():
        file = place / f"{name}.npy"
        if not file.exists() or digest(file) != written:
            raise DataError(f"{file}: must be as it was written, but has changed since")
    arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return TokenTable(**arrays, counts=Counter(about["counts"]), template=about["template"])


def _remove(place: Path) -> None:
    """Take a damaged table away, at once for all who look; arrays that are mapped stay mapped."""
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name[:8]}-damaged-", dir=place.parent))
    with suppress(FileNotFoundError):  # another process was first
        place.rename(aside / place.name)
    shutil.rmtree(aside)
