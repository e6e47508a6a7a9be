"""The setting of an arm comes from a smooth fit, which is flattered less than the largest rate."""

from typing import Any

import numpy as np
import pytest

from symnoise_ray.config import Parameter
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.fit import FEWEST, coordinates, fit, pick

LR = Parameter(type="float", low=1e-4, high=1e-2, log=True)
ALPHA = Parameter(type="float", low=0, high=20)
RATES = Parameter(type="categorical", choices=(1e-4, 1e-3, 1e-2))


def line(num_trials: int) -> Floats:
    return np.linspace(0, 1, num_trials)[:, None]


def curve(places: Floats, best: float) -> Floats:
    """A win rate that is largest at one place and falls to both sides."""
    return np.asarray(0.6 - 0.3 * (places[:, 0] - best) ** 2)


@pytest.mark.parametrize("num_trials", [6, 12, 24])
def test_the_fit_chooses_better_settings_than_the_largest_rate(num_trials: int) -> None:
    rng, error = np.random.default_rng(num_trials), 0.05
    lost = {"fit": 0.0, "raw": 0.0}
    for _ in range(200):
        places = line(num_trials)
        true = curve(places, rng.uniform())
        rates = true + rng.normal(0, error, num_trials)
        fitted = fit(places, rates, np.full(num_trials, error))
        assert fitted is not None
        lost["fit"] += true.max() - true[pick(rates, fitted)]
        lost["raw"] += true.max() - true[pick(rates, None)]
    assert lost["fit"] < 0.9 * lost["raw"]


def test_the_fitted_rate_of_the_chosen_setting_is_hardly_flattered() -> None:
    rng, error = np.random.default_rng(3), 0.05
    flattered: dict[str, list[float]] = {"fit": [], "raw": []}
    for _ in range(200):
        places = line(12)
        true = curve(places, rng.uniform())
        rates = true + rng.normal(0, error, 12)
        fitted = fit(places, rates, np.full(12, error))
        assert fitted is not None
        chosen = pick(rates, fitted)
        flattered["fit"].append(fitted.mean_N[chosen] - true[chosen])
        flattered["raw"].append(rates.max() - true[np.argmax(rates)])
    assert abs(np.mean(flattered["fit"])) < 0.5 * np.mean(flattered["raw"])


def test_a_trial_counts_by_how_sure_it_is() -> None:
    places = line(5)
    rates = np.array([0.5, 0.5, 0.9, 0.5, 0.5])
    sure, unsure = (
        fit(places, rates, np.array([0.02, 0.02, error, 0.02, 0.02])) for error in (0.02, 0.5)
    )
    assert sure is not None
    assert unsure is not None
    assert sure.mean_N[2] > 0.85
    assert unsure.mean_N[2] < 0.6
    assert unsure.deviation_N[2] > sure.deviation_N[2]


def test_sure_rates_are_followed() -> None:
    rates = curve(line(8), 0.4)
    fitted = fit(line(8), rates, np.zeros(8))
    assert fitted is not None
    assert fitted.mean_N == pytest.approx(rates, abs=0.005)


def test_trials_at_one_setting_share_what_they_measured() -> None:
    places = np.array([[0.0], [0.3], [0.3], [0.3], [0.6], [1.0]])
    rates = np.array([0.5, 0.62, 0.5, 0.44, 0.5, 0.5])
    fitted = fit(places, rates, np.full(6, 0.05))
    assert fitted is not None
    assert np.ptp(fitted.mean_N[1:4]) == pytest.approx(0, abs=1e-9)
    assert fitted.mean_N[1] == pytest.approx(0.52, abs=0.02)


def test_too_few_settings_have_no_fit() -> None:
    rates, errors = np.array([0.5, 0.6, 0.4]), np.full(3, 0.05)
    assert FEWEST == 4
    assert fit(line(3), rates, errors) is None
    assert fit(np.zeros((9, 1)), np.full(9, 0.5), np.full(9, 0.1)) is None
    assert fit(np.zeros((9, 0)), np.full(9, 0.5), np.full(9, 0.1)) is None
    assert pick(rates, None) == 1


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
