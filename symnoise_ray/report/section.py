"""Sections and tables before they are HTML or Markdown: plain values, from which both are made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 4000
"""Characters of a text that the page shows."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Table(NamedTuple):
    """A table; `align` has an l or r for each column.

    `arms` gives a row the mark of its noise type, `trials` the trial that it is about. A table with
    a `summary` is folded away.
    """

    align: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    arms: tuple[str, ...] = ()
    summary: str = ""
    trials: tuple[str, ...] = ()


class Section(NamedTuple):
    """A heading with what belongs under it."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def cleaned(text: object) -> str:
    """Text without the characters that HTML or UTF-8 cannot hold, or that steer a terminal."""
    return _CONTROL.sub("\ufffd", str(text))


def shortened(text: object) -> str:
    """A text as the page shows it: cleaned, and not longer than a reader looks at."""
    shown = str(text)
    if len(shown) <= LONGEST:
        return cleaned(shown)
    return f"{cleaned(shown[:LONGEST])}\u2026 ({len(shown):,} characters in all)"
