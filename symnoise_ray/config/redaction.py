"""What may be a secret, and texts without it: overrides, errors and addresses as they are shown.

In: a word of the command line, the path of a setting, or any text with addresses in it. Out: the
same without keys and passwords. What is written to a file or a screen goes through here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from symnoise_ray.config import JudgeConfig

HIDDEN = "***"
"""Stands where a password was."""
_SECRET = re.compile(
    # Settings that count tokens hold no secret.
    r"key|secret|password|auth|credential|(?<!max_new_)(?<!max_total_)token(?!s_per_minute)",
    re.IGNORECASE,
)
_INNER_SECRET = re.compile(rf"({_SECRET.pattern})\w*[\"']?\s*[:=]", re.IGNORECASE)
_ADDRESS = re.compile(r"([a-z][a-z0-9.]*)(\+[a-z0-9]+)?://(\S+)", re.IGNORECASE)
_QUERY = re.compile(rf"([?&][^=&\s]*(?:{_SECRET.pattern})[^=&\s]*=)[^&\s\"']+", re.IGNORECASE)
_DATABASES = ("postgres", "postgresql", "mysql", "mssql")
_FILES = ("sqlite", "file")


def redacted(override: str) -> str:
    """An override as errors may show it: without its value where that may be a secret.

    Decided by the name, since keys look like any other text. A word that is no override, such as
    `judge.api_key: ...`, is shown up to its first colon or space. Of an address, the password is
    left out.
    """
    name, sign, value = re.split(r"([=:\s]|$)", override, maxsplit=1)
    if value and (may_be_secret(name.split(".")) or _INNER_SECRET.search(value)):
        return f"{name}{sign}..."
    return without_password(override)


def may_be_secret(path: Sequence[str | int]) -> bool:
    """Whether the value at this path may be a key in the wrong place: its error shows no value.

    A key that somebody tries to give to the judge ends up under some name in its section.
    """
    parts = [str(part) for part in path]
    if any(_SECRET.search(part) for part in parts):
        return True
    if "judge" not in parts:
        return False
    below = parts[parts.index("judge") + 1 :]
    return not below or below[0] not in JudgeConfig.model_fields


def without_password(text: str) -> str:
    """A text with `***` for the passwords of the addresses in it; a user's name stays.

    A name without a password, before the host of a web address, may be a token and is left out
    too. Parameters of an address whose names speak of a secret lose their values.
    """
    return _QUERY.sub(rf"\1{HIDDEN}", _ADDRESS.sub(_hide, text))


def hides_password(address: str) -> bool:
    """Whether an address was written down without its password, so that it does not work."""
    return HIDDEN in address


def _hide(found: re.Match[str]) -> str:
    scheme, driver, rest = found[1].lower(), found[2] or "", found[3]
    if scheme in _FILES:
        return found[0]  # a path may hold any sign
    # Drivers of databases take a password with a slash in it; on the web the host ends there.
    place = rest if scheme in _DATABASES else re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = place.rpartition("@")
    if not at:
        return found[0]
    name, colon, _ = user.partition(":")
    if not colon and scheme in _DATABASES:
        return found[0]
    shown = f"{name}:{HIDDEN}" if colon else HIDDEN
    return f"{found[1]}{driver}://{shown}@{rest[len(user) + 1 :]}"
