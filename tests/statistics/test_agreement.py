"""Two judges agree as the textbooks count it, and by which answer is longer."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from symnoise_ray.statistics.agreement import LENGTHS, Item, agreement, by_length


def items(pairs: list[tuple[float, float]], longer_by: int = 0) -> list[Item]:
    return [Item(first, second, longer_by) for first, second in pairs]


def test_kappa_is_that_of_a_table_worked_by_hand() -> None:
    """20 and 15 equal verdicts of 50, with margins 25 and 30: 0.7 observed, 0.5 by chance."""
    table = [(1.0, 1.0)] * 20 + [(1.0, 0.0)] * 5 + [(0.0, 1.0)] * 10 + [(0.0, 0.0)] * 15
    found = agreement(items(table))
    assert found.raw == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert (found.first_win_rate, found.second_win_rate) == (0.5, 0.6)


def test_kappa_is_that_of_scikit_learn_with_ties() -> None:
    draws = np.random.default_rng(0).choice([0.0, 0.5, 1.0], (200, 2), p=[0.3, 0.2, 0.5])
    draws[:80, 1] = draws[:80, 0]
    found = agreement(items([(float(one), float(other)) for one, other in draws]))
    expected = cohen_kappa_score(*(2 * draws).astype(int).T)
    assert found.kappa == pytest.approx(expected)
    assert 0.1 < expected < 0.9


def test_a_graded_verdict_counts_by_its_side() -> None:
    found = agreement(items([(0.9, 0.6), (0.2, 0.4), (0.5, 0.51)]))
    assert found.raw == pytest.approx(2 / 3)


def test_kappa_has_no_value_where_both_always_say_the_same() -> None:
    found = agreement(items([(1.0, 1.0)] * 5))
    assert (found.raw, found.kappa) == (1.0, None)
    assert agreement([]).raw is None


def test_items_are_told_apart_by_which_answer_is_longer() -> None:
    longer, shorter = items([(0.0, 1.0)] * 3, longer_by=7), items([(1.0, 1.0)] * 2, longer_by=-1)
    found = by_length([*longer, *shorter, *items([(0.5, 0.5)])])
    assert tuple(found) == LENGTHS
    assert [each.num_items for each in found.values()] == [3, 1, 2]
    assert [each.raw for each in found.values()] == [0.0, 1.0, 1.0]
