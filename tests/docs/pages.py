"""A page of documentation as a reader follows it: commands with what they print, files to save."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
ANYTHING = "..."
"""In what a page shows: a line of its own stands for any lines, also for none."""


class Command(NamedTuple):
    """One command of a page, with the lines that it prints and how it ends."""

    text: str
    printed: list[str]
    status: int


class File(NamedTuple):
    """A file that the reader saves."""

    name: str
    text: str


_BLOCK = re.compile(r"(?:Save this as `([^`]+)`[^\n]*\n\n)?^```(\w+)\n(.*?)^```", re.M | re.S)


def steps(page: str) -> list[Command | File]:
    """What a page asks its reader to do, in its order."""
    found: list[Command | File] = []
    for name, kind, text in _BLOCK.findall(page):
        if name:
            found.append(File(name, text))
        elif kind == "console":
            found += [_command(each) for each in re.split(r"^\$ ", text, flags=re.M)[1:]]
    return found


def _command(text: str) -> Command:
    lines = text.rstrip("\n").split("\n")
    end = next(n for n, line in enumerate(lines, 1) if not line.endswith("\\"))
    printed, status = lines[end:], 0
    if printed and (named := re.fullmatch(r"exit status (\d+)", printed[-1])):
        printed, status = printed[:-1], int(named[1])
    return Command("\n".join(lines[:end]), printed, status)


def unlike(shown: list[str], printed: list[str]) -> str:
    """Why what was printed is not what a page shows, or nothing.

    Numbers with a decimal point may differ (times, rates), and so may the width of a gap.
    """
    rest = [_plain(line) for line in printed]
    free = False
    for line in shown:
        if line.strip() == ANYTHING:
            free = True
            continue
        hits = [n for n, each in enumerate(rest) if each == _plain(line)]
        if not hits or (hits[0] > 0 and not free):
            return f"the page shows {line!r}, but there came {rest[:3] or 'nothing'}"
        del rest[: hits[0] + 1]
        free = False
    return f"the page does not show {rest[:3]}" if rest and not free else ""


def _plain(line: str) -> str:
    """A line without what differs from one run to the next."""
    return re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", "0.0", line)).strip()
