"""The verb `export`: a sweep's winner for another trainer, or its verdicts for AlpacaEval."""

from __future__ import annotations

import argparse
from pathlib import Path

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK, UserError


def add_export(verbs: Verbs) -> None:
    """Add `export`."""
    parser = add_verb(
        verbs,
        "export",
        "Write a sweep's winner for TRL, axolotl or LLaMA-Factory, or its verdicts for AlpacaEval.",
        "symnoise-ray export runs/quickstart --to trl --output train.py",
        _run_export,
        prints_last=True,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the sweep")
    parser.add_argument(
        "--to", required=True, metavar="TOOL", help="trl, axolotl, llama-factory or alpaca_eval"
    )
    parser.add_argument(
        "--arm",
        metavar="ARM",
        help="the setting of this arm (default: the best arm that was found better than the "
        "reference; without one, the reference's own best setting); for alpaca_eval the trials of "
        "this arm (default: of all)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="for alpaca_eval: the trials of the search too, not only those of the confirmation",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a file; one that is there is replaced (default: print it); for alpaca_eval a new "
        "folder",
    )


def _run_export(arguments: argparse.Namespace) -> int:
    from symnoise_ray.integrations.export import ALPACA_EVAL, export
    from symnoise_ray.records.files import require_writable, write_text

    if arguments.to == ALPACA_EVAL:
        return _export_answers(arguments)
    if arguments.all:
        raise UserError(f"--all has a meaning for --to {ALPACA_EVAL} only, but got {arguments.to}")
    text = export(arguments.directory, arguments.to, arguments.arm)
    if arguments.output is None:
        print(text, end="")
    else:
        require_writable(arguments.output, "--output")
        write_text(text, arguments.output)
        print(f"{arguments.to}: {arguments.output}")
    return EXIT_OK


def _export_answers(arguments: argparse.Namespace) -> int:
    from symnoise_ray.integrations.alpaca_eval import export_answers

    if arguments.output is None:
        raise UserError("--to alpaca_eval writes a folder, so --output must name one, but does not")
    judged = export_answers(
        arguments.directory, arguments.output, arguments.arm, searched=arguments.all
    )
    trials, references = {each.trial for each in judged}, {each.reference for each in judged}
    told = f"{len(trials)} trials, {len(references)} references"
    print(f"alpaca_eval: {told}, {len(judged)} annotations.json in {arguments.output}")
    return EXIT_OK
