"""`symnoise-ray VERB`: the whole sweep, and every stage alone.

Imports are lazy, so that `--help`, `validate` and `score` answer at once. An error is one line on
stderr and an exit status: 1 failed, 2 the user's input, 3 some trials failed, 4 `verdict` has
none to give, 130 and 143 interrupted, 141 the reader of the output left. `--debug` shows the
traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from symnoise_ray import __version__
from symnoise_ray.cli.completion import add_completion
from symnoise_ray.cli.ctl import add_ctl
from symnoise_ray.cli.export import add_export
from symnoise_ray.cli.pool import add_pool
from symnoise_ray.cli.rejudge import add_rejudge
from symnoise_ray.cli.replay import add_replay
from symnoise_ray.cli.score import add_score
from symnoise_ray.cli.stages import add_generate, add_inspect, add_judge, add_train
from symnoise_ray.cli.sweeps import (
    add_card,
    add_plan,
    add_report,
    add_schema,
    add_sync,
    add_tune,
    add_validate,
)
from symnoise_ray.cli.verdict import add_verdict
from symnoise_ray.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_SIGINT,
    EXIT_SIGPIPE,
    SymnoiseError,
    reason_of,
)
from symnoise_ray.report.words import printable
from symnoise_ray.workers.session import leave


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    status = _run(argv)
    leave(status)
    return status


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words
    arguments = argparse.Namespace(prints_last=True)  # as `--help` does
    try:
        arguments = _arguments(argv)
        warnings.filterwarnings("default" if debug else "ignore")
        status: int = arguments.run(arguments)
        return status
    except KeyboardInterrupt as interrupt:
        code = getattr(interrupt, "exit_code", EXIT_SIGINT)
        print(f"interrupted; {_kept(words)}", file=sys.stderr)
        return code
    except SymnoiseError as error:
        _tell(error.message, debug)
        return error.exit_code
    except BrokenPipeError:
        return _unread(words, whole=arguments.prints_last)
    except Exception as error:
        _tell(reason_of(error) + ("" if debug else " (--debug shows where)"), debug)
        return EXIT_FAILED


def _unread(words: Sequence[str], *, whole: bool) -> int:
    """The exit status where the reader of the output, such as `head`, has left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    if whole:
        return EXIT_OK
    try:
        print(
            "error: the output must be read to its end, but its reader has left; "
            f"{_kept(words)}; to read a part of the output, send it into a file",
            file=sys.stderr,
        )
    except BrokenPipeError:  # both go to that reader
        os.dup2(nowhere, sys.stderr.fileno())
    return EXIT_SIGPIPE


def _kept(words: Sequence[str]) -> str:
    on = "; the same command with --resume goes on from there" if "tune" in words[:1] else ""
    return f"what was done is kept{on}"


def _tell(message: str, debug: bool) -> None:
    """The error that is handled, on the standard error; to debug with its traceback before it."""
    from symnoise_ray.config.redaction import without_secrets

    where = traceback.format_exc() if debug else ""
    print(without_secrets(f"{where}error: {printable(message)}"), file=sys.stderr)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command; overrides may stand on either side of an option."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    late = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(late) < len(rest) or (late and not hasattr(arguments, "overrides")):
        from symnoise_ray.config.redaction import redacted

        parser.error(f"unrecognized arguments: {' '.join(map(redacted, rest))}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="symnoise-ray",
        description="Fine-tune with embedding noise, and find out honestly whether it helps.",
        epilog=(
            "exit status: 0 all is done, 1 failed, 2 the input must be changed, 3 some trials "
            "failed, 4 not decided yet (verdict), 130 or 143 interrupted, 141 the reader of the "
            "output left"
        ),
    )
    parser.set_defaults(root=parser)  # `completion` tells of all verbs
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    stages = (add_tune, add_train, add_generate, add_judge, add_score)
    told = (add_ctl, add_verdict, add_rejudge, add_pool, add_report, add_card, add_export)
    checks = (add_validate, add_plan, add_inspect, add_schema)
    for add in (*stages, *told, add_replay, *checks, add_sync, add_completion):
        add(verbs)
    return parser
