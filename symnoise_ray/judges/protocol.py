"""What every judge is: pairs of answers in, one verdict each out, in whatever order they come.

Batch by batch, so that a judge may ask many at once; verdict by verdict, so that what was judged is
kept when the rest fails. A failed verdict is a verdict with a reason, never a score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from symnoise_ray.records.completions import Turns


class Pair(NamedTuple):
    """Two answers to one instruction, in the order in which they are read.

    `first_turns` and `second_turns` are what was said before: earlier requests and answers.
    """

    instruction: str
    first: str
    second: str
    gold: str = ""
    first_turns: Turns = ()
    second_turns: Turns = ()

    @property
    def is_same(self) -> bool:
        """Whether there is nothing to choose between."""
        return (self.first, self.first_turns) == (self.second, self.second_turns)

    @property
    def swapped(self) -> Pair:
        """The same two answers, read in the other order."""
        return self._replace(
            first=self.second,
            second=self.first,
            first_turns=self.second_turns,
            second_turns=self.first_turns,
        )


@dataclass(frozen=True)
class Usage:
    """What verdicts took: calls to an endpoint, tokens it read, tokens it wrote."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


NOTHING = Usage()


class Verdict(NamedTuple):
    """1 the first answer is better, 2 the second, 1.5 a tie, all between; None: failed, and why.

    `over`: it failed because the judge answers nobody any more (a refused key, a spent budget).
    """

    preference: float | None
    reason: str = ""
    usage: Usage = NOTHING
    cached: bool = False
    over: bool = False


def by_item(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of the pairs of each item: its two orders, where they follow each other, or one."""
    items: list[list[int]] = []
    for index, pair in enumerate(pairs):
        if items and len(items[-1]) == 1 and pair == pairs[index - 1].swapped:
            items[-1].append(index)
        else:
            items.append([index])
    return items


class Judge(Protocol):
    """Says which of two answers is better."""

    @property
    def name(self) -> str:
        """What it is called in results."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that a verdict depends on beside the pair, as plain values."""

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """One verdict per pair, each with the pair's index, as they come."""
