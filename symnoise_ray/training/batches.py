"""Token rows to tensors: the batches of every step and worker.

In: a token table. Out: per step and rank the micro-batches.
The rows of a step depend on (seed, step) alone, so a step trains on the same rows with any number
of workers and any size of the micro-batches.

Shape letters: B lines, L positions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor

from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.data.tokens import IGNORE_INDEX
from symnoise_ray.training.packing import pack


@dataclass(frozen=True)
class Batch:
    """Lines of one forward pass; a line has one row of data or, packed, several.

    Shapes: (B, L), int64, except `answer_N` and `target_N`. `sample` is the number of the row that
    a token comes from, -1 on padding. `position` counts from 0 within each row of data, so it
    starts again where rows share a line. `answer` holds the N places of the flattened batch whose
    next token is trained on, and `target` these tokens. `packed` says whether some line has several
    rows.
    """

    input_ids_BL: Tensor
    labels_BL: Tensor
    sample_BL: Tensor
    position_BL: Tensor
    answer_N: Tensor
    target_N: Tensor
    packed: bool

    @classmethod
    def of(
        cls, input_ids_BL: Tensor, labels_BL: Tensor, sample_BL: Tensor, position_BL: Tensor
    ) -> Batch:
        """A batch with its answers found; call it on the CPU, since the search would stall a
        GPU."""
        next_BL = F.pad(labels_BL[:, 1:], (0, 1), value=IGNORE_INDEX).flatten()
        answer_N = (next_BL != IGNORE_INDEX).nonzero()[:, 0]
        starts_BL = (position_BL == 0) & (sample_BL >= 0)
        return cls(
            input_ids_BL,
            labels_BL,
            sample_BL,
            position_BL,
            answer_N,
            next_BL[answer_N],
            packed=bool((starts_BL.sum(1) > 1).any()),
        )

    @property
    def mask_BL(self) -> Tensor:  # noqa: N802 - shape letters, as everywhere
        """1 at tokens, 0 at padding."""
        return (self.sample_BL >= 0).long()

    @property
    def line_N(self) -> Tensor:  # noqa: N802 - shape letters, as everywhere
        """The line that each answer token is in."""
        return self.answer_N // self.input_ids_BL.shape[1]

    def row_counts(self) -> Tensor:
        """Answer tokens of each line, (B,), in fp64."""
        lines = len(self.input_ids_BL)
        return torch.bincount(self.line_N, minlength=lines).double()

    def in_one_line(self) -> Batch:
        """The same tokens in one line; the flattened batch, and so the answers, stay the same."""
        return replace(
            self,
            input_ids_BL=self.input_ids_BL.view(1, -1),
            labels_BL=self.labels_BL.view(1, -1),
            sample_BL=self.sample_BL.view(1, -1),
            position_BL=self.position_BL.view(1, -1),
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def collate(lines: Sequence[Sequence[int]], table: TokenTable, pad_id: int) -> Batch:
    """One line of the batch for each list of row numbers, padded on the right to the longest."""
    lengths = table.lengths
    shape = (len(lines), max(sum(lengths[number] for number in line) for line in lines))
    input_ids, labels = torch.full(shape, pad_id), torch.full(shape, IGNORE_INDEX)
    sample, position = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    for index, line in enumerate(lines):
        start = 0
        for number in line:
            place = slice(start, start + lengths[number])
            row = table.row(number)
            input_ids[index, place] = torch.tensor(row.input_ids)
            labels[index, place] = torch.tensor(row.labels)
            sample[index, place] = number
            position[index, place] = torch.arange(lengths[number])
            start = place.stop
    return Batch.of(input_ids, labels, sample, position)


class Batches:
    """The rows of every optimizer step: one endless shuffled stream, cut into global batches.

    The stream is a new permutation per epoch. A batch may span two epochs, so every step has
    exactly `global_batch_size` rows, and every row is seen equally often. Within a step, rows of
    similar length share a micro-batch, and packed lines are never longer than the longest row of
    all.
    """

    def __init__(
        self,
        table: TokenTable,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        seed: int,
        pad_id: int,
        packed: bool = False,
    ) -> None:
        self.table = table
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.pad_id = pad_id
        self.packed = packed
        self.longest = max(table.lengths)
        self._stream = self._shuffled(seed)

    def _shuffled(self, seed: int) -> Iterator[int]:
        generator = random.Random(seed)
        order = list(range(len(self.table)))
        while True:
            generator.shuffle(order)
            yield from order

    def next_step(self) -> list[int]:
        """Row numbers of the next global batch."""
        return [next(self._stream) for _ in range(self.global_batch_size)]

    def micro_batches(self, samples: list[int], rank: int, world_size: int) -> list[Batch]:
        """One rank's share of a global batch; every rank gets the same number of micro-batches."""
        by_length = sorted(samples, key=lambda number: -self.table.lengths[number])
        shares = [self._lines(by_length[other::world_size]) for other in range(world_size)]
        most = max(len(share) for share in shares)
        return [
            collate(lines, self.table, self.pad_id)
            for lines in cut(shares[rank], -(-most // self.micro_batch_size))
        ]

    def _lines(self, samples: list[int]) -> list[list[int]]:
        if not self.packed:
            return [[number] for number in samples]
        lengths = [self.table.lengths[number] for number in samples]
        return [[samples[index] for index in line] for line in pack(lengths, self.longest)]

    def num_tokens(self, samples: list[int]) -> int:
        """Tokens of a global batch without padding."""
        return sum(self.table.lengths[number] for number in samples)

    def num_answer_tokens(self, samples: list[int]) -> int:
        """Answer tokens of a global batch, the same number on every rank."""
        return sum(self.table.num_answer_tokens[number] for number in samples)


def cut(lines: list[list[int]], count: int) -> list[list[list[int]]]:
    """Lines in so many micro-batches, none empty; if need be, lines of several rows are split."""
    while len(lines) < count:
        fullest = max(lines, key=len)
        assert len(fullest) > 1, "there must be a row for each micro-batch"
        lines = [line for line in lines if line is not fullest] + [fullest[::2], fullest[1::2]]
    size, larger = divmod(len(lines), count)
    starts = [index * size + min(index, larger) for index in range(count + 1)]
    return [lines[start:stop] for start, stop in pairwise(starts)]
