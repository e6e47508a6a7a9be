"""Arms are compared with plain fine-tuning, and the verdict promises no more than it knows."""

import numpy as np
import pytest
from scipy import stats

from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.comparison import compare
from symnoise_ray.statistics.decision import holm
from symnoise_ray.statistics.words import needed_text

# Holm's correction


def test_holms_correction_agrees_with_one_done_by_hand() -> None:
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    # Sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04, raised to .06.
    assert holm(p_values) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_holms_correction_stays_within_one_and_leaves_a_lone_value() -> None:
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.03}) == {"a": 0.03}
    assert holm({}) == {}


# Comparisons


def simulated(
    rng: np.random.Generator,
    num_prompts: int,
    num_seeds: int,
    *,
    edge: float = 0.0,
    prompt_effect: float = 0.5,
    seed_effect: float = 0.25,
) -> Floats:
    """Scores of prompts by seeds: wins, ties and losses that depend on prompt, seed and chance."""
    latent_PS = (
        edge
        + prompt_effect * rng.normal(size=(num_prompts, 1))
        + seed_effect * rng.normal(size=(1, num_seeds))
        + rng.normal(size=(num_prompts, num_seeds))
    )
    return np.where(latent_PS > 0.2, 1.0, np.where(latent_PS < -0.2, 0.0, 0.5))


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_noise_that_changes_nothing_is_rarely_told_to_differ(num_seeds: int) -> None:
    rng = np.random.default_rng(num_seeds)
    told = [
        compare({"symnoise": simulated(rng, 100, num_seeds)})[0].verdict != "cannot tell yet"
        for _ in range(400)
    ]
    assert np.mean(told) <= 0.07


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_several_arms_without_effect_are_rarely_told_to_differ_at_all(num_seeds: int) -> None:
    rng = np.random.default_rng(10 + num_seeds)
    told = [
        any(
            comparison.verdict != "cannot tell yet"
            for comparison in compare(
                {arm: simulated(rng, 60, num_seeds, seed_effect=0.0) for arm in "abcd"}
            )
        )
        for _ in range(200)
    ]
    assert np.mean(told) <= 0.07


@pytest.mark.parametrize("num_seeds", [1, 2, 3])
def test_an_interval_covers_the_truth_as_often_as_it_says(num_seeds: int) -> None:
    rng = np.random.default_rng(20 + num_seeds)
    covered = 0
    for _ in range(400):
        scores = simulated(rng, 100, num_seeds, seed_effect=0.05)
        low, high = compare({"a": scores})[0].interval_95
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / 400 <= 1.0


@pytest.mark.parametrize("num_seeds", [1, 2, 3])
def test_a_clear_effect_is_better_and_its_mirror_worse(num_seeds: int) -> None:
    scores = simulated(np.random.default_rng(1), 200, num_seeds, edge=1.5, seed_effect=0.05)
    better, worse = compare({"up": scores, "down": 1 - scores})
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better.win_rate + worse.win_rate == pytest.approx(1)
    assert better.interval_95[0] > 0.5 > worse.interval_95[1]
    assert better.interval_95 == pytest.approx([1 - end for end in reversed(worse.interval_95)])
    assert (better.num_prompts, better.num_seeds) == (200, num_seeds)
    assert better.prompts_needed is None


def test_one_seed_is_students_t_test_over_prompts() -> None:
    scores = simulated(np.random.default_rng(5), 80, 1)
    (comparison,) = compare({"a": scores})
    expected = stats.ttest_1samp(scores[:, 0], 0.5)
    assert comparison.p_value == pytest.approx(expected.pvalue)
    assert comparison.interval_95 == pytest.approx(expected.confidence_interval(0.95))


def test_the_seeds_of_a_comparison_count_beside_its_prompts() -> None:
    # Every prompt agrees, but one seed wins and the other loses: nothing is known.
    scores = np.tile([[0.9, 0.2]], (500, 1)) + np.random.default_rng(0).normal(0, 0.01, (500, 2))
    (comparison,) = compare({"a": scores})
    assert comparison.verdict == "cannot tell yet"
    assert comparison.interval_95 == (0.0, 1.0)


def test_p_values_are_corrected_over_the_arms() -> None:
    scores = simulated(np.random.default_rng(3), 100, 1, edge=0.3)
    alone = compare({"a": scores})[0]
    among = compare({"a": scores, "b": scores, "c": scores})
    assert alone.p_holm == alone.p_value
    assert [c.p_holm for c in among] == pytest.approx([min(1, 3 * alone.p_value)] * 3)
    assert [c.arm for c in among] == ["a", "b", "c"]
    assert compare({}) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1)])
def test_a_few_prompts_that_all_win_decide_nothing(shape: tuple[int, int]) -> None:
    # With 3 prompts, plain chance gives three equal verdicts one time in four.
    (comparison,) = compare({"a": np.ones(shape)})
    assert comparison.verdict == "cannot tell yet"


@pytest.mark.parametrize("sure", [1.0, 0.99999, 0.9])
def test_a_few_prompts_on_one_side_decide_by_their_number_however_alike(sure: float) -> None:
    spread = 1e-5 * np.arange(6)[:, None]
    verdicts = [compare({"a": sure - spread[:count]})[0].verdict for count in range(1, 7)]
    assert verdicts[:5] == ["cannot tell yet"] * 5
    assert verdicts[5] == ("better" if sure > 0.95 else "cannot tell yet")


