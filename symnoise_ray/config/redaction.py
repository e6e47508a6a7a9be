"""What may be a secret, and texts without it: overrides, errors and addresses as they are shown.

In: a word of the command line, the path of a setting, or any text. Out: the same without keys and
passwords. What is written to a file or a screen goes through here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

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
_QUERY = re.compile(rf"([?&][^=&\s]*(?:{_SECRET.pattern})[^=&\s]*=)([^&\s\"']+)", re.IGNORECASE)
_WORDS = ("KEY", "KEYS", "TOKEN", "TOKENS", "SECRET", "PASS", "PAT")
_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS")
"""A variable holds a secret if a word of its name is one of the first, or ends like the second."""
SHORTEST = 6
"""Characters of a secret at least: a shorter one is a word that any text may hold."""
SEEN_PART = 8
"""So many characters of a secret in a row are shown nowhere: errors are often cut short."""
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


def without_secrets(text: str, *addresses: str) -> str:
    """A text as a file, a log or a screen may have it: `***` for every secret of this process.

    Args:
        text: Any text, such as what an error says.
        addresses: Addresses in use, whose passwords are left out wherever they stand.

    Known are the values of environment variables that are called like a secret (`OPENAI_API_KEY`,
    `HF_TOKEN`), and the passwords of the addresses that any variable holds (`HTTPS_PROXY`,
    `MLFLOW_TRACKING_URI`). Parts of a secret are left out as well.
    """
    text = without_password(text)
    for secret in sorted({*_known(), *_passwords(*addresses)}, key=len, reverse=True):
        text = _without(text, secret)
    return text


def _known() -> Iterator[str]:
    """The secrets in the environment."""
    for name, value in os.environ.items():
        words = name.upper().split("_")
        called = any(word in _WORDS or word.endswith(_ENDINGS) for word in words)
        # Some variables name the file that holds the secret; its path is none.
        if called and not (os.path.isabs(value) and os.path.exists(value)):
            yield value.strip()
        yield from _passwords(value)


def _passwords(*addresses: str) -> Iterator[str]:
    """The passwords in some addresses, also as the other side gets them."""
    for found in (each for address in addresses for each in _ADDRESS.finditer(address)):
        hidden = _hide(found)
        if hidden != found[0]:
            before, _, after = hidden.partition(HIDDEN)
            password = found[0].removeprefix(before).removesuffix(after)
            yield password
            yield unquote(password)
    for address in addresses:
        yield from (found[2] for found in _QUERY.finditer(address))


def _without(text: str, secret: str) -> str:
    """A text without any part of a secret that tells something."""
    if len(secret) < SHORTEST:
        return text
    size = min(SEEN_PART, len(secret))
    hidden: set[int] = set()
    for start in range(len(secret) - size + 1):
        at = text.find(secret[start : start + size])
        while at >= 0:
            hidden.update(range(at, at + size))
            at = text.find(secret[start : start + size], at + 1)
    shown = (HIDDEN if i in hidden else sign for i, sign in enumerate(text))
    first = (i not in hidden or i - 1 not in hidden for i in range(len(text)))
    return "".join(part for part, keep in zip(shown, first, strict=True) if keep)


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
