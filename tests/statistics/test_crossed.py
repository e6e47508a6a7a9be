"""All pairs of trainings are one table of prompts by seeds, whose mean has the variance it says."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.crossed import by_seed
from symnoise_ray.statistics.two_way import TwoWay


def some_scores(seed: int, num_prompts: int = 7, num_seeds: int = 4) -> Floats:
    return np.random.default_rng(seed).random((num_prompts, num_seeds, num_seeds))


# The table


def test_for_one_seed_it_is_the_table_itself() -> None:
    scores_PSS = some_scores(1, num_seeds=1)
    assert by_seed(scores_PSS) == pytest.approx(scores_PSS[..., 0])


def test_its_mean_over_seeds_is_the_mean_over_all_pairs() -> None:
    scores_PSS = some_scores(2)
    assert by_seed(scores_PSS).mean(axis=1) == pytest.approx(scores_PSS.mean(axis=(1, 2)))


def test_the_order_of_seeds_does_not_matter() -> None:
    scores_PSS, order = some_scores(3), [2, 0, 3, 1]
    shuffled = scores_PSS[:, order][:, :, order]
    assert by_seed(shuffled) == pytest.approx(by_seed(scores_PSS)[:, order])


def test_swapping_the_sides_turns_every_score_round() -> None:
    scores_PSS = some_scores(4)
    swapped = 1 - scores_PSS.swapaxes(1, 2)
    assert by_seed(swapped) == pytest.approx(1 - by_seed(scores_PSS))


def test_where_a_pair_adds_nothing_it_is_the_table_of_equal_seeds() -> None:
    rng = np.random.default_rng(5)
    arm_PS, opponent_PS = rng.random((6, 3)), rng.random((6, 3))
    scores_PSS = arm_PS[:, :, None] - opponent_PS[:, None, :]
    assert by_seed(scores_PSS) == pytest.approx(arm_PS - opponent_PS)


# The variance, by exact expectations over every cell of a small table

P, S = 3, 3
CELLS = [(p, i, j) for p in range(P) for i in range(S) for j in range(S)]
Shared = Callable[[tuple[int, int, int], tuple[int, int, int]], float]
"""Covariance of two cells."""


def variances(shared: Shared) -> tuple[float, float]:
    """Variance of the mean over all pairs, and what is expected of its estimate."""
    covariance = np.array([[shared(one, other) for other in CELLS] for one in CELLS], dtype=float)
    form = np.zeros_like(covariance)
    units = np.eye(len(CELLS))
    alone = [estimate(unit) for unit in units]
    np.fill_diagonal(form, alone)
    for a, b in combinations(range(len(CELLS)), 2):
        form[a, b] = form[b, a] = (estimate(units[a] + units[b]) - alone[a] - alone[b]) / 2
    return float(covariance.mean()), float(np.trace(form @ covariance))


def estimate(scores: Floats) -> float:
    """The variance of the mean that the mean squares say; a quadratic form of the scores."""
    prompts, seeds, rest = map(float, TwoWay(by_seed(scores.reshape(P, S, S))).squares)
    return (prompts + seeds - rest) / (P * S)


def of_trainings(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The arm's trainings vary by 1, the opponent's by 3; those of one number correlate."""
    (_, i, j), (_, k, m) = one, other
    return (i == k) + 3 * (j == m) - 0.8 * ((i == m) + (j == k))


@pytest.mark.parametrize(
    "shared",
    [
        pytest.param(lambda one, other: one[0] == other[0], id="prompts"),
        pytest.param(of_trainings, id="trainings that correlate by seed"),
        pytest.param(
            lambda one, other: (one[0] == other[0]) * of_trainings(one, other),
            id="trainings by prompt",
        ),
        pytest.param(lambda one, other: one == other, id="the judge"),
        pytest.param(
            lambda one, other: (
                (one[0] == other[0])
                + 2 * of_trainings(one, other)
                + (one[0] == other[0]) * of_trainings(one, other)
                + 4 * (one == other)
            ),
            id="all of them",
        ),
    ],
)
def test_the_variance_of_the_mean_is_estimated_without_bias(shared: Shared) -> None:
    true, expected = variances(shared)
    assert true > 0
    assert expected == pytest.approx(true)


@pytest.mark.parametrize(
    "shared",
    [
        pytest.param(lambda one, other: one[1:] == other[1:], id="any pair"),
        pytest.param(
            lambda one, other: one[1] == one[2] == other[1] == other[2], id="equal seeds alone"
        ),
    ],
)
def test_what_is_a_pairs_own_on_all_prompts_makes_the_estimate_too_large(shared: Shared) -> None:
    true, expected = variances(shared)
    assert expected > true > 0


# The interval


def drawn(
    rng: np.random.Generator, shape: tuple[int, int], by_prompt: float, seed: float
) -> Floats:
    """Scores around one half, by prompts and seeds that differ and a judge who errs by 0.3."""
    num_prompts, num_seeds = shape
    skill_PSS = (
        by_prompt * rng.standard_normal((num_prompts, 1, 1))
        + seed * rng.standard_normal((1, num_seeds, 1))
        + seed * rng.standard_normal((1, 1, num_seeds))
    )
    return 0.5 + skill_PSS + 0.3 * rng.standard_normal((num_prompts, num_seeds, num_seeds))


def test_a_noisy_judges_interval_is_narrower_over_all_pairs_and_still_holds_the_truth() -> None:
    rng, held, widths = np.random.default_rng(6), 0, []
    for _ in range(1000):
        scores_PSS = drawn(rng, (60, 3), by_prompt=0.1, seed=0.02)
        equal, every = TwoWay(np.einsum("pss->ps", scores_PSS)), TwoWay(by_seed(scores_PSS))
        held += abs(every.mean - 0.5) < every.half_width(0.95)
        widths.append((equal.half_width(0.95), every.half_width(0.95)))
    equal_width, every_width = np.mean(widths, axis=0)
    assert every_width < 0.95 * equal_width
    assert held >= 945


def test_where_prompts_do_not_differ_the_rest_is_not_subtracted_twice() -> None:
    """The mean square of prompts then contains half of the judge's rest, and no more is taken."""
    rng, held = np.random.default_rng(7), 0
    for _ in range(10_000):
        test = TwoWay(by_seed(drawn(rng, (40, 8), by_prompt=0.0, seed=0.02)))
        held += abs(test.mean - 0.5) < test.half_width(0.95)
    assert held >= 0.95 * 10_000
