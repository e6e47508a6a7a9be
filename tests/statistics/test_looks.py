"""The level of 5 % is spent over looks, and a part of it is kept for growth after a verdict."""

import pytest

from symnoise_ray.statistics.looks import DECLARED, Look, declared_looks, growth_share
from symnoise_ray.sweep.schedule import looks_of


def shares(looks: list[Look]) -> list[float]:
    return [look.share for look in looks]


@pytest.mark.parametrize("looks", [[1], [3], [3, 5, 8], [2, 3, 4, 5, 6, 20]])
def test_declared_looks_spend_nine_tenths_of_the_level(looks: list[int]) -> None:
    found = declared_looks(looks)
    assert [look.num_seeds for look in found] == looks
    assert sum(shares(found)) == pytest.approx(DECLARED) == pytest.approx(0.9)
    assert all(share > 0 for share in shares(found))


def test_the_last_look_keeps_most_of_it() -> None:
    first, second, last = shares(declared_looks([3, 5, 8]))
    assert first == pytest.approx(0.9 * (3 / 8) ** 3)
    assert first < second < last
    assert last > 0.6


def test_however_often_a_sweep_grows_the_whole_is_at_most_the_level() -> None:
    assert growth_share(1) == pytest.approx(0.05)
    growths = sum(growth_share(number) for number in range(1, 10_001))
    assert DECLARED + growths <= 1
    assert DECLARED + growths == pytest.approx(1, abs=1e-4)


# A sweep that grew


def parts(*looks: list[int]) -> list[dict[str, list[int]]]:
    return [{"looks": each} for each in looks]


def test_a_sweep_that_never_grew_has_the_looks_that_it_declared() -> None:
    assert looks_of(parts([3, 5, 8]), [[1, 1]]) == declared_looks([3, 5, 8])


def test_looks_that_are_added_after_a_verdict_have_the_share_that_was_kept() -> None:
    found = looks_of(parts([3, 5], [3, 5, 8, 12]), [[1, 1], [1, 1]])
    assert found[:2] == declared_looks([3, 5])
    assert [(look.num_seeds, look.part) for look in found[2:]] == [(8, 2), (12, 2)]
    assert sum(shares(found[2:])) == pytest.approx(growth_share(1))
    assert sum(shares(found)) <= 1


def test_a_second_growth_has_the_next_share() -> None:
    found = looks_of(parts([3], [3, 5], [3, 5, 9]), [[1, 1]] * 3)
    assert [look.part for look in found] == [1, 2, 3]
    assert shares(found) == pytest.approx([0.9, growth_share(1), growth_share(2)])


def test_growth_without_new_looks_asks_no_new_question() -> None:
    assert looks_of(parts([3, 5], [3, 5]), [[1, 1], [1, 1]]) == declared_looks([3, 5])


def test_on_prompts_that_were_added_after_a_verdict_every_look_has_the_share_of_growth() -> None:
    grown = [{"looks": [3, 5]}, {"looks": [3, 5], "prompts": 200}]
    found = looks_of(grown, [[1, 1], [1, 1]])
    assert found[:2] == declared_looks([3, 5])
    assert found[2:] == declared_looks([3, 5], growth_share(1), 2)
    assert sum(shares(found)) <= 1
    more = [*grown, {"looks": [3, 5, 9], "prompts": 200}]
    assert looks_of(more, [[1, 1]] * 3)[4:] == [Look(9, growth_share(2), 3)]


def test_prompts_that_were_added_before_a_verdict_leave_the_declared_level() -> None:
    assert looks_of([{"looks": [3, 5], "prompts": 200}], [[1, 1]]) == declared_looks([3, 5])


def test_a_setting_chosen_after_a_verdict_has_no_claim_on_the_declared_level() -> None:
    found = looks_of(parts([3, 5], [3, 5]), [[1, 1], [2, 1]])
    assert [(look.num_seeds, look.part) for look in found] == [(3, 2), (5, 2)]
    assert sum(shares(found)) == pytest.approx(growth_share(1))


def test_an_arm_that_is_confirmed_only_later_begins_with_the_share_of_growth() -> None:
    assert looks_of(parts([3], [3]), [None, [1, 1]]) == declared_looks([3], growth_share(1), 2)
    assert looks_of(parts([3], [3]), [[1, 1], None]) == []
    assert looks_of(parts([3], [3], [3]), [[1, 1], None, [1, 1]]) == declared_looks(
        [3], growth_share(2), 3
    )
