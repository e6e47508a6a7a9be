"""Preferences become win rates with intervals, and length-controlled ones beside them."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from symnoise_ray.errors import DataError, JudgeError
from symnoise_ray.records.preferences import Preference
from symnoise_ray.statistics.bootstrap import unseen
from symnoise_ray.statistics.length_control import GamedRows
from symnoise_ray.statistics.win_rate import (
    AlpacaEvalModel,
    bootstrap_interval,
    item_scores,
    length_differences,
    win_rate,
)
from symnoise_ray.statistics.words import score_text


def preference(item: int, value: float | None, **fields: Any) -> Preference:
    """A verdict: 1 the reference is better, 2 the trial, 1.5 a tie, None no verdict."""
    texts = {"instruction": f"question {item}", "output_1": "ref", "output_2": "xxx"}
    names = {"generator_1": "plain", "generator_2": "trial", "annotator": "judge"}
    known = {"dataset": "", "order": "one", **texts, **names, **fields}
    return Preference(item=item, preference=value, **known)


def in_both_orders(verdicts: Sequence[tuple[float | None, float | None]]) -> list[Preference]:
    """Every item's verdicts in the two orders."""
    return [
        preference(item, value, order=order)
        for item, pair in enumerate(verdicts)
        for order, value in zip(("reference first", "trial first"), pair, strict=True)
    ]


# Win rates


def test_a_win_counts_one_a_tie_one_half_and_a_loss_nothing() -> None:
    rate = win_rate(in_both_orders([(2, 2), (2, 2), (1, 1), (1.5, 1.5)]))
    assert rate.win_rate == 2.5 / 4
    assert rate.discrete_win_rate == 2.5 / 4
    assert (rate.n_wins, rate.n_wins_reference, rate.n_draws) == (2, 1, 1)
    assert (rate.n_total, rate.n_invalid) == (4, 0)
    assert rate.standard_error == pytest.approx(np.std([1, 1, 0, 0.5], ddof=1) / 2)
    assert rate.position_bias == 0
    assert rate.avg_length == 3


def test_contradicting_orders_are_a_tie_and_told_as_position_bias() -> None:
    rate = win_rate(in_both_orders([(2, 1), (1, 2), (2, 2), (1, 1.5)]))
    assert rate.win_rate == (0.5 + 0.5 + 1 + 0.25) / 4
    assert (rate.n_wins, rate.n_wins_reference, rate.n_draws) == (1, 1, 2)
    assert rate.position_bias == 2 / 4


def test_a_graded_verdict_counts_its_fraction_and_one_win() -> None:
    rate = win_rate([preference(0, 1.9), preference(1, 1.2)])
    assert rate.win_rate == pytest.approx(0.55)
    assert rate.discrete_win_rate == 0.5
    assert (rate.n_wins, rate.n_wins_reference) == (1, 1)


def test_an_item_that_lacks_a_verdict_is_left_out_and_counted() -> None:
    rate = win_rate(in_both_orders([(2, 2), (2, None), (None, None), (1, 1)]))
    assert rate.win_rate == 0.5
    assert (rate.n_total, rate.n_invalid) == (2, 2)


def test_items_without_any_verdict_have_no_score() -> None:
    with pytest.raises(JudgeError, match="at least one item must have a verdict, but none of 2"):
        win_rate(in_both_orders([(None, None), (2, None)]))
    with pytest.raises(JudgeError, match="at least one item must have a verdict, but none of 0"):
        win_rate([])


def test_prompts_that_repeat_are_items_of_their_own() -> None:
    scores, num_invalid, contradictions = item_scores(in_both_orders([(2, 2), (1, 1), (2, 1)]))
    assert scores == {0: 1.0, 1: 0.0, 2: 0.5}
    assert (num_invalid, contradictions) == (0, 1 / 3)


def test_the_win_rates_of_both_sides_add_up_to_one() -> None:
    verdicts = np.random.default_rng(0).choice([1.0, 1.5, 2.0], size=(50, 2)).tolist()
    there = win_rate(in_both_orders(verdicts))
    back = win_rate(in_both_orders([(3 - first, 3 - second) for first, second in verdicts]))
    assert there.win_rate + back.win_rate == pytest.approx(1, abs=1e-12)
    assert there.discrete_win_rate + back.discrete_win_rate == pytest.approx(1, abs=1e-12)
    assert (there.n_wins, there.n_draws) == (back.n_wins_reference, back.n_draws)
    assert there.standard_error == pytest.approx(back.standard_error)
    assert there.position_bias == back.position_bias


