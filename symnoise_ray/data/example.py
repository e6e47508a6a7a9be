"""One training example or prompt: a conversation, and which of its answers are trained on."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import astuple, dataclass, field, replace

THOUGHTS = re.compile(r"(\s*<think>)(.*?)(</think>)(.*)", re.DOTALL)
"""An answer that begins with thoughts: the tag before them, they, the tag behind them, the rest."""


@dataclass(frozen=True)
class Example:
    """One instruction or conversation: turns of (user, assistant), the last answer being gold.

    `gold` is empty for a prompt whose right answer is not known. An earlier answer is empty if the
    model has to give it itself before the next request. `input` belongs to the last request.
    `trained` says of each answer whether it is trained on; empty means all. `place` says for
    messages where the example was read; it is no part of what the example is.
    """

    turns: tuple[tuple[str, str], ...]
    input: str = ""
    system: str = ""
    dataset: str = ""
    trained: tuple[bool, ...] = ()
    place: str = field(default="", compare=False)

    @property
    def instruction(self) -> str:
        """The last request with its input below it; the judge sees it in this form."""
        request = self.turns[-1][0]
        return f"{request}\n\n{self.input}" if self.input else request

    @property
    def requests(self) -> tuple[str, ...]:
        """All requests of the conversation, in the form of `Completion.requests`."""
        return (*(request for request, _ in self.turns[:-1]), self.instruction)

    @property
    def prompt(self) -> tuple[str, tuple[str, ...]]:
        """Equal for examples that ask the same, as `Completion.prompt` is for answers."""
        return self.dataset, self.requests

    @property
    def digest(self) -> str:
        """Equal for examples with the same texts, right answer and group included; 64 bits."""
        text = json.dumps(astuple(self)[:-1])  # without the place
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def gold(self) -> str:
        """The right answer to the last request."""
        return self.turns[-1][1]

    @property
    def thinks(self) -> bool:
        """Whether the right answer begins with thoughts."""
        match = THOUGHTS.fullmatch(self.gold)
        return match is not None and bool(match[2].strip() and match[4].strip())

    def is_asked(self, turn: int) -> bool:
        """Whether a model answers this turn: the last one, or an earlier one without an answer."""
        last = len(self.turns) - 1
        return turn == last or (turn < last and not self.turns[turn][1])

    def up_to(self, turn: int) -> Example:
        """The conversation with this turn as its last; the input belongs to the last one only."""
        if turn == len(self.turns) - 1:
            return self
        return replace(self, turns=self.turns[: turn + 1], input="", trained=())

    def with_answer(self, turn: int, answer: str) -> Example:
        """The same conversation with another answer to one of its turns."""
        turns = list(self.turns)
        turns[turn] = (turns[turn][0], answer)
        return replace(self, turns=tuple(turns))

    def is_trained(self, index: int) -> bool:
        """Whether the answer of a turn is trained on."""
        return self.trained[index] if self.trained else True

    @property
    def teaches(self) -> bool:
        """Whether some answer that is trained on is not blank."""
        return any(self.is_trained(i) and turn[1].strip() for i, turn in enumerate(self.turns))
