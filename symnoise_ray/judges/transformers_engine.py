"""A judging model in plain transformers, which computes once what prompts have in common.

In: prompts as token ids, grouped by item. Out: the log-probabilities of the two labels. The tokens
that all prompts begin with are read once, those that the prompts of an item share once per item;
the rest runs on top of their keys and values.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
import transformers


class TransformersEngine:
    """Reads batches of items with a Hugging Face causal LM.

    Args:
        model: In evaluation mode, on its device.
        labels: Token ids that spell each label.
        head: What all prompts begin with.
        batch_items: Items read together.
    """

    def __init__(
        self, model: Any, labels: list[list[int]], head: list[int], batch_items: int
    ) -> None:
        self.model, self.labels, self.batch_items = model, labels, batch_items
        self.head = _Prefix.empty(model)
        if _keeps_plain_keys(model):
            self.head = self.head.extended([head])

    def label_logprobs(self, items: list[list[list[int]]]) -> list[tuple[float, float]]:
        """Log-probabilities of both labels after each prompt of each item, in their order."""
        done = self.head.num_tokens
        prefix = self.head.repeated([0] * len(items))
        stems: list[list[int]] = [[]] * len(items)
        if _keeps_plain_keys(self.model):
            stems = [_common(rows)[done:] for rows in items]
            prefix = prefix.extended(stems)
        owners = [number for number, rows in enumerate(items) for _ in rows]
        rows = [ids for rows in items for ids in rows]
        tails = [ids[done + len(stems[n]) :] for n, ids in zip(owners, rows, strict=True)]
        logits_RV = prefix.repeated(owners).extended(tails).logits_RV
        logprobs_RV = logits_RV.float().log_softmax(-1)
        first, second = (logprobs_RV[:, ids].logsumexp(-1).tolist() for ids in self.labels)
        return list(zip(first, second, strict=True))


@dataclass(frozen=True)
class _Prefix:
    """Rows that a model has read so far: keys and values, which slots are real, and the logits."""

    model: Any
    cache: Any
    mask_RS: torch.Tensor
    logits_RV: torch.Tensor

    @classmethod
    def empty(cls, model: Any) -> _Prefix:
        """One row of which nothing was read yet."""
        device = next(model.parameters()).device
        nothing = torch.zeros(1, 0, dtype=torch.long, device=device)
        return cls(model, None, nothing, nothing)

    @property
    def num_tokens(self) -> int:
        """Tokens of the first row."""
        return int(self.mask_RS[0].sum())

    def repeated(self, rows: list[int]) -> _Prefix:
        """A copy with these of its rows."""
        index = torch.tensor(rows, device=self.mask_RS.device)
        cache = copy.deepcopy(self.cache)
        if cache is not None:
            cache.batch_select_indices(index)
        return _Prefix(self.model, cache, self.mask_RS[index], self.logits_RV[index])

    @torch.no_grad()
    def extended(self, rows: list[list[int]]) -> _Prefix:
        """The same rows with more tokens, padded on the left so that all end in the last slot.

        Padding stands between the old tokens and the new ones; it is masked, and positions count
        real tokens alone.
        """
        width = max(map(len, rows))
        if width == 0:
            return self
        ids_RT = torch.zeros(len(rows), width, dtype=torch.long)
        new_RT = torch.zeros_like(ids_RT)
        for number, row in enumerate(rows):
            ids_RT[number, width - len(row) :] = torch.tensor(row)
            new_RT[number, width - len(row) :] = 1
        new_RT = new_RT.to(self.mask_RS.device)
        mask_RS = torch.cat([self.mask_RS, new_RT], dim=1)
        position_RT = (self.mask_RS.sum(1, keepdim=True) + new_RT.cumsum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids_RT.to(mask_RS.device),
            attention_mask=mask_RS,
            position_ids=position_RT,
            past_key_values=transformers.DynamicCache() if self.cache is None else self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return _Prefix(self.model, output.past_key_values, mask_RS, output.logits[:, -1])


def _common(rows: list[list[int]]) -> list[int]:
    """What all rows begin with, short of the last token of any."""
    length = min(map(len, rows)) - 1
    same = itertools.takewhile(
        lambda tokens: len(set(tokens)) == 1, zip(*(row[:length] for row in rows), strict=True)
    )
    return [tokens[0] for tokens in same]


def _keeps_plain_keys(model: Any) -> bool:
    """Whether padding may stand within what was read: not with windows or recurrent states."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)
