"""Length-controlled win rate: the win rate that the same answers would have at equal lengths.

In: the scores and length differences of the items. Out: the fitted model, its win rate at length
difference 0, bootstrap replicates of that rate, and every item's share in it (for intervals over
seeds).

The model is AlpacaEval's (arXiv 2404.04475), P(win) = sigmoid(a tanh(s) + c d + b), with s the
reference's length minus the trial's, in standard deviations (ddof 1, not centred), and d the
prompt's difficulty; it minimises |a| + |c| + |b| + C * cross-entropy. The win rate is the mean of
sigmoid(c d + b). Our own design leaves out what AlpacaEval fitted on other models for its own 805
prompts (d = 0, no gamed rows). It fixes C at 10^(4/3), the median of AlpacaEval's published fits,
instead of cross-validating. So it works for any prompts, needs no random folds, and gives 1 - LC if
the sides are swapped. With AlpacaEval's data it gives AlpacaEval's numbers.

Shape letters: P items, G gamed rows, N all rows, K coefficients, R replicates.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from symnoise_ray.errors import DataError, JudgeError
from symnoise_ray.statistics.bootstrap import Floats

STRENGTH = 10 ** (4 / 3)
GAMED_WEIGHT = 0.2 / 2  # AlpacaEval's weight of 0.2, shared by its two gamed models

_CHUNK = 128  # replicates at once: what fits the processor's cache
_MAX_STEPS, _MAX_HALVINGS = 100, 30
_TOLERANCE = 1e-7  # of the stationarity condition, whose scale is C * N
_STILL = 1e-9  # a move of the coefficients that changes no rate by more


class GamedRows(NamedTuple):
    """AlpacaEval's regularisation rows: verbose and concise answers of its reference, (G,) each.

    `std_deltas` are length differences already divided by their standard deviation.
    """

    scores: Floats
    std_deltas: Floats
    difficulty: Floats


class Items(NamedTuple):
    """The items that the model is fitted on.

    `scores` (P,) are in [0, 1], NaN for a failed verdict (such an item counts in AlpacaEval's mean,
    but not in the fit); `deltas` (P,) are the reference's length minus the trial's; `difficulty`
    (P,) and `gamed` are AlpacaEval's, None for our own design.
    """

    scores: Floats
    deltas: Floats
    difficulty: Floats | None = None
    gamed: GamedRows | None = None


class LengthModel(NamedTuple):
    """The fitted coefficients a (length), c (difficulty; 0 without) and b (bias), and the rate."""

    length: float
    difficulty: float
    bias: float
    win_rate: float


class _Rows(NamedTuple):
    """All rows of a fit: features (N, K), targets and base weights (N,); the first P are items."""

    features: Floats
    targets: Floats
    weights: Floats


def fit_length(items: Items, strength: float = STRENGTH) -> LengthModel:
    """Fit the model to the items.

    Raises:
        JudgeError: the fit does not converge.
    """
    if not items.deltas.any() and (items.scores == 0.5).all():
        return LengthModel(0.0, 0.0, 0.0, 0.5)  # the reference against itself
    rows = _rows(items)
    start_RK = np.zeros((1, rows.features.shape[1]))
    coefficients_RK = _minimise(rows, rows.weights[None, :], strength, start_RK)
    length, *difficulty, bias = map(float, coefficients_RK[0])
    (rate,) = _rates(items, coefficients_RK, np.ones((1, len(items.scores))))
    return LengthModel(length, difficulty[0] if difficulty else 0.0, bias, float(rate))


def replicate(
    items: Items, drawn_RP: Floats, model: LengthModel, strength: float = STRENGTH
) -> Floats:
    """The length-controlled win rate of every bootstrap replicate; each replicate is fitted anew.

    The standard deviation of the lengths and the gamed rows stay the same.

    Args:
        items: The items of `model`.
        drawn_RP: How often each item is drawn, as (R, P).
        model: The fit to all items, from which the fits of the replicates start.
        strength: C.
    """
    rows = _rows(items)
    known = [model.length, model.difficulty, model.bias]
    start_K = np.array(known if items.difficulty is not None else [known[0], known[2]])
    others = np.ones(len(rows.targets) - len(items.scores))
    rates = []
    for first in range(0, len(drawn_RP), _CHUNK):
        drawn = drawn_RP[first : first + _CHUNK]
        times = np.hstack([drawn, np.broadcast_to(others, (len(drawn), len(others)))])
        start_RK = np.tile(start_K, (len(drawn), 1))
        rates.append(
            _rates(items, _minimise(rows, times * rows.weights, strength, start_RK), drawn)
        )
    return np.concatenate(rates)


def shares(items: Items, model: LengthModel, strength: float = STRENGTH) -> Floats:
    """Every item's score at equal lengths, as (P,): their mean is the length-controlled win rate.

    To first order: the rate plus P times its derivative by the item's weight (the infinitesimal
    jackknife), so that a mean over items and seeds can be tested like one of plain scores. A
    length coefficient that the penalty holds at 0 has no effect; a bias of 0 is one half, found as
    surely as any other rate. It works for our own design only.
    """
    rows = _rows(items)
    coefficients_K = np.array([model.length, model.bias])
    chances_P = expit(rows.features @ coefficients_K)
    spread_P = strength * chances_P * (1 - chances_P)
    free = [0, 1] if model.length else [1]
    features_PF = rows.features[:, free]
    curvature_FF = (features_PF * spread_P[:, None]).T @ features_PF
    pull_PF = strength * features_PF * (rows.targets - chances_P)[:, None]
    slope = model.win_rate * (1 - model.win_rate)
    # Least squares: if all length differences are equal, length and bias are the same column.
    moved_FP = np.linalg.lstsq(curvature_FF, pull_PF.T, rcond=1e-12)[0]
    moved_P = moved_FP[-1] * slope * len(items.scores)
    moved_P -= moved_P.mean()  # the penalty's own pull, the same for all
    return np.asarray(model.win_rate + moved_P)


def _rows(items: Items) -> _Rows:
    spread = float(items.deltas.std(ddof=1)) if len(items.deltas) > 1 else 0.0
    tanh_P = np.tanh(items.deltas / spread) if spread > 0 else np.zeros(len(items.deltas))
    columns = [tanh_P, np.ones(len(tanh_P))]
    if items.difficulty is not None:
        columns.insert(1, items.difficulty)
    known_P = ~np.isnan(items.scores)
    rows = _Rows(np.column_stack(columns), np.where(known_P, items.scores, 0.5), known_P * 1.0)
    if items.gamed is None:
        return rows
    gamed = items.gamed
    features_GK = np.column_stack(
        [np.tanh(gamed.std_deltas), gamed.difficulty, np.zeros(len(gamed.scores))]
    )
    return _Rows(
        np.vstack([rows.features, features_GK]),
        np.concatenate([rows.targets, gamed.scores]),
        np.concatenate([rows.weights, np.full(len(gamed.scores), GAMED_WEIGHT)]),
    )


def _rates(items: Items, coefficients_RK: Floats, drawn_RP: Floats) -> Floats:
    bias_R1 = coefficients_RK[:, -1:]
    if items.difficulty is None:
        return np.asarray(expit(bias_R1[:, 0]))
    chances_RP = expit(bias_R1 + coefficients_RK[:, 1:2] * items.difficulty)
    return np.asarray((chances_RP * drawn_RP).sum(axis=1) / drawn_RP.sum(axis=1))


def _minimise(rows: _Rows, weights_RN: Floats, strength: float, start_RK: Floats) -> Floats:
    """Minimise |beta| + C * weighted cross-entropy, for all replicates at once.

    Proximal Newton: each step minimises the penalty plus the quadratic model, and is halved as long
    as the objective would grow. It ends when the subgradient condition holds to 1e-7, or, where two
    columns are nearly equal and the objective cannot tell them apart, when no step moves any more.
    """
    features, targets = rows.features, rows.targets
    num_coefficients = features.shape[1]
    products_NKK = features[:, :, None] * features[:, None, :]
    products = products_NKK.reshape(len(features), -1)
    pull_RK = (weights_RN * targets) @ features

    def value(beta_RK: Floats) -> tuple[Floats, Floats]:
        """Objective, and each row's chance."""
        logits_RN = beta_RK @ features.T
        sizes_RN = np.abs(logits_RN)
        small_RN = np.exp(-sizes_RN)
        # Row by row: a difference of sums would round where nearly all rows are wins.
        against_RN = np.where(logits_RN > 0, 1 - targets, targets)
        entropy_RN = sizes_RN * against_RN + np.log1p(small_RN)
        entropy_R = np.einsum("rn,rn->r", weights_RN, entropy_RN)
        chances_RN = np.where(logits_RN > 0, 1.0, small_RN) / (1 + small_RN)
        return np.abs(beta_RK).sum(1) + strength * entropy_R, chances_RN

    beta_RK = start_RK
    current_R, chances_RN = value(beta_RK)
    for _ in range(_MAX_STEPS):
        gradient_RK = strength * ((weights_RN * chances_RN) @ features - pull_RK)
        settled_R = _unsettled(beta_RK, gradient_RK) < _TOLERANCE
        if settled_R.all():
            return beta_RK
        curvature = strength * ((weights_RN * chances_RN * (1 - chances_RN)) @ products)
        shape = (-1, num_coefficients, num_coefficients)
        move_RK = _newton_step(beta_RK, gradient_RK, curvature.reshape(shape))
        if (settled_R | (np.abs(move_RK).max(axis=1) < _STILL)).all():
            return beta_RK
        allowed_R = current_R + 1e-12 * np.abs(current_R)
        for _ in range(_MAX_HALVINGS):
            next_R, next_chances_RN = value(beta_RK + move_RK)
            if (next_R <= allowed_R).all():
                break
            move_RK = np.where((next_R <= allowed_R)[:, None], move_RK, move_RK / 2)
        beta_RK, current_R, chances_RN = beta_RK + move_RK, next_R, next_chances_RN
    raise JudgeError(
        f"the length model must converge, but did not in {_MAX_STEPS} steps on {len(targets)} rows"
    )


