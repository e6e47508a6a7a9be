"""Tables as Markdown, and text that Markdown shows as it is."""

from __future__ import annotations

import re

from symnoise_ray.report.section import Table, cleaned

_REORDERS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Marks after which a line is shown in another order, its neighbours in it included."""


def escape_markdown(text: object) -> str:
    """Text that Markdown shows as it is, in one line, also inside a table."""
    line = _REORDERS.sub("\ufffd", cleaned(text))
    line = " ".join(line.replace("&", "&amp;").split())
    line = re.sub(r"<(?=\S)", "&lt;", line)
    marks = r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    return re.sub(marks, lambda match: "\\" + match[0], line)


def table_as_markdown(table: Table) -> str:
    """A table as Markdown, under its summary where it has one."""
    rule = ["---:" if side == "r" else "---" for side in table.align]
    rows = [[escape_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    rows.insert(1, rule)
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{escape_markdown(table.summary)}:\n\n{lines}" if table.summary else lines
