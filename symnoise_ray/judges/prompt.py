"""The question to a judging model, filled in so that no answer can change its structure.

In: a prompt file (shipped, or a user's own) and a pair. Out: a system and a user message, in
pieces. The template is filled in one pass. Each request and answer becomes a JSON string in which
the marks of chat formats are escaped, so that it can neither end its own part nor begin a role.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import model_validator

from symnoise_ray.config import Section
from symnoise_ray.config.loading import build, read_yaml
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.judges.protocol import Pair
from symnoise_ray.records.completions import Turns

SHIPPED = Path(__file__).parent / "prompts"
FIELDS = ("instruction", "first", "second")
CHAT_MARKS = (
    *("<|", "|>", "<\uff5c", "\uff5c>", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("<start_of_turn>", "<end_of_turn>", "<turn|>", "[gMASK]", "<unused"),
    *("[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<think>", "</think>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("\x85", "\u2028", "\u2029"),
    *("\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"),
)
"""How common chat formats mark roles, turns, thoughts and tools (servers may read them anywhere in
a message); characters that break a line, and those that turn the direction of what follows."""


class Piece(NamedTuple):
    """A part of a message: the prompt's own text, or a filled-in request or answer."""

    text: str
    filled: bool


class Prompt(Section):
    """A system message, a user message around a pair, and the labels that name its answers."""

    system: str
    """Text of the system message; empty for none."""
    user: str
    """Text of the user message with `{instruction}`, `{first}` and `{second}`."""
    labels: tuple[str, str]
    """What the judge replies: the label of the first answer, and of the second."""

    @model_validator(mode="after")
    def _form_is_sound(self) -> Self:
        try:
            found = sorted(name for _, name in _split(self.user) if name is not None)
        except ValueError as error:
            raise ValueError(f"user must have its braces in pairs, but {error}") from error
        if found != sorted(FIELDS):
            wanted = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise ValueError(f"user must hold {wanted} once each (other braces doubled)")
        labels = [label.strip() for label in self.labels]
        if not all(labels) or labels[0] == labels[1] or tuple(labels) != self.labels:
            raise ValueError(f"labels must be two different words, but got {list(self.labels)}")
        return self

    @property
    def digest(self) -> str:
        """Hash of all that is asked."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def user_pieces(self, pair: Pair, marks: Iterable[str] = ()) -> list[Piece]:
        """The user message in pieces; `marks` are escaped beside those of common chat formats."""
        escaped = tuple(marks)
        values = {
            "instruction": quote(pair.instruction, escaped),
            "first": _answer(pair.first, pair.first_turns, pair.instruction, escaped),
            "second": _answer(pair.second, pair.second_turns, pair.instruction, escaped),
        }
        pieces = []
        for text, name in _split(self.user):
            pieces.append(Piece(text, filled=False))
            if name is not None:
                pieces.append(Piece(values[name], filled=True))
        return pieces

    def messages(self, pair: Pair) -> list[dict[str, str]]:
        """The messages for an endpoint: the same roles in the same order for every pair."""
        user = "".join(piece.text for piece in self.user_pieces(pair))
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": user}]


def _answer(answer: str, turns: Turns, instruction: str, marks: tuple[str, ...]) -> str:
    """An answer as a JSON string; of a conversation, the JSON list of all its turns."""
    if not turns:
        return quote(answer, marks)
    shown = [
        f'{{"request": {quote(request, marks)}, "answer": {quote(text, marks)}}}'
        for request, text in (*turns, (instruction, answer))
    ]
    return f"[{', '.join(shown)}]"


def _split(text: str) -> list[tuple[str, str | None]]:
    """Text up to each placeholder, and the placeholder's name."""
    return [
        (literal, None if name is None else name + (conversion or "") + (form or ""))
        for literal, name, form, conversion in string.Formatter().parse(text)
    ]


@functools.lru_cache(maxsize=8)
def find_prompt(name: str) -> Prompt:
    """A prompt by its shipped name, or from a YAML file.

    Raises:
        UserError: the file is missing, or its fields or placeholders are wrong; with the line.
    """
    path = SHIPPED / f"{name}.yaml" if name in shipped_prompts() else Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(shipped_prompts())
        raise UserError(
            f"judge.prompt={name}: must be {known} or a readable file, but {one_line(error)}"
        ) from None
    return build(Prompt, read_yaml(text, name))


def shipped_prompts() -> list[str]:
    """Names of the prompts that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def quote(text: str, marks: tuple[str, ...] = ()) -> str:
    r"""A JSON string that means `text`, with the first character of every mark as \uXXXX."""
    # A lone surrogate has no UTF-8 form; its escape is what JSON writes for it.
    body = json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return _at_marks(marks).sub(_escaped, body)


def _escaped(found: re.Match[str]) -> str:
    """A character as JSON escapes it; two of them, a surrogate pair, beyond the first plane."""
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


@functools.lru_cache(maxsize=8)
def _at_marks(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Matches each character at which a mark begins, also within another mark."""
    every = sorted({*CHAT_MARKS, *marks})
    return re.compile("(?=" + "|".join(re.escape(mark) for mark in every) + ").", re.DOTALL)
