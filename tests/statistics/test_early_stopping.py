"""Judging stops once it is decided, and hardly ever for the wrong side."""

import numpy as np
import pytest

from symnoise_ray.errors import JudgeError
from symnoise_ray.statistics.early_stopping import EarlyDecision, judging_order


def decide(scores: list[float], batch: int = 32, error_rate: float = 0.05) -> EarlyDecision:
    """Judge in batches until decided."""
    early = EarlyDecision(len(scores), error_rate)
    for first in range(0, len(scores), batch):
        if early.add(scores[first : first + batch]):
            break
    return early


def side(scores: list[float]) -> str:
    lead = sum(scores) - len(scores) / 2
    return "better" if lead > 0 else "worse" if lead < 0 else "equal"


def test_the_order_is_every_item_once_and_a_function_of_the_seed() -> None:
    assert sorted(judging_order(50, 3)) == list(range(50))
    assert judging_order(50, 3) == judging_order(50, 3)
    assert judging_order(50, 3) != judging_order(50, 4) != list(range(50))


def test_a_clear_case_is_decided_at_once_and_its_mirror_for_the_other_side() -> None:
    won, lost = decide([1.0] * 805, batch=1), decide([0.0] * 805, batch=1)
    assert (won.verdict, lost.verdict) == ("better", "worse")
    assert won.num_judged == lost.num_judged < 20
    assert won.interval[0] > 0.5 > lost.interval[1]
    assert won.interval == pytest.approx([1 - end for end in reversed(lost.interval)])


def test_nothing_is_decided_before_there_is_evidence() -> None:
    early = EarlyDecision(100)
    assert (early.decided, early.verdict, early.interval) == (False, None, (0.0, 1.0))
    assert early.add([1.0, 0.0, 0.5]) is False
    assert early.num_judged == 3


def test_judging_everything_always_decides_and_tells_the_mean_itself() -> None:
    balanced = decide([1.0, 0.0] * 20, batch=7)
    assert (balanced.verdict, balanced.num_judged) == ("equal", 40)
    assert balanced.interval == (0.5, 0.5)
    barely = decide([1.0, 0.0] * 20 + [0.5, 0.5, 0.6], batch=7)
    assert (barely.verdict, barely.num_judged) == ("better", 43)


def test_a_lead_that_the_rest_cannot_turn_is_decided() -> None:
    # Three of five wins: whatever the others say, the mean is above one half.
    early = EarlyDecision(5, error_rate=1e-9)
    assert early.add([1.0, 1.0]) is False
    assert early.add([1.0]) is False
    assert early.add([0.0]) is True
    assert early.verdict == "better"


def test_an_item_without_a_verdict_counts_as_a_tie_and_is_told() -> None:
    scores = np.random.default_rng(0).choice([0.0, 1.0], size=200, p=[0.35, 0.65]).tolist()
    gone = [None if number % 10 == 0 else score for number, score in enumerate(scores)]
    tied = [0.5 if score is None else score for score in gone]
    early, same = EarlyDecision(200), EarlyDecision(200)
    early.add(gone[:150])
    same.add(tied[:150])
    assert (early.verdict, early.interval) == (same.verdict, same.interval)
    assert (early.num_invalid, same.num_invalid) == (15, 0)


def test_batches_change_nothing_but_when_one_looks() -> None:
    scores = np.random.default_rng(1).choice([0.0, 0.5, 1.0], size=300, p=[0.3, 0.2, 0.5])
    one, many = EarlyDecision(300), EarlyDecision(300)
    one.add(scores[:200].tolist())
    for score in scores[:200]:
        many.add([float(score)])
    assert (one.verdict, one.interval) == (many.verdict, many.interval)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_score_that_is_no_rate_is_refused(bad: float) -> None:
    with pytest.raises(JudgeError, match="within 0 and 1"):
        EarlyDecision(5).add([bad])


def test_more_scores_than_items_and_empty_sets_are_refused() -> None:
    with pytest.raises(JudgeError, match="only 2 items were announced"):
        EarlyDecision(2).add([0, 1, 1])
    with pytest.raises(JudgeError, match="at least one item"):
        EarlyDecision(0)
    with pytest.raises(JudgeError, match="error rate"):
        EarlyDecision(5, error_rate=0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("win_rate", [0.6, 0.55])
def test_a_gap_is_decided_on_a_part_of_the_items_without_flips(win_rate: float) -> None:
    rng = np.random.default_rng(int(100 * win_rate))
    used, flips, rounds = 0, 0, 60
    for _ in range(rounds):
        scores = (rng.random(805) < win_rate).astype(float).tolist()
        early = decide(scores)
        used += early.num_judged
        flips += early.verdict != side(scores)
    assert used / (rounds * 805) <= 0.64
    assert flips / rounds <= 0.05


def test_where_nothing_differs_the_whole_sets_side_is_rarely_flipped() -> None:
    rng = np.random.default_rng(7)
    flips = 0
    for _ in range(200):
        scores = rng.permutation([1.0, 0.0] * 50).tolist()  # exactly one half: any side is wrong
        flips += decide(scores, batch=8).verdict != "equal"
    assert flips / 200 <= 0.05 + 2 * 0.0154, "5 % and two standard errors"


def test_the_confidence_sequence_holds_however_often_one_looks() -> None:
    rng = np.random.default_rng(9)
    misses = 0
    for _ in range(100):
        scores = rng.permutation(np.repeat([0.0, 0.5, 1.0], [30, 20, 70]))
        early, missed = EarlyDecision(120), False
        for score in scores:
            early.add([float(score)])
            low, high = early.interval
            missed |= not low - 1e-12 <= scores.mean() <= high + 1e-12
        misses += missed
    assert misses / 100 <= 0.05
