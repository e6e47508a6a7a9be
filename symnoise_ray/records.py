"""What the stages hand to each other, and the files they lie in.

`Completion`s are in AlpacaEval's shape with the gold answer beside it; `Preference`s are in its
annotation shape, one line per item and order. All are JSON lines, written whole or not at all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.errors import DataError

PHASES = ("start", "load", "train", "generate", "judge", "track")
"""Where the time of a trial goes: waiting for a worker, loading model and data, training,
answering, judging, and logging (which runs beside the others)."""


class Completion(NamedTuple):
    """One answer to one prompt; `gold` is empty where the right answer is not known."""

    instruction: str
    output: str
    generator: str
    dataset: str = ""
    gold: str = ""


class Preference(NamedTuple):
    """One verdict: 1 the reference is better, 2 the trial is better, 1.5 a tie.

    `item` is the prompt's number, since prompts may repeat; `order` says which of the two answers
    the judge read first.
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


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file that is either whole or not there."""
    _replace(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(records: Iterable[Any], path: Path) -> None:
    """Write named tuples or dictionaries, one JSON object a line, whole or not at all."""
    rows = (record if isinstance(record, dict) else record._asdict() for record in records)
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line without its end (a writer was killed) is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]


def read_completions(path: Path) -> list[Completion]:
    """Read our completions.jsonl, or a JSON list of AlpacaEval model outputs.

    Raises:
        DataError: the file cannot be read, or an entry lacks instruction or output.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: must be readable model outputs, but {error}") from None
    known = set(Completion._fields)
    completions = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"instruction", "output"} <= set(row):
            raise DataError(f"{path} entry {number}: must have instruction and output")
        fields = {key: str(value) for key, value in row.items() if key in known}
        completions.append(Completion(**{"generator": path.stem, **fields}))
    if not completions:
        raise DataError(f"{path}: must hold at least one model output, but got none")
    return completions


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the wall time of a block to `seconds[phase]`."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - began
