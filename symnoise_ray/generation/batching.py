"""How prompts may share a batch: padded, of one length, or alone.

In: tokenised prompts and a model. Out: batches, and the way in which prompts may share one. A test
of the model finds the way: some models read padding in spite of the mask, and some keep a state for
one row only.

Shape letters: B prompts of a batch, S steps, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn

from symnoise_ray.data.tokens import padding_id
from symnoise_ray.errors import OutOfMemoryError, UserError, kind_of, reason_of
from symnoise_ray.generation.decoding import generate, left_padded

PROBE_TOKENS = 64
"""Tokens of a prompt, at most, with which a model is tested."""

Way = Literal["padded", "of one length", "alone"]
"""How prompts share a batch; the fastest way comes first."""
_ways: WeakKeyDictionary[nn.Module, dict[int, Way]] = WeakKeyDictionary()
"""Model -> length of the prompt with which it was tested -> the way that was found."""


def batches(
    indices: Iterable[int], size: int, prompts: list[list[int]], way: Way
) -> list[list[int]]:
    """Prompts, sorted by length, in batches of at most that size."""
    size = 1 if way == "alone" else size
    runs = itertools.groupby(indices, lambda i: len(prompts[i]) if way == "of one length" else 0)
    return [
        run[start : start + size]
        for run in (list(run) for _, run in runs)
        for start in range(0, len(run), size)
    ]


def way_to_batch(prompts: list[list[int]], model: nn.Module, tokenizer: Any, together: bool) -> Way:
    """The fastest way to batch prompts that gives each prompt the logits that it has alone.

    The model reads two short pieces of the longest prompt three times: each alone, both in a batch
    with the beginning of that prompt, and both in a batch with a third piece of the same length.
    All workers get the same way.
    """
    long = max(prompts, key=len)[:PROBE_TOKENS]
    known = _ways.setdefault(model, {})
    if len(long) in known:
        return known[len(long)]
    width = max(1, len(long) // 8)
    first, second, third = (long[at : at + width] for at in (0, len(long) // 2, len(long) - width))
    # In units of the spread of the logits. On 52 random models rounding changes them by 1e-5 in
    # fp32 and 0.01 in bf16, and padding by a third and more.
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.06

    def read(*rows: list[int]) -> Tensor:
        return _logits(list(rows), model, tokenizer, together)[:2]

    try:
        alone_BSV = torch.cat([read(first), read(second)])
        # The third row comes last, because RWKV gives the state of the last row to all rows.
        padded_BSV, level_BSV = read(first, second, long), read(first, second, third)
    except Exception as error:
        require_smaller_batches(error, 3, together)
        own: Way = "alone"
    else:
        if _agree(padded_BSV, alone_BSV, tolerance):
            own = "padded"
        else:
            own = "of one length" if _agree(level_BSV, alone_BSV, tolerance) else "alone"
    ways: list[Any] = [own]
    if dist.get_world_size() > 1:
        ways *= dist.get_world_size()
        dist.all_gather_object(ways, own)
    known[len(long)] = max(ways, key=get_args(Way).index)
    return known[len(long)]


def _agree(batched_BSV: Tensor, alone_BSV: Tensor, tolerance: float) -> bool:
    """Whether at least one row has the same logits; in others an expert may have changed."""
    spread_BS = (alone_BSV - alone_BSV.median(-1, keepdim=True).values).abs().median(-1).values
    apart_BS = (batched_BSV - alone_BSV).abs().nanmedian(-1).values  # a logit may be -inf
    differ_BS = apart_BS > tolerance * spread_BS  # false for the nan of a diverged model
    return not bool(differ_BS.any(-1).all())


def require_smaller_batches(error: Exception, size: int, together: bool) -> None:
    """Allow batches of half the size after an error, if memory ran out.

    Raises:
        UserError: a single prompt is too large, or workers share one model and must run the same
            batches.
        Exception: the error itself, if it is another one.
    """
    if kind_of(error) != OutOfMemoryError.kind:
        raise error
    if together or size == 1:
        # No OutOfMemoryError: that would train again, with smaller micro-batches.
        raise UserError(
            f"generate.batch_size: {size} prompts must fit into the memory together, but "
            f"{reason_of(error)}; lower it or generate.max_new_tokens"
        ) from None


def _logits(rows: list[list[int]], model: nn.Module, tokenizer: Any, together: bool) -> Tensor:
    """Logits (B, 2, V) after each row, and after its last token once more, as answers get them."""

    def repeat(ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
        return nn.functional.one_hot(ids_BT[:, -1], logits_BV.shape[1]).float()

    ids_BT, mask_BT = left_padded(rows, padding_id(tokenizer))
    settings = transformers.GenerationConfig(
        max_new_tokens=2,
        do_sample=False,
        num_beams=1,
        pad_token_id=padding_id(tokenizer),
        return_dict_in_generate=True,
        output_logits=True,
    )
    output = generate(
        model,
        ids_BT,
        mask_BT,
        settings,
        logits_processor=transformers.LogitsProcessorList([repeat]),
        synced_gpus=together,
    )
    return torch.stack(output.logits, dim=1)
