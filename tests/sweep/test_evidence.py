"""Scores of confirmed trials become tables of prompts by seeds, and those become comparisons."""

from collections.abc import Collection, Sequence

import numpy as np
import pytest

from symnoise_ray.records.preferences import Preference
from symnoise_ray.statistics.decision import Ruling
from symnoise_ray.statistics.judged_models import standings
from symnoise_ray.sweep.evidence import (
    FEWEST_WINS,
    ByPair,
    Evidence,
    Scored,
    contrast,
    evidence,
    scored,
)

TEXTS = ("r" * 50, "plain")
RULING = Ruling("better", 0.01, 0.02, 0.98)


def preferences(
    scores: Sequence[float | None],
    *,
    times: int = 1,
    same_request: bool = False,
    num_groups: int = 1,
) -> list[Preference]:
    """Verdicts on answers that are the longer the better.

    Every prompt is asked so many times; with `same_request` they differ in what came before.
    """
    return [
        Preference(
            item + len(scores) * time, "and why?" if same_request else f"question {item}",
            f"group {item % num_groups}", *TEXTS, "t" * int(40 + 20 * (score or 0) + item % 7),
            "noisy", "judge", "one", None if score is None else 1 + score,
            earlier_requests=(f"question {item}",) if same_request else (),
        )
        for time in range(times)
        for item, score in enumerate(scores)
    ]  # fmt: skip


def some_scores(seed: int, count: int = 40) -> list[float | None]:
    return [float(score) for score in np.random.default_rng(seed).choice([0, 0.5, 1], size=count)]


def of_seeds(scores: Sequence[Scored]) -> ByPair:
    """Pairs of equal seeds."""
    return {(number, number): each for number, each in enumerate(scores)}


def all_pairs(*, failing: Collection[tuple[int, int]] = (), num_seeds: int = 3) -> ByPair:
    """Every pair of seeds, with scores of its own."""
    return {
        (i, j): {} if (i, j) in failing else scored(preferences(some_scores(10 * i + j)))
        for i in range(num_seeds)
        for j in range(num_seeds)
    }


def table(by_seed: Sequence[Scored]) -> Evidence:
    found = evidence(of_seeds(by_seed))
    assert found is not None
    return found


def test_seeds_are_paired_on_the_prompts_that_all_of_them_answered() -> None:
    first, second = some_scores(1), some_scores(2)
    second[3] = None
    found = table([scored(preferences(each)) for each in (first, second)])
    both = [s for pair in zip(first, second, strict=True) if None not in pair for s in pair]
    test = found.test(by_groups=False)
    assert (test.num_prompts, test.num_seeds) == (39, 2)
    assert test.mean == pytest.approx(np.mean(both))  # type: ignore[arg-type]


def test_a_prompt_that_repeats_counts_once_as_it_does_in_score() -> None:
    scores: list[float | None] = [1.0] * 26 + [0.0] * 14
    alone, repeated = (
        table([scored(preferences(scores, times=times))] * 2).test(by_groups=False)
        for times in (1, 3)
    )
    assert repeated.num_prompts == alone.num_prompts == 40
    assert repeated.p_value() == pytest.approx(alone.p_value())
    assert repeated.interval() == pytest.approx(alone.interval())
    (told,) = standings({"own": preferences(scores, times=3)})
    assert told.num_prompts == 40


def test_copies_of_a_prompt_that_are_judged_otherwise_are_averaged() -> None:
    won, lost = preferences([1.0, 0.0]), preferences([0.0, 0.0])
    twice = [*won, *(each._replace(item=each.item + 2) for each in lost)]
    found = scored(twice)
    assert [score for score, _ in found.values()] == [0.5, 0.0]


def test_last_requests_of_different_conversations_are_different_prompts() -> None:
    found = table([scored(preferences(some_scores(6), same_request=True))])
    assert found.scores_PCV.shape == (40, 1, 2)


