"""Keys of earlier versions: taken up under their new names, with one line of advice.

In: the values of a search space, and the place of every key. Out: the same values under today's
keys, and what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def take_up_old_keys(values: dict[str, Any], places: Mapping[Any, str]) -> list[str]:
    """Rename `confirm.top_k` and `confirm.num_seeds` in place; returns the advice, one line each.

    A key that stands in a file beside its new name is left, so that it is refused as unknown; one
    of an override goes before the file.
    """
    confirm = values.get("confirm")
    if not isinstance(confirm, dict):
        return []

    def is_taken_up(old: str, new: str) -> bool:
        overrides = places.get(("confirm", old), "").startswith("override ")
        return old in confirm and (new not in confirm or overrides)

    advice = []
    if is_taken_up("top_k", "arms"):
        confirm["arms"] = confirm.pop("top_k")
        advice.append(f"confirm.top_k is now confirm.arms: write `arms: {confirm['arms']}`")
    if is_taken_up("num_seeds", "looks"):
        number = confirm.pop("num_seeds")
        confirm["looks"] = [number]
        advice.append(
            f"confirm.num_seeds is now confirm.looks, the seeds at each look: write "
            f"`looks: [{number}]`, or leave it out for [3, 5, 8]"
        )
    return advice
