"""All trials of a search together give a second opinion."""

import numpy as np
import pytest
from scipy import stats

from symnoise_ray.records.results import TrialResult
from symnoise_ray.statistics.blocks import block_differences


def trial(arm: str, block: int, rate: float, status: str = "done") -> TrialResult:
    values = {"win_rate": rate} if status == "done" else {}
    return TrialResult(f"{block:03d}-{arm}", arm=arm, seed=block, status=status, values=values)


def test_differences_within_blocks_are_students_t():
    rng = np.random.default_rng(0)
    level, gaps = rng.uniform(0.2, 0.8, 8), rng.normal(0.04, 0.02, 8)
    trials = [trial("none", n, level[n]) for n in range(8)]
    trials += [trial("symnoise", n, level[n] + gaps[n]) for n in range(8)]
    (found,) = block_differences(trials, "none")
    expected = stats.ttest_1samp(gaps, 0)
    assert (found.arm, found.num_blocks) == ("symnoise", 8)
    assert found.difference == pytest.approx(gaps.mean())
    assert found.interval_95 == pytest.approx(expected.confidence_interval(0.95))


def test_a_block_counts_only_where_both_came_to_their_end():
    trials = [trial("none", n, 0.5) for n in range(4)]
    trials += [
        trial("symnoise", n, 0.5 + 0.01 * n, "failed" if n == 2 else "done") for n in range(5)
    ]
    (found,) = block_differences(trials, "none")
    assert found.num_blocks == 3
    assert found.difference == pytest.approx((0 + 0.01 + 0.03) / 3)


def test_too_few_blocks_give_no_opinion():
    trials = [trial(arm, n, 0.5) for arm in ("none", "symnoise") for n in range(2)]
    assert block_differences(trials, "none") == []
