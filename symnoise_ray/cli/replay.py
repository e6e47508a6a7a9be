"""The verb `replay`: a trial trained again, and whether its numbers are the same."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from symnoise_ray.sweep.replay import Compared

HEADINGS = ("value", "number", "the same", "last before", "last now")


def add_replay(verbs: Verbs) -> None:
    """Add `replay`."""
    parser = add_verb(
        verbs,
        "replay",
        "Train a trial of a sweep again and compare every number; status 1 if one differs.",
        "symnoise-ray replay runs/quickstart 001-neftune",
        _run_replay,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the sweep")
    parser.add_argument("trial", metavar="TRIAL", help="name of a trial that has a score")


def _run_replay(arguments: argparse.Namespace) -> int:
    from symnoise_ray.sweep.replay import changed_since, compare, find_trial

    found = find_trial(arguments.directory, arguments.trial)
    changed = changed_since(found)
    for line in changed:
        print(f"not as it was: {line}")
    print(f"training {arguments.trial} again ...", flush=True)
    compared = compare(found)
    print("\n".join(_table(compared)))
    different = [each.name for each in compared if each.num_same < each.number]
    if not different:
        print("every number is the same")
        return EXIT_OK
    why = "for what is not as it was, see above" if changed else _UNKNOWN
    print(f"different: {', '.join(different)}; {why}")
    return EXIT_FAILED


_UNKNOWN = (
    "versions, files, weights and kind of machine are as they were, so the code of symnoise_ray, "
    "the processor or the judge may be another one; GPUs do not promise the same bits"
)


def _table(compared: Sequence[Compared]) -> Iterator[str]:
    rows = [HEADINGS, *map(_row, compared)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()


def _row(compared: Compared) -> tuple[str, ...]:
    last = [
        f"{value:.10g}" if isinstance(value, float) else ""
        for value in (compared.before, compared.now)
    ]
    return (compared.name, str(compared.number), str(compared.num_same), *last)
