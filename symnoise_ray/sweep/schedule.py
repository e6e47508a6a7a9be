"""When each arm is looked at, and with how much of the level, in a sweep that may have grown.

In: design.json (the looks of every part after a verdict) and confirm.json (the settings that every
part chose). Out: the looks of one question. A setting that was chosen only after a verdict was seen
has no claim on the level that was declared, and neither have prompts that were added after one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from symnoise_ray.statistics.looks import Look, declared_looks, growth_share

Part = dict[str, Any]
"""`looks`: the numbers of seeds that the part asked for. `prompts`: how many the confirmation has,
in a part that has more of them than the sweep began with."""


def num_prompts(part: Part) -> int:
    """How many prompts the confirmation has in a part; 0 for those that the sweep began with."""
    return int(part.get("prompts", 0))


def looks_of(parts: Sequence[Part], chosen: Sequence[Any]) -> list[Look]:
    """The looks of a question.

    Args:
        parts: One for the sweep as it was declared, one more for each growth after a verdict.
        chosen: What was compared in each part: equal values are the same settings, None nothing.
    """
    looks: list[Look] = []
    before: Any = None
    asked = 0
    for number, (part, now) in enumerate(zip(parts, chosen, strict=True)):
        seen = looks[-1].num_seeds if looks else 0
        if now is None or now != before:
            looks, seen = [], 0
        if num_prompts(part) != asked:
            seen = 0  # on other prompts, every number of seeds is a look of its own
        new = [count for count in part["looks"] if count > seen]
        if now is not None and new:
            looks += (
                declared_looks(new, part=1)
                if number == 0
                else declared_looks(new, growth_share(number), number + 1)
            )
        before, asked = now, num_prompts(part)
    return looks
