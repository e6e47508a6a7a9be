"""Verdicts read from files: our preferences.jsonl and AlpacaEval's annotations.json alike.

In: a file. Out: `Preference`s, where 1 means the reference is better, 2 the trial, 1.5 a tie, any
number between them a graded verdict, and None no verdict. AlpacaEval's older ties (0) become 1.5;
its failures (null, -1, or anything outside [1, 2]) become None, to be counted and not scored.
Beside it: what AlpacaEval's judge does with log-probabilities and with the order of two answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.errors import DataError
from symnoise_ray.records.completions import Prompt
from symnoise_ray.records.files import read_rows

_TEXTS = ("instruction", "output_1", "output_2")
_SHOWN = 3  # names in an error


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
    """The names that one side has (`generator_1` or `generator_2`), each once."""
    return list(dict.fromkeys(name for each in preferences if (name := getattr(each, field))))


def _require_one_model(preferences: list[Preference], path: Path) -> None:
    """Refuse several models in one file: without items a repeated instruction is ambiguous."""
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
    earlier = row.get("earlier_requests") or []
    if not isinstance(earlier, list) or not all(isinstance(text, str) for text in earlier):
        raise DataError(f"{path} entry {number}: earlier_requests must be a list of texts")
    return Preference(
        earlier_requests=tuple(earlier),
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


class Preference(NamedTuple):
    """One verdict: 1 the reference is better, 2 the trial is better, 1.5 a tie.

    `item` is the entry's number, since prompts may repeat; `order` says which of the two answers
    the judge read first. Where judging stopped early, `num_items` counts the items of the whole
    set; other files do not have it. `earlier_requests` are what a conversation asked before the
    instruction; files of single requests do not have it.
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
    earlier_requests: tuple[str, ...] = ()

    @property
    def prompt(self) -> Prompt:
        """Equal for verdicts on answers to the same prompt."""
        return self.dataset, (*self.earlier_requests, self.instruction)
