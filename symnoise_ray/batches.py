"""Token rows to tensors: the batches of every step and worker.

In: token rows. Out: per step and rank the micro-batches.
The rows of a step depend on (seed, step) alone, never on the number of workers, so the same step
trains on the same rows however it is split.

Shape letters: B rows, L positions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor

from symnoise_ray.tokens import IGNORE_INDEX, TokenRow


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    Shapes: all (B, L), int64, but for the two of answers. `sample` is the row number that a token
    comes from, -1 on padding; `position` counts from 0 within each row of data, so it restarts
    where rows share a line. `answer` are the N places of the flattened batch whose next token is
    trained on, and `target` are these tokens.
    """

    input_ids_BL: Tensor
    labels_BL: Tensor
    sample_BL: Tensor
    position_BL: Tensor
    answer_N: Tensor
    target_N: Tensor

    @classmethod
    def of(
        cls, input_ids_BL: Tensor, labels_BL: Tensor, sample_BL: Tensor, position_BL: Tensor
    ) -> Batch:
        """A batch with its answers found; done on the CPU, where it makes no GPU wait."""
        next_BL = F.pad(labels_BL[:, 1:], (0, 1), value=IGNORE_INDEX).flatten()
        answer_N = (next_BL != IGNORE_INDEX).nonzero()[:, 0]
        return cls(input_ids_BL, labels_BL, sample_BL, position_BL, answer_N, next_BL[answer_N])

    @property
    def mask_BL(self) -> Tensor:  # noqa: N802 - shape letters, as everywhere
        """1 at tokens, 0 at padding."""
        return (self.sample_BL >= 0).long()

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = (getattr(self, field.name) for field in fields(self))
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def collate(rows: list[TokenRow], samples: list[int], pad_id: int) -> Batch:
    """Pad rows on the right to the longest."""
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    input_ids, labels = torch.full(shape, pad_id), torch.full(shape, IGNORE_INDEX)
    sample, position = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    for index, row in enumerate(rows):
        end = len(row.input_ids)
        input_ids[index, :end] = torch.tensor(row.input_ids)
        labels[index, :end] = torch.tensor(row.labels)
        sample[index, :end] = samples[index]
        position[index, :end] = torch.arange(end)
    return Batch.of(input_ids, labels, sample, position)


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