def test_one_item_has_no_standard_error() -> None:
    rate = win_rate([preference(0, 2)])
    assert (rate.win_rate, rate.standard_error) == (1.0, 0.0)
    assert rate.interval_95 == (0, 1), "one prompt says nothing"


def test_a_win_rate_is_plain_json() -> None:
    values = json.loads(json.dumps(win_rate(in_both_orders([(2, 2), (1, 1)])).to_json()))
    assert values["win_rate"] == 0.5
    assert len(values["interval_95"]) == 2


# Intervals


@pytest.mark.parametrize("count", [5, 50, 500])
def test_an_interval_holds_the_mean_within_its_range(count: int) -> None:
    scores = np.random.default_rng(count).choice([0, 0.5, 1], size=count)
    low, high = bootstrap_interval(scores)
    assert 0 <= low <= scores.mean() <= high <= 1
    assert bootstrap_interval(scores) == (low, high)


def test_an_interval_narrows_with_the_root_of_the_number_of_prompts() -> None:
    widths = []
    for count in (25, 100, 400):
        low, high = bootstrap_interval(np.tile([0.0, 1.0], count // 2 + 1)[:count])
        widths.append(high - low)
        assert high - low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(count), rel=0.1)
    assert widths == sorted(widths, reverse=True)


def test_a_repeated_prompt_is_one_piece_of_evidence() -> None:
    # 30 prompts asked 20 times each, always with the same end, know as much as 30 prompts.
    scores = np.random.default_rng(0).choice([0.0, 1.0], size=30)
    once = bootstrap_interval(scores)
    repeated = bootstrap_interval(np.repeat(scores, 20), np.repeat(np.arange(30), 20).tolist())
    assert repeated == pytest.approx(once)
    assert np.ptp(bootstrap_interval(np.repeat(scores, 20))) < 0.5 * np.ptp(once)


def test_one_prompt_says_nothing_about_others() -> None:
    assert bootstrap_interval(np.array([0.5])) == (0.0, 1.0)
    same = [preference(item, value, instruction="the one") for item, value in enumerate([1, 2])]
    rate = win_rate(same)
    assert rate.interval_95 == rate.length_controlled_interval_95 == (0.0, 1.0)


def test_few_prompts_get_an_interval_as_wide_as_students() -> None:
    scores = np.array([0.3, 0.4, 0.45, 0.5, 0.5, 0.55, 0.6, 0.7])
    low, high = bootstrap_interval(scores)
    half = 2.365 * scores.std(ddof=1) / math.sqrt(8)
    assert high - low == pytest.approx(2 * half, rel=0.08)


# Length control


def with_lengths(scores: Sequence[float], lengths: Sequence[int]) -> list[Preference]:
    """Verdicts on answers of these lengths against one of 50 characters."""
    return [
        preference(item, 1 + score, output_1="r" * 50, output_2="t" * length)
        for item, (score, length) in enumerate(zip(scores, lengths, strict=True))
    ]


def test_a_judge_that_likes_length_alone_says_nothing_at_equal_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = (50 + rng.integers(-30, 61, size=300)).tolist()
    scores = [1.0 if rng.random() < 1 / (1 + math.exp((50 - n) / 15)) else 0.0 for n in lengths]
    rate = win_rate(with_lengths(scores, lengths))
    low, high = rate.length_controlled_interval_95
    assert rate.win_rate > 0.6
    assert rate.interval_95[0] > 0.5, "the raw win rate is fooled"
    assert low < 0.5 < high
    assert low < rate.length_controlled_win_rate < high
    assert 0.5 < rate.longer_rate < 0.8


def test_answers_as_long_as_the_references_need_no_control() -> None:
    scores = np.random.default_rng(1).choice([0.0, 0.5, 1.0], size=400, p=[0.2, 0.2, 0.6])
    rate = win_rate(with_lengths(scores.tolist(), [50] * 400))
    assert rate.length_controlled_win_rate == pytest.approx(rate.win_rate, abs=2e-3)
    assert rate.length_controlled_interval_95 == pytest.approx(rate.interval_95, abs=5e-3)
    assert rate.longer_rate == 0.5


def test_the_length_controlled_rates_of_both_sides_add_up_to_one() -> None:
    rng = np.random.default_rng(2)
    there = with_lengths(rng.random(60).tolist(), rng.integers(20, 90, size=60).tolist())
    back = [
        p._replace(output_1=p.output_2, output_2=p.output_1, preference=3 - p.preference)
        for p in there
    ]
    first, second = win_rate(there), win_rate(back)
    together = first.length_controlled_win_rate + second.length_controlled_win_rate
    assert together == pytest.approx(1, abs=1e-9)
    low, high = second.length_controlled_interval_95
    assert first.length_controlled_interval_95 == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_an_item_without_a_verdict_has_no_part_in_the_length_control() -> None:
    rng = np.random.default_rng(3)
    whole = with_lengths(rng.random(40).tolist(), rng.integers(20, 90, size=40).tolist())
    failed = preference(40, None, output_1="r" * 50, output_2="t" * 5000)
    rate, without = win_rate([*whole, failed]), win_rate(whole)
    assert rate.length_controlled_win_rate == without.length_controlled_win_rate
    assert rate.length_controlled_interval_95 == without.length_controlled_interval_95
    assert rate.n_invalid == 1
    assert rate.avg_length > without.avg_length, "the length is that of all answers"


def test_all_wins_leave_room_for_what_was_not_seen() -> None:
    rate = win_rate(with_lengths([1.0] * 20, list(range(40, 60))))
    assert rate.interval_95 == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert rate.length_controlled_interval_95 == pytest.approx(rate.interval_95, abs=0.01)
    assert rate.length_controlled_win_rate > 0.99


@pytest.mark.parametrize("sure", [1.0, 0.99999, 0.7])
def test_a_surer_judge_has_not_seen_more(sure: float) -> None:
    rate = win_rate([preference(item, 1 + sure) for item in range(10)])
    assert rate.interval_95 == pytest.approx(unseen(sure, 10))


def test_ties_everywhere_may_be_luck_but_a_model_against_itself_is_half() -> None:
    ties = [preference(item, 1.5) for item in range(10)]
    assert win_rate(ties).interval_95 == pytest.approx(unseen(0.5, 10))
    itself = [tie._replace(generator_1="m", generator_2="m", output_2=tie.output_1) for tie in ties]
    assert win_rate(itself).interval_95 == (0.5, 0.5)
    assert win_rate(itself).length_controlled_interval_95 == (0.5, 0.5)


def test_length_differences_are_those_of_every_item_in_code_points() -> None:
    pair = in_both_orders([(2, 1)])
    longer = preference(1, None, output_1="\N{GRINNING FACE}" * 2, output_2="abc")
    assert length_differences([*pair, longer]) == {0: 0, 1: -1}


def test_a_difficulty_that_belongs_to_other_items_is_refused() -> None:
    gamed = GamedRows(*(np.zeros(2) for _ in range(3)))
    with pytest.raises(DataError, match="known for every item, but 3 items have 805"):
        win_rate(with_lengths([0, 1, 1], [1, 2, 3]), AlpacaEvalModel(np.zeros(805), gamed))


# In words


def test_a_score_in_words_has_both_rates_and_their_intervals() -> None:
    rng = np.random.default_rng(4)
    scores, lengths = rng.choice([0.0, 1.0], size=50).tolist(), rng.integers(20, 90, 50).tolist()
    lines = score_text(win_rate(with_lengths(scores, lengths))).split("\n")
    assert len(lines) == 2
    assert f"of 50 items: {sum(scores):.0f} won, {50 - sum(scores):.0f} lost, 0 tied" in lines[0]
    assert "] at equal lengths; " in lines[1]


def test_a_score_in_words_warns_of_what_it_cannot_tell() -> None:
    verdicts = [*with_lengths([0, 1, 1, 0], [60, 70, 80, 90]), preference(4, None)]
    told = score_text(win_rate(verdicts))
    assert "longer than the reference on 100 %" not in told, "the failed one is as long"
    always = score_text(win_rate([*with_lengths([0, 1, 1, 0], [60, 70, 80, 90])]))
    assert "longer than the reference on 100 %" in always
    assert "so the rate at equal lengths is an extrapolation" in always
    assert "1 items without a verdict are left out" in told
