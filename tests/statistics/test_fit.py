"""The setting of an arm comes from a smooth fit, which is flattered less than the largest rate."""

from typing import Any

import numpy as np
import pytest

from symnoise_ray.config import Parameter
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.fit import Curves, Fit, coordinates, floored, usable, within

LR = Parameter(type="float", low=1e-4, high=1e-2, log=True)
ALPHA = Parameter(type="float", low=0, high=20)
RATES = Parameter(type="categorical", choices=(1e-4, 1e-3, 1e-2))


def line(num_trials: int) -> Floats:
    return np.linspace(0, 1, num_trials)[:, None]


def curve(places: Floats, best: float) -> Floats:
    """A win rate that is largest at one place and falls to both sides."""
    return np.asarray(0.6 - 0.3 * (places[:, 0] - best) ** 2)


def fit_of(places: Floats, rates: Floats, errors: Floats) -> Fit:
    """The fit of one arm alone, at its own trials."""
    return Curves(np.zeros(len(rates)), places, rates, errors).at(0, places)


@pytest.mark.parametrize("num_trials", [6, 12, 24])
def test_the_fit_chooses_better_settings_than_the_largest_rate(num_trials: int) -> None:
    rng, error = np.random.default_rng(num_trials), 0.05
    lost = {"fit": 0.0, "raw": 0.0}
    for _ in range(200):
        places = line(num_trials)
        true = curve(places, rng.uniform())
        rates = true + rng.normal(0, error, num_trials)
        fitted = fit_of(places, rates, np.full(num_trials, error))
        lost["fit"] += true.max() - true[np.argmax(fitted.mean_N)]
        lost["raw"] += true.max() - true[np.argmax(rates)]
    assert lost["fit"] < 0.7 * lost["raw"]


def test_the_other_arms_tell_how_curved_an_arm_is() -> None:
    rng, error, places = np.random.default_rng(5), 0.04, line(4)
    lost = {"alone": 0.0, "together": 0.0}
    for _ in range(200):
        trues = [curve(places, rng.uniform()) for _ in range(5)]
        rates = [true + rng.normal(0, error, 4) for true in trues]
        curves = Curves(
            np.repeat(np.arange(5.0), 4), np.tile(places, (5, 1)), np.concatenate(rates),
            np.full(20, error),
        )  # fmt: skip
        alone = fit_of(places, rates[0], np.full(4, error))
        for name, found in (("together", curves.at(0, places)), ("alone", alone)):
            lost[name] += trues[0].max() - trues[0][np.argmax(found.mean_N)]
    assert lost["together"] < 0.9 * lost["alone"]


def test_the_fitted_rate_of_the_chosen_setting_is_hardly_flattered() -> None:
    rng, error = np.random.default_rng(3), 0.05
    flattered: dict[str, list[float]] = {"fit": [], "raw": []}
    for _ in range(200):
        places = line(12)
        true = curve(places, rng.uniform())
        rates = true + rng.normal(0, error, 12)
        fitted = fit_of(places, rates, np.full(12, error))
        chosen = np.argmax(fitted.mean_N)
        flattered["fit"].append(fitted.mean_N[chosen] - true[chosen])
        flattered["raw"].append(rates.max() - true[np.argmax(rates)])
    assert abs(np.mean(flattered["fit"])) < 0.5 * np.mean(flattered["raw"])


def test_a_trial_counts_by_how_sure_it_is() -> None:
    places, rates = line(5), np.array([0.5, 0.5, 0.9, 0.5, 0.5])
    sure, unsure = (
        fit_of(places, rates, np.array([0.02, 0.02, error, 0.02, 0.02])) for error in (0.02, 0.5)
    )
    assert sure.mean_N[2] > 0.6
    assert unsure.mean_N[2] < 0.55
    assert unsure.deviation_N[2] > sure.deviation_N[2]


def test_sure_rates_of_a_smooth_curve_are_followed() -> None:
    rates = curve(line(8), 0.4)
    assert fit_of(line(8), rates, np.zeros(8)).mean_N == pytest.approx(rates, abs=0.005)


def test_trials_at_one_setting_share_what_they_measured() -> None:
    places = np.array([[0.0], [0.3], [0.3], [0.3], [0.6], [1.0]])
    rates = np.array([0.5, 0.62, 0.5, 0.44, 0.5, 0.5])
    fitted = fit_of(places, rates, np.full(6, 0.05))
    assert np.ptp(fitted.mean_N[1:4]) == pytest.approx(0, abs=1e-9)
    assert fitted.mean_N[1] == pytest.approx(0.52, abs=0.02)


def test_trials_that_collapsed_do_not_bend_the_curve() -> None:
    rates = np.array([0.5, 0.55, 0.6, 0.1])
    assert usable(rates).tolist() == [True, True, True, False]
    assert floored(rates).tolist() == pytest.approx([0.5, 0.55, 0.6, 0.4])


# Between settings that were tried


def test_a_setting_lies_between_those_that_were_tried_or_beyond_them() -> None:
    asked = np.array([[0.1], [0.3], [0.6], [0.7]])
    assert within(np.array([[0.6], [0.3], [0.4]]), asked) == [False, True, True, False]
    corner = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.2, 0.2]])
    assert within(corner, np.array([[0.3, 0.3], [0.9, 0.9]])) == [True, False]
    on_a_line = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [0.2, 0.2]])
    assert within(on_a_line, np.array([[0.3, 0.3], [0.3, 0.4]])) == [False, False]
    of_one_word = np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]])
    assert within(of_one_word, np.array([[0.3, 1.0], [0.3, 0.0]])) == [True, False]


# Settings as coordinates


def placed(points: list[dict[str, Any]], **parameters: Parameter) -> list[list[float]]:
    named = {name.replace("__", "."): value for name, value in parameters.items()}
    return coordinates(points, named).round(6).tolist()


def test_a_number_has_its_place_in_its_range() -> None:
    points = [{"noise.alpha": alpha} for alpha in (0, 5, 20)]
    assert placed(points, noise__alpha=ALPHA) == [[0], [0.25], [1]]


def test_a_logarithmic_range_is_placed_by_its_logarithm() -> None:
    points = [{"optim.lr": rate} for rate in (1e-4, 1e-3, 1e-2)]
    assert placed(points, optim__lr=LR) == [[0], [0.5], [1]]
    assert placed(points, optim__lr=RATES) == [[0], [0.5], [1]]


def test_a_baseline_outside_the_range_widens_it() -> None:
    points = [{"optim.lr": rate} for rate in (1e-4, 1e-2, 1.0)]
    assert placed(points, optim__lr=LR) == [[0], [0.5], [1]]


def test_words_have_one_coordinate_each() -> None:
    points = [{"optim.schedule": word} for word in ("linear", "cosine", "linear")]
    assert placed(points) == [[0, 1], [1, 0], [0, 1]]


def test_what_never_differs_is_left_out_and_what_is_missing_is_in_the_middle() -> None:
    points = [
        {"optim.lr": 1e-3, "noise.alpha": 0},
        {"optim.lr": 1e-3, "noise.alpha": 20},
        {"optim.lr": 1e-3},
    ]
    assert placed(points, noise__alpha=ALPHA, optim__lr=LR) == [[0], [1], [0.5]]
    assert coordinates([{"optim.lr": 1e-3}] * 3, {}).shape == (3, 0)
