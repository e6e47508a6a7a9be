"""The colours and marks of arms and phases, alike in figures, tables and legends.

Colours are Okabe and Ito's (2008), which differ for any colour vision; where they end, Paul Tol's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from symnoise_ray.noise.types import is_paired
from symnoise_ray.records.metrics import OWN_PHASES

_ARMS = {
    "none": "#7d7d7d",
    "neftune": "#e69f00",
    "gaussian": "#56b4e9",
    "bernoulli": "#009e73",
    "symnoise": "#d55e00",
    "symuniform": "#0072b2",
    "symgaussian": "#cc79a7",
    "independent": "#b3a400",  # Okabe and Ito's yellow, darker: it would vanish on white
    "duplicate": "#8c5a3c",
    "r3f": "#aa4499",
    "hidden": "#44aa99",
    "adversarial": "#117733",
}
_OTHERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b3a400", "#8c5a3c")
_PHASE_HUES = ("#9a9a9a", "#56b4e9", "#0072b2", "#e69f00", "#cc79a7", "#009e73")
PHASE_COLOURS = dict(zip(OWN_PHASES, _PHASE_HUES, strict=True))


class Arm(NamedTuple):
    """An arm as a legend shows it; `mark` is a diamond where rows come in pairs, else a circle."""

    name: str
    colour: str
    mark: str


def arms_of(names: Iterable[str]) -> list[Arm]:
    """The arms that occur, noise types in their own order, then others in alphabetical order."""
    present = set(names)
    known = [name for name in _ARMS if name in present]
    others = sorted(present - set(known))
    used = {_ARMS[name] for name in known}
    free = [hue for hue in _OTHERS if hue not in used] or _OTHERS
    hues = _ARMS | {name: free[n % len(free)] for n, name in enumerate(others)}
    return [
        Arm(name, hues[name], "diamond" if is_paired(name) else "circle")
        for name in [*known, *others]
    ]
