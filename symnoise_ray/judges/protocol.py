"""The protocol of every judge: pairs of answers in, one verdict for each out, in any order.

A judge gets many pairs at once, so that it may ask about several together. It yields verdicts one
by one, so that they are kept when a later one fails. A failed verdict has a reason and no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from symnoise_ray.records.completions import Turns


class Pair(NamedTuple):
    """Two answers to one instruction, in the order in which they are read.

    `first_turns` and `second_turns` hold the earlier requests and answers of each conversation.
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
    """What verdicts cost: calls to an endpoint, tokens it read, tokens it wrote."""

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
    """A preference from 1 (the first answer is better) to 2 (the second is); 1.5 is a tie.

    It is None where the verdict failed; `reason` then says why. `over` says that no later call can
    succeed either, because the key was refused or the budget is spent.
    """

    preference: float | None
    reason: str = ""
    usage: Usage = NOTHING
    cached: bool = False
    over: bool = False


def by_item(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of pairs by item: two neighbours in swapped orders are one item."""
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
        """Everything but the pair that a verdict depends on, as plain values."""

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield the index and the verdict of each pair, in the order in which they are judged."""
