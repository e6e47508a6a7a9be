"""Tables and sections as HTML and as Markdown, and the page around them.

In: plain values. Out: markup; every text is escaped. The page opens offline: its style is inline,
and it has neither scripts nor outside resources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from symnoise_ray.report import charts
from symnoise_ray.report.markup import clean, element, printable
from symnoise_ray.report.words import DASH


class Table(NamedTuple):
    """A table before it is HTML or Markdown; `align` has an l or r for each column.

    `arms` gives a row the mark of its noise type; a table with a `summary` is folded away.
    """

    align: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    arms: tuple[str, ...] = ()
    summary: str = ""


class Section(NamedTuple):
    """A heading with what belongs under it."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def escape_markdown(text: object) -> str:
    """Text that Markdown shows as it is, in one line, also inside a table."""
    line = " ".join(printable(text).replace("&", "&amp;").split())
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


def _table_as_html(table: Table) -> str:
    def row(kind: str, cells: Iterable[str], mark: str = "") -> str:
        parts = [
            element(kind, mark if number == 0 else "", clean(cell), class_=side)
            for number, (side, cell) in enumerate(zip(table.align, cells, strict=True))
        ]
        return element("tr", *parts)

    marks = [charts.dot(arm) for arm in table.arms] or [""] * len(table.rows)
    body = [row("td", cells, mark) for cells, mark in zip(table.rows, marks, strict=True)]
    head = element("thead", row("th", table.header))
    markup = element("table", head, element("tbody", *body))
    markup = element("div", markup, class_="wide")
    if not table.summary:
        return markup
    return element("details", element("summary", clean(table.summary)), markup)


def section_as_html(section: Section, figure: str = "") -> str:
    """A section with its figure between text and tables."""
    paragraphs = [element("p", clean(paragraph)) for paragraph in section.paragraphs]
    tables = [_table_as_html(table) for table in section.tables]
    return element(
        "section",
        element("h2", clean(section.heading)),
        *paragraphs,
        figure,
        element("div", *tables, class_="tables"),
    )


def answers_as_html(examples: list[dict[str, Any]]) -> str:
    """The reference's and a trial's answers to the same prompts, side by side."""
    heading = element("h2", "A few answers side by side")
    if not examples:
        return element("section", heading, element("p", "No answers of a trial with noise."))
    note = (
        f"Prompts drawn by chance, not chosen. Left the reference ({examples[0]['reference_name']})"
        f", right the search's best trial with noise ({examples[0]['trial_name']})."
    )
    return element("section", heading, element("p", clean(note)), *map(_answer, examples))


def _answer(example: dict[str, Any]) -> str:
    ends = {"tie": ": a tie", "none": ": no valid verdict"}
    cells = []
    for side, name in (("reference", "reference"), ("trial", "best noise")):
        won = example["winner"] == side
        end = ": wins" if won else ends.get(example["winner"], "")
        answer = clean(example[side]) if example[side].strip() else element("i", "no text")
        title = element("h4", clean(name + end))
        cells.append(element("div", title, element("p", answer), class_="won" if won else "other"))
    gold = element("p", element("b", "gold: "), clean(example["gold"] or DASH), class_="gold")
    question = element("h3", clean(example["instruction"]))
    return element("article", question, gold, element("div", *cells, class_="pair-of-answers"))


def page(name: str, *, status: str, verdict: str, footer: str, sections: str) -> str:
    """The whole document; `sections` is markup, the rest is plain text."""
    name = clean(name)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{name}: sweep report</title><style>\n{_STYLE}{charts.style()}</style></head>"
        f'<body><main><header><h1>{name}</h1><p class="note">{clean(status)}</p>'
        f'<p class="verdict">{clean(verdict)}</p></header>{sections}'
        f'<footer class="note">{clean(footer)}</footer></main></body></html>\n'
    )


_STYLE = """\
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d2327; --soft: #5b6670;
  --line: #dfe3e6; --tint: #f4f6f7; --accent: #0072b2;
  --sans: system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181b; --ink: #e4e7e9; --soft: #9aa5ae; --line: #33393f; --tint: #1e2327;
    --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 1100px; margin: 0 auto; padding: 2.5rem 1.5rem 3rem; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .6rem; font-size: 1.3rem; }
p { margin: .5rem 0; max-width: 75ch; }
.note { color: var(--soft); font-size: .9rem; }
.verdict { margin: 1.5rem 0 0; padding: 1rem 1.3rem; max-width: none; font-size: 1.25rem;
  line-height: 1.5; background: var(--tint); border-left: 4px solid var(--accent); }
.figure, .wide { overflow-x: auto; margin: .8rem 0; }
.tables { display: flex; flex-wrap: wrap; column-gap: 3rem; align-items: flex-start; }
.tables > .wide { flex: 1 1 auto; max-width: 100%; }
.tables > details { flex: 1 1 100%; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.r { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.l { white-space: nowrap; }
td.l:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; }
th.r { white-space: normal; }
summary { cursor: pointer; color: var(--accent); }
article { margin: 1rem 0; padding: .9rem 1.1rem; border: 1px solid var(--line);
  border-radius: 6px; }
article p, h3 { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 14rem;
  overflow-y: auto; }
h3 { margin: 0; font-size: 1rem; }
h4 { margin: 0; font-size: .8rem; font-weight: 400; color: var(--soft); }
.gold { color: var(--soft); font-size: .95rem; }
.pair-of-answers { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; }
.pair-of-answers > div { padding: .5rem .8rem; background: var(--tint); border-radius: 4px;
  border-left: 3px solid transparent; }
.pair-of-answers > .won { border-left-color: var(--accent); }
.won h4 { color: var(--accent); font-weight: 600; }
i { color: var(--soft); }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media (max-width: 640px) { .pair-of-answers { grid-template-columns: 1fr; } }
@media print { article, tr { break-inside: avoid; } }
"""
