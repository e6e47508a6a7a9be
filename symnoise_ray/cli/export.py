"""The verb `export`: a sweep's winner as the configuration of another trainer."""

from __future__ import annotations

import argparse
from pathlib import Path

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK


def add_export(verbs: Verbs) -> None:
    """Add `export`."""
    parser = add_verb(
        verbs,
        "export",
        "Write a sweep's winner for TRL, axolotl or LLaMA-Factory.",
        "symnoise-ray export runs/quickstart --to trl --output train.py",
        _run_export,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the sweep")
    parser.add_argument(
        "--to", required=True, metavar="TRAINER", help="trl, axolotl or llama-factory"
    )
    parser.add_argument(
        "--arm",
        metavar="ARM",
        help="the setting of this arm (default: the best arm that was found better than the "
        "reference; without one, the reference's own best setting)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="a file that is there is replaced (default: print it)",
    )


def _run_export(arguments: argparse.Namespace) -> int:
    from symnoise_ray.integrations.export import export
    from symnoise_ray.records.files import require_writable, write_text

    text = export(arguments.directory, arguments.to, arguments.arm)
    if arguments.output is None:
        print(text, end="")
    else:
        require_writable(arguments.output, "--output")
        write_text(text, arguments.output)
        print(f"{arguments.to}: {arguments.output}")
    return EXIT_OK
