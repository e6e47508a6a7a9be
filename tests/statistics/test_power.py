"""What a confirmation can tell is simulated by the rules that decide it."""

import numpy as np
import pytest
from scipy import stats

from symnoise_ray.statistics.looks import Look, declared_looks
from symnoise_ray.statistics.power import TYPICAL, Power, fewest, power, seeds_needed
from symnoise_ray.statistics.two_way import Spread

GAP = 0.05


def one_look(num_seeds: int, share: float = 1.0) -> list[Look]:
    return [Look(num_seeds, share, 1)]


def chance(num_prompts: int, num_seeds: int, gap: float = GAP, **values: int) -> float:
    return power(TYPICAL, num_prompts, one_look(num_seeds), gap, **values).better


# One look at one opponent


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05, 0.08])
def test_one_seed_has_the_power_of_a_noncentral_t_test_over_prompts(gap: float) -> None:
    num_prompts, deviation = 200, 0.375
    spread = Spread(prompts=deviation**2, seeds=0.0, rest=1e-9)
    # The effect sets no difference and futility alone, which one look does not have.
    found = power(spread, num_prompts, one_look(1), 0.01, gap=gap, num_opponents=1)
    shift = gap / deviation * np.sqrt(num_prompts)
    exact = stats.nct.sf(stats.t.ppf(0.975, num_prompts - 1), num_prompts - 1, shift)
    assert found.better == pytest.approx(exact, abs=0.025)


@pytest.mark.parametrize("num_seeds", [3, 6])
def test_where_seeds_alone_differ_it_is_one_over_seeds(num_seeds: int) -> None:
    deviation = 0.03
    spread = Spread(prompts=0.0, seeds=deviation**2, rest=1e-9)
    found = power(spread, 500, one_look(num_seeds), 0.01, gap=GAP, num_opponents=1)
    shift = GAP / deviation * np.sqrt(num_seeds)
    exact = stats.nct.sf(stats.t.ppf(0.975, num_seeds - 1), num_seeds - 1, shift)
    assert found.better == pytest.approx(exact, abs=0.03)


def test_the_demos_prompts_tell_a_gap_of_five_points_one_time_in_ten() -> None:
    assert chance(108, 3, num_opponents=1, num_questions=2) == pytest.approx(0.10, abs=0.015)


def test_eight_hundred_prompts_and_five_seeds_tell_it_nearly_always() -> None:
    assert chance(805, 5, num_opponents=1, num_questions=2) == pytest.approx(0.98, abs=0.015)


# Monotony


def test_power_grows_with_seeds_prompts_and_the_gap() -> None:
    for grown in (
        [chance(400, seeds) for seeds in (2, 3, 5, 8)],
        [chance(prompts, 5) for prompts in (50, 100, 200, 400)],
        [chance(200, 5, gap) for gap in (0.01, 0.03, 0.05, 0.1)],
    ):
        assert grown == sorted(grown)
        assert grown[-1] > grown[0] + 0.3


def test_power_falls_with_opponents_questions_and_variance_between_seeds() -> None:
    alone = chance(300, 4, num_opponents=1)
    assert chance(300, 4) < alone
    assert chance(300, 4, num_opponents=1, num_questions=4) < alone
    restless = TYPICAL._replace(seeds=0.04**2)
    assert power(restless, 300, one_look(4), GAP, num_opponents=1).better < alone


@pytest.mark.parametrize("looks", [[3, 5, 8], [2, 4, 6, 8, 10]])
def test_without_a_gap_a_verdict_is_rare_over_all_looks(looks: list[int]) -> None:
    found = power(TYPICAL, 100, declared_looks(looks), 0.03, gap=0.0, num_opponents=1)
    assert found.better <= 0.025 + 0.01


# Looks


def test_looks_spare_seeds_where_the_gap_is_large() -> None:
    looked = power(TYPICAL, 805, declared_looks([3, 5, 8]), 0.03, gap=0.1)
    once = power(TYPICAL, 805, declared_looks([8]), 0.03, gap=0.1)
    assert looked.mean_seeds < 5 < once.mean_seeds == 8
    assert looked.better > once.better - 0.02


def test_where_nothing_can_be_told_seeds_are_spared_as_well() -> None:
    found = power(TYPICAL, 30, declared_looks([3, 5, 8]), 0.03)
    assert found.decided < 0.05
    assert found.mean_seeds < 4


def test_no_difference_is_a_verdict_that_many_prompts_reach() -> None:
    found = power(TYPICAL, 5000, declared_looks([3, 5, 8]), 0.03, gap=0.0)
    assert found.decided > 0.9
    assert found.better < 0.03


def test_the_same_confirmation_always_has_the_same_power() -> None:
    found: list[Power] = [power(TYPICAL, 100, declared_looks([3, 5]), 0.03) for _ in range(2)]
    assert found[0] == found[1]


# Seeds needed


def test_as_many_seeds_as_are_asked_for_tell_the_gap() -> None:
    needed = seeds_needed(TYPICAL, 805, 5, GAP)
    assert needed is not None
    assert chance(805, needed) >= 0.78
    assert chance(805, max(2, needed - 2)) < 0.9


def test_a_smaller_gap_needs_more_seeds() -> None:
    counts = [seeds_needed(TYPICAL, 805, 5, gap) for gap in (0.1, 0.05, 0.03)]
    assert None not in counts
    assert counts == sorted(counts)  # type: ignore[type-var]
    assert counts[0] < counts[-1]  # type: ignore[operator]


def test_of_few_prompts_no_number_of_seeds_would_do() -> None:
    assert seeds_needed(TYPICAL, 20, 3, 0.03) is None


@pytest.mark.parametrize("needed", [1, 2, 3, 128, 129, 160, 200, 201])
def test_the_fewest_is_found_up_to_the_most_that_are_tried(needed: int) -> None:
    tried: list[int] = []

    def enough(number: int) -> bool:
        tried.append(number)
        return number >= needed

    assert fewest(enough, 200) == (None if needed > 200 else max(2, needed))
    assert max(tried) <= 200


def test_nothing_is_known_of_one_seed_or_one_prompt() -> None:
    assert seeds_needed(TYPICAL, 805, 1, GAP) is None
    assert seeds_needed(TYPICAL, 1, 5, GAP) is None


def test_few_seeds_say_little_of_how_seeds_differ_so_more_are_asked_for() -> None:
    restless = TYPICAL._replace(seeds=0.03**2)
    few, many = (seeds_needed(restless, 805, seen, GAP) for seen in (2, 50))
    assert few is not None
    assert many is not None
    assert few > many


def test_a_smaller_share_of_the_level_or_more_questions_need_more_seeds() -> None:
    plain = seeds_needed(TYPICAL, 805, 5, 0.03) or 0
    assert (seeds_needed(TYPICAL, 805, 5, 0.03, share=0.05) or 99) > plain
    assert (seeds_needed(TYPICAL, 805, 5, 0.03, num_questions=4) or 99) > plain
