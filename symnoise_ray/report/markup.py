"""HTML from text: everything that a model wrote is escaped and made printable here."""

from __future__ import annotations

import re
from html import escape

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: object) -> str:
    """Text without the characters that XML or UTF-8 cannot hold."""
    return _CONTROL.sub("\ufffd", str(text))


def clean(text: object) -> str:
    """Text as HTML shows it, in content and in attributes."""
    return escape(printable(text))


def element(name: str, *children: str, **attributes: object) -> str:
    """One element; children are markup already, attributes are escaped here."""
    words = [name]
    for key, value in attributes.items():
        shown = f"{value:.2f}" if isinstance(value, float) else clean(value)
        words.append(f'{key.rstrip("_").replace("_", "-")}="{shown}"')
    return f"<{' '.join(words)}>{''.join(children)}</{name}>"
