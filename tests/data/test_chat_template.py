"""The tokenizer's own chat template: the same bytes in training and generation, or an error."""

from typing import Any

import pytest

from symnoise_ray.data.chat_template import render_chat
from symnoise_ray.data.example import Example
from symnoise_ray.data.templates import TOKENIZER, Segment
from symnoise_ray.data.tokens import IGNORE_INDEX, tokenise, tokenise_prompt
from symnoise_ray.errors import DataError
from tests.conftest import byte_tokenizer

CHAT = Example(
    (("Name a bird.", "the blue bird"), ("And an animal?", "a red fox")), system="Be brief."
)
WITH_INPUT = Example((("Translate.", "chat"),), input="cat")
TEMPLATES = {
    "marks": "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    "no-end": "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "no-generation-prompt": "{% for m in messages %}{% if m.role == 'assistant' %}"
    " {{ m.content }}</s>{% else %}[{{ m.content }}]{% endif %}{% endfor %}",
    "begins": "{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}",
}
UNSTABLE = (
    "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}assistant: ..\n"
    "{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer_with(template: str | None) -> Any:
    tokenizer = byte_tokenizer(bos_token="<pad>")
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=TEMPLATES.values(), ids=TEMPLATES)
def chat_tokenizer(request: Any) -> Any:
    """A tokenizer with one of several chat templates."""
    return tokenizer_with(request.param)


def rendered(example: Example, tokenizer: Any, **settings: Any) -> str:
    return "".join(segment.text for segment in render_chat(example, tokenizer, **settings))


@pytest.mark.parametrize("example", [CHAT, WITH_INPUT])
def test_a_row_is_what_the_template_makes_of_it(chat_tokenizer: Any, example: Example) -> None:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for index, (request, answer) in enumerate(example.turns):
        last = index == len(example.turns) - 1
        messages.append({"role": "user", "content": example.instruction if last else request})
        messages.append({"role": "assistant", "content": answer})
    for prompt, given in ((False, messages), (True, messages[:-1])):
        wanted = chat_tokenizer.apply_chat_template(
            given, tokenize=False, add_generation_prompt=prompt
        )
        assert rendered(example, chat_tokenizer, prompt=prompt) == wanted


@pytest.mark.parametrize("example", [CHAT, WITH_INPUT])
def test_a_prompt_is_the_beginning_of_its_row_in_bytes_and_tokens(
    chat_tokenizer: Any, example: Example
) -> None:
    prompt = rendered(example, chat_tokenizer, prompt=True)
    assert rendered(example, chat_tokenizer).startswith(prompt)
    (row,) = tokenise([example], chat_tokenizer, TOKENIZER, 500).rows
    tokens = tokenise_prompt(example, chat_tokenizer, TOKENIZER)
    assert row.input_ids[: len(tokens)] == tokens
    assert chat_tokenizer.decode(tokens) == prompt


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("marks", ["the blue bird</s>", "a red fox</s>"]),
        ("no-end", ["the blue bird\n", "a red fox\n"]),
        ("no-generation-prompt", [" the blue bird</s>", " a red fox</s>"]),
        ("begins", ["the blue bird</s>", "a red fox</s>"]),
    ],
)
def test_answers_are_trained_on_up_to_their_end_and_nothing_else(
    name: str, trained: list[str]
) -> None:
    segments = render_chat(CHAT, tokenizer_with(TEMPLATES[name]))
    assert [segment.text for segment in segments if segment.trained] == trained


def test_a_row_always_ends_with_one_end_token_that_is_trained_on(chat_tokenizer: Any) -> None:
    (row,) = tokenise([CHAT], chat_tokenizer, TOKENIZER, 500).rows
    trained = [label for label in row.labels if label != IGNORE_INDEX]
    assert trained[-1] == chat_tokenizer.eos_token_id
    assert trained[-2] != chat_tokenizer.eos_token_id


def test_a_beginning_token_is_the_templates_own_affair() -> None:
    for name, count in (("begins", 1), ("marks", 0)):
        tokenizer = tokenizer_with(TEMPLATES[name])
        tokens = tokenise_prompt(CHAT, tokenizer, TOKENIZER)
        assert tokens.count(tokenizer.bos_token_id) == count


def test_an_answer_that_is_not_trained_on_keeps_its_place_in_the_row() -> None:
    tokenizer = tokenizer_with(TEMPLATES["marks"])
    half = Example(CHAT.turns, system=CHAT.system, trained=(False, True))
    assert rendered(half, tokenizer) == rendered(CHAT, tokenizer)
    assert [s for s in render_chat(half, tokenizer) if s.trained] == [
        Segment("a red fox</s>", trained=True)
    ]


def test_an_example_without_an_answer_has_a_prompt_all_the_same(chat_tokenizer: Any) -> None:
    unanswered = Example((CHAT.turns[0], ("And an animal?", "")), system=CHAT.system)
    assert rendered(unanswered, chat_tokenizer, prompt=True) == rendered(
        CHAT, chat_tokenizer, prompt=True
    )


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "must have a chat template, but it has none; choose another data.template"),
        (UNSTABLE, "must only add to a conversation as it goes on, but it rewrites earlier text"),
        ("{{ raise_exception('no system here') }}", "must take the row, but no system here"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "must keep answers"),
    ],
)
def test_a_template_that_will_not_do_is_told(template: str | None, told: str) -> None:
    with pytest.raises(DataError, match=rf"data\.template=tokenizer: .*{told}"):
        render_chat(CHAT, tokenizer_with(template))
