"""A smooth fit of win rates over settings, from which an arm's setting is chosen.

In: the settings of all arms' trials as coordinates, their win rates and standard errors. Out: the
fitted mean and its standard deviation at any setting. The largest of many uncertain numbers is
flattered; in the fit, all trials lend each other what they measured.

Shape letters: N trials, M other settings, D coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import Delaunay, QhullError

from symnoise_ray.config import Parameter
from symnoise_ray.statistics.bootstrap import Floats

LEVEL, SLOPE, CURVATURE, LOCAL, LENGTH, SEEDS = 0.1, 0.3, 0.5, 0.02, 0.3, 0.01
"""Standard deviations, in win rate: of the arms' levels; of an arm's slope over a searched range;
of the curvature that all arms share; of what else an arm does within a `LENGTH` of the range; and
of what another seed changes."""
COLLAPSED = 0.2
"""So far below the best of its arm, a trial has collapsed; how deep it fell says no more."""
FEWEST = 4
"""Trials of an arm at different settings below which there is nothing to fit."""
_SMALLEST_ERROR = 1e-3
_ROUNDING = 1e-9


class Fit(NamedTuple):
    """Fitted win rates and their standard deviations, each (N,)."""

    mean_N: Floats
    deviation_N: Floats


class Curves:
    """Win rate over settings, for all arms: a Gaussian process with each trial's own noise.

    Every arm has its own level, slopes and small deviations; all have one curvature for each
    parameter, since a few trials of one arm cannot tell a curve from noise and those of all arms
    can. Where the optimum lies is each arm's own. The kernel is fixed: from so few trials the
    marginal likelihood learns little. A trial's noise is the variance of its win rate over prompts,
    plus that of seeds. Source: Rasmussen and Williams (2006), sections 2.2 and 2.7.

    Args:
        arms_N: The arm of every trial, as a number.
        coordinates_ND: Settings, each coordinate scaled to [0, 1].
        rates_N: Win rates.
        errors_N: Their standard errors.
    """

    def __init__(
        self, arms_N: Floats, coordinates_ND: Floats, rates_N: Floats, errors_N: Floats
    ) -> None:
        self._places = arms_N, coordinates_ND - 0.5
        noise_N = np.maximum(errors_N, _SMALLEST_ERROR) ** 2 + SEEDS**2
        covariance_NN = _covariance(self._places, self._places)
        self._factor = cho_factor(covariance_NN + np.diag(noise_N))
        self._centre = float(rates_N.mean())
        self._weights_N = cho_solve(self._factor, rates_N - self._centre)

    def at(self, arm: int, coordinates_MD: Floats) -> Fit:
        """The fit for one arm at any settings."""
        places = np.full(len(coordinates_MD), arm), coordinates_MD - 0.5
        across_MN = _covariance(places, self._places)
        explained_M = (across_MN * cho_solve(self._factor, across_MN.T).T).sum(axis=1)
        variance_M = np.diag(_covariance(places, places)) - explained_M
        mean_M = across_MN @ self._weights_N + self._centre
        return Fit(mean_M, np.sqrt(np.maximum(variance_M, 0.0)))


def _covariance(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Floats:
    """Of win rates at settings (arms, coordinates around 0)."""
    (arms_N, one_ND), (arms_M, other_MD) = one, other
    same_NM = arms_N[:, None] == arms_M[None, :]
    apart_NM = np.linalg.norm(one_ND[:, None, :] - other_MD[None, :, :], axis=-1)
    scaled_NM = math.sqrt(5) * apart_NM / LENGTH
    matern_NM = (1 + scaled_NM + scaled_NM**2 / 3) * np.exp(-scaled_NM)
    own_NM = LEVEL**2 + SLOPE**2 * (one_ND @ other_MD.T) + LOCAL**2 * matern_NM
    common_NM = 1 + CURVATURE**2 * (one_ND**2 @ (other_MD**2).T)
    found: Floats = same_NM * own_NM + common_NM
    return found


def usable(rates_N: Floats) -> NDArray[np.bool_]:
    """Which of an arm's trials did not collapse."""
    return np.asarray(rates_N >= rates_N.max() - COLLAPSED)


def floored(rates_N: Floats) -> Floats:
    """An arm's win rates for the fit: collapsed ones count as bad, and do not bend the curve."""
    found: Floats = np.maximum(rates_N, rates_N.max() - COLLAPSED)
    return found


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
    return [
        0.5 if v is None or high == low else (place(float(v)) - low) / (high - low) for v in values
    ]


def within(tried_ND: Floats, new_MD: Floats) -> list[bool]:
    """Which new settings lie in the convex hull of those that were tried.

    Beyond it the fit knows nothing, and a training may collapse there.
    Coordinates that never differ among the tried ones must be as theirs.
    """
    varied = np.ptp(tried_ND, axis=0) > 0
    fixed = np.abs(new_MD[:, ~varied] - tried_ND[0, ~varied]).max(axis=1, initial=0) <= _ROUNDING
    known, asked = tried_ND[:, varied], new_MD[:, varied]
    if known.shape[1] == 1:
        low, high = known.min() - _ROUNDING, known.max() + _ROUNDING
        inside = (asked[:, 0] >= low) & (asked[:, 0] <= high)
    else:
        try:
            inside = Delaunay(known).find_simplex(asked) >= 0
        except (QhullError, ValueError):  # too few, or all on one line
            inside = np.zeros(len(asked), dtype=bool)
    return [bool(each) for each in fixed & inside]
