"""Verdicts read from files: our preferences.jsonl and AlpacaEval's annotations.json alike.

In: a file. Out: `Preference`s, where 1 means the reference is better, 2 the trial, 1.5 a tie, any
number between them a graded verdict, and None no verdict. AlpacaEval's older ties (0) become 1.5;
its failures (null, -1, or anything outside [1, 2]) become None, to be counted and not scored.
Beside it: what AlpacaEval's judge does with log-probabilities and with the order of two answers.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from symnoise_ray.bootstrap import Floats
from symnoise_ray.errors import DataError
from symnoise_ray.length_control import GamedRows
from symnoise_ray.records import Preference, read_rows

_TEXTS = ("instruction", "output_1", "output_2")
_SHOWN = 3  # names in an error
_GAMED_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")


def read_annotations(path: Path) -> list[Preference]:
    """Read preferences, one JSON object a line or as one JSON list.

    A row without `item` is AlpacaEval's: its number in the file is its item, judged in one order.

    Raises:
        DataError: the file cannot be read, a row is no verdict, an item comes too often, or rows
            without items are about several models.
    """
    rows = read_rows(path, "preferences")
    preferences = [_preference(row, number, path) for number, row in enumerate(rows, 1)]
    if not preferences:
        raise DataError(f"{path}: must hold at least one preference, but got none")
    _require_one_set(preferences, path)
    without_item = [own for own, row in zip(preferences, rows, strict=True) if "item" not in row]
    _require_one_model(without_item, path)
    return preferences


def names(preferences: Iterable[Preference], field: str) -> list[str]:
    """The names that are told of one side (`generator_1` or `generator_2`), each once."""
    return list(dict.fromkeys(name for each in preferences if (name := getattr(each, field))))


def _require_one_model(preferences: list[Preference], path: Path) -> None:
    """Refuse several models in one file, where no item tells that an instruction comes again."""
    for field in ("generator_2", "generator_1"):
        given = names(preferences, field)
        if len(given) > 1:
            shown = ", ".join(map(repr, given[:_SHOWN]))
            more = f" and {len(given) - _SHOWN} more" if len(given) > _SHOWN else ""
            raise DataError(
                f"{path}: must hold the verdicts on one model against one reference, but {field} "
                f"is {shown}{more}; split the file by {field}"
            )


def _require_one_set(preferences: list[Preference], path: Path) -> None:
    """Refuse two files in one: an item comes once in each order, with the same answers in both."""
    entries: dict[tuple[int, str], int] = {}
    firsts: dict[int, int] = {}
    for number, own in enumerate(preferences, 1):
        place = f"{path} entry {number}: item {own.item}"
        earlier = entries.setdefault((own.item, own.order), number)
        if earlier != number:
            raise DataError(
                f"{place} in the order {own.order!r} must come once, but is in entry {earlier} "
                "already; keep the verdicts of one model and one judging in a file"
            )
        first = firsts.setdefault(own.item, number)
        other = preferences[first - 1]._replace(order=own.order, preference=own.preference)
        for name, value, known in zip(own._fields, own, other, strict=True):
            if value != known:
                raise DataError(
                    f"{place} must have the {name} of entry {first}, but has another; keep the "
                    "verdicts of one model and one judging in a file"
                )


def _preference(row: Any, number: int, path: Path) -> Preference:
    if not isinstance(row, dict) or not {*_TEXTS, "preference"} <= set(row):
        wanted = ", ".join(_TEXTS)
        raise DataError(f"{path} entry {number}: must have {wanted} and preference")
    if not all(isinstance(row[name], str) for name in _TEXTS):
        raise DataError(f"{path} entry {number}: {', '.join(_TEXTS)} must be text")
    value = row["preference"]
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise DataError(f"{path} entry {number}: preference must be a number, but is {value!r}")
    numbers = {"item": row.get("item", number - 1), "num_items": row.get("num_items", 0)}
    for name, given in numbers.items():
        if isinstance(given, bool) or not isinstance(given, int):
            raise DataError(
                f"{path} entry {number}: {name} must be a whole number, but is {given!r}"
            )
    names = ("dataset", "generator_1", "generator_2", "annotator", "order")
    texts = {name: str(row.get(name) or "") for name in names}
    texts |= {name: row[name] for name in _TEXTS}
    return Preference(
        item=numbers["item"],
        preference=verdict(value),
        num_items=numbers["num_items"],
        **texts,
    )


def verdict(value: float | None) -> float | None:
    """A stored preference in [1, 2]: 0 is an old tie, anything else outside is no verdict."""
    if value == 0:
        return 1.5
    return float(value) if value is not None and 1 <= value <= 2 else None


def log_probability_preference(
    first: float | None, second: float | None, *, switched: bool = False
) -> float | None:
    """Preference of a judge that answers with one token, from that token's log-probabilities.

    2 - p(first) / (p(first) + p(second)), the expectation of its verdict: finer than the token it
    happened to draw. AlpacaEval's tokens are m and M. Source: alpaca_eval's logprob_parser.

    Args:
        first: Log-probability of the token that names the answer read first; None where it is
            not among the top tokens, which counts as never.
        second: The same for the answer read second.
        switched: Whether the trial's answer was the one read first.

    Returns:
        A number in [1, 2], 2 meaning the trial's answer; None where both tokens are missing.
    """
    if first is None and second is None:
        return None
    low, high = (-math.inf if value is None else value for value in (first, second))
    preference = 2 - 1 / (1 + math.exp(min(high - low, 700.0)))
    return 3 - preference if switched else preference


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether AlpacaEval shows the trial's answer first: a function of the prompt's text alone."""
    generator = random.Random(f"is_switched_outputs{instruction}{seed}")
    return generator.choices([False, True], k=1)[0]


def read_gamed(path: Path) -> tuple[Floats, GamedRows]:
    """Read AlpacaEval's df_gamed.csv (not shipped: CC BY-NC): prompt difficulties and gamed rows.

    Raises:
        DataError: the file cannot be read, lacks a column, or holds what cannot be.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        table = np.array([[float(row[name]) for name in _GAMED_COLUMNS] for row in rows])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        columns = ", ".join(_GAMED_COLUMNS)
        raise DataError(
            f"{path}: must be AlpacaEval's df_gamed.csv with numbers in {columns}, but got "
            f"{type(error).__name__}: {error}"
        ) from None
    if not len(table):
        raise DataError(f"{path}: must hold at least one row, but got none")
    _require_gamed(table, path)
    by_prompt = dict(zip(table[:, 0].astype(int).tolist(), table[:, 3].tolist(), strict=True))
    difficulty = np.array([by_prompt[prompt] for prompt in sorted(by_prompt)])
    return difficulty, GamedRows(table[:, 1], table[:, 2], table[:, 3])


def _require_gamed(table: Floats, path: Path) -> None:
    for number, row in enumerate(table, 1):
        index, preference = row[:2]
        if not np.isfinite(row[1:]).all() or not 0 <= preference <= 1:
            raise DataError(
                f"{path} row {number}: must have finite numbers and a preference within 0 to 1, "
                f"but has {', '.join(f'{value:g}' for value in row)}"
            )
        if not index.is_integer():  # nor are nan and inf
            raise DataError(f"{path} row {number}: must have a whole index, but has {index:g}")
