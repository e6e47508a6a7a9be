"""Token rows as flat arrays: in memory, or on disk where every worker maps the same copy.

In: token rows, or a folder and a description of what the tokens are made from. Out: a `TokenTable`.
On disk a table's folder has the hash of that description as its name. It is written under another
name and then renamed, so it is complete or absent, however many processes write it; the process
that comes second deletes its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symnoise_ray.data.tokens import IGNORE_INDEX, TokenRow, TokenRows
from symnoise_ray.records.files import read_json, write_json

_ARRAYS = ("input_ids", "labels", "starts")
_FORMAT = 1
"""Raised by one whenever the arrays on disk change their meaning."""


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
        make: Makes the table; it is called only if the cache does not hold it.
    """
    text = json.dumps({"format": _FORMAT, **origin}, sort_keys=True)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
    if not place.is_dir():
        _write(make(), place, origin)
    return _read(place)


def _write(table: TokenTable, place: Path, origin: dict[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name[:8]}-", dir=place.parent))
    for name in _ARRAYS:
        np.save(partial / f"{name}.npy", getattr(table, name))
    about = {"template": table.template, "counts": dict(table.counts), "origin": origin}
    write_json(about, partial / "about.json")
    partial.chmod(0o755)
    try:
        partial.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(partial)  # another process was first, and its rows are the same


def _read(place: Path) -> TokenTable:
    about = read_json(place / "about.json")
    arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return TokenTable(**arrays, counts=Counter(about["counts"]), template=about["template"])
