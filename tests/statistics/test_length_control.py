"""The length model: an exact optimum, its bootstrap, and every item's share in it."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit

from symnoise_ray.statistics.bootstrap import Floats, draws, interval, unseen, unseen_p_value
from symnoise_ray.statistics.length_control import (
    GAMED_WEIGHT,
    STRENGTH,
    GamedRows,
    Items,
    fit_length,
    replicate,
    shares,
)


def some_items(count: int, seed: int = 0, *, alpaca_eval: bool = False) -> Items:
    """Graded verdicts that like length, on answers of many lengths."""
    rng = np.random.default_rng(seed)
    deltas = rng.normal(40, 200, size=count).round()
    scores = np.clip(expit(0.3 - deltas / 150 + rng.normal(size=count)), 0, 1)
    if not alpaca_eval:
        return Items(scores, deltas)
    gamed = GamedRows(rng.random(2 * count), rng.normal(size=2 * count), rng.normal(size=2 * count))
    return Items(scores, deltas, rng.normal(size=count), gamed)


def objective(beta: Floats, items: Items, strength: float) -> float:
    """The penalised cross-entropy, written down a second time and plainly."""
    length, difficulty, bias = beta
    spread = items.deltas.std(ddof=1)
    total = 0.0
    difficulties = np.zeros(len(items.scores)) if items.difficulty is None else items.difficulty
    for y, delta, d in zip(items.scores, items.deltas, difficulties, strict=True):
        logit = length * math.tanh(delta / spread) + difficulty * d + bias
        total += np.logaddexp(0, logit) - y * logit
    if items.gamed is not None:
        for y, s, d in zip(*items.gamed, strict=True):
            logit = length * math.tanh(s) + difficulty * d
            total += GAMED_WEIGHT * (np.logaddexp(0, logit) - y * logit)
    return float(np.abs(beta).sum() + strength * total)


@pytest.mark.parametrize("alpaca_eval", [False, True])
@pytest.mark.parametrize("strength", [0.05, 2.7826, STRENGTH])
def test_the_fit_is_the_minimum_of_the_written_objective(
    strength: float, alpaca_eval: bool
) -> None:
    items = some_items(30, alpaca_eval=alpaca_eval)
    model = fit_length(items, strength)
    found = np.array(model[:3])
    best = objective(found, items, strength)
    searched = minimize(
        objective, found + 0.1, (items, strength), "Nelder-Mead", options={"xatol": 1e-6}
    )
    assert best <= searched.fun + 1e-9 * abs(searched.fun)
    if not alpaca_eval:
        assert model.win_rate == pytest.approx(expit(model.bias))


def test_a_strong_penalty_leaves_nothing() -> None:
    model = fit_length(some_items(20), 1e-3)
    assert model == (0.0, 0.0, 0.0, 0.5)


def test_the_reference_against_itself_is_one_half_whatever_the_gamed_rows() -> None:
    items = some_items(20, alpaca_eval=True)
    same = items._replace(scores=np.full(20, 0.5), deltas=np.zeros(20))
    assert fit_length(same) == (0.0, 0.0, 0.0, 0.5)


@pytest.mark.parametrize("lengths", ["same side", "equal", "one odd"])
def test_lengths_that_tell_nothing_do_not_stop_the_fit(lengths: str) -> None:
    deltas = {
        "same side": np.linspace(900, 901, 12),
        "equal": np.full(12, 7.0),
        "one odd": np.array([1000.0] + [0.0] * 11),
    }[lengths]
    scores = np.array([1.0, 0.0, 1.0, 1.0] * 3)
    model = fit_length(Items(scores, deltas))
    assert 0.5 < model.win_rate <= 0.85
    rates = replicate(Items(scores, deltas), draws(range(12), 50), model)
    assert np.isfinite(rates).all()


def test_a_judge_of_length_alone_is_seen_through() -> None:
    rng = np.random.default_rng(0)
    deltas = rng.normal(-100, 200, size=4000)
    scores = (rng.random(4000) < expit(-2 * np.tanh(deltas / deltas.std(ddof=1)))) * 1.0
    model = fit_length(Items(scores, deltas))
    assert scores.mean() > 0.6
    assert model.length == pytest.approx(-2, abs=0.15)
    assert model.win_rate == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("num_prompts", [200, 805])
@pytest.mark.parametrize("num_lost", [1, 5])
@pytest.mark.parametrize("spread", [0, 500])
def test_a_model_that_wins_nearly_always_is_fitted_all_the_same(
    num_prompts: int, num_lost: int, spread: int
) -> None:
    rng = np.random.default_rng(0)
    scores = np.ones(num_prompts)
    scores[:num_lost] = 0
    items = Items(scores, rng.normal(0, spread, num_prompts))
    model = fit_length(items)
    assert model.win_rate == pytest.approx(scores.mean(), abs=0.01)
    assert np.isfinite(replicate(items, draws(range(num_prompts), 300), model)).all()


def test_graded_verdicts_that_are_nearly_sure_are_fitted_all_the_same() -> None:
    rng = np.random.default_rng(0)
    items = Items(0.999 + 0.001 * rng.random(805), rng.normal(0, 500, 805))
    model = fit_length(items)
    assert model.win_rate == pytest.approx(items.scores.mean(), abs=0.001)
    assert np.isfinite(replicate(items, draws(range(805), 300), model)).all()


def slow_rate(items: Items, drawn_P: Floats) -> float:
    """The rate of one replicate by a general solver, with |beta| = up + down, both at least 0."""
    spread = items.deltas.std(ddof=1)
    columns = [np.tanh(items.deltas / spread), np.ones(len(drawn_P))]
    rows, targets, weights = np.column_stack(columns), items.scores, drawn_P
    if items.difficulty is not None and items.gamed is not None:
        gamed = items.gamed
        rows = np.insert(rows, 1, items.difficulty, axis=1)
        zeros = np.zeros(len(gamed.scores))
        more = np.column_stack([np.tanh(gamed.std_deltas), gamed.difficulty, zeros])
        rows, targets = np.vstack([rows, more]), np.concatenate([targets, gamed.scores])
        weights = np.concatenate([weights, zeros + GAMED_WEIGHT])
    width = rows.shape[1]

    def value(parts: Floats) -> tuple[float, Floats]:
        logits = rows @ (parts[:width] - parts[width:])
        entropy = weights @ (np.logaddexp(0, logits) - targets * logits)
        slope = STRENGTH * rows.T @ (weights * (expit(logits) - targets))
        return parts.sum() + STRENGTH * entropy, np.concatenate([1 + slope, 1 - slope])

    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000}
    start, bounds = np.full(2 * width, 0.1), [(0, None)] * (2 * width)
    found = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    beta = found.x[:width] - found.x[width:]
    difficulty_P = np.zeros(len(drawn_P)) if items.difficulty is None else items.difficulty
    return float(
        np.average(expit(beta[-1] + (width == 3) * beta[1] * difficulty_P), weights=drawn_P)
    )


@pytest.mark.parametrize("alpaca_eval", [False, True])
def test_every_replicate_is_a_fit_of_its_own(alpaca_eval: bool) -> None:
    items = some_items(25, seed=3, alpaca_eval=alpaca_eval)
    drawn_RP = draws(range(25), 150)  # more than one chunk
    rates = replicate(items, drawn_RP, fit_length(items))
    assert len(rates) == 150
    for number in range(0, 150, 29):
        assert rates[number] == pytest.approx(slow_rate(items, drawn_RP[number]), abs=1e-5)


def test_drawing_every_item_once_gives_the_fit_itself() -> None:
    items = some_items(40, alpaca_eval=True)
    model = fit_length(items)
    assert replicate(items, np.ones((2, 40)), model) == pytest.approx(model.win_rate, abs=1e-9)


# Shares


def test_the_shares_mean_is_the_rate_and_their_spread_that_of_the_bootstrap() -> None:
    items = some_items(400, seed=5)
    model = fit_length(items)
    shares_P = shares(items, model)
    assert shares_P.mean() == pytest.approx(model.win_rate, abs=1e-12)
    replicates = replicate(items, draws(range(400)), model)
    assert shares_P.std(ddof=1) / 20 == pytest.approx(replicates.std(), rel=0.1)


def test_a_share_tells_what_the_rate_loses_without_the_item() -> None:
    items = some_items(300, seed=6)
    model = fit_length(items)
    shares_P = shares(items, model)
    for item in (0, 17, 123):
        without_P = np.ones((1, 300))
        without_P[0, item] = 0
        left = replicate(items, without_P, model)[0]
        told = (shares_P[item] - model.win_rate) / 300
        assert model.win_rate - left == pytest.approx(told, rel=0.1, abs=1e-5)


def test_shares_of_as_many_wins_as_losses_spread_as_the_bootstrap_does() -> None:
    items = Items(np.tile([1.0, 0.0], 100), np.zeros(200))
    model = fit_length(items)
    assert (model.bias, model.win_rate) == (0, 0.5), "the penalty holds it there"
    shares_P = shares(items, model)
    assert shares_P.mean() == pytest.approx(0.5, abs=1e-12)
    replicates = replicate(items, draws(range(200)), model)
    assert shares_P.std(ddof=1) / math.sqrt(200) == pytest.approx(replicates.std(), rel=0.1)


def test_shares_exist_where_one_side_is_longer_by_the_same_length_always() -> None:
    rng = np.random.default_rng(0)
    items = Items(rng.random(805), 1000.0 + rng.integers(0, 3, 805))
    model = fit_length(items)
    assert model.length != 0, "length and bias cannot be told apart"
    shares_P = shares(items, model)
    assert shares_P.mean() == pytest.approx(model.win_rate, abs=1e-12)
    replicates = replicate(items, draws(range(805)), model)
    assert shares_P.std(ddof=1) / math.sqrt(805) == pytest.approx(replicates.std(), rel=0.1)


# Resampling


def test_draws_take_whole_clusters_and_as_many_as_there_are() -> None:
    drawn_RP = draws(["a", "b", "a", "c"], 500)
    assert drawn_RP.shape == (500, 4)
    assert (drawn_RP[:, 0] == drawn_RP[:, 2]).all()
    assert (drawn_RP[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert drawn_RP[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)
    assert (draws(["a", "b", "a", "c"], 500) == drawn_RP).all(), "the same in every run"


def test_an_interval_of_many_clusters_is_the_plain_percentile_one() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.05, size=20_000)
    expected = np.quantile(values, [0.025, 0.975])
    assert interval(values, 100_000) == pytest.approx(expected, abs=1e-4)
    low, high = interval(values, 6)
    assert high - low > 1.3 * np.ptp(expected)


def test_scores_of_one_side_leave_room_for_what_was_not_seen() -> None:
    low, high = unseen(1.0, 10)
    assert (low**10, high) == (pytest.approx(0.025), 1.0)
    assert unseen(0.0, 10) == pytest.approx((0.0, 1 - low))


@pytest.mark.parametrize("rate", [1.0, 0.9, 0.6, 0.5, 0.3])
@pytest.mark.parametrize("count", [2, 6, 30])
def test_what_was_not_seen_has_a_p_value_that_agrees_with_its_interval(rate: float, count: int):
    low, high = unseen(rate, count)
    assert (unseen_p_value(rate, count) < 0.05) == (not low <= 0.5 <= high)
    assert unseen_p_value(rate, count) == pytest.approx(unseen_p_value(1 - rate, count))


def test_of_equal_verdicts_it_is_the_sign_test() -> None:
    assert unseen_p_value(1.0, 7) == pytest.approx(stats.binomtest(7, 7).pvalue)
    assert unseen(1.0, 7) == pytest.approx(stats.binomtest(7, 7).proportion_ci(method="exact"))


def test_one_win_that_is_the_only_longer_answer_has_a_rate_at_equal_lengths() -> None:
    # Its length and the bias explain it equally well, to seven digits, so neither is preferred.
    scores, deltas = np.full(61, 0.5), np.zeros(61)
    scores[16], deltas[16] = 1.0, 51.0
    items = Items(scores, deltas)
    model = fit_length(items)
    drawn = np.ones((2, 61))
    drawn[1, 16] = 3.0
    assert model.win_rate == pytest.approx(0.5, abs=1e-6)
    assert replicate(items, drawn, model) == pytest.approx([0.5, 0.5], abs=1e-6)
    for seed in range(5):
        draws = np.random.default_rng(seed).multinomial(61, np.full(61, 1 / 61), size=200)
        assert replicate(items, draws.astype(float), model) == pytest.approx(0.5, abs=1e-6)
