"""Training and generation render a row alike, so a model is asked as it was taught."""

import pytest

from symnoise_ray.prompts import TEMPLATES, Example, choose_template, render, render_prompt

EXAMPLES = {
    "plain": Example((("Say hi.", "Hi."),)),
    "with-input": Example((("Translate.", "chat"),), input="cat"),
    "system": Example((("Say hi.", "Hi."),), system="Be brief."),
    "turns": Example((("Say hi.", "Hi."), ("Again.", "Hi again.")), system="Be brief."),
    "turns-with-input": Example((("Say hi.", "Hi."), ("Translate.", "chat")), input="cat"),
    "braces": Example((("Print {x} and {{}}.", "{x}"),), input="{request}"),
    "empty-request": Example((("", "An answer."),)),
}


def text_of(example: Example, template: str) -> str:
    return "".join(segment.text for segment in render(example, template))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_prompt_is_the_beginning_of_the_trained_row_to_the_byte(
    example: Example, template: str
) -> None:
    prompt = "".join(segment.text for segment in render_prompt(example, template))
    assert text_of(example, template) == prompt + example.gold
    assert prompt


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_every_answer_is_trained_on_and_nothing_else(example: Example, template: str) -> None:
    segments = render(example, template)
    assert [s.text for s in segments if s.trained] == [answer for _, answer in example.turns]
    assert [s.trained for s in segments] == [False, True] * len(example.turns)


@pytest.mark.parametrize("template", TEMPLATES)
def test_requests_inputs_and_the_system_message_stand_in_the_prompt_as_given(
    template: str,
) -> None:
    example = EXAMPLES["braces"]
    prompt = render_prompt(example, template)[0].text
    assert "Print {x} and {{}}." in prompt
    assert "{request}" in prompt
    assert render_prompt(EXAMPLES["system"], template)[0].text.startswith("Be brief.\n\n")


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_input_belongs_to_the_last_request(template: str) -> None:
    first, _, second, _ = render(EXAMPLES["turns-with-input"], template)
    assert "cat" not in first.text
    assert "cat" in second.text


def test_the_short_template_is_alpacas_without_its_preamble() -> None:
    assert text_of(EXAMPLES["with-input"], "short") == (
        "### Instruction:\nTranslate.\n\n### Input:\ncat\n\n### Response:\nchat"
    )
    for example in (EXAMPLES["plain"], EXAMPLES["with-input"]):
        assert text_of(example, "alpaca").endswith(text_of(example, "short"))


def test_alpacas_preamble_tells_whether_an_input_follows() -> None:
    assert text_of(EXAMPLES["plain"], "alpaca").startswith(
        "Below is an instruction that describes a task. Write a response"
    )
    assert text_of(EXAMPLES["with-input"], "alpaca").startswith(
        "Below is an instruction that describes a task, paired with an input"
    )


def test_the_preamble_stands_before_the_first_turn_only() -> None:
    row = text_of(Example((("One.", "1"), ("Two.", "2"))), "vicuna")
    assert row.count("A chat between a curious user") == 1
    assert row.endswith("USER: One. ASSISTANT: 1USER: Two. ASSISTANT: 2")


def test_the_judge_sees_the_last_request_with_its_input() -> None:
    assert EXAMPLES["turns-with-input"].instruction == "Translate.\n\ncat"
    assert EXAMPLES["turns"].instruction == "Again."
    assert EXAMPLES["turns"].gold == "Hi again."


def test_the_automatic_template_follows_the_data() -> None:
    plain, chat = [EXAMPLES["plain"]], [EXAMPLES["plain"], EXAMPLES["turns"]]
    assert choose_template("auto", "demo", plain) == "short"
    assert choose_template("auto", "rows.json", plain) == "alpaca"
    assert choose_template("auto", "rows.json", chat) == "vicuna"
    assert choose_template("auto", "rows.json", [EXAMPLES["system"]]) == "vicuna"
    assert choose_template("alpaca", "demo", chat) == "alpaca"
