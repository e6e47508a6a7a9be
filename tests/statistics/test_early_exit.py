"""Who is clearly behind in its own arm stops, at least two stay, and the evidence is told."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from symnoise_ray.statistics.early_exit import (
    Arm,
    Curve,
    Point,
    Rule,
    curve_of,
    decide,
    loss_at,
    rung_at,
    stop_evidence,
)

RULE = Rule(rungs=(1 / 4, 1 / 2), reduction=3, window=2, keep=2)


def flat(loss: float, share: float = 1.0, num_evals: int = 8) -> Curve:
    """The curve of a trial with always the same loss, up to a share of its training."""
    return [Point(i / num_evals, loss) for i in range(round(share * num_evals) + 1)]


def arm_of(*losses: float) -> Arm:
    """An arm whose trials came to their ends one after the other."""
    arm = Arm(RULE)
    for number, loss in enumerate(losses):
        arm.add(f"whole-{number}", flat(loss))
    return arm


# Where a trial stands


def test_the_share_follows_from_how_often_the_loss_was_measured() -> None:
    records = [
        {"step": 0, "clean_loss": 3.0},
        {"step": 1, "loss": 2.5},
        {"step": 5, "clean_loss": 2.0},
    ]
    assert curve_of(records, num_evals=4) == [Point(0, 3), Point(1 / 4, 2)]
    assert curve_of(records) == [Point(0, 3), Point(1, 2)], "of a trial that came to its end"
    assert curve_of([], num_evals=4) == []


def test_a_rung_counts_from_the_first_loss_at_or_after_it() -> None:
    shares = [0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1]
    assert [rung_at(share, RULE) for share in shares] == [
        None, None, 1 / 4, 1 / 4, 1 / 2, 1 / 2, None,
    ]  # fmt: skip
    assert rung_at(3 * (1 / 12), RULE) == 1 / 4, "whatever the rounding of shares"


def test_the_loss_on_a_rung_is_a_mean_and_leaves_out_the_one_before_training() -> None:
    curve = [Point(i / 8, loss) for i, loss in enumerate([9.0, 4.0, 2.0, 1.0, 0.5])]
    assert loss_at(curve, 1 / 4, RULE) == 3.0
    assert loss_at(curve, 1 / 2, RULE) == 0.75
    assert loss_at(curve[:2], 1 / 4, RULE) is None, "not reached yet"
    assert loss_at(curve[:1], 1 / 4, RULE) is None
    rare = [Point(0, 9.0), Point(1 / 3, 4.0)]
    assert loss_at(rare, 1 / 4, RULE) == 4.0


# The rule


@pytest.mark.parametrize(
    ("rank", "num", "goes_on"),
    [
        (1, 1, True),
        (1, 2, True),
        (2, 2, False),
        (2, 4, True),
        (3, 6, False),
        (3, 7, True),
        (4, 12, True),
    ],
)
def test_the_best_third_rounded_up_goes_on(rank: int, num: int, goes_on: bool) -> None:
    others = [float(other) for other in range(1, num + 1) if other != rank]
    assert decide(rank, others, 1 / 4, RULE) == (goes_on, 1 / 4, rank, rank, num)


def test_who_is_level_with_the_last_that_goes_on_goes_on() -> None:
    assert decide(1.0, [1.0] * 11, 1 / 4, RULE).goes_on


def test_a_trial_that_is_clearly_behind_stops_at_the_first_rung() -> None:
    arm = arm_of(1.0, 1.1, 1.2)
    assert arm.report("bad", flat(5.0, 0)) is None
    assert arm.report("bad", flat(5.0, 1 / 8)) is None, "no rung yet"
    decision = arm.report("bad", flat(5.0, 1 / 4))
    assert decision == (False, 1 / 4, 5.0, 4, 4)


def test_a_trial_that_goes_on_is_asked_again_at_the_next_rung_and_not_between() -> None:
    arm = arm_of(1.0, 1.1, 1.2)
    good = arm.report("good", flat(0.9, 1 / 4))
    assert good is not None
    assert good.goes_on
    assert arm.report("good", flat(0.9, 3 / 8)) is None
    worse = [*flat(0.9, 3 / 8), Point(1 / 2, 9.0)]
    later = arm.report("good", worse)
    assert later is not None
    assert (later.goes_on, later.rung) == (False, 1 / 2)
    assert arm.report("done", flat(0.1)) is None, "nobody is stopped at the end"


def test_one_bad_measurement_does_not_stop_a_trial() -> None:
    arm = arm_of(1.0, 1.0, 1.0)
    dip = [Point(0, 9.0), Point(1 / 8, 0.5), Point(1 / 4, 1.4)]
    decision = arm.report("dip", dip)
    assert decision is not None
    assert decision.goes_on


def test_at_least_two_trials_of_an_arm_are_never_stopped() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        arm, names = Arm(RULE), [f"{n}" for n in range(int(rng.integers(1, 7)))]
        running = dict.fromkeys(names, 0)
        losses = rng.uniform(1, 5, size=len(names))
        stopped = set()
        while running:
            name = rng.choice(sorted(running))
            running[name] += 1
            decision = arm.report(name, flat(losses[int(name)], running[name] / 8))
            if decision is not None and not decision.goes_on:
                stopped.add(name)
            if name in stopped or running[name] == 8:
                del running[name]
        assert len(names) - len(stopped) >= min(2, len(names))
        assert stopped == arm.gone


def test_trials_that_failed_do_not_count_as_those_that_stay() -> None:
    arm = arm_of(1.0, 1.1)
    arm.leave("whole-0")
    decision = arm.report("bad", flat(5.0, 1 / 4))
    assert decision == (True, 1 / 4, 5.0, 3, 3), "still compared with both"


def test_what_was_stopped_before_is_still_compared_with() -> None:
    arm = arm_of(1.0, 2.0, 3.0)
    for number in range(3):
        arm.add(f"early-{number}", flat(4.0 + number, 1 / 4))
        arm.leave(f"early-{number}")
    decision = arm.report("third", flat(2.5, 1 / 4))
    assert decision is not None
    assert (decision.rank, decision.num, decision.goes_on) == (3, 7, True)


def test_a_trial_that_goes_on_after_a_break_is_decided_at_the_last_rung_it_has_passed() -> None:
    arm = arm_of(1.0, 1.1, 1.2)
    decision = arm.report("again", flat(5.0, 5 / 8))
    assert decision is not None
    assert (decision.rung, decision.goes_on) == (1 / 2, False)


# Was it sound?


def test_with_one_arm_the_evidence_is_spearmans_correlation() -> None:
    rng = np.random.default_rng(1)
    losses = rng.normal(size=9)
    rates = -losses + rng.normal(size=9)
    told = stop_evidence(losses.tolist(), rates.tolist(), ["symnoise"] * 9)
    assert told.correlation == pytest.approx(spearmanr(losses, rates).statistic)
    assert told.num_trials == 9


def test_arms_are_compared_within_themselves() -> None:
    losses, rates = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0], [0.3, 0.2, 0.1, 0.9, 0.8, 0.7]
    told = stop_evidence(losses, rates, ["none"] * 3 + ["symnoise"] * 3)
    assert told.correlation == pytest.approx(-1)
    assert told.warning == ""


@pytest.mark.parametrize("rates", [[0.1, 0.2, 0.3, 0.4], [0.3, 0.1, 0.4, 0.2]])
def test_a_weak_or_opposite_correlation_warns(rates: list[float]) -> None:
    told = stop_evidence([1.0, 2.0, 3.0, 4.0], rates, ["none"] * 4)
    assert told.correlation is not None
    assert told.warning.startswith("Warning: the clean loss")
    assert f"{told.correlation:.2f} over 4 trials" in told.warning


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_trials_tell_nothing_and_say_so(count: int) -> None:
    told = stop_evidence([1.0, 2.0][:count], [0.1, 0.2][:count], ["none"] * count)
    assert told.correlation is None
    assert "too few trials" in told.warning


def test_equal_win_rates_tell_nothing() -> None:
    assert stop_evidence([1.0, 2.0, 3.0], [0.5] * 3, ["none"] * 3).correlation is None
