"""Answers to prompts, in AlpacaEval's shape with the gold answer beside it.

In and out: `Completion`s and the files they lie in, ours or AlpacaEval's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.errors import DataError
from symnoise_ray.records.files import read_rows

Turns = tuple[tuple[str, str], ...]
"""Requests, each with its answer."""
Prompt = tuple[str, tuple[str, ...]]
"""What makes two entries the same prompt: the data set, and all that is asked, the last request
being the instruction. Entries of one prompt are no independent evidence: statistics count them as
one, and search and confirmation never share one."""


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

    @property
    def prompt(self) -> Prompt:
        """Equal for answers to the same prompt."""
        return self.dataset, self.requests


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