def _unsettled(beta_RK: Floats, gradient_RK: Floats) -> Floats:
    """Each replicate's largest violation of the condition that 0 is a subgradient."""
    at_zero = np.maximum(np.abs(gradient_RK) - 1, 0)
    elsewhere = np.abs(gradient_RK + np.sign(beta_RK))
    return np.asarray(np.where(beta_RK == 0, at_zero, elsewhere).max(axis=1))


def _newton_step(beta_RK: Floats, gradient_RK: Floats, curvature_RKK: Floats) -> Floats:
    """The move that minimises |beta + move| + gradient.move + move.curvature.move / 2.

    The solution is exact: if the signs (-1, 0, +1) of the new beta are known, it solves a linear
    system. Of all patterns of signs whose solution has these signs, the best is the minimum.
    """
    num_replicates, num_coefficients = beta_RK.shape
    scale_R = np.trace(curvature_RKK, axis1=1, axis2=2)
    bent_RKK = curvature_RKK + 1e-13 * scale_R[:, None, None] * np.eye(num_coefficients)
    pull_RK = np.einsum("rjk,rk->rj", bent_RKK, beta_RK) - gradient_RK
    best_R, best_RK = np.zeros(num_replicates), np.zeros_like(beta_RK)  # of all zeros
    for signs in itertools.product((-1, 0, 1), repeat=num_coefficients):
        free = np.flatnonzero(signs)
        if not len(free):
            continue
        wanted_RF = pull_RK[:, free] - np.take(signs, free)
        solved_RF = np.linalg.solve(bent_RKK[:, free[:, None], free], wanted_RF[..., None])[..., 0]
        found_R = -0.5 * (wanted_RF * solved_RF).sum(axis=1)  # the objective, but for a constant
        fits_R = (np.sign(solved_RF) == np.take(signs, free)).all(axis=1) & (found_R < best_R)
        best_R = np.where(fits_R, found_R, best_R)
        new_RK = np.zeros_like(beta_RK)
        new_RK[:, free] = solved_RF
        best_RK = np.where(fits_R[:, None], new_RK, best_RK)
    return best_RK - beta_RK


