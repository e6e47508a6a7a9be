"""Row shapes: one record of any supported form becomes an `Example`, or a reason why it cannot.

In: a record as a file holds it. Out: an `Example`, or a `RowError` with the rule that is broken.
The shapes are tried in this order: chat `messages`, ShareGPT `conversations`, Alpaca
(`instruction`, `input`, `output`, `history`), `prompt` and `completion`. Images, tools and
preferences have no place in these shapes and are refused, since dropping them would change the row.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from symnoise_ray.config import RowField
from symnoise_ray.data.example import Example

Fields = Mapping[RowField, str]
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
}
TOOL_ROLES = ("tool", "function", "function_call", "tool_call", "observation", "ipython")
LOSS_WEIGHTS = ("loss_weight", "weight", "train")
"""Keys of a message that say whether it is trained on, in the words of several tools."""
FOREIGN = {
    "a row must have one answer, not a preference between two": (
        "chosen",
        "rejected",
        "chosen_messages",
        "rejected_messages",
    ),
    "a row must be text, not tokens": ("input_ids",),
    "a row must be text alone, without images, audio or video": (
        "images",
        "image",
        "videos",
        "video",
        "audios",
        "audio",
    ),
    "a row must not need tools": ("tools", "functions"),
}
"""Rule -> columns that break it unless they are empty."""
LABELS = ("label", "kto_tag")
"""Columns that say whether an answer is wanted, in TRL's and LLaMA-Factory's rows for KTO."""


class RowError(ValueError):
    """A row that cannot be used: `rule` is what it breaks, and the text adds what it holds."""

    def __init__(self, rule: str, came: str = "") -> None:
        super().__init__(f"{rule}, but {came}" if came else rule)
        self.rule = rule

    def at(self, place: str) -> str:
        """The text of a message that names the row, and the setting that leaves such rows out."""
        return f"{place}: {self} (data.on_bad_row=skip leaves such rows out and counts them)"

    def counted(self, what: str = "rows") -> str:
        """What such rows, or prompts, are counted as where they are left out."""
        return f"{what} skipped: {self.rule}"


class Turn(NamedTuple):
    """One message: its role, its text, and whether it is trained on if it is an answer."""

    role: str
    text: str
    trained: bool


def to_example(row: Any, fields: Fields | None = None, *, prompt: bool = False) -> Example:
    """One record of any supported shape.

    Args:
        row: The record.
        fields: The package's name of a field -> the record's; other fields are ignored.
        prompt: Whether the row is a prompt, whose last answer may be missing.

    Raises:
        RowError: the record has no known shape, or breaks a rule of its shape.
    """
    if not isinstance(row, dict):
        raise RowError("a row must be an object", f"got {type(row).__name__}")
    setting = "data.prompt_fields" if prompt else "data.fields"
    if fields:
        row = _renamed(row, fields, setting)
    else:
        _refuse_other_kinds(row)
    for key in ("messages", "conversations"):
        if row.get(key) is not None:
            return _conversation(row[key], key, row, prompt)
    if row.get("instances") is not None and "instruction" in row:
        return _self_instruct(row, prompt)
    if prompt and row.get("turns") is not None:
        return _questions(row)
    if _has(row, "instruction", "output", prompt):
        return _alpaca(row, prompt)
    if _has(row, "prompt", "completion", prompt):
        return _completion(row, prompt)
    keys = ", ".join(sorted(map(str, row))) or "none"
    raise RowError(
        "a row must have `messages`, `conversations`, `instruction` and `output`, or `prompt` and "
        f"`completion`; {setting} names other columns",
        f"its keys are {keys}",
    )


def is_unwanted(row: Any, fields: Fields | None = None) -> bool:
    """Whether a row's label says that its answer is a bad example; `fields` hides the label.

    CSV has no truth values, so the word counts too.
    """
    if fields or not isinstance(row, dict):
        return False
    return any(str(row.get(column)).casefold() == "false" for column in LABELS)


def _renamed(row: dict[str, Any], fields: Fields, setting: str) -> dict[str, Any]:
    for name, column in fields.items():
        if column not in row:
            keys = ", ".join(sorted(map(str, row))) or "none"
            raise RowError(
                f"{setting} takes {name} from the column {column}", f"a row has only {keys}"
            )
    return {name: row[column] for name, column in fields.items()}


def _refuse_other_kinds(row: dict[str, Any]) -> None:
    for rule, columns in FOREIGN.items():
        given = [column for column in columns if row.get(column) not in (None, [], {}, "", "[]")]
        if given:
            raise RowError(rule, f"it has {', '.join(given)}")


def _has(row: dict[str, Any], request: str, answer: str, prompt: bool) -> bool:
    return request in row and (answer in row or prompt)


def _alpaca(row: dict[str, Any], prompt: bool) -> Example:
    """Stanford Alpaca's columns; `history` and `system` as LLaMA-Factory adds them.

    A row without an answer is left out later, unless its earlier turns have some.
    """
    earlier, answer = _history(row.get("history")), _answer(row, "output")
    if earlier and not prompt and not answer.strip():
        raise RowError("a turn must not be empty", "output is")
    return Example(
        (*earlier, (_text(row, "instruction"), answer)),
        input=_optional(row, "input"),
        system=_optional(row, "system"),
        dataset=str(row.get("dataset") or ""),
    )


def _self_instruct(row: dict[str, Any], prompt: bool) -> Example:
    """Self-Instruct's tasks: the input and output stand in a list of instances."""
    instances = row["instances"]
    if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], dict):
        raise RowError("instances must be a list of one object")
    return _alpaca({"instruction": row["instruction"], **instances[0]}, prompt)


