"""A judging model in plain transformers, which computes the common beginnings of prompts once.

In: prompts as token ids, grouped by item. Out: the log-probabilities of the two labels. The tokens
that all prompts begin with are computed once, those that the prompts of an item share once per
item; the rest uses their keys and values. A test at load finds out whether the model allows this.
If not, prompts are computed whole: in padded batches, or without padding if that changes results.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers

PROBE_TOKENS = 300
"""Length of the longest row of the test at load; longer windows are known from configurations."""


class TransformersEngine:
    """Reads batches of items with a Hugging Face causal LM.

    Args:
        model: In evaluation mode, on its device.
        labels: Token ids that spell each label.
        head: The token ids that all prompts begin with.
        batch_items: Items read together.
    """

    def __init__(
        self, model: Any, labels: list[list[int]], head: list[int], batch_items: int
    ) -> None:
        self.model, self.labels, self.batch_items = model, labels, batch_items
        self.way = _way_to_read(model, sorted({*head, *itertools.chain(*labels)}))
        self.head = _Prefix.empty(model)
        if self.way == "shared":
            self.head = self.head.extended([head])

    def label_logprobs(self, items: list[list[list[int]]]) -> list[tuple[float, float]]:
        """Log-probabilities of both labels after each prompt of each item, in their order."""
        rows = list(itertools.chain(*items))
        if self.way == "shared":
            logits_RV = _read_shared(self.head, items)
        else:
            read = _read_padded if self.way == "padded" else _read_unpadded
            logits_RV = read(self.model, rows)
        logprobs_RV = logits_RV.float().log_softmax(-1)
        first, second = (logprobs_RV[:, ids].logsumexp(-1).tolist() for ids in self.labels)
        return list(zip(first, second, strict=True))


def _way_to_read(model: Any, known: list[int]) -> Literal["shared", "padded", "unpadded"]:
    """The fastest way to read that gives the logits of a plain pass over each row.

    Args:
        model: In evaluation mode, on its device.
        known: Token ids that the test may use.
    """
    settings = model.config.get_text_config(decoder=True)
    context = getattr(settings, "max_position_embeddings", None) or PROBE_TOKENS
    rng = random.Random(0)
    head, short, *tails = (rng.choices(known, k=k) for k in (8, 2, 3, 9, 3, 9))
    long = rng.choices(known, k=max(0, min(context, PROBE_TOKENS) - len(head) - 9))
    stems = [head + short, head + short, head + long, head + long]
    rows = [stem + tail for stem, tail in zip(stems, tails, strict=True)]
    plain_RV = _read_unpadded(model, rows)
    if _keeps_plain_keys(model) and _agrees(
        lambda: _read_shared(_Prefix.empty(model).extended([head]), [rows[:2], rows[2:]]), plain_RV
    ):
        return "shared"
    return "padded" if _agrees(lambda: _read_padded(model, rows), plain_RV) else "unpadded"


def _agrees(read: Callable[[], torch.Tensor], plain_RV: torch.Tensor) -> bool:
    """Whether this way gives the plain logits up to rounding, relative to how rows differ."""
    try:
        read_RV = read()
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # Models without such a cache, mask or positions raise errors of many types.
        return False
    # Some models give a token the probability 0.
    ours_RV, plain_RV = (x.float().log_softmax(-1).clamp(min=-1e3) for x in (read_RV, plain_RV))
    apart = (ours_RV - plain_RV).abs().mean(1).max()
    # Measured on 31 random models, relative to that difference: rounding makes 1e-5 in fp32 and
    # 1e-2 in bf16; context that is lost to windows or padding makes 0.1 and more.
    tolerance = 1e-3 if read_RV.dtype == torch.float32 else 0.06
    return bool(apart <= tolerance * plain_RV.std(0).mean())


def _read_shared(head: _Prefix, items: list[list[list[int]]]) -> torch.Tensor:
    """Logits after each row, from the cached head and the shared beginning of each item."""
    done = head.num_tokens
    stems = [_common(rows)[done:] for rows in items]
    prefix = head.repeated([0] * len(items)).extended(stems)
    owners = [number for number, rows in enumerate(items) for _ in rows]
    rows = [ids for rows in items for ids in rows]
    tails = [ids[done + len(stems[n]) :] for n, ids in zip(owners, rows, strict=True)]
    return prefix.repeated(owners).extended(tails).logits_RV


@torch.no_grad()
def _read_padded(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """Logits after each row, read whole in one batch with padding on the left."""
    device = next(model.parameters()).device
    ids_RT, mask_RT = (x.to(device) for x in _padded(rows))
    output = model(
        input_ids=ids_RT,
        attention_mask=mask_RT,
        position_ids=(mask_RT.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=1,
    )
    last_RV: torch.Tensor = output.logits[:, -1]
    return last_RV


@torch.no_grad()
def _read_unpadded(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """Logits after each row, read whole together with rows of the same length only."""
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    found: dict[int, torch.Tensor] = {}
    for _, same in itertools.groupby(order, key=lambda number: len(rows[number])):
        numbers = list(same)
        ids_RT = torch.tensor([rows[number] for number in numbers], device=device)
        logits_RV = model(input_ids=ids_RT, use_cache=False, logits_to_keep=1).logits[:, -1]
        found |= zip(numbers, logits_RV, strict=True)
    return torch.stack([found[number] for number in range(len(rows))])


@dataclass(frozen=True)
class _Prefix:
    """Rows that a model has read so far: keys and values, the mask of real tokens, and logits."""

    model: Any
    cache: Any
    mask_RS: torch.Tensor
    logits_RV: torch.Tensor

    @classmethod
    def empty(cls, model: Any) -> _Prefix:
        """One row without any token."""
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
        if not any(rows):
            return self
        ids_RT, new_RT = (x.to(self.mask_RS.device) for x in _padded(rows))
        mask_RS = torch.cat([self.mask_RS, new_RT], dim=1)
        position_RT = (self.mask_RS.sum(1, keepdim=True) + new_RT.cumsum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids_RT,
            attention_mask=mask_RS,
            position_ids=position_RT,
            past_key_values=transformers.DynamicCache() if self.cache is None else self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return _Prefix(self.model, output.past_key_values, mask_RS, output.logits[:, -1])


def _common(rows: list[list[int]]) -> list[int]:
    """The common beginning of all rows, which leaves each row at least one more token."""
    length = min(map(len, rows)) - 1
    same = itertools.takewhile(
        lambda tokens: len(set(tokens)) == 1, zip(*(row[:length] for row in rows), strict=True)
    )
    return [tokens[0] for tokens in same]


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with padding on the left, and 1 where there is none."""
    width = max(map(len, rows))
    ids_RT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_RT = torch.zeros_like(ids_RT)
    for number, row in enumerate(rows):
        ids_RT[number, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_RT[number, width - len(row) :] = 1
    return ids_RT, mask_RT


def _keeps_plain_keys(model: Any) -> bool:
    """Whether no layer has an attention window, which padding between the tokens would fill."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)
