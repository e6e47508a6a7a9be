"""How the level of 5 % is spent over looks at a growing number of seeds.

In: the declared numbers of seeds, and by how much the sweep was made larger after a verdict. Out:
the level of each look. The levels add up to 5 % at most, so that under any dependence between looks
the chance of a wrong verdict stays below it (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SIGNIFICANCE = 0.05
"""Chance of a verdict of a difference, over all looks and arms, when there is none."""
DECLARED = 0.9
"""Share of the level for the looks that were declared before the first trial; the rest is kept for
growth after a verdict."""
_POWER = 3


class Look(NamedTuple):
    """A look at so many seeds, at its share of the level, in a part of the sweep (1 the first)."""

    num_seeds: int
    share: float
    part: int


def declared_looks(looks: Sequence[int], share: float = DECLARED, part: int = 1) -> list[Look]:
    """The declared looks: by look t of the whole, share * t^3 is spent, t its share of the seeds.

    Early looks decide large effects alone, so that the last one keeps most of the level. Source:
    the power family of spending functions of Kim and DeMets (1987).
    """
    spent, found = 0.0, []
    for num_seeds in looks:
        until = share * (num_seeds / looks[-1]) ** _POWER
        found.append(Look(num_seeds, until - spent, part))
        spent = until
    return found


def growth_share(growth: int) -> float:
    """The share of the level for the growth-th time (from 1) that a sweep grew after a verdict.

    (1 - DECLARED) / (k (k + 1)), which adds up to 1 - DECLARED however often it grows.
    """
    return (1 - DECLARED) / (growth * (growth + 1))
