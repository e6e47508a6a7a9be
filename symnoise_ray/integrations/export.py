"""A finished sweep's winner as the configuration of another trainer.

In: the directory of a sweep and the name of a trainer. Out: the text of a script or configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from symnoise_ray.errors import UserError
from symnoise_ray.integrations.trl import trl_script
from symnoise_ray.integrations.winner import Winner, choose
from symnoise_ray.integrations.yaml_trainers import axolotl, llama_factory

TRAINERS: dict[str, Callable[[Winner], str]] = {
    "trl": trl_script,
    "axolotl": axolotl,
    "llama-factory": llama_factory,
}
"""Name of a trainer -> what writes for it."""
ALPACA_EVAL = "alpaca_eval"
"""What is no trainer and takes answers and verdicts, as `integrations.alpaca_eval` writes them."""


def export(directory: Path, trainer: str, arm: str | None = None) -> str:
    """The winner of a sweep, or an arm's setting, for a trainer of `TRAINERS`.

    Raises:
        UserError: there is no such trainer, the sweep has no verdict, or the trainer cannot be told
            a setting.
        DataError: a file of the sweep is broken.
    """
    if trainer not in TRAINERS:
        known = ", ".join((*TRAINERS, ALPACA_EVAL))
        raise UserError(f"--to must be one of {known}, but got {trainer!r}")
    return TRAINERS[trainer](choose(directory, arm))
