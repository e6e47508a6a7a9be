"""Examples to tensors: tokens with an answer mask, and the batches of every step and worker.

In: examples, a tokenizer, a template. Out: `TokenRows`, and per step and rank the micro-batches.
The rows of a step depend on (seed, step) alone, never on the number of workers, so the same step
trains on the same rows however it is split.

Shape letters: B rows, L positions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from symnoise_ray.errors import DataError
from symnoise_ray.prompts import Example, Segment, render, render_prompt

IGNORE_INDEX = -100
"""Label of positions that are not trained on."""


class TokenRow(NamedTuple):
    """One row: its tokens, and its labels (the tokens of answers, else `IGNORE_INDEX`)."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_answer_tokens(self) -> int:
        """Tokens the loss is summed over; the first position is never predicted."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, and what happened to the others."""

    rows: list[TokenRow]
    counts: Counter[str]


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of one forward pass.

    Shapes: input_ids_BL, mask_BL, labels_BL (B, L), int64; sample_B (B,), row numbers.
    """

    input_ids_BL: Tensor
    mask_BL: Tensor
    labels_BL: Tensor
    sample_B: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        fields = (self.input_ids_BL, self.mask_BL, self.labels_BL, self.sample_B)
        return Batch(*(field.to(device, non_blocking=True) for field in fields))


def tokenise(examples: list[Example], tokenizer: Any, template: str, max_length: int) -> TokenRows:
    """Tokenise, cut to `max_length`, and leave out rows whose answer was cut away whole.

    Raises:
        DataError: no row is left to train on.
    """
    rows = []
    counts: Counter[str] = Counter()
    for example in examples:
        row = _join(render(example, template), tokenizer)
        if len(row.input_ids) > max_length:
            counts["rows truncated"] += 1
            row = TokenRow(row.input_ids[:max_length], row.labels[:max_length])
        if row.num_answer_tokens:
            rows.append(row)
        else:
            counts["rows with nothing to train on"] += 1
    if not rows:
        raise DataError(
            f"at least one row must keep an answer within data.max_length={max_length} tokens, "
            f"but none of {len(examples)} does"
        )
    return TokenRows(rows, counts)


def tokenise_prompt(example: Example, tokenizer: Any, template: str) -> list[int]:
    """Tokens that the model completes: exactly the beginning of the trained row."""
    return _join(render_prompt(example, template), tokenizer).input_ids


def _join(segments: list[Segment], tokenizer: Any) -> TokenRow:
    """Tokenise segment by segment, so that an answer never changes its prompt's tokens."""
    begin = tokenizer.bos_token_id
    input_ids: list[int] = [] if begin is None else [begin]
    labels = [IGNORE_INDEX] * len(input_ids)
    for segment in segments:
        tokens = tokenizer(segment.text, add_special_tokens=False, verbose=False)["input_ids"]
        if segment.trained:
            tokens = [*tokens, tokenizer.eos_token_id]
        input_ids += tokens
        labels += tokens if segment.trained else [IGNORE_INDEX] * len(tokens)
    return TokenRow(input_ids, labels)


def padding_id(tokenizer: Any) -> int:
    """Token that fills short rows; it is masked, so any will do and nothing is resized."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def collate(rows: list[TokenRow], samples: list[int], pad_id: int) -> Batch:
    """Pad rows on the right to the longest."""
    length = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id)
    labels = torch.full((len(rows), length), IGNORE_INDEX)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        end = len(row.input_ids)
        input_ids[index, :end] = torch.tensor(row.input_ids)
        labels[index, :end] = torch.tensor(row.labels)
        mask[index, :end] = 1
    return Batch(input_ids, mask, labels, torch.tensor(samples))


class Batches:
    """The rows of every optimizer step: one endless shuffled stream, cut into global batches.

    The stream is a new permutation per epoch; a batch may span two epochs, so every step has
    exactly `global_batch_size` rows and every row is seen equally often.
    """

    def __init__(
        self,
        rows: list[TokenRow],
        *,
        global_batch_size: int,
        micro_batch_size: int,
        seed: int,
        pad_id: int,
    ) -> None:
        self.rows = rows
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.pad_id = pad_id
        self._stream = self._shuffled(seed)

    def num_steps(self, num_epochs: float, max_steps: int | None) -> int:
        """Optimizer steps for so many passes over the rows, at least one."""
        steps = max(1, int(num_epochs * len(self.rows) + 1e-6) // self.global_batch_size)
        return steps if max_steps is None else min(steps, max_steps)

    def _shuffled(self, seed: int) -> Iterator[int]:
        generator = random.Random(seed)
        order = list(range(len(self.rows)))
        while True:
            generator.shuffle(order)
            yield from order

    def next_step(self) -> list[int]:
        """Row numbers of the next global batch."""
        return [next(self._stream) for _ in range(self.global_batch_size)]

    def micro_batches(self, samples: list[int], rank: int, world_size: int) -> list[Batch]:
        """One rank's share of a global batch, in micro-batches."""
        own = samples[rank::world_size]
        size = self.micro_batch_size
        return [
            collate(
                [self.rows[i] for i in own[start : start + size]],
                own[start : start + size],
                self.pad_id,
            )
            for start in range(0, len(own), size)
        ]

    def num_answer_tokens(self, samples: list[int]) -> int:
        """Answer tokens of a global batch, the same number on every rank."""
        return sum(self.rows[index].num_answer_tokens for index in samples)
