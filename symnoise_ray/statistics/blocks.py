"""All trials of a search together: a second opinion, which is never the verdict.

In: win rates of the trials of two arms, block by block. Out: the mean difference with its interval.
A block holds one trial of every arm at the same shared settings and the same training seed, so its
differences are those of the treatment. They are averaged over everything that was searched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from symnoise_ray.records.results import TrialResult

FEWEST = 3
"""Blocks below which there is no second opinion."""


class BlockDifference(NamedTuple):
    """Difference of two arms' win rates over all blocks, a fraction, with its 95 % interval."""

    arm: str
    difference: float
    interval_95: tuple[float, float]
    num_blocks: int


def block_differences(trials: Sequence[TrialResult], reference: str) -> list[BlockDifference]:
    """Every arm against the reference, over the blocks in which both came to their end.

    The analysis of randomised blocks: Student's t on the differences (Fisher, 1935).

    Args:
        trials: Of the search; those of one training seed are a block.
        reference: The arm that the others are compared with.
    """
    rates: dict[str, dict[int, float]] = {}
    for trial in sorted(trials, key=lambda trial: trial.trial):
        if trial.is_done and trial.win_rate is not None:
            rates.setdefault(trial.arm, {}).setdefault(trial.seed, trial.win_rate)
    own = rates.get(reference, {})
    found = [_difference(arm, known, own) for arm, known in rates.items() if arm != reference]
    return [each for each in found if each is not None]


def _difference(
    arm: str, rates: Mapping[int, float], own: Mapping[int, float]
) -> BlockDifference | None:
    gaps = np.array([rates[block] - own[block] for block in rates if block in own])
    if len(gaps) < FEWEST:
        return None
    mean = float(gaps.mean())
    half = float(stdtrit(len(gaps) - 1, 0.975) * gaps.std(ddof=1) / math.sqrt(len(gaps)))
    return BlockDifference(arm, mean, (mean - half, mean + half), len(gaps))
