"""Scores of all pairs of an arm's and an opponent's trainings, as one table of prompts by seeds.

In: scores of prompts by the arm's seeds by the opponent's seeds. Out: a table that the two-way
analysis takes. One noisy verdict per pair and prompt is then averaged over S * S pairs in place of
S, for the same trainings.

Shape letters: P prompts, S seeds of the arm, and as many of the opponent.
"""

from __future__ import annotations

from symnoise_ray.statistics.bootstrap import Floats


def by_seed(scores_PSS: Floats) -> Floats:
    """What each seed number contributes, (P, S): seed n of the arm and seed n of the opponent.

    The mean over the pairs in which the arm has seed n, plus the mean over those in which the
    opponent has it, less the mean over all. These are Sen's structural components (1960) of the
    mean over all pairs, added up by seed number as trainings of one number may correlate. Their
    mean over seeds is the mean over all pairs, whose variance the mean squares of the two-way
    layout then estimate: without bias for effects of prompts, of each side's seeds, of both with
    prompts, and for the rest; too large for effects of a pair as such, so on the safe side.
    Derived in docs/statistics.md, simulated in benchmarks/pairs.py. For one seed this is the table
    itself.
    """
    of_arm_PS, of_opponent_PS = scores_PSS.mean(axis=2), scores_PSS.mean(axis=1)
    found: Floats = of_arm_PS + of_opponent_PS - of_arm_PS.mean(axis=1, keepdims=True)
    return found
