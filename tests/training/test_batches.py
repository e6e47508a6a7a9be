"""Every row is seen equally often, and a step has the same rows however it is split."""

from collections import Counter
from typing import Any

import pytest
import torch

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.data.tokens import IGNORE_INDEX, TokenRow, TokenRows
from symnoise_ray.training.batches import Batches, collate, cut
from symnoise_ray.training.schedule import num_steps


def table_of(rows: list[TokenRow]) -> TokenTable:
    return TokenTable.of(TokenRows(rows, Counter()))


# Padding


def test_short_rows_are_padded_on_the_right_and_masked() -> None:
    rows = [TokenRow([5, 6, 7], [IGNORE_INDEX, 6, 7]), TokenRow([8], [IGNORE_INDEX])]
    batch = collate([[0], [1]], table_of(rows), pad_id=3)
    assert batch.input_ids_BL.tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch.mask_BL.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels_BL.tolist() == [[IGNORE_INDEX, 6, 7], [IGNORE_INDEX] * 3]
    assert batch.sample_BL.tolist() == [[0, 0, 0], [1, -1, -1]]
    assert batch.position_BL.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.to(torch.device("cpu")).input_ids_BL.tolist() == batch.input_ids_BL.tolist()


# Steps


def make_batches(count: int = 10, **settings: Any) -> Batches:
    """Batches over rows of which the i-th has i + 2 tokens."""
    rows = [TokenRow([1] * (i + 2), [IGNORE_INDEX] + [1] * (i + 1)) for i in range(count)]
    sizes = {"global_batch_size": 4, "micro_batch_size": 3, "seed": 0, "pad_id": 0, **settings}
    return Batches(table_of(rows), **sizes)


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
    assert all(len(batch.sample_BL) <= micro_batch_size for batch in parts)
    assert Counter(s for b in parts for s in b.sample_BL[:, 0].tolist()) == Counter(expected)
    trained = sum(int((batch.labels_BL[:, 1:] != IGNORE_INDEX).sum()) for batch in parts)
    assert trained == batches.num_answer_tokens(samples) == sum(s + 1 for s in expected)


def test_a_micro_batch_holds_the_rows_that_its_numbers_name() -> None:
    batches = make_batches()
    for batch in batches.micro_batches([7, 0, 3, 9], rank=0, world_size=1):
        assert batch.mask_BL.sum(1).tolist() == [
            sample + 2 for sample in batch.sample_BL[:, 0].tolist()
        ]


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
    config = TrialConfig.model_validate(
        {"train": {"num_epochs": epochs, "global_batch_size": size, "max_steps": max_steps}}
    )
    assert num_steps(config, count) == steps


def test_a_micro_batch_without_a_row_is_never_made() -> None:
    assert cut([[1, 2, 3], [4]], 3) == [[[4]], [[1, 3]], [[2]]]
    with pytest.raises(AssertionError, match="a row for each micro-batch"):
        cut([[1], [2]], 3)
