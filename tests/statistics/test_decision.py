"""One interval decides: better, worse, no difference, or open; and a p-value that agrees."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.decision import (
    BETTER,
    CAUTION,
    OPEN,
    SAME,
    WORSE,
    holm,
    hopeless,
    p_of,
    rule,
    ruled,
)
from symnoise_ray.statistics.looks import declared_looks
from symnoise_ray.statistics.power import last_half_width, stopped
from symnoise_ray.statistics.two_way import TwoWay

EFFECT = 0.03


def scores(
    gain: float, seed: int = 0, shape: tuple[int, int] = (200, 4), spread: float = 0.3
) -> Floats:
    """Scores of prompts by seeds whose mean is one half and this gain."""
    rng = np.random.default_rng(seed)
    drawn = 0.5 + rng.normal(0, spread, shape) + rng.normal(0, 0.005, (1, shape[1]))
    return np.asarray(drawn - drawn.mean() + 0.5 + gain)


def analyses(*gains: float, **values: float) -> list[TwoWay]:
    return [TwoWay(scores(gain, seed, **values)) for seed, gain in enumerate(gains)]  # type: ignore[arg-type]


def verdict(tests: Sequence[TwoWay], share: float = 1.0, effect: float = EFFECT) -> str:
    return rule({"arm": (tests, share, effect)})["arm"].verdict


# One question


@pytest.mark.parametrize("seed", range(40))
def test_the_interval_leaves_one_half_exactly_where_the_p_value_is_below_the_level(
    seed: int,
) -> None:
    gain = float(np.random.default_rng(seed).uniform(-0.06, 0.06))
    test = TwoWay(scores(gain, seed, (60, 3)))
    for level in (0.05, 0.01, 0.002):
        low, high = test.interval(1 - level)
        assert (test.p_value() < level) == (not low <= 0.5 <= high)


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_the_verdict_is_a_difference_exactly_where_the_corrected_p_value_is_below_five_percent(
    share: float,
) -> None:
    seen = set()
    for seed in range(60):
        gain = float(np.random.default_rng(seed).uniform(-0.1, 0.1))
        found = rule({"arm": ([TwoWay(scores(gain, seed, (60, 6), 0.2))], share, 1e-6)})["arm"]
        assert (found.p_holm < 0.05) == (found.verdict in (BETTER, WORSE))
        assert found.confidence == pytest.approx(1 - 0.05 * share)
        seen.add(found.verdict)
    assert seen == {BETTER, WORSE, OPEN}


def test_both_opponents_must_be_beaten() -> None:
    assert verdict(analyses(0.2, 0.2)) == BETTER
    assert verdict(analyses(-0.2, -0.2)) == WORSE
    assert verdict(analyses(0.2, 0.0)) == OPEN
    assert verdict(analyses(0.2, -0.2)) == OPEN


def test_the_p_value_against_two_opponents_is_the_larger_one_or_none_if_they_disagree() -> None:
    near, far = analyses(0.05, 0.2)
    assert p_of([near, far]) == max(near.p_value(), far.p_value())
    assert p_of(analyses(0.2, -0.2)) == 1.0


def test_there_is_no_difference_where_both_intervals_lie_within_the_effect() -> None:
    close = analyses(0.001, -0.001, shape=(4000, 4), spread=0.2)
    assert verdict(close) == SAME
    assert verdict(close, effect=0.001) == OPEN
    wide = TwoWay(scores(0.0, 3, (50, 4)))
    assert verdict([close[0], wide]) == OPEN


def test_a_small_but_sure_gain_is_better_and_not_no_difference() -> None:
    (sure,) = analyses(0.015, shape=(20_000, 4), spread=0.2)
    low, high = sure.interval()
    assert 0.5 < low < high < 0.5 + EFFECT
    assert verdict([sure]) == BETTER


def test_a_verdict_of_intervals_works_over_many_at_once() -> None:
    lows = [[0.51, 0.52], [0.51, 0.49], [0.3, 0.2], [0.48, 0.49], [0.48, 0.2]]
    highs = [[0.6, 0.6], [0.6, 0.6], [0.49, 0.4], [0.51, 0.52], [0.51, 0.8]]
    assert ruled(lows, highs, EFFECT).tolist() == [BETTER, OPEN, WORSE, SAME, OPEN]


def test_wins_on_a_few_prompts_alone_decide_nothing() -> None:
    assert verdict([TwoWay(np.ones((4, 3)))]) == OPEN
    assert verdict([TwoWay(np.ones((40, 3)))]) == BETTER


# Several questions


def test_holms_correction_agrees_with_one_done_by_hand() -> None:
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    # Sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04, raised to .06.
    assert holm(p_values) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_every_verdict_of_several_questions_agrees_with_its_interval_and_its_p_value() -> None:
    seen = set()
    for seed in range(40):
        gains = np.random.default_rng(seed).uniform(-0.1, 0.12, 3)
        tables = {
            n: TwoWay(scores(gain, 3 * seed + n, (60, 6), 0.2)) for n, gain in enumerate(gains)
        }
        found = rule({n: ([test], 0.9, 0.01) for n, test in tables.items()})
        for number, ruling in found.items():
            low, high = tables[number].interval(ruling.confidence)
            assert (ruling.verdict in (BETTER, WORSE)) == (not low <= 0.5 <= high)
            assert (ruling.verdict in (BETTER, WORSE)) == (ruling.p_holm < 0.05)
        seen.add(tuple(sorted(ruling.verdict for ruling in found.values())))
    assert len(seen) > 4


def test_the_surest_question_pays_for_all_and_the_next_for_the_rest() -> None:
    sure, less, unsure = analyses(0.3, 0.25, 0.0)
    found = rule({n: ([test], 1.0, 1e-9) for n, test in enumerate((sure, less, unsure))})
    assert [found[n].verdict for n in range(3)] == [BETTER, BETTER, OPEN]
    assert [found[n].confidence for n in range(3)] == pytest.approx(
        [1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05]
    )


def test_where_nothing_is_decided_all_have_the_level_of_the_first() -> None:
    found = rule({n: ([test], 1.0, 1e-9) for n, test in enumerate(analyses(0.0, 0.001))})
    assert {ruling.confidence for ruling in found.values()} == {1 - 0.05 / 2}


def test_a_look_with_a_small_share_of_the_level_needs_more() -> None:
    (test,) = analyses(0.05)
    assert test.p_value() < 0.05
    assert verdict([test], share=1.0) == BETTER
    assert verdict([test], share=0.05 * test.p_value()) == OPEN
    assert rule({}) == {}


# Futility


def test_a_question_is_given_up_where_no_verdict_is_in_reach() -> None:
    halves, gap = 0.02, 0.01
    assert hopeless([0.5], [0.2], 0.6, EFFECT)
    assert not hopeless([0.5 + gap], [halves], 0.6, EFFECT)
    assert not hopeless([0.5], [halves], 0.6, EFFECT), "no difference is a verdict, too"
    assert hopeless([0.53, 0.47], [0.1, 0.1], 0.9, EFFECT)


def test_what_would_be_decided_if_nothing_changed_is_never_given_up() -> None:
    rng = np.random.default_rng(5)
    means = 0.5 + rng.uniform(-0.2, 0.2, (4000, 2))
    halves = rng.uniform(0.001, 0.2, (4000, 2))
    decided = ruled(means - halves, means + halves, EFFECT) != OPEN
    assert 0.1 < decided.mean() < 0.9
    for done in (0.2, 0.6, 0.99):
        assert not (hopeless(means, halves, done, EFFECT) & decided).any()


def test_caution_takes_the_last_interval_for_narrower_than_it_looks() -> None:
    half = 0.031
    assert CAUTION * half < EFFECT < half
    assert not hopeless([0.5], [half], 0.5, EFFECT)
    assert hopeless([0.5], [EFFECT / CAUTION + 0.001], 0.999, EFFECT)


def test_after_a_look_a_question_stops_where_it_is_decided_futile_or_at_the_end() -> None:
    first, middle, last = declared_looks([2, 3, 4])
    (open_case,) = analyses(0.03, spread=0.1)
    (hopeless_case,) = analyses(0.0, shape=(20, 4))
    assert stopped(BETTER, [open_case], first, last, EFFECT, 1) == "decided"
    assert stopped(OPEN, [open_case], last, last, EFFECT, 1) == "last look"
    assert stopped(OPEN, [hopeless_case], middle, last, EFFECT, 1) == "futile"
    assert stopped(OPEN, [open_case], middle, last, EFFECT, 1) == ""


def test_the_expected_width_at_the_last_look_is_the_width_itself_once_it_is_reached() -> None:
    (test,) = analyses(0.02, shape=(100, 5))
    (look,) = declared_looks([5])
    expected = last_half_width(test.squares, test.num_prompts, look, look, 2)
    floored = test.half_width(1 - 0.05 * look.share / 2)
    assert float(expected) == pytest.approx(floored, rel=0.05)


def test_more_seeds_are_expected_to_narrow_the_interval() -> None:
    (test,) = analyses(0.02, shape=(100, 3))
    looks = declared_looks([3, 5, 9, 20])
    widths = [
        float(last_half_width(test.squares, 100, looks[0], last._replace(share=0.5), 1))
        for last in looks
    ]
    assert all(wide > narrow for wide, narrow in itertools.pairwise(widths))
