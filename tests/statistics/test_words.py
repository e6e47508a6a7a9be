"""The sentence of a verdict says what was found, on what, and what it leaves open."""

from dataclasses import replace
from typing import Any

import pytest

from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.statistics.words import arm_words, points, verdict_sentence, verdict_text

BEST = Comparison(
    "symnoise", 0.561, (0.512, 0.61), 0.01, 0.02, 96, 5, "better",
    opponent="best", against="none, lr=0.001", num_groups=1,
)  # fmt: skip
SHARED = replace(
    BEST, win_rate=0.55, interval_95=(0.504, 0.596), opponent="shared", against="none, lr=0.002"
)
BETTER = Decision(
    "symnoise", "better", (BEST, SHARED), label="symnoise, alpha=5, lr=0.002", num_seeds=5,
    looks=(3, 5), stopped="decided", num_settings=8, num_reference_settings=7, num_trained=15,
)  # fmt: skip
AGAINST = (
    "56.1 % wins (95 % interval 51.2 to 61.0) against plain fine-tuning at its own best, lr=0.001 "
    "(7 settings tried), and 55.0 % wins (95 % interval 50.4 to 59.6) against plain fine-tuning at "
    "the same lr=0.002; 5 fresh seeds, 96 fresh prompts."
)


def found(verdict: str, rates: tuple[float, float], width: float, **values: Any) -> Decision:
    """A decision with both win rates and one half-width."""
    both = tuple(
        replace(each, win_rate=rate, interval_95=(rate - width, rate + width))
        for each, rate in zip((BEST, SHARED), rates, strict=True)
    )
    return replace(BETTER, verdict=verdict, comparisons=both, **values)


def told(*decisions: Decision, **values: Any) -> str:
    return verdict_sentence(Verdict(decisions=decisions, **values))


def test_better_says_what_was_tried_and_against_what() -> None:
    assert told(BETTER) == (
        f"symnoise at alpha=5, lr=0.002 (8 settings tried) is better than plain fine-tuning: "
        f"{AGAINST}"
    )


def test_worse_is_said_as_plainly() -> None:
    sentence = told(found("worse", (0.4, 0.42), 0.05))
    assert sentence.startswith(
        "symnoise at alpha=5, lr=0.002 (8 settings tried) is worse than plain fine-tuning: 40.0 % "
        "wins (95 % interval 35.0 to 45.0) against"
    )
    assert sentence.endswith("5 fresh seeds, 96 fresh prompts."), "that no gain is left is plain"


def test_better_by_length_alone_says_so() -> None:
    longer = {"length_controlled_win_rate": 0.498, "length_controlled_interval_95": (0.44, 0.55)}
    sentence = told(replace(BETTER, comparisons=(BEST, replace(SHARED, **longer))))
    assert "is better, perhaps only longer, than plain fine-tuning:" in sentence
    assert "55.0 % wins (95 % interval 50.4 to 59.6; 49.8 % at equal lengths)" in sentence
    shorter = {**longer, "length_controlled_interval_95": (0.40, 0.48)}
    assert "is better, but worse at equal lengths, than plain fine-tuning:" in told(
        replace(BETTER, comparisons=(BEST, replace(SHARED, **shorter)))
    )
    still = {**longer, "length_controlled_interval_95": (0.51, 0.62)}
    assert "perhaps only longer" not in told(
        replace(BETTER, comparisons=(BEST, replace(SHARED, **still)))
    )


def test_no_difference_is_a_verdict_of_its_own() -> None:
    sentence = told(found("no difference", (0.501, 0.499), 0.02))
    assert sentence.startswith(
        "symnoise at alpha=5, lr=0.002 (8 settings tried) makes no difference of 3 points to plain "
        "fine-tuning: 50.1 % wins (95 % interval 48.1 to 52.1) against"
    )
    assert sentence.endswith("5 fresh seeds, 96 fresh prompts.")
    smaller = told(found("no difference", (0.5, 0.5), 0.004), effect=0.01)
    assert "makes no difference of 1 point to plain" in smaller


def test_what_cannot_be_told_yet_says_how_many_seeds_would_tell() -> None:
    sentence = told(found("cannot tell yet", (0.52, 0.51), 0.05, seeds_needed=14))
    assert sentence.startswith(
        "Whether symnoise at alpha=5, lr=0.002 (8 settings tried) is better or worse than plain "
        "fine-tuning cannot be told yet: 52.0 % wins (95 % interval 47.0 to 57.0) against"
    )
    gap = " For a gap of 3 points it takes about 14 seeds on these prompts."
    assert sentence.endswith(gap)


def test_where_there_were_seeds_enough_it_asks_for_none() -> None:
    for needed in (4, 5):
        sentence = told(found("cannot tell yet", (0.52, 0.51), 0.05, seeds_needed=needed))
        gap = " A gap of 3 points would probably have been seen with so many seeds."
        assert sentence.endswith(gap)


def test_where_more_seeds_would_be_needed_than_are_planned_for_it_says_so() -> None:
    sentence = told(found("cannot tell yet", (0.52, 0.51), 0.05))
    assert sentence.endswith(
        " For a gap of 3 points even 200 seeds on these prompts would not be enough."
    )


def test_what_is_open_may_still_exclude_a_gain() -> None:
    sentence = told(found("cannot tell yet", (0.48, 0.49), 0.03, seeds_needed=9))
    assert "A gain of 3 points or more is excluded." in sentence
    assert "A loss" not in sentence


