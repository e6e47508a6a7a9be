"""A training row overlaps with a prompt by a shared run of words, or by being the same request."""

import json
from pathlib import Path

import pytest

from symnoise_ray.data.example import Example
from symnoise_ray.data.overlap import Overlap, words

RUN = "one two three four five six seven eight nine ten eleven twelve thirteen"
PROMPTS = [Example(((f"Please count: {RUN}!", ""),)), Example((("Name a colour.", "green"),))]


@pytest.fixture
def overlap() -> Overlap:
    return Overlap(PROMPTS, 13)


@pytest.mark.parametrize(
    "example",
    [
        Example(((RUN, "x"),)),
        Example((("x", f"They said: {RUN.upper()}, and left."),)),
        Example((("x", "y"), (RUN.replace(" ", ", "), "z"), ("x", "y"))),
        Example((("Look at this:", "x"),), input=RUN),
        Example((("name a COLOUR", "blue"),)),
        Example((("Hi.", "Hello."), ("Name a colour", "red"))),
        Example((("Name a", "x"),), input="colour"),
    ],
    ids=["run", "answer", "middle-turn", "input", "whole", "whole-last-turn", "whole-input"],
)
def test_a_shared_run_or_the_same_request_overlaps(overlap: Overlap, example: Example) -> None:
    assert example in overlap


@pytest.mark.parametrize(
    "example",
    [
        Example(((RUN.rpartition(" ")[0], "x"),)),
        Example(((RUN.replace("six", "6"), "x"),)),
        Example((("Name a colour of the sea.", "Name a colour."),)),
        Example((("", "green"),)),
    ],
    ids=["twelve-words", "one-word-changed", "short-prompt-inside", "no-words"],
)
def test_less_than_that_does_not(overlap: Overlap, example: Example) -> None:
    assert example not in overlap


def test_empty_prompts_overlap_with_nothing() -> None:
    assert Example((("?!", "x"),)) not in Overlap([Example((("...", ""),))], 1)


def test_words_are_lower_case_without_punctuation_and_chinese_characters_are_words() -> None:
    assert words("Don't STOP, caf\u00e9_1: \u4f60\u597dA!") == [
        "don",
        "t",
        "stop",
        "caf\u00e9_1",
        "\u4f60",
        "\u597d",
        "a",
    ]


def test_known_overlap_of_published_data_is_found(shared_data: Path) -> None:
    rows = json.loads((shared_data / "instructions" / "alpaca_5000.json").read_text())
    examples = [Example(((row["instruction"], row["output"]),), row["input"]) for row in rows]
    overlap = Overlap(examples[:100], 13)
    assert all(example in overlap for example in examples[:100])
    assert sum(example in overlap for example in examples[100:]) < 100
