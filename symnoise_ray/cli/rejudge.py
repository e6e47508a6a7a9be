"""The verb `rejudge`: a finished sweep judged again by a second judge."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from symnoise_ray.config import JudgeConfig
    from symnoise_ray.records.verdict import Verdict
    from symnoise_ray.statistics.agreement import Agreement
    from symnoise_ray.sweep.rejudge import Rejudged


def add_rejudge(verbs: Verbs) -> None:
    """Add `rejudge`."""
    parser = add_verb(
        verbs,
        "rejudge",
        "Judge a finished sweep's answers again with a second judge; train and answer nothing.",
        "symnoise-ray rejudge runs/quickstart judge.type=local judge.model=./judge",
        _run_rejudge,
    )
    parser.add_argument("directory", metavar="DIR", help="directory of the sweep")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the second judge, such as judge.type=api"
    )
    parser.add_argument(
        "--name",
        default="",
        metavar="NAME",
        help="of its folder DIR/rejudged/NAME (default: its type and model)",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON, rates as fractions")


def _run_rejudge(arguments: argparse.Namespace) -> int:
    from symnoise_ray.config.loading import load_judge
    from symnoise_ray.config.redaction import redacted
    from symnoise_ray.sweep.rejudge import rejudge

    judge = load_judge(arguments.overrides)
    if "=" in arguments.directory:
        shown = redacted(arguments.directory)
        raise UserError(f"the first word must name the directory of a sweep, but got {shown}")
    found = rejudge(Path(arguments.directory), judge, arguments.name)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print("\n".join(_as_lines(found)))
    return EXIT_OK


def _as_lines(found: Rejudged) -> Iterator[str]:
    judged = (
        ("first", found.first_judge, found.first),
        ("second", found.second_judge, found.second),
    )
    for which, judge, verdict in judged:
        yield f"{which} judge, {_called(judge)}: {_decided(verdict)}"
        yield f"  {verdict.sentence}"
    yield f"they agree on {_agreed(found.agreement)}"
    for name, each in found.by_length.items():
        yield f"  where {name}: {_agreed(each)}"
    yield f"files: {found.directory}"


def _called(judge: JudgeConfig) -> str:
    return f"{judge.type} {judge.model}" if judge.model else judge.type


def _decided(verdict: Verdict) -> str:
    told = (
        f"{each.arm}{f' over {each.over}' if each.over else ''}: {each.verdict}"
        for each in verdict.decisions
    )
    return "; ".join(told)


def _agreed(found: Agreement) -> str:
    if found.raw is None:
        return "no items"
    kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
    return (
        f"{100 * found.raw:.1f} % of {found.num_items} items (Cohen's kappa {kappa}); the trial "
        f"wins {100 * (found.first_win_rate or 0):.1f} % by the first judge and "
        f"{100 * (found.second_win_rate or 0):.1f} % by the second"
    )
