"""The effect of an arm over several sweeps: a random-effects meta-analysis of what each found.

In: per sweep, the effect of the same arm and its standard error. Out: their mean over the sweeps of
which these are a sample, and how much the true effects differ. Prompts of different sweeps are
never put into one table: a sweep is one piece of evidence, however many prompts it has.

Effects are differences in win rate, as fractions. Shape letter: K sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtrc, stdtr, stdtrit

from symnoise_ray.records.verdict import Comparison
from symnoise_ray.statistics.bootstrap import Floats

CONFIDENCE = 0.95


class Effect(NamedTuple):
    """What one sweep found: a difference in win rate, and its standard error."""

    gain: float
    error: float


@dataclass(frozen=True)
class Pooled:
    """The mean effect over sweeps, and how much they differ.

    `interval_95` is that of the mean. `tau` is the standard deviation of the true effects,
    `i_squared` the share of the differences between the estimates that chance within the sweeps
    does not explain, `q` and `q_p_value` Cochran's test that it explains them all.
    `prediction_95` holds the true effect of another such sweep; None for fewer than three.
    `weights` are the sweeps' shares in the mean.
    """

    gain: float
    error: float
    interval_95: tuple[float, float]
    p_value: float
    tau: float
    i_squared: float
    q: float
    q_p_value: float
    prediction_95: tuple[float, float] | None
    weights: tuple[float, ...]


def effect(comparison: Comparison, *, by_groups: bool) -> Effect | None:
    """What a sweep found in one comparison; None where its seeds cannot tell how trainings differ.

    The variance of a mean over P prompts and S seeds is that of its components: prompts / P +
    seeds / S + rest / (P S). An interval of a sweep is wider, since it is corrected for looks and
    for what is not known of these components; its width would give too small a weight.

    Args:
        comparison: Against one opponent, or of two arms over the reference.
        by_groups: Whether groups of prompts are its units.
    """
    by_prompt, by_seed = comparison.spread_prompts, comparison.spread_seeds
    rest, seeds = comparison.spread_rest, comparison.num_seeds
    units = comparison.num_groups if by_groups else comparison.num_prompts
    if by_prompt is None or by_seed is None or rest is None or seeds < 2 or units < 2:
        return None
    variance = by_prompt / units + by_seed / seeds + rest / (units * seeds)
    times = 2.0 if comparison.over else 1.0  # a contrast's rate holds half of the difference
    return Effect(times * (comparison.win_rate - 0.5), times * math.sqrt(variance))


def pool(effects: Sequence[Effect]) -> Pooled:
    """Pool the effects of two sweeps or more.

    The variance between sweeps is Paule and Mandel's (1982, J. Res. Natl. Bur. Stand. 87, 377),
    the interval that of Hartung and Knapp (2001, Stat. Med. 20, 3875) and of Sidik and Jonkman
    (2002, Stat. Med. 21, 3153), with Student's t of K - 1 degrees of freedom. The prediction
    interval is that of Higgins, Thompson and Spiegelhalter (2009, J. R. Stat. Soc. A 172, 137),
    with K - 2; I^2 is that of Higgins and Thompson (2002, Stat. Med. 21, 1539).

    Raises:
        ValueError: there are fewer than two effects, or a standard error is not above 0.
    """
    gains_K = np.array([each.gain for each in effects])
    variances_K = np.array([each.error for each in effects]) ** 2
    freedom = len(effects) - 1
    if freedom < 1 or not (variances_K > 0).all():
        raise ValueError("pooling takes two effects or more, with standard errors above 0")
    between = _between(gains_K, variances_K)
    weights_K = 1 / (variances_K + between)
    mean = float((weights_K * gains_K).sum() / weights_K.sum())
    squares = float((weights_K * (gains_K - mean) ** 2).sum())
    error = math.sqrt(squares / (freedom * weights_K.sum()))
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    q = _cochran(0.0, gains_K, variances_K)
    return Pooled(
        gain=mean,
        error=error,
        interval_95=(mean - half, mean + half),
        p_value=2 * float(stdtr(freedom, -abs(mean) / error)) if error else float(not mean),
        tau=math.sqrt(between),
        i_squared=max(0.0, 1 - freedom / q) if q else 0.0,
        q=q,
        q_p_value=float(chdtrc(freedom, q)),
        prediction_95=_prediction(mean, math.sqrt(between + error**2), freedom - 1),
        weights=tuple((weights_K / weights_K.sum()).tolist()),
    )


def _cochran(between: float, gains_K: Floats, variances_K: Floats) -> float:
    """The weighted squares around the weighted mean, for a variance between sweeps."""
    weights_K = 1 / (variances_K + between)
    mean = (weights_K * gains_K).sum() / weights_K.sum()
    return float((weights_K * (gains_K - mean) ** 2).sum())


def _between(gains_K: Floats, variances_K: Floats) -> float:
    """The variance at which the weighted squares are as large as expected; 0 if none is left."""
    freedom = len(gains_K) - 1

    def excess(between: float) -> float:
        return _cochran(between, gains_K, variances_K) - freedom

    if excess(0.0) <= 0:
        return 0.0
    # Above the sum of squares every weight is so small that the squares fall below K - 1.
    most = float(((gains_K - gains_K.mean()) ** 2).sum())
    found: float = brentq(excess, 0.0, most)
    return found


def _prediction(mean: float, error: float, freedom: int) -> tuple[float, float] | None:
    if freedom < 1:
        return None
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    return mean - half, mean + half
