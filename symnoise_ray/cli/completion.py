"""`completion`: what bash, zsh or fish needs to complete the verbs and their options."""

from __future__ import annotations

import argparse

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK

SHELLS = ("bash", "zsh", "fish")


def add_completion(verbs: Verbs) -> None:
    """Add `completion`."""
    parser = add_verb(
        verbs,
        "completion",
        "Print a script with which a shell completes verbs and options.",
        'eval "$(symnoise-ray completion bash)"',
        _run_completion,
        prints_last=True,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def _run_completion(arguments: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(arguments.root, shell=arguments.shell))
    return EXIT_OK
