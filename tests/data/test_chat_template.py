"""The tokenizer's own chat template: the same bytes in training and generation, or an error."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from symnoise_ray.config import DataConfig
from symnoise_ray.data.chat_template import render_chat
from symnoise_ray.data.example import Example
from symnoise_ray.data.formats import RowError
from symnoise_ray.data.rows import read_train
from symnoise_ray.data.templates import THINKING, TOKENIZER, Segment, choose_template
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
    return "".join(
        segment.text for segment in render_chat(example, tokenizer, TOKENIZER, **settings)
    )


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
    segments = render_chat(CHAT, tokenizer_with(TEMPLATES[name]), TOKENIZER)
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
    assert [s for s in render_chat(half, tokenizer, TOKENIZER) if s.trained] == [
        Segment("a red fox</s>", trained=True)
    ]


def test_an_example_without_an_answer_has_a_prompt_all_the_same(chat_tokenizer: Any) -> None:
    unanswered = Example((CHAT.turns[0], ("And an animal?", "")), system=CHAT.system)
    assert rendered(unanswered, chat_tokenizer, prompt=True) == rendered(
        CHAT, chat_tokenizer, prompt=True
    )


# Templates that rewrite what was said, in the manner of well-known models

NL = "{{ '\\n' }}"
TURN = "<|im_start|>{{ m.role }}" + NL
QWEN = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}" + TURN + ""
    "{% set parts = m.content.split('</think>') %}{% if m.role != 'assistant' %}{{ m.content }}"
    "{% else %}{% if loop.index0 > ns.last %}<think>" + NL + "{% if parts | length > 1 %}"
    "{{ parts[0].split('<think>')[-1].strip() }}{% endif %}" + NL + "</think>" + NL + NL + ""
    "{% endif %}{{ parts[-1].lstrip('\\n') }}{% endif %}<|im_end|>" + NL + "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant" + NL + "OPEN{% endif %}"
)
"""Thoughts are dropped from earlier answers, and the last answer gets an empty block of them."""
GEMMA = (
    "{% for m in messages %}{% if m.role != 'system' %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}" + NL + ""
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content }}"
    + NL
    + NL
    + "{% endif %}{{ m.content | trim }}<end_of_turn>"
    + NL
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model"
    + NL
    + "OPEN{% endif %}"
)
"""The system message stands in the first request, and a turn ends before the end of the text."""
MISTRAL = (
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST] "
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}"
    + NL
    + NL
    + "{% endif %}{{ m.content }}[/INST]{% else %} {{ m.content | trim }}</s>{% endif %}"
    "{% endfor %}"
)
"""The system message stands in the last request, and only while that has no answer."""
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}"
    "{% elif m.role == 'system' %}{{ m.content }}{% else %}<model>"
    "{{ m.content.split('</think>')[-1] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<model><think>" + NL + "{% endif %}"
)
"""Thoughts are opened for generation, and dropped from all answers."""
COMMAND = (
    "{% for m in messages %}<turn><{{ m.role }}>{% if m.role == 'assistant' %}<response>"
    "{{ m.content }}</response>{% else %}{{ m.content }}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<turn><assistant>{% endif %}"
)
"""An answer has marks of its own inside its turn, which generation must write too."""
HARMONY = (
    "{% for m in messages %}<start>{{ m.role }}{% if m.role == 'assistant' %}<channel>final"
    "{% endif %}<message>{{ m.content }}"
    "{{ '</s>' if loop.last and m.role == 'assistant' else '<end>' }}"
    "{% endfor %}{% if add_generation_prompt %}<start>assistant{% endif %}"
)
"""The last answer ends otherwise than the earlier ones, and stands in a channel."""
METHARME = (
    "{% if messages[0].role != 'system' %}<system>Play.{% endif %}{% for m in messages %}<"
    "{{ 'model' if m.role == 'assistant' else m.role }}>{{ m.content | trim }}{% endfor %}"
    "{{ '<model>' if add_generation_prompt else '</s>' }}"
)
"""Only the whole conversation has an end; earlier answers end where the next request begins."""
MARKED = (
    "{% for m in messages %}" + TURN + "{% if m.role == 'assistant' and loop.last %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}"
    "{{ m.content }}<|im_end|>{% endif %}" + NL + "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant" + NL + "{% endif %}"
)
"""The template itself says what is trained on: the last answer alone."""
SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
    *("<system>", "<user>", "<model>", "<assistant>", "<turn>", "<response>", "</response>"),
    *("<start>", "<channel>", "<message>", "<end>"),
)
BLOCK = "<think>\n\n</think>\n\n"
THOUGHT = "<think>\nIt has wings.\n</think>\n\nthe blue bird"
THOUGHTFUL = Example((("Name a bird.", THOUGHT), ("Another?", THOUGHT.replace("has", "had"))))


class Model(NamedTuple):
    """A template with its end-of-text token, and what it must give for `CHAT`."""

    template: str
    end: str
    trained: list[str]
    prompt: str
    """How the prompt of the last answer ends."""


def both(end: str, before: str = "") -> list[str]:
    return [f"{before}the blue bird{end}", f"{before}a red fox{end}"]


MODELS = {
    "qwen3": Model(
        QWEN.replace("OPEN", ""), "<|im_end|>", both("<|im_end|>"), f"assistant\n{BLOCK}"
    ),
    "qwen3.5": Model(
        QWEN.replace("OPEN", "<think>" + NL),
        "<|im_end|>",
        both("<|im_end|>"),
        f"assistant\n{BLOCK}",
    ),
    "gemma3": Model(
        GEMMA.replace("OPEN", ""), "</s>", both("<end_of_turn>"), "<start_of_turn>model\n"
    ),
    "gemma4": Model(
        GEMMA.replace("OPEN", "<channel>thought"),
        "</s>",
        both("<end_of_turn>"),
        "<start_of_turn>model\n",
    ),
    "mistral": Model(
        MISTRAL, "</s>", both("</s>", " "), "[INST] Be brief.\n\nAnd an animal?[/INST]"
    ),
    "r1": Model(R1, "</s>", both("</s>"), "<user>And an animal?<model>"),
    "command": Model(COMMAND, "</s>", both("</response></s>"), "<turn><assistant><response>"),
    "harmony": Model(
        HARMONY,
        "</s>",
        ["the blue bird<end>", "a red fox</s>"],
        "<start>assistant<channel>final<message>",
    ),
    "metharme": Model(
        METHARME, "</s>", ["the blue bird", "a red fox</s>"], "<user>And an animal?<model>"
    ),
    "marked": Model(MARKED, "<|im_end|>", ["a red fox<|im_end|>"], "<|im_start|>assistant\n"),
}


def tokenizer_of(name: str) -> Any:
    tokenizer = tokenizer_with(MODELS[name].template)
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    tokenizer.eos_token = MODELS[name].end
    return tokenizer


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("system", ["Be brief.", ""], ids=["system", "no system"])
def test_an_answer_and_its_end_are_trained_on_whatever_the_template_does_around_them(
    name: str, system: str
) -> None:
    tokenizer, model = tokenizer_of(name), MODELS[name]
    example = replace(CHAT, system=system)
    segments = render_chat(example, tokenizer, TOKENIZER)
    assert [segment.text for segment in segments if segment.trained] == model.trained
    prompt = rendered(example, tokenizer, prompt=True)
    if system:
        assert prompt.endswith(model.prompt)
        assert prompt.count(system) == 1
    assert rendered(example, tokenizer).startswith(prompt)
    (row,) = tokenise([example], tokenizer, TOKENIZER, 500).rows
    tokens = tokenise_prompt(example, tokenizer, TOKENIZER)
    assert row.input_ids[: len(tokens)] == tokens
    assert row.labels[len(tokens) - 1] == IGNORE_INDEX
    answer = tokenizer.decode([label for label in row.labels if label != IGNORE_INDEX])
    assert answer == "".join(model.trained)


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_with_open_turns_is_the_same_as_with_answers(name: str) -> None:
    tokenizer = tokenizer_of(name)
    unanswered = replace(CHAT, turns=(CHAT.turns[0], (CHAT.turns[1][0], "")))
    assert rendered(unanswered, tokenizer, prompt=True) == rendered(CHAT, tokenizer, prompt=True)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"mistral"}))
def test_a_row_is_the_rendering_of_the_whole_conversation(name: str) -> None:
    tokenizer = tokenizer_of(name)
    asked = [("system", CHAT.system)]
    for request, answer in CHAT.turns:
        asked += [("user", request), ("assistant", answer)]
    messages = [{"role": role, "content": text} for role, text in asked]
    assert rendered(CHAT, tokenizer) == tokenizer.apply_chat_template(messages, tokenize=False)


def test_white_space_around_an_answer_is_trained_on_as_the_template_renders_it() -> None:
    turns = (("Name a bird.", "the blue bird\n"), ("And an animal?", " a red fox \n"))
    for name, trained in (
        ("command", ["the blue bird\n</response></s>", "a red fox \n</response></s>"]),
        ("gemma3", ["the blue bird<end_of_turn>", "a red fox<end_of_turn>"]),
    ):
        segments = render_chat(Example(turns), tokenizer_of(name), TOKENIZER)
        assert [segment.text for segment in segments if segment.trained] == trained


def test_an_earlier_answer_that_the_template_changes_is_no_fault_of_a_prompt() -> None:
    tokenizer = tokenizer_of("qwen3")
    odd = Example((("Name a bird.", "the blue </think> bird"), ("Another?", "a red fox")))
    prompt = rendered(odd, tokenizer, prompt=True)
    assert prompt.endswith("Another?<|im_end|>\n<|im_start|>assistant\n" + BLOCK)
    assert "<|im_start|>assistant\n bird<|im_end|>" in prompt
    with pytest.raises(RowError, match="must keep answers, but it changes one"):
        rendered(odd, tokenizer)


# Thoughts


def test_most_answers_decide_whether_they_begin_with_thoughts() -> None:
    assert THOUGHTFUL.thinks
    assert not Example((("Why?", "<think>\n\n</think>\n\nSo."),)).thinks
    assert choose_template(TOKENIZER, "rows.json", [THOUGHTFUL, THOUGHTFUL, CHAT]) == THINKING
    assert choose_template(TOKENIZER, "rows.json", [THOUGHTFUL, CHAT]) == TOKENIZER
    assert choose_template("alpaca", "rows.json", [THOUGHTFUL]) == "alpaca"


@pytest.mark.parametrize(
    ("name", "trained", "prompt"),
    [
        (
            "qwen3",
            ["the blue bird<|im_end|>", THOUGHT.replace("has", "had") + "<|im_end|>"],
            "assistant\n",
        ),
        (
            "qwen3.5",
            [
                "the blue bird<|im_end|>",
                THOUGHT.replace("has", "had").removeprefix("<think>\n") + "<|im_end|>",
            ],
            "assistant\n<think>\n",
        ),
        (
            "gemma3",
            [f"{THOUGHT}<end_of_turn>", THOUGHT.replace("has", "had") + "<end_of_turn>"],
            "model\n",
        ),
    ],
)
def test_thoughts_are_trained_on_from_where_generation_begins(
    name: str, trained: list[str], prompt: str
) -> None:
    tokenizer = tokenizer_of(name)
    segments = render_chat(THOUGHTFUL, tokenizer, THINKING)
    assert [segment.text for segment in segments if segment.trained] == trained
    asked = "".join(s.text for s in render_chat(THOUGHTFUL, tokenizer, THINKING, prompt=True))
    assert asked.endswith(prompt)
    assert "".join(segment.text for segment in segments).startswith(asked)


def test_a_row_without_thoughts_among_others_gets_an_empty_block_that_is_trained_on() -> None:
    segments = render_chat(CHAT, tokenizer_of("qwen3"), THINKING)
    assert [segment.text for segment in segments if segment.trained] == [
        "the blue bird<|im_end|>",
        f"{BLOCK}a red fox<|im_end|>",
    ]


# Rows that cannot be said

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "must have a chat template, but it has none; choose another data.template"),
        (UNSTABLE, "must keep answers, but it drops one; choose another data.template"),
        (NO_SYSTEM, "the template must take the row, but no system here"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "must keep the system message"),
        (TEMPLATES["marks"].replace("}}</s>", "}}{{ m.content }}</s>"), "it repeats one"),
        (TEMPLATES["marks"].replace("m.content", "m.content | upper"), "keep answers, but it chan"),
        (R1, None),
    ],
)
def test_a_row_that_a_template_cannot_say_is_told(template: str | None, told: str | None) -> None:
    row = replace(CHAT if told else THOUGHTFUL, place="chats.jsonl:3")
    told = told or "must keep the thoughts of the last answer, but it drops them"
    place = "" if template is None else r"chats\.jsonl:3: "
    with pytest.raises(DataError, match=rf"^{place}data\.template=tokenizer: .*{told}"):
        tokenise([row], tokenizer_with(template), TOKENIZER, 500)


def test_a_row_that_a_template_cannot_say_is_skipped_when_asked() -> None:
    tokenizer = tokenizer_with(NO_SYSTEM + TEMPLATES["marks"])
    rows = [CHAT, replace(CHAT, system=""), WITH_INPUT]
    tokens = tokenise(rows, tokenizer, TOKENIZER, 500, "skip")
    assert len(tokens.rows) == 2
    rule = "rows skipped: data.template=tokenizer: the template must take the row"
    assert tokens.counts == {rule: 1}
    with pytest.raises(DataError, match=rf"but none of 1 does \(1 {rule}\)"):
        tokenise([CHAT], tokenizer, TOKENIZER, 500, "skip")


def test_a_prompt_that_a_template_cannot_say_is_told_with_its_place() -> None:
    tokenizer = tokenizer_with(NO_SYSTEM + TEMPLATES["marks"])
    with pytest.raises(DataError, match=r"^prompts\.json row 2: .* take the row, but no system"):
        tokenise_prompt(replace(CHAT, place="prompts.json row 2"), tokenizer, TOKENIZER)
    with pytest.raises(
        DataError, match=r"^data\.template=tokenizer: .* take the row, but no system"
    ):
        tokenise_prompt(CHAT, tokenizer, TOKENIZER)


def test_rows_are_read_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n' * 2)
    config = DataConfig(train=str(path), eval_prompts=str(path))
    assert [row.place for row in read_train(config).examples] == [f"{path}:1", f"{path}:2"]
    assert len({row.digest for row in read_train(config).examples}) == 1
