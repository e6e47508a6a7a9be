"""Files to examples: Alpaca rows and chat messages, from JSON, JSONL or a Hugging Face data set.

In: a source as `data.train` names it. Out: `Rows`, the usable examples and why others were not.
A broken file or row is an error with file, row and reason; an empty answer is counted.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symnoise_ray import demo
from symnoise_ray.config import DataConfig
from symnoise_ray.errors import DataError
from symnoise_ray.prompts import Example

HELD_BACK = "held_back"
"""Value of `data.confirm_prompts`: a seeded half of `eval_prompts`, kept out of the search."""

_HOLD_BACK_SEED = 805


@dataclass(frozen=True)
class Rows:
    """Usable examples in file order, and how many rows were left out for which reason."""

    examples: list[Example]
    left_out: Counter[str] = field(default_factory=Counter)


def read_train(data: DataConfig) -> Rows:
    """Training rows with an answer to learn; rows without one are counted."""
    source = str(demo.train_file()) if data.train == "demo" else data.train
    return _usable(source, "rows with nothing to train on", data.max_train_rows)


def read_prompts(data: DataConfig, part: str) -> Rows:
    """Prompts of the search (`eval`) or of the confirmation (`confirm`), with gold answers."""
    source = str(demo.eval_file()) if data.eval_prompts is None else data.eval_prompts
    if part == "confirm" and data.confirm_prompts not in (None, HELD_BACK):
        source = str(data.confirm_prompts)
    elif part == "confirm" and data.confirm_prompts is None:
        source = str(demo.confirm_file())
    rows = _usable(source, "prompts without a gold answer", None)
    examples = rows.examples
    if data.confirm_prompts == HELD_BACK:
        examples = _half(examples, part)
    return Rows(examples[: data.max_eval_prompts], rows.left_out)


def _half(examples: list[Example], part: str) -> list[Example]:
    """A random half that depends on the number of prompts alone; both halves keep file order."""
    order = list(range(len(examples)))
    random.Random(_HOLD_BACK_SEED).shuffle(order)
    middle = (len(order) + 1) // 2
    chosen = order[:middle] if part == "eval" else order[middle:]
    return [examples[index] for index in sorted(chosen)]


def _usable(source: str, why_left_out: str, limit: int | None) -> Rows:
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for place, row in _records(source):
        example = to_example(row, place)
        if not example.gold.strip():
            left_out[why_left_out] += 1
        elif limit is None or len(examples) < limit:
            examples.append(example)
    if not examples:
        raise DataError(f"{source}: must hold at least one row with an answer, but got none")
    return Rows(examples, left_out)


def to_example(row: Any, place: str) -> Example:
    """One record of any supported shape.

    Raises:
        DataError: no known shape, with the keys that came.
    """
    if not isinstance(row, dict):
        raise DataError(f"{place}: a row must be an object, but got {type(row).__name__}")
    if "messages" in row:
        return _from_messages(row, place)
    if "instruction" in row and "output" in row:
        instruction, output = _text(row, "instruction", place), _text(row, "output", place)
        given = _text(row, "input", place) if row.get("input") is not None else ""
        return Example(((instruction, output),), given, dataset=str(row.get("dataset") or ""))
    keys = ", ".join(sorted(map(str, row))) or "none"
    raise DataError(
        f"{place}: a row must have `instruction` and `output`, or `messages`, but its keys are "
        f"{keys}"
    )


def _text(row: dict[str, Any], key: str, place: str) -> str:
    if not isinstance(row[key], str):
        raise DataError(f"{place}: {key} must be text, but got {type(row[key]).__name__}")
    return _encodable(row[key], key, place)


def _encodable(text: str, key: str, place: str) -> str:
    """The text, if it has a UTF-8 form; half a surrogate pair has none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{place}: {key} must be Unicode text, but half of a pair is missing"
        ) from (None)
    return text


def _from_messages(row: dict[str, Any], place: str) -> Example:
    """Chat messages: an optional system message, then user and assistant in turn."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise DataError(f"{place}: messages must be a list of objects")
    for message in messages:
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise DataError(f"{place}: every message must have {key} as text")
    system = ""
    if messages and messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    roles = [message["role"] for message in messages]
    if not messages or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(
            f"{place}: messages must alternate user, assistant and end with an answer, "
            f"but got {', '.join(roles) or 'none'}"
        )
    texts = [_encodable(message["content"], "content", place) for message in messages]
    turns = tuple(zip(texts[::2], texts[1::2], strict=True))
    return Example(turns, system=system, dataset=str(row.get("dataset") or ""))


def _records(source: str) -> Iterator[tuple[str, Any]]:
    """Place and raw record of every row of a file or a Hugging Face data set."""
    path = Path(source)
    if path.is_file():
        yield from _file_records(path)
    elif path.suffix or path.is_absolute() or source.startswith("."):
        raise DataError(f"{source}: the data file must exist")
    else:
        yield from _hub_records(source)


def _file_records(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: must be readable UTF-8 text, but {error}") from None
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: must be valid JSON, but {error.msg}") from None
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}:{number}: must be one JSON object a line, but {error.msg} at column "
                    f"{error.colno}"
                ) from None


def _hub_records(name: str) -> Iterator[tuple[str, Any]]:
    """Rows of the `train` split of a Hugging Face data set; loading scripts are not run."""
    import datasets  # slow to import, and only needed for hub names

    try:
        rows = datasets.load_dataset(name, split="train")
    except Exception as error:
        first_line = str(error).strip().splitlines()[0]
        raise DataError(
            f"{name}: must be a file that exists or a Hugging Face data set that can be loaded, "
            f"but {first_line}"
        ) from None
    yield from ((f"{name} row {number}", row) for number, row in enumerate(rows, 1))
