"""The objective of a forward pass: the summed loss of the answers of a batch.

In: an engine and batches. Out: sums of cross-entropies, from which training and evaluation compute
means over any number of micro-batches, copies and workers.

Shape letters: B lines, C copies, L positions, N answer positions, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor

from symnoise_ray.errors import DivergedError, UserError
from symnoise_ray.noise.types import Copy
from symnoise_ray.training.answer_head import AnswerHead
from symnoise_ray.training.batches import Batch
from symnoise_ray.training.packing import block_mask, keeps_rows_apart


class Objective:
    """The loss of an engine's model.

    FlashAttention takes no mask of this package. It gets all rows in one line, and separates them
    where the positions start again. Every other attention gets a mask.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.head = AnswerHead(engine.module)
        attention = getattr(engine.module.config, "_attn_implementation", "") or ""
        self.by_position = attention.startswith("flash")

    def layout(self, batch: Batch) -> Batch:
        """A batch in the form in which the model takes it."""
        return batch.in_one_line() if batch.packed and self.by_position else batch

    def groups(self, groups: list[tuple[Copy, ...]]) -> list[tuple[Copy, ...]]:
        """Copies by forward pass; if all rows form one line, every copy runs alone."""
        return [(c,) for group in groups for c in group] if self.by_position else groups

    def token_loss(self, batch: Batch, num_copies: int = 1) -> Tensor:
        """Summed cross-entropy of the answer tokens, over all copies in this pass."""
        return self._summed(self._answer_logits(self.engine, batch, num_copies), batch, num_copies)

    def row_losses(self, batch: Batch) -> Tensor:
        """Summed cross-entropy of each line's answer tokens, (B,); lines are not packed."""
        logits_NV = self._answer_logits(self.engine, batch, 1)
        losses_N = F.cross_entropy(logits_NV.float(), batch.target_N, reduction="none")
        zeros_B = torch.zeros(len(batch.input_ids_BL), device=losses_N.device)
        return zeros_B.index_add(0, batch.line_N, losses_N)

    def bare_loss(self, batch: Batch) -> Tensor:
        """`token_loss` of one copy by the module without its engine, which allows no gradient but
        that of its own backward pass."""
        return self._summed(self._answer_logits(self.engine.module, batch, 1), batch, 1)

    @staticmethod
    def _summed(logits_NV: Tensor, batch: Batch, num_copies: int) -> Tensor:
        target_N = batch.target_N.repeat(num_copies)
        return F.cross_entropy(logits_NV.float(), target_N, reduction="sum")

    def compared_loss(self, batch: Batch, num_copies: int, weight: float) -> Tensor:
        """Summed cross-entropy of the first copy, and how far the others' predictions are from it.

        The second term is the symmetric KL divergence, summed over the answer tokens and the other
        copies, times `weight`. Gradients flow through both sides.

        Source: R3F, arXiv 2008.03156, equation 4. Its code (fairseq, examples/rxf) sums over all
            tokens and divides by the rows; here it is per answer token, as the cross-entropy is.
        """
        logits_NV = self._answer_logits(self.engine, batch, num_copies)
        first_NV, *others = logits_NV.float().log_softmax(-1).chunk(num_copies)
        loss = F.nll_loss(first_NV, batch.target_N, reduction="sum")
        for other_NV in others:
            loss = loss + weight * symmetric_kl(first_NV, other_NV)
        return loss

    def _answer_logits(self, model: Any, batch: Batch, num_copies: int) -> Tensor:
        """Logits of the answer tokens of all copies, copy by copy; shape (C * N, V)."""
        size = batch.input_ids_BL.numel()
        answer_N = torch.cat([batch.answer_N + copy * size for copy in range(num_copies)])
        with self.head.at(answer_N):
            logits = model(
                input_ids=batch.input_ids_BL.repeat(num_copies, 1),
                **self._attention(batch, num_copies),
                use_cache=False,
            ).logits
        return self.head.select(logits, answer_N)

    def _attention(self, batch: Batch, num_copies: int) -> dict[str, Tensor]:
        """The arguments that say what each token may see, for all copies."""
        if not batch.packed:
            return {"attention_mask": batch.mask_BL.repeat(num_copies, 1)}
        if self.by_position:
            return {"position_ids": batch.position_BL}
        mask = block_mask(batch.sample_BL, batch.position_BL, self.engine.module.dtype)
        return {
            "attention_mask": mask.repeat(num_copies, 1, 1, 1),
            "position_ids": batch.position_BL.repeat(num_copies, 1),
        }

    def packs(self, wish: str, longest: int) -> bool:
        """Whether rows share lines: by default if the model keeps them apart.

        Args:
            wish: The value of `train.packing`.
            longest: Tokens of the longest row, and so of the longest line.

        Raises:
            UserError: `train.packing` is `on`, and the model mixes the rows of a line.
        """
        apart = wish != "off" and keeps_rows_apart(
            self.engine.module, longest, by_position=self.by_position
        )
        if wish == "on" and not apart:
            raise UserError(
                "train.packing=on needs a model that keeps packed rows apart, but "
                f"{type(self.engine.module).__name__} does not with lines of {longest} tokens; "
                "leave it at auto or set it off"
            )
        return apart

    def remove(self) -> None:
        """Detach from the model."""
        self.head.remove()


def symmetric_kl(one_NV: Tensor, other_NV: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) summed over rows, from log-probabilities of shape (N, V); in nats."""
    there = F.kl_div(other_NV, one_NV, reduction="sum", log_target=True)
    back = F.kl_div(one_NV, other_NV, reduction="sum", log_target=True)
    return there + back


def require_finite(what: str, value: float, where: str) -> None:
    """Raise DivergedError for a value that is not finite; `where` says the step."""
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} must be finite, but is {value} at {where}; a smaller optim.lr or "
            "noise.alpha may help"
        )
