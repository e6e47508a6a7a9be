"""Files of text, JSON and JSON lines, each written whole or not at all.

In: values and a path. Out: the file, or the values of one that is there, or one line that says what
is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from symnoise_ray.errors import DataError, UserError

_OPTIONAL = ("turns", "num_items", "earlier_requests")
_LONGEST_NAME = 80


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file that is either whole or not there."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_lines(records: Iterable[Any], path: Path) -> None:
    """Write named tuples or dictionaries, one JSON object a line, whole or not at all."""
    rows = [record if isinstance(record, dict) else record._asdict() for record in records]
    # Without what no row has, the file is in AlpacaEval's shape to the letter.
    unused = {name for name in _OPTIONAL if not any(row.get(name) for row in rows)}
    rows = [{name: row[name] for name in row if name not in unused} for row in rows]
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def write_text(text: str, path: Path) -> None:
    """Write a text file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A lone surrogate has no UTF-8 form; written as its escape it is still valid JSON.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def file_name(text: str) -> str:
    """A name from elsewhere, such as a model's, as a file or folder may be called."""
    return re.sub(r"[^\w.-]", "_", text)[:_LONGEST_NAME].strip(".") or "_"


def short_path(path: Path) -> str:
    """A path as a person would type it from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def require_writable(path: Path, what: str) -> None:
    """Refuse a file that could not be written once the work is done; its folder is made.

    Raises:
        UserError: it is a folder, or nothing can be written beside it; `what` names it.
    """
    try:
        _try_folder(path.parent)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise UserError(f"{what} {path}: must be a file that can be written, but {error}") from None


def require_folder(path: Path, what: str) -> None:
    """Refuse a folder that could not be written into; it is made.

    Raises:
        UserError: it is a file, or nothing can be written into it; `what` names it.
    """
    try:
        _try_folder(path)
    except OSError as error:
        raise UserError(
            f"{what} {path}: must be a folder that can be written into, but {error}"
        ) from None


def _try_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: must be a readable JSON file, but {error}") from None


_SEAL = "seal"


def write_sealed(value: dict[str, Any], path: Path) -> None:
    """Write a JSON object with a digest of its own content, for `read_sealed`."""
    plain = json.loads(json.dumps(value))  # as it is read: every key is a text
    write_json({**plain, _SEAL: _seal_of(plain)}, path)


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        DataError: the file is missing, or its content is not what was written.
    """
    value = read_json(path)
    seal = value.pop(_SEAL, None) if isinstance(value, dict) else None
    if seal is None or seal != _seal_of(value):
        raise DataError(f"{path}: must be as it was written, but has changed since")
    return dict(value)


def _seal_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line without its end (a writer was killed) is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def read_rows(path: Path, what: str) -> list[Any]:
    """Read one JSON list, or one JSON value a line; `what` names them in errors.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            rows: list[Any] = json.loads(text)
            return rows
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: must be readable {what}, but {error}") from None


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


def contents(names: Iterable[str], *, weights: bool = False) -> dict[str, str]:
    """Hashes of what the names stand for on disk, so that an edited file is another origin.

    Args:
        names: Files, folders (all files in them but weights), and names that are neither, which
            are left out.
        weights: The weights alone, which may take a second per gigabyte.
    """
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        path = Path(name)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and (file.suffix in _WEIGHTS) == weights:
                found[str(file)] = digest(file)
    return found