def test_a_seed_without_scores_is_left_out_and_no_seed_is_no_evidence() -> None:
    good = scored(preferences(some_scores(4)))
    assert table([{}, good, {}]).num_seeds == 1
    assert evidence(of_seeds([{}, {}])) is None
    assert evidence({}) is None
    elsewhere = {("", ("another",)): (1.0, 0.0)}
    assert evidence(of_seeds([good, elsewhere])) is None, "no prompt is common to both"


# All pairs of seeds


def test_all_pairs_count_in_the_mean_and_those_of_equal_seeds_tell_the_spread_of_a_score() -> None:
    by_pair = all_pairs()
    every, equal = evidence(by_pair), table([by_pair[n, n] for n in range(3)])
    assert every is not None
    test = every.test(by_groups=False)
    scores = [score for known in by_pair.values() for score, _ in known.values()]
    assert test.mean == pytest.approx(np.mean(scores))
    assert (test.num_prompts, test.num_seeds) == (40, 3)
    told = every.comparison("symnoise", "", RULING, 0.03, over="", by_groups=False)
    alone = equal.comparison("symnoise", "", RULING, 0.03, over="", by_groups=False)
    assert (told.num_seeds, told.num_pairs, alone.num_pairs) == (3, 9, 3)
    assert told.spread_rest == alone.spread_rest
    assert told.interval_95 == test.interval(0.98) != alone.interval_95


def test_all_pairs_have_a_rate_at_equal_lengths() -> None:
    found = evidence(all_pairs())
    assert found is not None
    equal = found.equal_lengths(by_groups=False)
    assert equal is not None
    assert (equal.num_prompts, equal.num_seeds) == (40, 3)
    assert equal.mean < found.test(by_groups=False).mean, "length explains a part of the wins"


def test_with_one_seed_all_pairs_are_the_pair_of_equal_seeds() -> None:
    one = evidence(all_pairs(num_seeds=1))
    assert one is not None
    told = one.comparison("symnoise", "", RULING, 0.03, over="", by_groups=False)
    assert (told.num_seeds, told.num_pairs) == (1, 1)
    assert told.interval_95 == one.of_equal_seeds(by_groups=False).interval(0.98)


@pytest.mark.parametrize(
    ("failing", "left"),
    [
        pytest.param([(1, 0), (1, 1), (1, 2)], [0, 2], id="a training of the arm"),
        pytest.param([(0, 1), (1, 1), (2, 1)], [0, 2], id="a training of the opponent"),
        pytest.param([(0, 2), (2, 1)], [0, 1], id="two pairs with one seed in common"),
        pytest.param([(0, 1)], [0, 2], id="one pair, of which the later seed goes"),
    ],
)
def test_seeds_of_which_a_pair_is_missing_are_left_out_as_few_as_can_be(
    failing: list[tuple[int, int]], left: list[int]
) -> None:
    found, whole = evidence(all_pairs(failing=failing)), all_pairs()
    assert found is not None
    kept = {(i, j): whole[left[i], left[j]] for i in range(2) for j in range(2)}
    other = evidence(kept)
    assert other is not None
    assert found.num_seeds == 2
    assert np.array_equal(found.scores_PCV, other.scores_PCV)


def test_for_other_groups_all_pairs_are_averaged_by_group() -> None:
    by_pair = {
        pair: scored(preferences(some_scores(sum(pair)), num_groups=5)) for pair in all_pairs()
    }
    found = evidence(by_pair)
    assert found is not None
    assert found.test(by_groups=True).num_prompts == 5
    mean = found.test(by_groups=False).mean
    assert found.test(by_groups=True).mean == pytest.approx(mean), "all groups are of one size"


# For people


def test_a_comparison_says_whom_it_is_against_on_what() -> None:
    by_seed = [scored(preferences(some_scores(n), num_groups=4)) for n in range(3)]
    found = evidence(of_seeds(by_seed), "shared", "none, lr=0.002")
    assert found is not None
    told = found.comparison("symnoise", "symnoise, alpha=5", RULING, 0.03, over="", by_groups=False)
    assert (told.arm, told.label, told.opponent, told.against) == (
        "symnoise", "symnoise, alpha=5", "shared", "none, lr=0.002",
    )  # fmt: skip
    assert (told.num_prompts, told.num_seeds, told.num_groups) == (40, 3, 4)
    assert (told.confidence, told.p_holm) == (0.98, 0.02)
    assert told.interval_95 == found.test(by_groups=False).interval(0.98)


