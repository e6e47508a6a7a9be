"""A preference from the log-probabilities of the two labels that a judge may write."""

from __future__ import annotations

import math
from collections.abc import Sequence


def log_probability_preference(
    first: float | None, second: float | None, *, switched: bool = False
) -> float | None:
    """Preference of a judge that answers with one token, from that token's log-probabilities.

    2 - p(first) / (p(first) + p(second)), the expectation of its verdict: finer than the token it
    happened to draw. AlpacaEval's tokens are m and M. Source: alpaca_eval's logprob_parser.

    Args:
        first: Log-probability of the token that names the answer read first; None where it is
            not among the top tokens, which counts as never.
        second: The same for the answer read second.
        switched: Whether the trial's answer was the one read first.

    Returns:
        A number in [1, 2], 2 meaning the trial's answer; None where both tokens are missing.
    """
    if first is None and second is None:
        return None
    low, high = (-math.inf if value is None else value for value in (first, second))
    preference = 2 - 1 / (1 + math.exp(min(high - low, 700.0)))
    return 3 - preference if switched else preference


def log_sum(logprobs: Sequence[float]) -> float:
    """Logarithm of the sum of probabilities; minus infinity where all are zero or there are none.

    The largest is taken out of the sum, so that small probabilities do not all become zero.
    """
    peak = max(logprobs, default=-math.inf)
    if peak == -math.inf:
        return peak
    return peak + math.log(sum(math.exp(value - peak) for value in logprobs))
