"""Losses on a fixed few training rows: clean, under a probe's noise, and the curvature they show.

In: an `Objective` and a token table. Out: per evaluation one small dictionary, the same on every
worker. Rows and noise are the same for every trial and step, so the values can be compared.
"""

from __future__ import annotations

import random

import torch
import torch.distributed as dist

from symnoise_ray.batches import Batch, collate, cut
from symnoise_ray.cache import TokenTable
from symnoise_ray.config import NoiseConfig, TrainConfig
from symnoise_ray.noise import Copy, NoisyEmbedding
from symnoise_ray.objective import Objective, require_finite

_ROWS_SEED = 17
_NOISE_SEED = 23


class Evaluation:
    """The clean loss, and the curvature of the loss in the embeddings."""

    def __init__(
        self,
        objective: Objective,
        table: TokenTable,
        train: TrainConfig,
        pad_id: int,
        device: torch.device,
    ) -> None:
        self.objective, self.device = objective, device
        noise = NoiseConfig(type="symnoise", alpha=train.probe_alpha)
        self.probe = NoisyEmbedding(objective.engine.module, noise, _NOISE_SEED)
        self.batches, self.counts = _share(table, train, pad_id)

    @torch.no_grad()
    def measure(self, step: int) -> dict[str, float]:
        """Losses per answer token on the same rows every time.

        The probe is a pair of sign noises that is the same for every noise type and at every step.
        Its second difference L(x+e) + L(x-e) - 2 L(x) is e'He up to fourth order, H the Hessian of
        the loss in the embeddings (Hutchinson's estimator of s**2 tr H): the curvature that
        symmetric noise is said to lower.

        Raises:
            DivergedError: the clean loss is not finite.
        """
        self.objective.engine.eval()
        copies = [Copy(0), *([Copy(+1), Copy(-1)] if self.probe.config.alpha else [])]
        total = torch.zeros(len(copies) + 1, device=self.device, dtype=torch.float64)
        for batch in self.batches:
            batch = batch.to(self.device)
            for index, copy in enumerate(copies):
                with self.probe.applied((copy,), batch.sample_BL, batch.position_BL, step=0):
                    total[index] += self.counts * self.objective.token_loss(batch)
            total[-1] += self.counts * len(batch.target_N)
        if dist.get_world_size() > 1:
            dist.all_reduce(total)
        clean, *noisy = (total[:-1] / total[-1]).tolist()
        require_finite("clean loss", clean, f"step {step}")
        losses = {"clean_loss": clean}
        if noisy:
            losses |= {"noisy_loss": sum(noisy) / 2, "curvature": sum(noisy) - 2 * clean}
        return losses

    def remove(self) -> None:
        """Detach from the model."""
        self.probe.remove()


def _share(table: TokenTable, train: TrainConfig, pad_id: int) -> tuple[list[Batch], int]:
    """This worker's share of the rows, and 1; a row of another's and 0 where there are too few.

    All workers get the same number of batches, since sharded weights are gathered by all at once.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    count = min(train.num_clean_rows, len(table))
    chosen = random.Random(_ROWS_SEED).sample(range(len(table)), count)
    chosen.sort(key=lambda number: table.lengths[number])
    own = chosen[rank::world_size]
    num_batches = -(-len(chosen[::world_size]) // train.micro_batch_size)
    lines = [[number] for number in own or chosen[:1]]
    return [collate(part, table, pad_id) for part in cut(lines, num_batches)], int(bool(own))
