"""Prompts that a chat template cannot say: refused by their place, or left out and counted."""

from dataclasses import replace
from typing import Any

import pytest

from symnoise_ray.data.example import Example
from symnoise_ray.data.prompts import sayable
from symnoise_ray.data.templates import TOKENIZER
from symnoise_ray.errors import DataError
from tests.conftest import byte_tokenizer

MARKS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
)
AT_MOST_ONE_TURN = (
    "{% if messages | length > 2 %}{{ raise_exception('one request alone') }}{% endif %}"
)
PLAIN = Example((("Name a bird.", "the blue bird"),), place="p.jsonl:1")
WITH_SYSTEM = replace(PLAIN, system="Be brief.", place="p.jsonl:2")
OTHER = replace(PLAIN, input="In the garden.", place="p.jsonl:3")
IN_TURNS = Example((("Name a bird.", ""), ("And an animal?", "")), place="p.jsonl:4")
RULE = "prompts skipped: data.template=tokenizer: the template must take the row"


def tokenizer_with(template: str) -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template + MARKS
    return tokenizer


def test_a_prompt_that_the_template_cannot_say_is_named_with_the_setting() -> None:
    told = (
        r"^p\.jsonl:2: .*the template must take the row, but no system here; .*\(data\.on_bad_row"
    )
    with pytest.raises(DataError, match=told):
        sayable([PLAIN, WITH_SYSTEM, OTHER], tokenizer_with(NO_SYSTEM), TOKENIZER)


def test_it_is_left_out_and_counted_when_asked() -> None:
    prompts = [PLAIN, WITH_SYSTEM, OTHER]
    found = sayable(prompts, tokenizer_with(NO_SYSTEM), TOKENIZER, "skip")
    assert found.examples == [PLAIN, OTHER]
    assert found.left_out == {RULE: 1}


def test_a_prompt_in_turns_is_tried_to_its_last_request_without_a_models_answer() -> None:
    prompts = [PLAIN, IN_TURNS]
    assert sayable(prompts, tokenizer_with(""), TOKENIZER, "skip").examples == prompts
    found = sayable(prompts, tokenizer_with(AT_MOST_ONE_TURN), TOKENIZER, "skip")
    assert found.examples == [PLAIN]
    assert IN_TURNS.turns[0][1] == "", "what it stands in for an answer stays in here"


def test_a_template_of_words_says_every_prompt_and_asks_no_tokenizer() -> None:
    prompts = [PLAIN, WITH_SYSTEM, IN_TURNS]
    assert sayable(prompts, None, "alpaca").examples == prompts


def test_no_prompt_at_all_is_refused() -> None:
    told = rf"must take at least one prompt, but takes none of 1 \(1 {RULE}\)"
    with pytest.raises(DataError, match=told):
        sayable([WITH_SYSTEM], tokenizer_with(NO_SYSTEM), TOKENIZER, "skip")
