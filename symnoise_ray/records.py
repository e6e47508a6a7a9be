"""What the stages hand to each other, and the files they lie in.

`Completion`s are in AlpacaEval's shape with the gold answer beside it; `Preference`s are in its
annotation shape, one line per item and order. All are JSON lines, written whole or not at all.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from symnoise_ray.errors import DataError, UserError

PHASES = ("start", "load", "train", "generate", "harness", "judge", "track")
"""Where the time of a trial goes: waiting for a worker, loading model and data, training,
answering, the upstream check (where there is one), judging, and logging (which runs beside the
others)."""
SWEEP = "sweep.json"
"""Written first: a directory that has it holds a sweep."""
UPSTREAM = "harness/"
"""What the names of scores in lm-evaluation-harness begin with: `harness/<task>/<metric>`."""


Turns = tuple[tuple[str, str], ...]
"""Requests, each with its answer."""


class Completion(NamedTuple):
    """One answer to one prompt; `gold` is empty where the right answer is not known.

    `turns` is what was said before: earlier requests with the answers that were given or that the
    model gave itself. Files of single requests do not have it.
    """

    instruction: str
    output: str
    generator: str
    dataset: str = ""
    gold: str = ""
    turns: Turns = ()

    @property
    def requests(self) -> tuple[str, ...]:
        """All that was asked: the earlier requests of a conversation, and the last one.

        Two answers with equal requests answer the same prompt, whatever was said in between.
        """
        return (*(request for request, _ in self.turns), self.instruction)


class Preference(NamedTuple):
    """One verdict: 1 the reference is better, 2 the trial is better, 1.5 a tie.

    `item` is the prompt's number, since prompts may repeat; `order` says which of the two answers
    the judge read first. Where judging stopped early, `num_items` counts the items of the whole
    set; other files do not have it.
    """

    item: int
    instruction: str
    dataset: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str
    annotator: str
    order: str
    preference: float | None
    num_items: int = 0


_OPTIONAL = ("turns", "num_items")


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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line without its end (a writer was killed) is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


class Metrics:
    """A trial's metrics.jsonl; what an earlier attempt wrote from the first step on is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which has a `step`, and put it on disk."""
        if self._file is None:
            earlier = [row for row in read_lines(self.path) if row["step"] < record["step"]]
            write_lines(earlier, self.path)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


class Tail:
    """Reads what is new in a growing JSON-lines file of steps.

    A file that starts over (its trial was lost and runs again) is read again from its beginning;
    steps that were read before are left out, and those up to `last_step`.
    """

    def __init__(self, path: Path, last_step: int = -1) -> None:
        self.path = path
        self._offset = 0
        self._last_step = last_step

    def new(self) -> list[dict[str, Any]]:
        """Records since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:
                self._offset = 0
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        try:
            records = [json.loads(line) for line in whole.split(b"\n")[:-1]]
        except json.JSONDecodeError:
            if self._offset == len(whole):
                raise  # read from its beginning, the file itself is broken
            # The file started over and has outgrown the old offset: we stand within a line.
            self._offset = 0
            return self.new()
        records = [record for record in records if record["step"] > self._last_step]
        if records:
            self._last_step = records[-1]["step"]
        return records


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


def read_completions(path: Path) -> list[Completion]:
    """Read our completions.jsonl, or a JSON list of AlpacaEval model outputs.

    Raises:
        DataError: the file cannot be read, or an entry lacks instruction or output.
    """
    rows = read_rows(path, "model outputs")
    known = set(Completion._fields)
    completions = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"instruction", "output"} <= set(row):
            raise DataError(f"{path} entry {number}: must have instruction and output")
        if not isinstance(row["instruction"], str) or not isinstance(row["output"], str):
            raise DataError(f"{path} entry {number}: instruction and output must be text")
        fields: dict[str, Any] = {
            key: str(value) for key, value in row.items() if key in known and value is not None
        }
        fields["turns"] = _turns(row.get("turns") or [], f"{path} entry {number}")
        completions.append(Completion(**{"generator": path.stem, **fields}))
    if not completions:
        raise DataError(f"{path}: must hold at least one model output, but got none")
    return completions


def _turns(value: Any, place: str) -> Turns:
    """Earlier requests and answers, as a file holds them."""
    if not isinstance(value, list) or not all(map(_is_turn, value)):
        raise DataError(f"{place}: turns must be a list of [request, answer] pairs of text")
    return tuple((request, answer) for request, answer in value)


def _is_turn(value: Any) -> bool:
    return isinstance(value, list) and [type(text) for text in value] == [str, str]


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the wall time of a block to `seconds[phase]`."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - began
