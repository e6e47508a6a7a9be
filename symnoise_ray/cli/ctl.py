"""`ctl`: orders to a sweep that runs, through its directory or as a job on its cluster."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK

_ORDERS = {
    "list": ("show its trials: slot, step, loss, wins; running ones first", ""),
    "stop": ("end a trial of the search at its next step; no failure, and no score", "TRIAL"),
    "pause": ("let running trials end, and begin none", ""),
    "resume": ("begin trials again", ""),
    "add": ("one more trial of the search, at a point of its space", "key=value"),
    "answer": ("what the model of a trial that trains says to a prompt now", "TRIAL PROMPT"),
    "budget": ("other limits, such as trials=20; none takes one away", "key=value"),
}


def add_ctl(verbs: Verbs) -> None:
    """Add `ctl`."""
    parser = add_verb(
        verbs,
        "ctl",
        "Steer a sweep that runs: see its trials, stop, pause, resume, add, change its budget.",
        "symnoise-ray ctl runs/quickstart stop 004-symnoise",
        _run_ctl,
        prints_last=True,
    )
    parser.add_argument(
        "sweep",
        metavar="DIR|JOB",
        help="directory of the sweep, or http://HEAD:8265/ID of the Ray job that it runs in",
    )
    orders = parser.add_subparsers(
        required=True, metavar="ORDER", dest="order", help="what to do; ORDER --help says more"
    )
    for name, (summary, words) in _ORDERS.items():
        order = orders.add_parser(name, help=summary, description=summary)
        if words:
            names = tuple(words.split())
            order.add_argument(
                "words",
                metavar=names if len(names) > 1 else words,
                nargs="+" if "=" in words else len(names),
                help=summary,
            )
    orders.choices["list"].add_argument("--json", action="store_true", help="for programs")


def _run_ctl(arguments: argparse.Namespace) -> int:
    words = list(getattr(arguments, "words", ()))
    values = _values(arguments.order, words)
    as_json = bool(getattr(arguments, "json", False))
    if arguments.sweep.startswith(("http://", "https://")):
        from symnoise_ray.cli.ctl_job import give_in_job

        flags = ["--json"] if as_json else []
        return give_in_job(arguments.sweep, [arguments.order, *words, *flags])
    from symnoise_ray.sweep.orders import give

    answer = give(_directory(arguments.sweep), arguments.order, **values)
    if as_json:
        print(json.dumps({"said": answer["said"], "trials": answer["rows"]}, indent=2))
    else:
        from symnoise_ray.report.words import printable

        print(printable(answer["said"]))
        for line in _table(answer.get("rows", ())):
            print(printable(line))
    sys.stdout.flush()
    return EXIT_OK


def _directory(word: str) -> Path:
    """The sweep's directory; the other job that `ctl_job` starts has the first one's id."""
    if not word.startswith("job:"):
        return Path(word).absolute()
    from symnoise_ray.workers.job_place import place_of

    return place_of(word.removeprefix("job:"))


def _values(order: str, words: list[str]) -> dict[str, Any]:
    """An order's words as the values that the sweep reads."""
    if order == "stop":
        return {"trial": words[0]}
    if order == "answer":
        return {"trial": words[0], "prompt": words[1]}
    if order not in ("add", "budget"):
        return {}
    from symnoise_ray.config.loading import parse_override

    found = {".".join(path): value for path, value in map(parse_override, words)}
    if order == "add":
        return {"point": found}
    limits = {name.removeprefix("budget."): value for name, value in found.items()}
    return {"limits": {n: None if value == "none" else value for n, value in limits.items()}}


def _table(rows: Any) -> list[str]:
    """Trials, a line each, in columns as wide as what is in them."""
    if not rows:
        return []
    names = ("trial", "status", "slot", "step", "clean_loss", "wins", "settings")
    texts = [
        tuple(name.replace("_", " ") for name in names),
        *(tuple(_text(row[name]) for name in names) for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)).rstrip()
        for each in texts
    ]


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
