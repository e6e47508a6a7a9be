"""What answers look like: length, repetition, compression, refusals."""

import json
import math

import pytest

from symnoise_ray.records.completions import Completion
from symnoise_ray.statistics.answer_statistics import (
    LARGEST_LOG_DIVERSITY,
    answer_statistics,
    diversity,
    is_refusal,
)


def answers(*texts: str) -> list[Completion]:
    return [Completion("question", text, "trial") for text in texts]


def test_lengths_are_code_points_and_words() -> None:
    told = answer_statistics(answers("ab cd", "é\N{GRINNING FACE}", "a b c d e f g"))
    assert told["num_answers"] == 3
    assert told["length_mean"] == (5 + 2 + 13) / 3
    assert told["length_median"] == 5
    assert told["words_mean"] == (2 + 1 + 7) / 3


def test_empty_refusing_and_constant_answers_are_counted() -> None:
    told = answer_statistics(answers("", " \n", "I\u2019m sorry, but no.", "Blue.", "Blue."))
    assert told["empty_rate"] == 2 / 5
    assert told["refusal_rate"] == 1 / 5
    assert told["distinct_rate"] == 4 / 5


@pytest.mark.parametrize(
    "text",
    ["I cannot do that.", "  I can't help", "As an AI language model", "I'm  sorry,\nbut I won't"],
)
def test_an_answer_that_begins_by_declining_is_a_refusal(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ["", "He said: I cannot.", "I can do it.", "Sorry to hear that!"])
def test_other_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_repetition_is_the_share_of_ngrams_that_were_there_before() -> None:
    words = ["a", "b", "a", "b", "a", "c"]
    told = diversity(words)
    assert told.repetition_2 == pytest.approx(1 - 3 / 5)  # ab ba ab ba ac
    assert told.repetition_3 == pytest.approx(1 - 3 / 4)  # aba bab aba bac
    assert told.repetition_4 == pytest.approx(1 - 3 / 3)  # abab baba abac
    kept = (3 / 5) * (3 / 4)
    assert told.log_diversity == pytest.approx(-math.log(1 - kept))


def test_the_published_formula_stops_early_and_divides_once_more() -> None:
    words = ["a", "b", "a", "b", "a", "c"]
    told = diversity(words, "published")
    assert told.repetition_2 == pytest.approx(1 - 2 / 4)  # without the last, ac
    assert told.repetition_3 == pytest.approx(1 - 2 / 3)
    assert told.repetition_4 == pytest.approx(1 - 2 / 2)
    kept = (1 - 0.5 / 100) * (1 - (1 / 3) / 100)
    assert told.log_diversity == pytest.approx(-math.log(1 - kept))


@pytest.mark.parametrize("formula", ["exact", "published"])
def test_diversity_ends_at_twenty_and_at_nothing(formula: str) -> None:
    fresh = [str(number) for number in range(60)]
    assert diversity(fresh, formula).log_diversity == LARGEST_LOG_DIVERSITY
    stuck = diversity(["a"] * 1000, formula)
    assert stuck.repetition_2 > 0.99
    assert stuck.log_diversity < (0.01 if formula == "exact" else 3.6)


def test_only_answers_that_are_long_enough_count_and_only_their_first_words() -> None:
    long, short = " ".join(map(str, range(60))), "one two three"
    told = answer_statistics(answers(long + " 1 1 1 1 1 1", short), num_words=60)
    assert told["num_diversity"] == 1
    assert told["repetition_2"] == 0
    assert told["log_diversity"] == LARGEST_LOG_DIVERSITY
    without = answer_statistics(answers(short), num_words=60)
    assert without["num_diversity"] == 0
    assert "log_diversity" not in without


def test_repetitive_answers_compress_better() -> None:
    plain = " ".join(str(number * 7919 % 10007) for number in range(300))
    ratios = [answer_statistics(answers(text))["compression_ratio"] for text in (plain, "a " * 600)]
    assert ratios[1] > 5 * ratios[0] > 0


def test_answers_that_are_no_text_for_utf8_are_still_described() -> None:
    told = answer_statistics(answers("\ud800 broken", "fine"))
    assert told["num_answers"] == 2


def test_no_answers_have_no_statistics() -> None:
    assert answer_statistics([]) == {"num_answers": 0}


def test_statistics_are_finite_numbers_for_json() -> None:
    told = answer_statistics(answers("", "a b c d e", "I cannot."), num_words=5)
    assert all(math.isfinite(value) for value in json.loads(json.dumps(told)).values())
    assert all(isinstance(value, float | int) for value in told.values())
