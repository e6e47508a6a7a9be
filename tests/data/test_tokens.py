"""Only answers are trained on, and a prompt is exactly the beginning of its row."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import ModelConfig
from symnoise_ray.data.example import Example
from symnoise_ray.data.templates import TEMPLATES, render
from symnoise_ray.data.tokens import IGNORE_INDEX, TokenRow, padding_id, tokenise, tokenise_prompt
from symnoise_ray.errors import DataError
from symnoise_ray.models.weights import load
from tests.conftest import PAIRS, byte_tokenizer

EXAMPLES = [Example((pair,)) for pair in PAIRS]
CONVERSATION = Example(
    (("Name a bird.", "the blue bird"), ("And an animal?", "a red fox")), system="Be brief."
)


def answered(row: TokenRow, tokenizer: Any) -> str:
    """The text of the tokens that are trained on."""
    return str(tokenizer.decode([label for label in row.labels if label != IGNORE_INDEX]))


def test_only_the_answer_and_its_end_are_trained_on(tokenizer: Any) -> None:
    for example, row in zip(
        EXAMPLES, tokenise(EXAMPLES, tokenizer, "short", 200).rows, strict=True
    ):
        assert answered(row, tokenizer) == example.gold + "</s>"
        for token, label in zip(row.input_ids, row.labels, strict=True):
            assert label in (IGNORE_INDEX, token)
        assert row.num_answer_tokens == len(tokenizer(example.gold)["input_ids"]) + 1


def test_every_answer_of_a_conversation_is_trained_on(tokenizer: Any) -> None:
    (row,) = tokenise([CONVERSATION], tokenizer, "vicuna", 500).rows
    assert answered(row, tokenizer) == "the blue bird</s>a red fox</s>"
    text = tokenizer.decode(row.input_ids)
    assert text.count("</s>") == 2
    assert text.replace("</s>", "") == "".join(s.text for s in render(CONVERSATION, "vicuna"))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("example", [*EXAMPLES[:3], CONVERSATION])
def test_a_prompt_is_a_strict_beginning_of_the_trained_row_in_tokens(
    tokenizer: Any, example: Example, template: str
) -> None:
    (row,) = tokenise([example], tokenizer, template, 1000).rows
    prompt = tokenise_prompt(example, tokenizer, template)
    assert row.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(row.input_ids[len(prompt) :]) == example.gold + "</s>"
    assert row.labels[len(prompt) :] == row.input_ids[len(prompt) :]


def test_an_answer_without_weight_ends_alike_but_is_not_trained_on(tokenizer: Any) -> None:
    half = Example(CONVERSATION.turns, system=CONVERSATION.system, trained=(False, True))
    (whole,) = tokenise([CONVERSATION], tokenizer, "vicuna", 500).rows
    (row,) = tokenise([half], tokenizer, "vicuna", 500).rows
    assert row.input_ids == whole.input_ids
    assert answered(row, tokenizer) == "a red fox</s>"
    none = Example(CONVERSATION.turns, trained=(False, False))
    assert tokenise([half, none], tokenizer, "vicuna", 500).counts == {
        "rows with nothing to train on": 1
    }


def test_a_template_of_ones_own_gives_the_same_tokens_in_training_and_generation(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "form.yaml"
    path.write_text("request: '{request} -> '\nrequest_with_input: '{request} {input} -> '\n")
    (row,) = tokenise([EXAMPLES[0]], tokenizer, str(path), 500).rows
    prompt = tokenise_prompt(EXAMPLES[0], tokenizer, str(path))
    assert tokenizer.decode(prompt) == "Count to three. -> "
    assert row.input_ids[: len(prompt)] == prompt


def test_a_beginning_token_is_set_once_where_the_tokenizer_has_one() -> None:
    tokenizer = byte_tokenizer(bos_token="<pad>")
    (row,) = tokenise([CONVERSATION], tokenizer, "short", 500).rows
    assert row.input_ids[0] == tokenizer.bos_token_id
    assert row.input_ids.count(tokenizer.bos_token_id) == 1
    assert row.labels[0] == IGNORE_INDEX
    assert tokenise_prompt(CONVERSATION, tokenizer, "short")[0] == tokenizer.bos_token_id


def test_a_long_row_is_cut_at_its_end_and_counted(tokenizer: Any) -> None:
    whole = tokenise(EXAMPLES, tokenizer, "short", 1000)
    length = max(len(row.input_ids) for row in whole.rows) - 1
    cut = tokenise(EXAMPLES, tokenizer, "short", length)
    assert whole.counts == Counter()
    assert cut.counts["rows truncated"] == sum(len(r.input_ids) > length for r in whole.rows) > 0
    assert [row.input_ids for row in cut.rows] == [row.input_ids[:length] for row in whole.rows]
    assert [row.labels for row in cut.rows] == [row.labels[:length] for row in whole.rows]


def test_a_row_whose_answer_was_cut_away_is_left_out_and_counted(tokenizer: Any) -> None:
    long = Example((("Why? " * 50, "because"),))
    tokens = tokenise([long, *EXAMPLES], tokenizer, "short", 90)
    assert len(tokens.rows) == len(EXAMPLES)
    assert tokens.counts == {"rows truncated": 1, "rows with nothing to train on": 1}


def test_no_row_left_to_train_on_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"within data\.max_length=8 tokens, but none of 12 does"):
        tokenise(EXAMPLES, tokenizer, "short", 8)


def test_any_text_becomes_tokens(tokenizer: Any) -> None:
    hostile = Example((("\x00 \u2028 \U0001f600 </s>", "\ufeff caf\u00e9"),))
    assert tokenise([hostile], tokenizer, "short", 500).rows


def test_a_missing_padding_token_is_replaced_without_resizing(
    tiny_model_dir: Path, tiny_model_dir_with_pad: Path
) -> None:
    model, tokenizer, context = load(ModelConfig(name=str(tiny_model_dir)))
    assert tokenizer.pad_token_id is None
    assert padding_id(tokenizer) == tokenizer.eos_token_id
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert context == 160
    _, with_pad, _ = load(ModelConfig(name=str(tiny_model_dir_with_pad)))
    assert padding_id(with_pad) == with_pad.pad_token_id == 1
