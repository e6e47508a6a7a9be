"""Intervals by resampling: how much a number would vary with other prompts.

In: the cluster (the prompt) of every item. Out: how often each item is drawn in each replicate,
and from the replicates of any statistic its 95 % interval. Items of one prompt are drawn together.
The seed is fixed, so everything is a function of the data alone.

Shape letters: P items, G clusters, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Floats = NDArray[np.float64]

NUM_REPLICATES = 2000
_SEED = 20231202


def draws(clusters: Sequence[Hashable], num_replicates: int = NUM_REPLICATES) -> Floats:
    """How often each item is drawn in each replicate, as (R, P).

    Args:
        clusters: The cluster of every item; clusters are drawn with replacement, whole.
        num_replicates: Number of replicates.
    """
    numbers: dict[Hashable, int] = {}
    of_item = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    count = len(numbers)
    generator = np.random.default_rng(_SEED)
    drawn_RG = generator.multinomial(count, [1 / count] * count, num_replicates)
    return drawn_RG[:, of_item].astype(float)


def interval(replicates_R: Floats, num_clusters: int) -> tuple[float, float]:
    """95 % interval from the replicates of a rate: the expanded percentile interval.

    A bootstrap of few clusters is too narrow, by the factor sqrt((G - 1) / G) and by the difference
    between Student's t and the normal distribution. Both move the levels outwards, to
    Phi(sqrt(G / (G - 1)) * t), which changes nothing for many clusters. Source: Hesterberg (2015),
    section 5.3. One cluster gives the interval from 0 to 1.
    """
    if num_clusters < 2:
        return 0.0, 1.0
    tail = math.sqrt(num_clusters / (num_clusters - 1)) * stdtrit(num_clusters - 1, 0.025)
    low, high = np.quantile(replicates_R, [ndtr(tail), ndtr(-tail)])
    return float(low), float(high)


def is_one_sided(scores_P: Floats) -> bool:
    """Whether no item was lost, or none was won; ties count for both sides."""
    return bool((scores_P >= 0.5).all() or (scores_P <= 0.5).all())


def unseen(rate: float, num_clusters: int, level: float = 0.05) -> tuple[float, float]:
    """Interval of a rate when all scores are on one side of one half; 95 % at a level of 0.05.

    The spread of such scores does not show the other verdict, which may still occur on a share q of
    the prompts, (1 - q)^n = level / 2. Those prompts may be all lost or all won. If all verdicts
    are equal, this is the exact interval of Clopper and Pearson (1934).
    """
    seen = (level / 2) ** (1 / num_clusters)
    return seen * rate, seen * rate + 1 - seen


def unseen_p_value(rate: float, num_clusters: int) -> float:
    """The two-sided p-value of one half that belongs to `unseen`; the sign test for equal verdicts.

    The rate is one half if the unseen share is 1 - 0.5 / rate, or the same of the losses.
    """
    return min(1.0, 2 * (0.5 / max(rate, 1 - rate)) ** num_clusters)


def hull(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The smallest interval that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])
