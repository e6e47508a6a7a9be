"""Scores by group of prompts, for a verdict on other groups: other topics, other sources.

In: scores of prompts by seeds, and the group of every prompt. Out: scores of groups by seeds, which
`comparison` takes in the place of prompts.

Shape letters: P prompts, S seeds, G groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from symnoise_ray.statistics.bootstrap import Floats


def by_group(scores_PS: Floats, groups: Sequence[Hashable]) -> Floats:
    """The mean score of each group's prompts by seed, (G, S); groups in order of first occurrence.

    The population behind it is groups like these ones, each with equal weight: the groups are what
    was drawn at random, and prompts only tell how a group does. An interval over these rows says
    what to expect of a group that was not seen, whatever prompts of one group have in common. For
    other prompts of the same groups it is too wide, and its mean is another one where the groups
    differ in size. It is as sure as the groups are many; of one group there is no interval.

    This is the analysis of cluster means (Donner and Klar 2000, Design and Analysis of Cluster
    Randomization Trials in Health Research), which answers for the average cluster (Kahan, Li,
    Copas and Harhay 2023, International Journal of Epidemiology 52:107). Clustered standard errors,
    as in Miller 2024 (arXiv 2411.00640), instead keep the weight of each prompt.

    Args:
        scores_PS: Scores of prompts by seeds.
        groups: The group of every prompt, P of them.

    Raises:
        ValueError: the groups are not as many as the prompts.
    """
    numbers: dict[Hashable, int] = {}
    rows: list[list[int]] = []
    for row, group in zip(range(len(scores_PS)), groups, strict=True):
        if numbers.setdefault(group, len(rows)) == len(rows):
            rows.append([])
        rows[numbers[group]].append(row)
    means = [scores_PS[of_group].mean(axis=0) for of_group in rows]
    return np.array(means, dtype=np.float64).reshape(len(means), *scores_PS.shape[1:])
