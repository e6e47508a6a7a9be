"""A user's own DeepSpeed settings: read, compared with the trial's, and merged with them.

In: a JSON file, or its text or content. Out: the settings as text of one canonical form, so that
their content and not a file's name is part of a trial; and the merged settings. A key that the
trial decides may stand in the file with the same value or as "auto"; any other value is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

AUTO = "auto"
"""Hugging Face's word for a value that the trainer fills in."""

_OPTIMIZERS = ("adamw", "adam")
_SECTIONS = ("fp16", "amp", "data_types")
"""Keys that hold settings, beside those that `fixed` leads through."""


class Fixed(NamedTuple):
    """The trial's value of a key that DeepSpeed has too."""

    setting: str
    """The trial's setting and its value, for messages: `train.zero_stage=0`."""
    value: Any
    """The value in DeepSpeed's terms."""


def canonical(value: Any) -> str:
    """JSON text with sorted keys, from the path of a file, from text, or from a mapping.

    Raises:
        ValueError: it cannot be read, or is no JSON object.
    """
    source, text = "the text given", value
    if isinstance(value, dict):
        text = json.dumps(value)
    elif not isinstance(value, str):
        raise ValueError(f"must be a JSON file or its text, but got {value!r}")
    elif not value.lstrip().startswith("{"):
        source = value
        try:
            text = Path(value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"must be a readable JSON file or its text, but {error}") from None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be JSON, but in {source}: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"must hold a JSON object, but {source} holds {settings!r}")
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def contradiction(text: str, fixed: dict[str, Fixed]) -> str | None:
    """The first key whose value is not the trial's, or that cannot hold it; None if there is none.

    Args:
        text: Settings in canonical form.
        fixed: DeepSpeed's dotted keys -> the trial's values of them.
    """
    sections = {*_SECTIONS, *(key[:end] for key in fixed for end in _dots(key))}
    for key, value in _leaves(json.loads(text)):
        given = f"{key}={json.dumps(value)}"
        section = key.split(".")[0]
        if value == AUTO:
            continue
        if key in sections and not isinstance(value, dict):
            got = json.dumps(value)
            return f"{key} must be a mapping of settings, but got {got}; write one or leave it out"
        if key in fixed:
            if not _same(value, fixed[key].value):
                return f'{given} contradicts {fixed[key].setting}; make them equal or write "auto"'
        elif key == "optimizer.type":
            if str(value).lower() not in _OPTIMIZERS:
                return f"{given} contradicts the trial's optimizer, which is AdamW; leave it out"
        elif section in ("optimizer", "scheduler"):
            return f"{given} has no place here: the section optim decides; leave it out"
        elif section in ("fp16", "amp") and key.endswith(".enabled") and value:
            return f"{given} contradicts {fixed['bf16.enabled'].setting}; leave it out"
    return None


def merged(text: str | None, ours: dict[str, Any], fixed: dict[str, Fixed]) -> dict[str, Any]:
    """The trial's settings, and of the user's those that are neither "auto" nor the trial's own.

    Args:
        text: The user's settings in canonical form, or None.
        ours: The trial's settings.
        fixed: DeepSpeed's dotted keys -> the trial's values of them.
    """
    result: dict[str, Any] = {}
    for key, value in _leaves(json.loads(text or "{}")):
        section = key.split(".")[0]
        if value != AUTO and key not in fixed and section not in ("optimizer", "scheduler"):
            _put(result, key, value)
    for key, value in _leaves(ours):
        _put(result, key, value)
    return result


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _dots(key: str) -> Iterator[int]:
    return (place for place, sign in enumerate(key) if sign == ".")


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[name] = value


def _same(given: Any, ours: Any) -> bool:
    """Equal values; a number may be written as text, as some files do."""
    if isinstance(given, str) and isinstance(ours, float | int) and not isinstance(ours, bool):
        try:
            given = float(given)
        except ValueError:
            return False
    if isinstance(given, bool) != isinstance(ours, bool):
        return False
    return bool(given == ours)
