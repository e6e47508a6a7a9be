"""One data file to raw records: JSON, JSONL, CSV, TSV or Parquet, plain or compressed.

In: the path of a file. Out: the place and the raw record of every row. JSON, Parquet and
compression are known by their content, CSV and TSV by the name of the file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from symnoise_ray.data.formats import RowError
from symnoise_ray.errors import DataError, one_line

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Endings of the files that are read in a folder; compressed files have another one behind."""
PACKED_SUFFIXES = (".gz", ".bz2", ".lz4", ".zst")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CODECS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of a compressed file -> pyarrow's name of the method."""
_TOO_DEEP = "it is nested too deeply to be read"
_ARCHIVES = {b"PK\x03\x04": "a zip archive", b"\xfd7zXZ\x00": "an xz file"}


def is_data_file(path: Path) -> bool:
    """Whether a name ends as those of the files that are read in a folder."""
    return _suffix(path) in SUFFIXES


def file_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and raw record of every row; a line that is no record gives a `RowError` in its place.

    Raises:
        DataError: the file cannot be read, or is none of the known kinds.
    """
    with _opening(path), path.open("rb") as file:
        begin = file.read(6)
    for mark, kind in _ARCHIVES.items():
        if begin.startswith(mark):
            raise DataError(f"{path}: must be a data file, but is {kind}; unpack it first")
    if begin.startswith(b"PAR1"):
        return _parquet_records(path)
    text = _text(path, begin)
    delimiter = _DELIMITERS.get(_suffix(path))
    return _json_records(text, path) if delimiter is None else _cells(text, path, delimiter)


def _suffix(path: Path) -> str:
    """The ending that says what the file holds, before that of a compression."""
    name = path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path
    return name.suffix.lower()


def _text(path: Path, begin: bytes) -> str:
    """The file as text, unpacked if its first bytes are those of a compressed file."""
    codec = next((codec for mark, codec in _CODECS.items() if begin.startswith(mark)), None)
    with _opening(path):
        content = path.read_bytes() if codec is None else _unpacked(path, codec)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be readable UTF-8 text, but {error}") from None


def _unpacked(path: Path, codec: str) -> bytes:
    import pyarrow  # type: ignore[import-untyped]  # slow; for such files only

    with pyarrow.input_stream(str(path), compression=codec) as stream:
        content: bytes = stream.read()
    return content


def _json_records(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Records of a JSON list, or of one JSON object per line."""
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text, parse_int=_number)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: must be valid JSON, but {error.msg}") from None
        except RecursionError:
            raise DataError(f"{path}: must be a list of rows, but {_TOO_DEEP}") from None
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    _refuse_single_object(text, path)
    # JSON may hold other line separators of Unicode inside a text, so that only \n ends a row.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line, parse_int=_number)
    except json.JSONDecodeError as error:
        return RowError("a line must be one JSON object", f"{error.msg} at column {error.colno}")
    except RecursionError:
        return RowError("a line must be one JSON object", _TOO_DEEP)


def _number(digits: str) -> int | Decimal:
    """A whole number; Python makes no int of thousands of digits, and no field takes such one."""
    try:
        return int(digits)
    except ValueError:
        return Decimal(digits)


def _refuse_single_object(text: str, path: Path) -> None:
    """Refuse one object over several lines: it is no list of rows, and its lines are no objects."""
    first = text.lstrip().partition("\n")[0]
    if not first.startswith("{") or not isinstance(_parsed(first), RowError):
        return
    if not isinstance(_parsed(text), RowError):
        raise DataError(
            f"{path}: must hold a list of rows or one object a line, but got a single object over "
            "several lines; put it into brackets [ ]"
        )


def _cells(text: str, path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    """Records of a table whose first line names the columns; every cell is text.

    A record's place is the line where it begins, since quoted cells may hold line breaks.
    """
    # By itself the library takes no cell of more than 128 KiB, and an answer may be longer.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = next(reader, [])
        if len(set(columns)) < len(columns):
            raise DataError(f"{path}:1: the columns must have different names, but are {columns}")
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield f"{path}:{line}", _row(columns, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: must be a valid table, but {error}") from None


def _row(columns: list[str], cells: list[str]) -> Any:
    if len(cells) != len(columns):
        rule = "a row must have one cell for each column of the first line"
        return RowError(rule, f"it has {len(cells)} for {len(columns)}")
    return dict(zip(columns, cells, strict=True))


def _parquet_records(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet  # type: ignore[import-untyped]  # slow; for such files only

    number = 0
    with _opening(path), pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Turn an error of the system, of Parquet or of a compression into one line with the file."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: must be a readable file, but {one_line(error)}") from None