def test_one_seed_is_about_two_models() -> None:
    one = tuple(replace(each, num_seeds=1) for each in (BEST, SHARED))
    sentence = told(replace(BETTER, comparisons=one, num_seeds=1))
    assert sentence.startswith(
        "These two models differ: symnoise at alpha=5, lr=0.002 (8 settings tried) is better than "
        "plain fine-tuning: "
    )
    assert "; 1 fresh seed, 96 fresh prompts." in sentence
    assert sentence.endswith("One seed cannot show how much another training would differ.")
    undecided = told(replace(BETTER, verdict="cannot tell yet", comparisons=one, num_seeds=1))
    assert "For a gap of 3 points it takes several seeds." in undecided
    assert "These two models differ" not in undecided


def test_failed_trainings_are_told() -> None:
    assert "1 of its 15 trainings failed." in told(replace(BETTER, num_failed=1))
    assert "failed" not in told(BETTER)


def test_a_verdict_that_is_withheld_says_why_and_asks_for_no_seeds() -> None:
    reason = "4 of its 15 trainings failed"
    sentence = told(replace(BETTER, verdict="cannot tell yet", num_failed=4, withheld=reason))
    assert "cannot be told yet" in sentence
    assert sentence.endswith(f"The verdict that these numbers give is withheld: {reason}.")
    assert "too few" not in sentence
    assert sentence.count("failed") == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"stopped": "failed", "num_failed": 5, "num_trained": 9}, "5 of its 9 trainings failed"),
        ({"stopped": "failed", "num_trained": 9}, "too few of its answers were judged"),
        ({"stopped": "budget"}, "the budget was spent before its first look"),
    ],
)
def test_an_arm_without_any_comparison_is_named_with_its_reason(
    values: dict[str, Any], reason: str
) -> None:
    never = Decision("neftune", "cannot tell yet", (), **values)
    assert told(BETTER, never).endswith(f" neftune could not be compared: {reason}.")


def test_without_a_confirmation_there_is_no_winner() -> None:
    assert told() == (
        "Nothing was confirmed on fresh seeds and prompts, so the sweep names no winner."
    )


def test_the_best_arm_comes_first_and_contrasts_last() -> None:
    other = replace(
        found("worse", (0.4, 0.41), 0.05), arm="neftune", label="neftune, alpha=5", num_settings=1
    )
    difference = Comparison(
        "symnoise", 0.509, (0.4795, 0.54), 0.5, 0.5, 96, 5, "cannot tell yet", over="neftune"
    )
    contrast = replace(
        BETTER,
        verdict="cannot tell yet",
        over="neftune",
        comparisons=(difference,),
        seeds_needed=30,
    )
    sentence = told(contrast, other, BETTER)
    places = [
        sentence.index(text)
        for text in (
            "is better than plain",
            "neftune at alpha=5 (1 setting tried) is worse than plain",
            "is better or worse than neftune cannot be told yet: +1.8 points in win rate (95 % "
            "interval -4.1 to +8.0); 5 fresh seeds, 96 fresh prompts. For a gap of 3 points",
        )
    ]
    assert places == sorted(places)


def test_one_opponent_alone_is_at_the_same_setting() -> None:
    same = replace(BEST, against="none, lr=0.002")
    assert (
        "against plain fine-tuning at the same setting, which is its own best (7 settings tried);"
    ) in told(replace(BETTER, comparisons=(same,)))


@pytest.mark.parametrize(
    ("population", "groups", "words"),
    [
        ("these_groups", 1, "96 fresh prompts."),
        ("these_groups", 7, "96 fresh prompts of 7 groups, for more of the same groups."),
        ("other_groups", 7, "96 fresh prompts of 7 groups, for groups like these."),
    ],
)
def test_the_sentence_says_which_prompts_it_is_about(
    population: str, groups: int, words: str
) -> None:
    both = tuple(replace(each, num_groups=groups) for each in (BEST, SHARED))
    assert words in told(replace(BETTER, comparisons=both), population=population)


def test_arms_of_another_treatment_are_named_by_their_values() -> None:
    rank = Verdict(treatment="lora.rank", reference="rank-8")
    assert arm_words(rank, "rank-8") == "rank-8"
    assert arm_words(Verdict(), "none") == "plain fine-tuning"
    assert arm_words(Verdict(), "neftune") == "neftune"
    assert "is better than rank-8: " in told(BETTER, treatment="lora.rank", reference="rank-8")


def test_points_are_counted() -> None:
    assert [points(rate) for rate in (0.03, 0.01, 0.025)] == ["3 points", "1 point", "2.5 points"]


# Models that were judged as they are


def test_models_are_told_by_their_own_names() -> None:
    labels = {"symnoise": "A", "neftune": "B"}
    alone = replace(BEST, opponent="", against="")
    assert verdict_text(alone, labels) == "A is better (56.1 % wins, 95 % interval 51.2 to 61.0)"
    between = replace(alone, over="neftune", win_rate=0.65, interval_95=(0.6, 0.7))
    assert verdict_text(between, labels) == (
        "A is better than B (+30.0 points in win rate, 95 % interval +20.0 to +40.0)"
    )
    unknown = replace(alone, verdict="cannot tell yet", prompts_needed=700)
    assert verdict_text(unknown, labels) == (
        "whether A differs is not decided yet (56.1 % wins, 95 % interval 51.2 to 61.0; a gap of 3 "
        "points takes about 700 prompts)"
    )