def _questions(row: dict[str, Any]) -> Example:
    """Vicuna's and MT-bench's prompts: `turns` lists the questions, asked one after the other.

    MT-bench's `reference` may list right answers; that of the last request is the gold one.
    """
    turns, gold = row["turns"], row.get("reference")
    if not isinstance(turns, list) or not turns:
        raise RowError("turns must be a list of questions")
    for text in turns:
        if not _checked(text, "turns").strip():
            raise RowError("a turn must not be empty", "turns has one that is")
    answers = [""] * len(turns)
    if isinstance(gold, list) and len(gold) == len(turns):
        answers[-1] = _checked(gold[-1], "reference")
    return Example(tuple(zip(turns, answers, strict=True)))


def _history(pairs: Any) -> list[tuple[str, str]]:
    rule = "history must be a list of [request, answer] pairs of text"
    if pairs is None:
        return []
    if not isinstance(pairs, list):
        raise RowError(rule, f"got {type(pairs).__name__}")
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(rule, f"item {number} is none")
        for text in pair:
            _checked(text, "history")
            if not text.strip():
                raise RowError("a turn must not be empty", f"history has one in item {number}")
    return [(request, answer) for request, answer in pairs]


def _completion(row: dict[str, Any], prompt: bool) -> Example:
    """Text or messages on both sides; of messages only the completion is trained on."""
    asked, answered = row["prompt"], row.get("completion")
    if not isinstance(asked, list):
        pair = (_text(row, "prompt"), _answer(row, "completion"))
        return Example((pair,), system=_optional(row, "system"))
    if not isinstance(answered, list | None):
        raise RowError("completion must be messages where prompt is", "got text")
    context = [
        {**message, "train": False} if isinstance(message, dict) else message for message in asked
    ]
    return _conversation([*context, *(answered or [])], "prompt and completion", row, prompt)


def _conversation(messages: Any, key: str, row: dict[str, Any], prompt: bool) -> Example:
    """An optional system message, then user and assistant in turn."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise RowError(f"{key} must be a list of objects")
    turns = [_turn(message, number) for number, message in enumerate(messages, 1)]
    system = _optional(row, "system")
    if turns and turns[0].role == "system":
        system, turns = turns[0].text, turns[1:]
    _check_order(turns, prompt)
    if len(turns) % 2:
        turns.append(Turn("assistant", "", trained=True))
    trained = tuple(turn.trained for turn in turns[1::2])
    return Example(
        tuple((turns[i].text, turns[i + 1].text) for i in range(0, len(turns), 2)),
        system=system,
        dataset=str(row.get("dataset") or ""),
        trained=() if all(trained) else trained,
    )


def _check_order(turns: list[Turn], prompt: bool) -> None:
    roles = [turn.role for turn in turns]
    if not roles:
        raise RowError("a conversation must have turns", "got none")
    if "system" in roles:
        raise RowError("a system message must come first and once", f"got {_short(roles)}")
    if roles[0] == "assistant":
        raise RowError("a conversation must start with the user", f"got {_short(roles)}")
    for number, (role, following) in enumerate(itertools.pairwise(roles), 2):
        if role == following:
            raise RowError("user and assistant must take turns", f"turn {number} is {role} again")
    if not prompt and "assistant" not in roles:
        raise RowError("a conversation must have an answer to train on", f"got {_short(roles)}")
    if not prompt and roles[-1] == "user":
        raise RowError("a conversation must end with an answer", f"got {_short(roles)}")
    for number, turn in enumerate(turns, 1):
        if not turn.text.strip() and not (prompt and number == len(turns) and number % 2 == 0):
            raise RowError("a turn must not be empty", f"turn {number} ({turn.role}) is")


def _short(roles: list[str]) -> str:
    shown = roles if len(roles) <= 5 else [*roles[:2], "...", *roles[-2:]]
    return ", ".join(shown)


def _turn(message: dict[str, Any], number: int) -> Turn:
    given = message.get("role", message.get("from"))
    if given in TOOL_ROLES or message.get("tool_calls") or message.get("function_call"):
        raise RowError("a conversation must not call tools", f"turn {number} does")
    role = ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        known = ", ".join(ROLES)
        raise RowError(f"a role must be one of {known}", f"turn {number} has {given!r}")
    content = message["content"] if "content" in message else message.get("value")
    return Turn(role, _content(content, number), _trained(message, role, number))


def _content(content: Any, number: int) -> str:
    """Text, or a list of typed parts that are all text."""
    if not isinstance(content, list):
        return _checked(content, "content", f"turn {number} has ")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise RowError("content must be text alone", f"turn {number} has a part of type {kind}")
        text = part["text"] if "text" in part else part.get("value")
        texts.append(_checked(text, "content", f"turn {number} has "))
    return "".join(texts)


def _trained(message: dict[str, Any], role: str, number: int) -> bool:
    given = [message[key] for key in LOSS_WEIGHTS if message.get(key) is not None]
    if any(weight not in (0, 1) for weight in given):
        raise RowError("a loss weight must be 0 or 1", f"turn {number} has {given[0]!r}")
    if role != "assistant" and any(given):
        raise RowError("only answers can be trained on", f"turn {number} ({role}) asks for it")
    return all(given)


def _text(row: dict[str, Any], key: str) -> str:
    return _checked(row[key], key)


def _answer(row: dict[str, Any], key: str) -> str:
    return _checked(row[key], key) if key in row else ""


def _optional(row: dict[str, Any], key: str) -> str:
    return "" if row.get(key) is None else _checked(row[key], key)


def _checked(text: Any, key: str, got: str = "got ") -> str:
    """Return a text that has a UTF-8 form; half a surrogate pair has none."""
    if not isinstance(text, str):
        raise RowError(f"{key} must be text", f"{got}{type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(f"{key} must be Unicode text", "half of a pair is missing") from None
    return text
