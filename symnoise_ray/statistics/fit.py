"""A smooth fit of win rates over settings, from which an arm's setting is chosen.

In: the settings of an arm's trials as coordinates, their win rates and standard errors. Out: the
fitted mean and its standard deviation at each. The largest of many uncertain numbers is flattered;
neighbours in the fit lend each other what they measured.

Shape letters: N trials, D coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from symnoise_ray.config import Parameter
from symnoise_ray.statistics.bootstrap import Floats

AMPLITUDE, LENGTH, SEEDS = 0.15, 0.3, 0.01
"""Of the curve, in win rate; in shares of a searched range; and what another seed changes."""
FEWEST = 4
"""Trials at different settings below which there is nothing to fit."""
_SMALLEST_ERROR = 1e-3


class Fit(NamedTuple):
    """Fitted win rate and its standard deviation at every trial, each (N,)."""

    mean_N: Floats
    deviation_N: Floats


def fit(coordinates_ND: Floats, rates_N: Floats, errors_N: Floats) -> Fit | None:
    """Gaussian process with each trial's own noise; None where there are too few settings.

    Its kernel is fixed (Matern 5/2): a curve that moves by some `AMPLITUDE` over a `LENGTH` of the
    searched range. From as few trials as an arm has, the marginal likelihood learns lengths that
    flatten the curve; in simulations these values chose better settings than learnt ones, and than
    the largest win rate. A trial's noise is the variance of its win rate over prompts, plus that of
    seeds. Source: Rasmussen and Williams (2006), section 2.2; the computation is scikit-learn's.

    Args:
        coordinates_ND: Settings, each coordinate scaled to [0, 1].
        rates_N: Win rates.
        errors_N: Their standard errors.
    """
    if coordinates_ND.shape[1] == 0 or len(np.unique(coordinates_ND, axis=0)) < FEWEST:
        return None
    # Over a second to import, and needed only once a search has ended.
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    noise_N = np.maximum(errors_N, _SMALLEST_ERROR) ** 2 + SEEDS**2
    kernel = ConstantKernel(AMPLITUDE**2) * Matern(LENGTH, nu=2.5)
    model = GaussianProcessRegressor(kernel, alpha=noise_N, optimizer=None)
    centre = float(np.average(rates_N, weights=1 / (noise_N + AMPLITUDE**2)))
    model.fit(coordinates_ND, rates_N - centre)
    mean_N, deviation_N = model.predict(coordinates_ND, return_std=True)
    return Fit(mean_N + centre, deviation_N)


def coordinates(points: Sequence[Mapping[str, Any]], parameters: Mapping[str, Parameter]) -> Floats:
    """Settings as coordinates in [0, 1] of shape (N, D), those left out that never differ.

    Numbers are scaled to their parameter's range, by their logarithm if it is searched so, or if
    all choices are above 0. A choice between words is one coordinate per word. A parameter that a
    point lacks is in the middle.
    """
    columns: list[list[float]] = []
    for name in sorted({name for point in points for name in point}):
        values = [point.get(name) for point in points]
        if len(set(map(repr, values))) < 2:
            continue
        if all(_is_number(value) for value in values if value is not None):
            columns.append(_scaled(values, parameters.get(name)))
        else:
            words = sorted(set(map(repr, values)))
            columns += [[float(repr(value) == word) for value in values] for word in words]
    return np.array(columns, dtype=float).reshape(len(columns), len(points)).T


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scaled(values: Sequence[Any], parameter: Parameter | None) -> list[float]:
    known = [float(value) for value in values if value is not None]
    ends = [parameter.low, parameter.high] if parameter else []
    choices = [c for c in (parameter.choices or ()) if _is_number(c)] if parameter else []
    reach = [float(end) for end in (*ends, *choices, *known) if end is not None]
    log = min(reach) > 0 and (parameter is None or parameter.log or bool(choices))
    place = math.log if log else float
    low, high = place(min(reach)), place(max(reach))
    return [0.5 if v is None else (place(float(v)) - low) / (high - low) for v in values]


def pick(rates_N: Floats, fitted: Fit | None) -> int:
    """The trial with the largest fitted win rate, or measured one where nothing was fitted."""
    return int(np.argmax(rates_N if fitted is None else fitted.mean_N))
