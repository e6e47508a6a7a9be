"""Losses on fixed rows, without noise and with the noise of a probe, and on what is not trained on.

In: an `Objective` and token tables. Out: one small dictionary per evaluation, the same on every
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
    """A worker's batches of some rows; those from `num_own` on only keep it in step with others."""

    batches: list[Batch]
    num_own: int


class Evaluation:
    """The clean loss, the slope and curvature of the loss in the embeddings, and further losses."""

    def __init__(
        self,
        objective: Objective,
        table: TokenTable,
        further: dict[str, TokenTable],
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
        self.further = {
            name: _share(other, list(range(len(other))), train.micro_batch_size, pad_id)
            for name, other in further.items()
        }

    @torch.no_grad()
    def measure(self, step: int) -> dict[str, float]:
        """Losses per answer token on the same rows every time.

        The probe is a pair of sign noises, the same for every noise type and at every step. The
        second difference L(x+e) + L(x-e) - 2 L(x) is e'He up to fourth order, H the Hessian of
        the loss in the embeddings (Hutchinson's estimator of s**2 tr H): the curvature that
        symmetric noise is said to lower. The first difference |L(x+e) - L(x-e)| / 2|e|, of each row
        for itself and then averaged, is the condition of arXiv 2312.01523; |e| is `probe_alpha`,
        the L2 norm of a row's sign noise.

        Raises:
            DivergedError: the clean loss is not finite.
        """
        self.objective.engine.eval()
        alpha = self.probe.config.alpha
        copies = [Copy(0), *(NOISES[self.probe.config.type].copies if alpha else ())]
        (clean, *noisy), difference = self._means(self.rows, copies)
        require_finite("clean loss", clean, f"step {step}")
        losses = {"clean_loss": clean}
        if alpha:
            losses |= {
                "noisy_loss": sum(noisy) / 2,
                "curvature": sum(noisy) - 2 * clean,
                "first_difference": difference / (2 * alpha),
            }
        for name, share in self.further.items():
            losses[name] = self._means(share, [Copy(0)])[0][0]
        return losses

    def _means(self, share: _Share, copies: list[Copy]) -> tuple[list[float], float]:
        """Mean loss per answer token under each copy's noise, over all workers; and the mean over
        rows of how far the last two copies' losses of the row are apart."""
        sums = torch.zeros(len(copies) + 3, device=self.device, dtype=torch.float64)
        for number, batch in enumerate(share.batches):
            batch, weight = batch.to(self.device), int(number < share.num_own)
            losses_CB = []
            for copy in copies:
                with self.probe.applied((copy,), batch.sample_BL, batch.position_BL, step=0):
                    losses_CB.append(self.objective.row_losses(batch).double())
            tokens_B = batch.row_counts()
            apart_B = (losses_CB[-1] - losses_CB[-min(2, len(copies))]).abs() / tokens_B
            found = [*(loss_B.sum() for loss_B in losses_CB), tokens_B.sum(), apart_B.sum()]
            sums += weight * torch.stack([*found, torch.ones_like(tokens_B).sum()])
        if dist.get_world_size() > 1:
            dist.all_reduce(sums)
        *totals, num_tokens, apart, num_rows = sums.tolist()
        return [total / num_tokens for total in totals], apart / num_rows

    def remove(self) -> None:
        """Detach from the model."""
        self.probe.remove()


def _share(table: TokenTable, chosen: list[int], size: int, pad_id: int) -> _Share:
    """This worker's share of the chosen rows, in batches of at most `size`.

    All workers get the same number of batches, since they must gather sharded weights together. A
    worker whose own rows do not fill so many takes the shortest row of all for the rest.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    chosen = sorted(chosen, key=lambda number: table.lengths[number])
    own = [[number] for number in chosen[rank::world_size]]
    num_batches = -(-len(chosen[::world_size]) // size)
    parts = cut(own, min(num_batches, len(own))) if own else []
    fillers = [[chosen[:1]]] * (num_batches - len(parts))
    return _Share([collate(part, table, pad_id) for part in (*parts, *fillers)], len(parts))
