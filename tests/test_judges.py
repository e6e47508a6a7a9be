"""The offline judge prefers what is nearer to the gold answer, whichever it reads first."""

import random

import pytest

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import DataError
from symnoise_ray.judges import ORDERS, judge_all, make_judge
from symnoise_ray.judges.reference import EXACT, ReferenceJudge, normalise, similarity
from symnoise_ray.records import Completion

GOLD = "The red fox sleeps in the old garden."
NEAR = "The red fox sleeps in a garden."
FAR = "Seven blue birds."


def completion(output: str, gold: str = GOLD, instruction: str = "Who sleeps?") -> Completion:
    return Completion(instruction, output, "trial", "animals", gold)


def reference(output: str, instruction: str = "Who sleeps?") -> Completion:
    return Completion(instruction, output, "plain", "animals")


class Unaskable:
    """A judge that must not be asked."""

    name = "unaskable"

    def prefer(self, prompt: Completion, first: str, second: str) -> float:
        """Fail."""
        raise AssertionError(f"asked about {first!r} and {second!r}")


class FirstWins:
    """A judge with nothing but a position bias."""

    name = "first wins"

    def prefer(self, prompt: Completion, first: str, second: str) -> float:
        """The first, whatever it is."""
        return 1.0


# The reference judge


@pytest.mark.parametrize(
    ("first", "second", "preference"),
    [
        (GOLD, NEAR, 1.0),
        (NEAR, FAR, 1.0),
        (GOLD, FAR, 1.0),
        (FAR, "", 1.0),
        (GOLD, GOLD.upper(), 1.5),
        ("zzz", "qqq", 1.5),
        ("", "", 1.5),
    ],
)
def test_the_nearer_answer_wins_in_either_order(first: str, second: str, preference: float) -> None:
    judge = make_judge(JudgeConfig(type="reference"))
    prompt = completion("its own output plays no part")
    assert judge.prefer(prompt, first, second) == preference
    assert judge.prefer(prompt, second, first) == 3 - preference


def test_swapping_the_answers_swaps_the_verdict_whatever_they_are() -> None:
    rng = random.Random(0)
    alphabet = "abcde \u00e9\u4e2d\U0001f600.,\n"
    judge = ReferenceJudge()

    def text() -> str:
        return "".join(rng.choices(alphabet, k=rng.randrange(12)))

    verdicts = []
    for _ in range(300):
        prompt = completion("", gold="a" + text())
        first, second = text(), text()
        verdicts.append(judge.prefer(prompt, first, second))
        assert judge.prefer(prompt, second, first) == 3 - verdicts[-1]
        assert judge.prefer(prompt, first, first) == 1.5
    assert set(verdicts) == {1.0, 1.5, 2.0}


def test_an_exact_answer_beats_every_other() -> None:
    assert similarity(GOLD, GOLD) == EXACT
    for other in (NEAR, FAR, GOLD + "!", GOLD[:-1], ""):
        assert 0 <= similarity(other, GOLD) < EXACT


def test_case_width_and_white_space_make_no_difference() -> None:
    assert normalise("  Stra\u00dfe\n\t\uff21 \ufb01 ") == "strasse a fi"
    assert similarity(" the RED  fox\nsleeps in the old garden. ", GOLD) == EXACT
    assert similarity("cafe\u0301", "caf\u00e9") == EXACT
    assert similarity("the red fox sleeps in the old garden", GOLD) < EXACT


@pytest.mark.parametrize("gold", ["", " \n"])
def test_a_prompt_without_a_gold_answer_is_refused_by_name(gold: str) -> None:
    with pytest.raises(
        DataError, match=r"needs a gold answer for every prompt, but 'Who sleeps\?'"
    ):
        ReferenceJudge().prefer(completion("a", gold=gold), "a", "b")


# Judging all


def test_every_item_is_judged_in_both_orders_and_two_means_the_trial() -> None:
    preferences = judge_all(
        ReferenceJudge(),
        [completion(NEAR), completion(FAR), completion(NEAR)],
        [reference(FAR), reference(GOLD), reference(NEAR)],
    )
    assert [p.preference for p in preferences] == [2, 2, 1, 1, 1.5, 1.5]
    assert [p.item for p in preferences] == [0, 0, 1, 1, 2, 2]
    assert [p.order for p in preferences] == list(ORDERS) * 3
    first = preferences[0]
    assert (first.output_1, first.generator_1) == (FAR, "plain")
    assert (first.output_2, first.generator_2) == (NEAR, "trial")
    assert (first.instruction, first.dataset) == ("Who sleeps?", "animals")
    assert first.annotator == ReferenceJudge.name


def test_a_judge_that_always_takes_the_first_contradicts_itself() -> None:
    preferences = judge_all(FirstWins(), [completion(NEAR)], [reference(FAR)])
    assert [p.preference for p in preferences] == [1.0, 2.0]


def test_identical_answers_are_ties_without_asking() -> None:
    texts = ["", GOLD, "\u2028"]
    preferences = judge_all(
        Unaskable(), [completion(text) for text in texts], [reference(text) for text in texts]
    )
    assert {p.preference for p in preferences} == {1.5}
    with pytest.raises(AssertionError, match="asked about 'a' and 'b'"):
        judge_all(Unaskable(), [completion("b")], [reference("a")])


def test_a_reference_that_lacks_a_prompt_is_refused_with_the_prompt() -> None:
    completions = [completion("a", instruction=f"Prompt {i}?") for i in range(3)]
    answers = [reference("a", instruction="Prompt 0?"), reference("a", instruction="Other?")]
    with pytest.raises(
        DataError, match=r"must answer every prompt, but lacks 2 of 3, the first being 'Prompt 1\?'"
    ):
        judge_all(ReferenceJudge(), completions, answers)


def test_prompts_that_repeat_are_aligned_by_position() -> None:
    completions = [completion(NEAR), completion(NEAR)]
    preferences = judge_all(ReferenceJudge(), completions, [reference(FAR), reference(GOLD)])
    assert [p.preference for p in preferences] == [2, 2, 1, 1]


def test_a_reference_in_another_order_is_aligned_by_prompt() -> None:
    completions = [completion(NEAR, instruction="a"), completion(NEAR, instruction="b")]
    answers = [
        reference("unasked", instruction="c"),
        reference(GOLD, instruction="b"),
        reference(FAR, instruction="a"),
    ]
    preferences = judge_all(ReferenceJudge(), completions, answers)
    assert [p.preference for p in preferences] == [2, 2, 1, 1]
    assert [p.output_1 for p in preferences] == [FAR, FAR, GOLD, GOLD]
