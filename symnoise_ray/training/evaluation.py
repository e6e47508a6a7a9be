"""Losses on fixed rows, without noise and with the noise of a probe, and on plain texts.

In: an `Objective` and a token table. Out: one small dictionary per evaluation, the same on every
worker. Rows and noise are the same for every trial and step, so the values can be compared.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
import torch.distributed as dist

from symnoise_ray.config import NoiseConfig, TrainConfig
from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import NOISES, Copy
from symnoise_ray.training.batches import Batch, collate, cut
from symnoise_ray.training.objective import Objective, require_finite

_ROWS_SEED = 17
_NOISE_SEED = 23


class _Share(NamedTuple):
    """A worker's batches of some rows, and their weight: 0 if other workers have all rows."""

    batches: list[Batch]
    weight: int


class Evaluation:
    """The clean loss, the curvature of the loss in the embeddings, and the loss on plain texts."""

    def __init__(
        self,
        objective: Objective,
        table: TokenTable,
        texts: TokenTable | None,
        train: TrainConfig,
        pad_id: int,
        device: torch.device,
    ) -> None:
        self.objective, self.device = objective, device
        noise = NoiseConfig(type="symnoise", alpha=train.probe_alpha)
        self.probe = NoisyEmbedding(objective.engine.module, noise, _NOISE_SEED)
        count = min(train.num_clean_rows, len(table))
        chosen = random.Random(_ROWS_SEED).sample(range(len(table)), count)
        self.rows = _share(table, chosen, train.micro_batch_size, pad_id)
        self.texts = None
        if texts is not None:
            self.texts = _share(texts, list(range(len(texts))), train.micro_batch_size, pad_id)

    @torch.no_grad()
    def measure(self, step: int) -> dict[str, float]:
        """Losses per answer token on the same rows every time.

        The probe is a pair of sign noises, the same for every noise type and at every step. The
        second difference L(x+e) + L(x-e) - 2 L(x) is e'He up to fourth order, H the Hessian of
        the loss in the embeddings (Hutchinson's estimator of s**2 tr H): the curvature that
        symmetric noise is said to lower.

        Raises:
            DivergedError: the clean loss is not finite.
        """
        self.objective.engine.eval()
        noisy_copies = NOISES[self.probe.config.type].copies if self.probe.config.alpha else ()
        copies = [Copy(0), *noisy_copies]
        clean, *noisy = self._means(self.rows, copies)
        require_finite("clean loss", clean, f"step {step}")
        losses = {"clean_loss": clean}
        if noisy:
            losses |= {"noisy_loss": sum(noisy) / 2, "curvature": sum(noisy) - 2 * clean}
        if self.texts is not None:
            losses["text_loss"] = self._means(self.texts, [Copy(0)])[0]
        return losses

    def _means(self, share: _Share, copies: list[Copy]) -> list[float]:
        """Mean loss per answer token under each copy's noise, over all workers."""
        total = torch.zeros(len(copies) + 1, device=self.device, dtype=torch.float64)
        for batch in share.batches:
            batch = batch.to(self.device)
            for index, copy in enumerate(copies):
                with self.probe.applied((copy,), batch.sample_BL, batch.position_BL, step=0):
                    total[index] += share.weight * self.objective.token_loss(batch)
            total[-1] += share.weight * len(batch.target_N)
        if dist.get_world_size() > 1:
            dist.all_reduce(total)
        means: list[float] = (total[:-1] / total[-1]).tolist()
        return means

    def remove(self) -> None:
        """Detach from the model."""
        self.probe.remove()


def _share(table: TokenTable, chosen: list[int], size: int, pad_id: int) -> _Share:
    """This worker's share of the chosen rows, in batches of at most `size`.

    All workers get the same number of batches, since they must gather sharded weights together.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    chosen = sorted(chosen, key=lambda number: table.lengths[number])
    own = chosen[rank::world_size]
    num_batches = -(-len(chosen[::world_size]) // size)
    lines = [[number] for number in own or chosen[:1]]
    batches = [collate(part, table, pad_id) for part in cut(lines, num_batches)]
    return _Share(batches, int(bool(own)))
