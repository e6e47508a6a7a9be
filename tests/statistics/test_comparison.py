"""Arms are compared with plain fine-tuning, and the verdict promises no more than it knows."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.comparison import Comparison, compare, holm
from symnoise_ray.statistics.words import needed_text, verdict_sentence

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
    assert better.seeds_needed is None


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
    assert (comparison.prompts_needed, comparison.seeds_needed) == (None, None)


# How many more would tell


def test_the_prompts_needed_are_those_of_the_power_formula() -> None:
    scores = np.repeat([1.0, 0.0], [53, 47])[:, None]
    (comparison,) = compare({"a": scores})
    exact = scores.var(ddof=1) * ((1.96 + 0.8416) / 0.03) ** 2
    assert comparison.verdict == "cannot tell yet"
    assert comparison.prompts_needed is not None
    assert exact <= comparison.prompts_needed <= 1.06 * exact + 1
    assert comparison.seeds_needed is None


def test_as_many_prompts_as_were_asked_for_do_tell() -> None:
    rng = np.random.default_rng(8)
    effect = {"edge": 0.25, "seed_effect": 0.0}
    tried = [compare({"a": simulated(rng, 60, 2, **effect)})[0] for _ in range(60)]
    needed = [c.prompts_needed for c in tried if c.prompts_needed]
    count = int(np.median(needed))
    assert 60 < count < 5000
    told = [
        compare({"a": simulated(rng, count, 2, **effect)})[0].verdict == "better"
        for _ in range(100)
    ]
    assert np.mean(told) > 0.6


def test_where_seeds_differ_no_number_of_prompts_helps_but_seeds_do() -> None:
    rng = np.random.default_rng(2)
    scores = np.clip(0.55 + np.array([[0.12, -0.12]]) + rng.normal(0, 0.2, size=(400, 2)), 0.0, 1.0)
    (comparison,) = compare({"a": scores})
    assert comparison.verdict == "cannot tell yet"
    assert comparison.prompts_needed is None
    assert comparison.seeds_needed is not None
    assert comparison.seeds_needed > 2
    assert needed_text(comparison) == f"about {comparison.seeds_needed} seeds would decide it"


# In words


def comparison(arm: str, verdict: str, **values: Any) -> Comparison:
    fields: dict[str, Any] = {
        "win_rate": 0.561,
        "interval_95": (0.512, 0.61),
        "p_value": 0.01,
        "p_holm": 0.02,
        "num_prompts": 96,
        "num_seeds": 2,
        "prompts_needed": None,
        "seeds_needed": None,
    }
    return Comparison(arm=arm, verdict=verdict, **{**fields, **values})


LABELS = {"symnoise": "symnoise, alpha=6", "neftune": "neftune, alpha=5"}


def test_the_verdict_says_what_is_better_with_its_evidence() -> None:
    assert verdict_sentence([comparison("symnoise", "better")], LABELS) == (
        "Against plain fine-tuning, on 96 fresh prompts and 2 fresh seeds: symnoise, alpha=6 is "
        "better (56.1 % wins, 95 % interval 51.2 to 61.0)."
    )


def test_the_verdict_says_what_is_worse_on_one_seed() -> None:
    worse = comparison("neftune", "worse", win_rate=0.4, interval_95=(0.3, 0.49), num_seeds=1)
    assert verdict_sentence([worse], LABELS) == (
        "Against plain fine-tuning, on 96 fresh prompts and 1 fresh seed: neftune, alpha=5 is "
        "worse (40.0 % wins, 95 % interval 30.0 to 49.0). One seed cannot show how much another "
        "training would differ."
    )


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        (
            {"prompts_needed": 700, "seeds_needed": 9},
            "about 700 prompts or 9 seeds would decide it",
        ),
        ({"prompts_needed": 700}, "about 700 prompts would decide it"),
        ({"seeds_needed": 9}, "about 9 seeds would decide it"),
        ({}, "the gap is too small to plan for"),
    ],
)
def test_the_verdict_admits_what_it_cannot_tell_and_what_would(
    needed: dict[str, int], told: str
) -> None:
    open_case = comparison("symnoise", "cannot tell yet", **needed)
    assert verdict_sentence([open_case], LABELS) == (
        "Against plain fine-tuning, on 96 fresh prompts and 2 fresh seeds: whether symnoise, "
        f"alpha=6 differs is not decided yet (56.1 % wins, 95 % interval 51.2 to 61.0; {told})."
    )


def test_the_verdict_names_the_arms_from_the_best() -> None:
    sentence = verdict_sentence(
        [comparison("neftune", "worse", win_rate=0.3), comparison("symnoise", "better")], LABELS
    )
    assert sentence.index("symnoise, alpha=6 is better") < sentence.index("neftune, alpha=5 is wor")


def test_without_a_confirmation_there_is_no_winner() -> None:
    assert verdict_sentence([], {}) == (
        "Nothing was confirmed on fresh seeds and prompts, so the sweep names no winner."
    )


def test_the_verdict_names_the_win_rate_at_equal_lengths() -> None:
    held_equal = {
        "length_controlled_win_rate": 0.498,
        "length_controlled_interval_95": (0.44, 0.55),
    }
    assert verdict_sentence([comparison("symnoise", "better", **held_equal)], LABELS).endswith(
        "(56.1 % wins, 95 % interval 51.2 to 61.0, 49.8 % at equal lengths)."
    )


def test_scores_at_equal_lengths_are_compared_beside_the_raw_ones() -> None:
    rng = np.random.default_rng(6)
    raw = {arm: 0.25 + 0.5 * simulated(rng, 80, 1) for arm in "ab"}
    held_equal = {arm: values - 0.1 for arm, values in raw.items()}
    for plain, both in zip(compare(raw), compare(raw, held_equal), strict=True):
        assert plain.length_controlled_win_rate is None
        assert both.length_controlled_win_rate == pytest.approx(plain.win_rate - 0.1)
        assert both.length_controlled_interval_95 == pytest.approx(
            [end - 0.1 for end in plain.interval_95]
        )
        assert (both.win_rate, both.verdict) == (plain.win_rate, plain.verdict)


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


def test_prompts_and_seeds_that_decide_only_together_are_joined_by_and() -> None:
    together = Comparison(
        "a", 0.52, (0.4, 0.6), 0.5, 0.5, 50, 2, "cannot tell yet", 90, 4, needed_together=True
    )
    assert "90 prompts and 4 seeds" in needed_text(together)