def test_ties_everywhere_decide_nothing() -> None:
    (comparison,) = compare({"a": np.full((50, 2), 0.5)})
    assert (comparison.verdict, comparison.win_rate) == ("cannot tell yet", 0.5)
    assert comparison.prompts_needed is None


# How many more would tell


def test_the_prompts_needed_are_those_of_the_power_formula() -> None:
    scores = np.repeat([1.0, 0.0], [53, 47])[:, None]
    (comparison,) = compare({"a": scores})
    exact = scores.var(ddof=1) * ((1.96 + 0.8416) / 0.03) ** 2
    assert comparison.verdict == "cannot tell yet"
    assert comparison.prompts_needed is not None
    assert exact <= comparison.prompts_needed <= 1.06 * exact + 1


def test_as_many_prompts_as_were_asked_for_do_tell_a_gap_of_three_points() -> None:
    rng = np.random.default_rng(8)
    (asked,) = compare({"a": np.repeat([0.0, 0.5, 1.0], [37, 22, 41])[:, None]})
    assert asked.prompts_needed is not None
    shape, chances = (asked.prompts_needed, 1), [0.36, 0.22, 0.42]  # a gap of 3 points
    told = [
        compare({"a": rng.choice([0.0, 0.5, 1.0], shape, p=chances)})[0].verdict == "better"
        for _ in range(300)
    ]
    assert np.mean(told) == pytest.approx(0.8, abs=0.08)


def test_where_there_are_prompts_enough_none_is_asked_for() -> None:
    scores = np.repeat([1.0, 0.0], [5020, 4980])[:, None]
    (comparison,) = compare({"a": scores})
    assert comparison.verdict == "cannot tell yet"
    assert comparison.prompts_needed is not None
    assert comparison.prompts_needed <= 10_000
    assert needed_text(comparison) == "a gap of 3 points would probably be seen on these prompts"


@pytest.mark.parametrize("scores", [[0.0], [1.0] * 5, [0.5] * 2, [1.0, 0.5]])
def test_prompts_that_none_was_lost_or_won_on_do_not_show_how_many_it_takes(
    scores: list[float],
) -> None:
    (comparison,) = compare({"a": np.array(scores)[:, None]})
    assert (comparison.verdict, comparison.prompts_needed) == ("cannot tell yet", None)
    assert needed_text(comparison) == "these prompts do not show how many a gap of 3 points takes"


def test_between_two_models_the_gap_is_one_of_their_win_rates() -> None:
    rng = np.random.default_rng(8)
    scores = {name: rng.choice([0.0, 0.5, 1.0], (400, 1)) for name in "ab"}
    gaps = scores["a"] - scores["b"]
    *_, between = compare(scores, {("a", "b"): gaps})
    exact = gaps.var(ddof=1) * ((1.96 + 0.8416) / 0.03) ** 2
    assert between.verdict == "cannot tell yet"
    assert between.prompts_needed == pytest.approx(exact, rel=0.01)


def test_of_several_seeds_no_number_of_prompts_is_said() -> None:
    rng = np.random.default_rng(2)
    scores = np.clip(0.55 + np.array([[0.12, -0.12]]) + rng.normal(0, 0.2, size=(400, 2)), 0.0, 1.0)
    (comparison,) = compare({"a": scores})
    assert (comparison.verdict, comparison.prompts_needed) == ("cannot tell yet", None)


def test_two_models_are_contrasted_by_half_their_difference() -> None:
    rng = np.random.default_rng(4)
    one, other = simulated(rng, 100, 1, edge=1.0), simulated(rng, 100, 1, edge=-1.0)
    *_, contrast = compare({"a": one, "b": other}, {("a", "b"): one - other})
    assert (contrast.arm, contrast.over, contrast.verdict) == ("a", "b", "better")
    assert contrast.win_rate == pytest.approx(0.5 + (one.mean() - other.mean()) / 2)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_the_interval_is_that_of_the_formula(num_seeds: int) -> None:
    """Two t intervals, of prompts and of seeds; what both contain is taken off once."""
    scores_PS = simulated(np.random.default_rng(num_seeds), 30, num_seeds, seed_effect=0.6)
    (found,) = compare({"symnoise": scores_PS})
    mean, by_prompt, by_seed = scores_PS.mean(), scores_PS.mean(axis=1), scores_PS.mean(axis=0)
    rest_PS = scores_PS - by_prompt[:, None] - by_seed[None, :] + mean
    of_prompts = num_seeds * by_prompt.var(ddof=1)
    of_seeds = 30 * by_seed.var(ddof=1)
    of_rest = (rest_PS**2).sum() / (29 * (num_seeds - 1))
    t_prompts, t_seeds = stats.t.ppf(0.975, 29), stats.t.ppf(0.975, num_seeds - 1)
    squared = t_prompts**2 * of_prompts
    squared += max(0, t_seeds**2 * of_seeds - stats.norm.ppf(0.975) ** 2 * of_rest)
    half = np.sqrt(squared / (30 * num_seeds))
    expected = (max(0, mean - half), min(1, mean + half))
    assert found.interval_95 == pytest.approx(expected, abs=1e-9)
