"""Addresses of SQLite files, as SQLAlchemy, MLflow and Optuna read them.

In: a path, which may hold any sign. Out: the address that leads to this file, and back.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

_SCHEME = "sqlite:///"
# SQLAlchemy unquotes an address and ends the path at `?`; Optuna fills in braces; `&` begins a
# parameter that may be taken for a secret, and `***` looks like one that was left out.
_MEANS_MORE = re.compile(r"[%?#&*{}]")


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file; a path without special signs stands in it as it is.

    From the first part with such a sign, the slashes are quoted too. MLflow makes the folder of an
    address as it is written, and then that is one that exists.
    """
    text = str(path)
    special = _MEANS_MORE.search(text)
    if special is None:
        return f"{_SCHEME}{text}"
    first = text.rfind("/", 0, special.start()) + 1
    quoted = re.sub(r"[%?#&*{}/]", lambda sign: f"%{ord(sign[0]):02X}", text[first:])
    return f"{_SCHEME}{text[:first]}{quoted}"


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite address; None for other stores, and for names in SQLite's own form."""
    place, _, parameters = uri.partition("?")
    if not place.startswith(_SCHEME) or "uri=" in parameters:
        return None
    return Path(unquote(place.removeprefix(_SCHEME)))