_GAMED_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")


def read_gamed(path: Path) -> tuple[Floats, GamedRows]:
    """Read AlpacaEval's df_gamed.csv (not shipped: CC BY-NC): prompt difficulties and gamed rows.

    Raises:
        DataError: the file cannot be read, lacks a column, or holds a value out of range.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        table = np.array([[float(row[name]) for name in _GAMED_COLUMNS] for row in rows])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        columns = ", ".join(_GAMED_COLUMNS)
        raise DataError(
            f"{path}: must be AlpacaEval's df_gamed.csv with numbers in {columns}, but got "
            f"{type(error).__name__}: {error}"
        ) from None
    if not len(table):
        raise DataError(f"{path}: must hold at least one row, but got none")
    _require_gamed(table, path)
    by_prompt = dict(zip(table[:, 0].astype(int).tolist(), table[:, 3].tolist(), strict=True))
    difficulty = np.array([by_prompt[prompt] for prompt in sorted(by_prompt)])
    return difficulty, GamedRows(table[:, 1], table[:, 2], table[:, 3])


def _require_gamed(table: Floats, path: Path) -> None:
    for number, row in enumerate(table, 1):
        index, preference = row[:2]
        if not np.isfinite(row[1:]).all() or not 0 <= preference <= 1:
            raise DataError(
                f"{path} row {number}: must have finite numbers and a preference within 0 to 1, "
                f"but has {', '.join(f'{value:g}' for value in row)}"
            )
        if not index.is_integer():  # nor are nan and inf
            raise DataError(f"{path} row {number}: must have a whole index, but has {index:g}")
