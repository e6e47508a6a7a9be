"""Training and generation render a row alike, so a model is asked as it was taught."""

from pathlib import Path

import pytest

from symnoise_ray.config import TEMPLATE_NAMES
from symnoise_ray.data.example import Example
from symnoise_ray.data.templates import (
    TEMPLATES,
    TOKENIZER,
    choose_template,
    find_template,
    render,
    render_prompt,
)
from symnoise_ray.errors import UserError

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
    assert choose_template("auto", ["demo", "rows.json"], plain) == "alpaca"
    assert choose_template("alpaca", "demo", chat) == "alpaca"


def test_an_answer_may_be_in_the_row_without_being_trained_on() -> None:
    turns = (("One.", "1"), ("Two.", "2"))
    row = render(Example(turns, trained=(False, True)), "vicuna")
    assert [segment.text for segment in row if segment.trained] == ["2"]
    assert [segment._replace(trained=True) for segment in row] == [
        segment._replace(trained=True) for segment in render(Example(turns), "vicuna")
    ]
    assert [segment.ended for segment in row] == [False, True, False, True]


def test_an_example_teaches_if_an_answer_that_is_trained_on_is_not_blank() -> None:
    turns = (("One.", "1"), ("Two.", " "))
    assert Example(turns).teaches
    assert Example(turns, trained=(True, False)).teaches
    assert not Example(turns, trained=(False, True)).teaches


def test_the_settings_and_the_templates_have_the_same_names() -> None:
    assert set(TEMPLATE_NAMES) == {"auto", TOKENIZER, *TEMPLATES}


# A user's file

FORM = """\
preamble: "Talk.\\n"
preamble_with_input: "Talk about it.\\n"
request: "Q: {request}\\nA: "
request_with_input: "Q: {request} ({{{input}}})\\nA: "
"""


@pytest.fixture
def form_file(tmp_path: Path) -> str:
    """A template of one's own."""
    path = tmp_path / "form.yaml"
    path.write_text(FORM)
    return str(path)


def test_a_template_may_be_a_file(form_file: str) -> None:
    assert text_of(EXAMPLES["plain"], form_file) == "Talk.\nQ: Say hi.\nA: Hi."
    assert text_of(EXAMPLES["with-input"], form_file) == (
        "Talk about it.\nQ: Translate. ({cat})\nA: chat"
    )
    assert text_of(EXAMPLES["turns"], form_file) == (
        "Be brief.\n\nQ: Say hi.\nA: Hi.Q: Again.\nA: Hi again."
    )
    for example in EXAMPLES.values():
        prompt = "".join(segment.text for segment in render_prompt(example, form_file))
        assert text_of(example, form_file) == prompt + example.gold


def test_a_preamble_may_be_left_out_and_stands_for_both(tmp_path: Path) -> None:
    path = tmp_path / "form.yaml"
    path.write_text(
        "preamble: 'P '\nrequest: '{request}='\nrequest_with_input: '{input}{request}='"
    )
    assert text_of(EXAMPLES["with-input"], str(path)) == "P catTranslate.=chat"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "preamble:",
            "preambel:",
            r"form\.yaml:1: 'preambel' is not a setting\. Did you mean 'pre",
        ),
        ("request:", "requests:", r"form\.yaml: request: must be given"),
        ("Q: {request}\\nA: ", "Q:", r"form\.yaml:3: request: must hold \{request\} once"),
        ("{request}\\n", "{request}{request}", "request: must hold .* but got request, request"),
        ("{request}\\n", "{request.__class__}", r"but got request\.__class__"),
        ("{request}\\n", "{request!r}", "but got request!r"),
        ("{request}\\n", "{request:>9}", "but got request:>9"),
        ("{request}\\n", "{}", "request: must hold"),
        ("{request}\\n", "{request", "must have its braces in pairs"),
        (
            "{{{input}}}",
            "",
            r"yaml:4: request_with_input: must hold \{input\} and \{request\} once",
        ),
        ("Talk about it.", "{input}", "preamble_with_input: must hold no placeholder"),
        ("Talk.", "{request}", "preamble: must hold no placeholder"),
        (FORM, "- a", "must hold a mapping of settings"),
        (FORM, "a: [", "must be valid YAML"),
    ],
)
def test_a_template_file_is_checked_strictly(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in FORM
    path = tmp_path / "form.yaml"
    path.write_text(FORM.replace(old, new, 1))
    with pytest.raises(UserError, match=told):
        find_template(str(path))


def test_a_template_file_must_exist() -> None:
    with pytest.raises(UserError, match=r"template=absent\.yaml: must be a readable file, but"):
        find_template("absent.yaml")
