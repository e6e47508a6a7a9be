"""Several sweeps together: the mean effect, how much the true ones differ, and what is covered."""

import math
from typing import Any

import numpy as np
import pytest

from symnoise_ray.records.verdict import Comparison
from symnoise_ray.statistics.pooling import Effect, effect, pool

UNLIKE = [Effect(0.06, 0.012), Effect(-0.01, 0.01), Effect(0.03, 0.02), Effect(0.02, 0.015)]


def compared(**changed: Any) -> Comparison:
    spread = {"spread_prompts": 0.0225, "spread_seeds": 0.0004, "spread_rest": 0.12}
    values = {"num_prompts": 400, "num_seeds": 5, "num_groups": 10, **spread, **changed}
    return Comparison("a", 0.53, (0.5, 0.56), 0.04, 0.04, verdict="better", **values)


def test_the_error_of_a_sweep_is_that_of_its_prompts_its_seeds_and_the_rest():
    found = effect(compared(), by_groups=False)
    assert found
    assert found.gain == pytest.approx(0.03)
    assert found.error == pytest.approx(math.sqrt(0.0225 / 400 + 0.0004 / 5 + 0.12 / 2000))


def test_where_groups_are_the_units_their_number_counts():
    found = effect(compared(), by_groups=True)
    assert found
    assert found.error == pytest.approx(math.sqrt(0.0225 / 10 + 0.0004 / 5 + 0.12 / 50))


def test_a_contrast_holds_half_of_a_difference_of_win_rates():
    single, double = (effect(compared(over=over), by_groups=False) for over in ("", "b"))
    assert single
    assert double
    assert double == pytest.approx((2 * single.gain, 2 * single.error))


@pytest.mark.parametrize("changed", [{"num_seeds": 1}, {"num_prompts": 1}, {"spread_seeds": None}])
def test_a_sweep_that_does_not_know_its_error_has_no_effect(changed: dict[str, Any]):
    assert effect(compared(**changed), by_groups=False) is None


def test_equal_errors_give_the_mean_and_student_s_interval_of_the_effects():
    gains = [0.01, 0.05, 0.02, 0.08]
    found = pool([Effect(gain, 0.01) for gain in gains])
    error = np.std(gains, ddof=1) / 2
    assert found.gain == pytest.approx(0.04)
    assert found.interval_95 == pytest.approx((0.04 - 3.1824463 * error, 0.04 + 3.1824463 * error))
    assert found.tau**2 == pytest.approx(np.var(gains, ddof=1) - 0.01**2)
    assert found.weights == pytest.approx([0.25] * 4)
    assert found.prediction_95 == pytest.approx(
        (
            0.04 - 4.3026527 * math.hypot(found.tau, error),
            0.04 + 4.3026527 * math.hypot(found.tau, error),
        )
    )


def test_the_weights_leave_the_squares_that_are_expected():
    found = pool(UNLIKE)
    weights = [1 / (found.tau**2 + each.error**2) for each in UNLIKE]
    squares = sum(
        w * (each.gain - found.gain) ** 2 for w, each in zip(weights, UNLIKE, strict=True)
    )
    assert squares == pytest.approx(3)
    assert found.weights == pytest.approx([w / sum(weights) for w in weights])
    assert found.i_squared == pytest.approx(1 - 3 / found.q)


def test_effects_that_agree_show_no_heterogeneity_and_weigh_by_their_errors():
    found = pool([Effect(0.02, 0.01), Effect(0.021, 0.02), Effect(0.019, 0.02)])
    assert (found.tau, found.i_squared) == (0, 0)
    assert found.weights == pytest.approx((4 / 6, 1 / 6, 1 / 6))
    assert found.q_p_value > 0.9


def test_two_sweeps_have_an_interval_and_no_prediction():
    found = pool(UNLIKE[:2])
    assert found.prediction_95 is None
    assert found.interval_95[0] < found.gain < found.interval_95[1]


@pytest.mark.parametrize("effects", [[], UNLIKE[:1], [Effect(0.1, 0.0), Effect(0.2, 0.1)]])
def test_one_sweep_or_no_error_cannot_be_pooled(effects: list[Effect]):
    with pytest.raises(ValueError, match="two effects or more"):
        pool(effects)


def coverage(num_sweeps: int, tau: float, rng: np.random.Generator, repeats: int = 1500) -> float:
    """How often the interval holds the mean of 2 points; errors are estimated from the seeds."""
    held = 0
    for _ in range(repeats):
        prompts, seeds = rng.integers(200, 800, num_sweeps), rng.integers(3, 9, num_sweeps)
        known = 0.15**2 / prompts + 0.344**2 / (prompts * seeds)
        by_seed = 0.01**2 / seeds
        gains = 0.02 + rng.normal(size=num_sweeps) * np.sqrt(tau**2 + known + by_seed)
        estimated = np.sqrt(known + by_seed * rng.chisquare(seeds - 1) / (seeds - 1))
        low, high = pool([Effect(*each) for each in zip(gains, estimated, strict=True)]).interval_95
        held += low <= 0.02 <= high
    return held / repeats


@pytest.mark.sampled(3)
@pytest.mark.parametrize("num_sweeps", [3, 6, 12])
@pytest.mark.parametrize("tau", [0.0, 0.01, 0.04])
def test_the_interval_holds_the_mean_of_unlike_sweeps_in_95_of_100(num_sweeps: int, tau: float):
    assert 0.93 < coverage(num_sweeps, tau, np.random.default_rng(num_sweeps)) < 0.97
