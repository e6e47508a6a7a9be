"""What the verbs share: how one joins the parser, and how a space and its overrides are given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(
    verbs: Verbs,
    name: str,
    summary: str,
    example: str,
    run: Callable[[argparse.Namespace], int],
    *,
    prints_last: bool = False,
) -> argparse.ArgumentParser:
    """Add a verb that `run` carries out; returns its parser, to take the verb's own arguments.

    Args:
        verbs: Where it is added.
        name: Of the verb.
        summary: What it does, in one sentence.
        example: A command that works.
        run: Takes the arguments, returns the exit status.
        prints_last: All is done before it prints, and its exit status tells nothing else: a reader
            that leaves early, such as `head`, is no error.
    """
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks and warnings")
    parser.set_defaults(run=run, prints_last=prints_last)
    return parser


def add_space(parser: argparse.ArgumentParser) -> None:
    """Let a verb take a search space and overrides; `split_space` reads them."""
    parser.add_argument(
        "space",
        nargs="?",
        default="quickstart",
        metavar="SPACE",
        help="a YAML file or the name of a shipped space (default: quickstart)",
    )
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Let a verb take any number of key=value words."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, such as optim.schedule=linear"
    )


def split_space(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """A first word with `=` is an override, so the space may be left out."""
    space, overrides = arguments.space, list(arguments.overrides)
    return ("quickstart", [space, *overrides]) if "=" in space else (space, overrides)
