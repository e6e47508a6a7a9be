"""Only answers are trained on, every row equally often, however a step is split."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from symnoise_ray.config import ModelConfig
from symnoise_ray.data import (
    IGNORE_INDEX,
    Batches,
    TokenRow,
    collate,
    padding_id,
    tokenise,
    tokenise_prompt,
)
from symnoise_ray.errors import DataError
from symnoise_ray.model import load
from symnoise_ray.prompts import TEMPLATES, Example, render
from tests.conftest import PAIRS, byte_tokenizer

EXAMPLES = [Example((pair,)) for pair in PAIRS]
CONVERSATION = Example(
    (("Name a bird.", "the blue bird"), ("And an animal?", "a red fox")), system="Be brief."
)


def answered(row: TokenRow, tokenizer: Any) -> str:
    """The text of the tokens that are trained on."""
    return str(tokenizer.decode([label for label in row.labels if label != IGNORE_INDEX]))


# Tokens


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


# Padding


def test_short_rows_are_padded_on_the_right_and_masked() -> None:
    rows = [TokenRow([5, 6, 7], [IGNORE_INDEX, 6, 7]), TokenRow([8], [IGNORE_INDEX])]
    batch = collate(rows, [4, 2], pad_id=3)
    assert batch.input_ids_BL.tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch.mask_BL.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels_BL.tolist() == [[IGNORE_INDEX, 6, 7], [IGNORE_INDEX] * 3]
    assert batch.sample_B.tolist() == [4, 2]
    assert batch.to(torch.device("cpu")).input_ids_BL.tolist() == batch.input_ids_BL.tolist()


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


# Steps


def make_batches(count: int = 10, **settings: Any) -> Batches:
    """Batches over rows of which the i-th has i + 2 tokens."""
    rows = [TokenRow([1] * (i + 2), [IGNORE_INDEX] + [1] * (i + 1)) for i in range(count)]
    sizes = {"global_batch_size": 4, "micro_batch_size": 3, "seed": 0, "pad_id": 0, **settings}
    return Batches(rows, **sizes)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 7), (1, 2)])
def test_every_row_is_seen_equally_often(count: int, size: int) -> None:
    batches = make_batches(count, global_batch_size=size)
    stream = [sample for _ in range(count * 3) for sample in batches.next_step()]
    assert len(stream) == count * 3 * size
    assert Counter(stream) == dict.fromkeys(range(count), 3 * size)
    for start in range(0, len(stream), count):
        assert sorted(stream[start : start + count]) == list(range(count))


def test_the_order_is_shuffled_anew_and_depends_on_the_seed_alone() -> None:
    def epochs(seed: int) -> list[list[int]]:
        batches = make_batches(12, global_batch_size=12, seed=seed)
        return [batches.next_step() for _ in range(2)]

    first, second = epochs(0)
    assert first != second
    assert epochs(0) == [first, second]
    assert epochs(1)[0] != first


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_a_step_has_the_same_rows_however_it_is_split(
    world_size: int, micro_batch_size: int
) -> None:
    expected = make_batches(global_batch_size=8).next_step()
    batches = make_batches(global_batch_size=8, micro_batch_size=micro_batch_size)
    samples = batches.next_step()
    assert samples == expected
    parts = [
        batch
        for rank in range(world_size)
        for batch in batches.micro_batches(samples, rank, world_size)
    ]
    assert all(len(batch.sample_B) <= micro_batch_size for batch in parts)
    assert Counter(s for b in parts for s in b.sample_B.tolist()) == Counter(expected)
    trained = sum(int((batch.labels_BL[:, 1:] != IGNORE_INDEX).sum()) for batch in parts)
    assert trained == batches.num_answer_tokens(samples) == sum(s + 1 for s in expected)


def test_a_micro_batch_holds_the_rows_that_its_numbers_name() -> None:
    batches = make_batches()
    for batch in batches.micro_batches([7, 0, 3, 9], rank=0, world_size=1):
        assert batch.mask_BL.sum(1).tolist() == [sample + 2 for sample in batch.sample_B.tolist()]


@pytest.mark.parametrize(
    ("count", "size", "epochs", "max_steps", "steps"),
    [
        (52_002, 128, 3, None, 1_218),
        (52_002, 128, 1, None, 406),
        (10, 4, 2, None, 5),
        (10, 4, 0.4, None, 1),
        (10, 4, 0.1, None, 1),
        (3, 1, 0.7, None, 2),
        (10, 100, 1, None, 1),
        (10, 4, 2, 3, 3),
        (10, 4, 2, 99, 5),
        (10, 1, 0.3, None, 3),
    ],
)
def test_steps_are_the_whole_batches_in_the_epochs(
    count: int, size: int, epochs: float, max_steps: int | None, steps: int
) -> None:
    rows = [TokenRow([1, 1], [IGNORE_INDEX, 1])] * count
    batches = Batches(rows, global_batch_size=size, micro_batch_size=1, seed=0, pad_id=0)
    assert batches.num_steps(epochs, max_steps) == steps