def test_a_comparison_names_the_win_rate_at_equal_lengths() -> None:
    scores: list[float | None] = [0.0 if score == 0 else 1.0 for score in some_scores(3, 90)]
    found = table([scored(preferences(scores))] * 2)
    told = found.comparison("symnoise", "", RULING, 0.03, over="", by_groups=False)
    assert told.length_controlled_win_rate is not None
    assert told.length_controlled_interval_95 is not None
    low, high = told.length_controlled_interval_95
    assert low <= told.length_controlled_win_rate <= high
    assert told.length_controlled_win_rate < told.win_rate - 0.05, "length explains the wins"


@pytest.mark.parametrize("few", ["wins", "losses"])
def test_of_hardly_any_wins_or_losses_there_is_no_rate_at_equal_lengths(few: str) -> None:
    def told(count: int) -> float | None:
        scores = [1.0] * count + [0.0] * (100 - count)
        if few == "losses":
            scores = [1 - score for score in scores]
        found = table([scored(preferences(scores))])
        comparison = found.comparison("a", "", RULING, 0.03, over="", by_groups=False)
        assert (comparison.length_controlled_win_rate is None) == (
            comparison.length_controlled_interval_95 is None
        )
        return comparison.length_controlled_win_rate

    assert FEWEST_WINS == 0.05
    assert told(4) is None
    assert told(6) is not None


# Groups


def test_for_other_groups_the_groups_are_the_units() -> None:
    # Every group agrees with itself, so 60 prompts are no more evidence than their 6 groups.
    scores: list[float | None] = [1.0 if item % 6 < 4 else 0.0 for item in range(60)]
    found = table([scored(preferences(scores, num_groups=6))] * 2)
    same, other = (found.test(by_groups=by_groups) for by_groups in (False, True))
    assert (same.num_prompts, other.num_prompts) == (60, 6)
    assert same.mean == pytest.approx(other.mean) == pytest.approx(4 / 6)
    assert same.p_value() < 0.05 < other.p_value()
    told = found.comparison("a", "", RULING, 0.03, over="", by_groups=True)
    assert (told.num_prompts, told.num_groups) == (60, 6)
    assert told.interval_95 == other.interval(0.98)
    equal = found.equal_lengths(by_groups=True)
    assert equal is not None
    assert equal.num_prompts == 6


def test_groups_of_unequal_size_have_equal_weight() -> None:
    known: Scored = {
        **{("large", (f"{n}",)): (1.0, 0.0) for n in range(9)},
        ("small", ("x",)): (0.0, 0.0),
    }
    assert table([known]).test(by_groups=True).mean == 0.5
    assert table([known]).test(by_groups=False).mean == 0.9


# Two arms against each other


def test_a_contrast_is_the_difference_of_two_win_rates_on_shared_prompts_and_seeds() -> None:
    better = scored(preferences([1.0] * 30 + [0.0] * 10))
    worse = scored(preferences([0.0] * 30 + [1.0] * 10))
    missing = scored(preferences([None] + [0.0] * 29 + [1.0] * 10))
    found = contrast(of_seeds([better, better, better]), of_seeds([missing, worse, {}]))
    assert found is not None
    test = found.test(by_groups=False)
    assert (test.num_prompts, test.num_seeds) == (39, 2)
    assert test.mean == pytest.approx(0.5 + (29 - 10) / 39 / 2)
    told = found.comparison("symnoise", "", RULING, 0.015, over="independent", by_groups=False)
    assert (told.over, told.opponent) == ("independent", "")
    assert contrast(of_seeds([better]), of_seeds([{}])) is None
