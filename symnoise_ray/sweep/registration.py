"""What a sweep declares before its first trial: the question, the design, and what it can tell.

In: a sweep and its directory. Out: design.json. It is written once and grows only by a part after a
verdict, so that what was done otherwise can be seen. It also holds where the confirmation's seeds
begin: no other sweep of the same folder confirms on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symnoise_ray.config import SweepConfig
from symnoise_ray.preflight.power import Confirmation, declaration
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import DESIGN, LOCK
from symnoise_ray.space.design import FRESH_SEED, Arms, design
from symnoise_ray.statistics.looks import declared_looks
from symnoise_ray.sweep import ordered
from symnoise_ray.sweep.earlier import search_seeds, used_seeds
from symnoise_ray.sweep.resume import FREE
from symnoise_ray.sweep.schedule import Part

_APART = 1000
"""Distance of the seeds of one sweep of a folder from those of the next."""


def register(
    config: SweepConfig, directory: Path, num_growths: int, num_prompts: int = 0
) -> dict[str, Any]:
    """Write down the design, or add the part that follows on a verdict; returns what is there.

    Args:
        config: The sweep.
        directory: Its directory.
        num_growths: How often it was made larger after a verdict.
        num_prompts: How many the confirmation has, if they are more than at first; else 0.
    """
    path = directory / DESIGN
    written = read_json(path) if path.exists() else _declaration(config, directory)
    # Before a verdict is seen, a part may still become another one: that is a departure.
    written["parts"][num_growths:] = [_part(config, num_prompts)]
    write_json(written, path)
    return written


def _declaration(config: SweepConfig, directory: Path) -> dict[str, Any]:
    arms = Arms.of(config)
    counts = [arms.name(cell.arm) for cell in design(config)]
    return {
        "question": config.question.model_dump(mode="json"),
        "trials_by_arm": {name: counts.count(name) for name in dict.fromkeys(counts)},
        "opponents_in_search": config.search.opponents,
        "arms_confirmed": config.confirm.arms,
        "looks": [look._asdict() for look in declared_looks(config.confirm.looks)],
        "pairs": config.confirm.pairs,
        "power": _power(config, directory),
        "fresh_seeds_from": _fresh_seeds(config, directory),
        "parts": [],
    }


def _power(config: SweepConfig, directory: Path) -> dict[str, Any] | None:
    """What the design can tell, of a gain of the size that matters; None without a confirmation."""
    if not config.confirm.arms:
        return None
    return declaration(Confirmation.of(config, directory.parent, download=True))


def _part(config: SweepConfig, num_prompts: int) -> Part:
    part: Part = {
        "looks": list(config.confirm.looks),
        "num_trials": config.search.num_trials,
        "arms": config.confirm.arms,
    }
    return part | ({"prompts": num_prompts} if num_prompts else {})


def _fresh_seeds(config: SweepConfig, directory: Path) -> int:
    """Distance of the first fresh seed from the search's, past all that other sweeps here take."""
    used = used_seeds(directory.parent, directory)
    apart = {seed - first for seed in used for first in search_seeds(config)}
    distance = FRESH_SEED
    while any(distance <= seed < distance + _APART for seed in apart):
        distance += _APART
    return distance


def departures(directory: Path) -> tuple[str, ...]:
    """What was done otherwise than declared, a line each."""
    path = directory / LOCK
    if not path.exists():
        return ()
    found = [*ordered.departures(directory)]
    for number, part in enumerate(read_json(path).get("resumed", []), 2):
        when = "after a verdict" if part.get("after_verdict") else "before a verdict"
        found += [
            f"part {number}, {when}: {name} {was} -> {now}"
            for name, (was, now) in part["changed"].items()
            if not name.startswith(FREE)
        ]
    return tuple(found)
