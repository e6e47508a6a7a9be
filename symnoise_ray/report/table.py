"""The table of trials on a terminal: names whole, whatever its width.

In: rows of a sweep, and the columns that there are. Out: a table of rich whose cells are plain
text, so that nothing in a name or a setting can change its style or steer the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from symnoise_ray.records.results import STOPPED
from symnoise_ray.report.words import printable

GAP = 2
LEAST = 8
"""Columns of the settings below which they are left out."""
STYLES = {
    "done": "green",
    STOPPED: "blue",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "judging": "cyan",
}


class Column(NamedTuple):
    """A column: the value's name, the heading, and a shorter one for where there is little room."""

    name: str
    heading: str
    short: str
    justify: Literal["left", "right"] = "left"


COLUMNS = (
    Column("trial", "trial", "trial"),
    Column("settings", "settings", "settings"),
    Column("slot", "slot", "slot"),
    Column("step", "step", "step", "right"),
    Column("clean_loss", "clean loss", "loss", "right"),
    Column("wins", "wins against the reference, 95 %", "wins, 95 %", "right"),
    Column("status", "status", "status"),
)
DROPPED = ("settings", "slot", "clean_loss", "wins", "step")
"""What is left out first where there is too little room."""


def trial_table(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """A table of trials that fits into so many columns of a terminal.

    Settings are cut first, and left out where nothing of them would be seen. Slots are shown as
    long as some trial has one.
    """
    columns = [each for each in COLUMNS if each.name != "slot" or any(row["slot"] for row in rows)]
    texts = {each.name: [cell(row, each.name) for row in rows] for each in columns}
    wide = {each.name: _width(each.heading, texts[each.name]) for each in columns}
    if _sum(wide) <= width:
        return _drawn(columns, wide, texts, rows, short=False)
    texts["status"] = [str(row["kind"]) for row in rows]  # the step stands in its own column
    narrow = {each.name: _width(each.short, texts[each.name]) for each in columns}
    for name in DROPPED:
        spare = width - _sum(narrow)
        if spare >= 0:
            break
        if name == "settings" and narrow[name] + spare >= LEAST:
            narrow[name] += spare
        else:
            narrow.pop(name, None)
    columns = [each for each in columns if each.name in narrow]
    return _drawn(columns, narrow, texts, rows, short=True)


def cell(row: Mapping[str, Any], name: str) -> str:
    """A value of a row as it is shown."""
    value = row[name]
    if name == "step":
        return str(value or "")
    return "" if value is None else printable(f"{value:.3f}" if name == "clean_loss" else value)


def _width(heading: str, texts: Sequence[str]) -> int:
    return max(map(len, (heading, *texts)))


def _sum(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _drawn(
    columns: Sequence[Column],
    widths: Mapping[str, int],
    texts: Mapping[str, Sequence[str]],
    rows: Sequence[Mapping[str, Any]],
    *,
    short: bool,
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for each in columns:
        heading = each.short if short else each.heading
        table.add_column(
            heading,
            justify=each.justify,
            no_wrap=True,
            width=widths[each.name],
            overflow="ellipsis",
        )
    for number, row in enumerate(rows):
        style = STYLES.get(str(row["kind"]), "dim")
        table.add_row(
            *(
                Text(texts[each.name][number], style=style if each.name == "status" else "")
                for each in columns
            )
        )
    return table
