"""Several rows in one line of a batch, where no row may see another.

In: the lengths of rows, or the positions of a batch. Out: which rows share a line, or the attention
mask that keeps them apart. Some models mix the rows in spite of the mask (recurrent layers, a
window of their own). The configuration and a test pass tell; the model's name does not matter.

Shape letters: B lines, L positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-3
_WITHOUT_MEMORY = {
    *("full_attention", "sliding_attention", "chunked_attention"),
    *("moe", "sparse", "dense"),
}
"""transformers' names of kinds of layers that pass nothing on but by attention."""
PROBE = (5, 7)
"""Lengths of the two rows with which a model is tested."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Row numbers by line; no line is longer than `capacity`. First fit, longest rows first.

    Every row is at most `capacity` long. Lines come longest row first.
    """
    lines: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[number]
        for line, left in enumerate(room):
            if left >= length:
                lines[line].append(number)
                room[line] = left - length
                break
        else:
            lines.append([number])
            room.append(capacity - length)
    return lines


def block_mask(sample_BL: Tensor, position_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive attention mask under which a token sees itself and the tokens before it in its row.

    The mask has four axes and floats: with other forms some attentions mix the rows silently.

    Shapes: sample_BL, position_BL (B, L), as in `Batch`. Returns (B, 1, L, L): 0, or the smallest
    number of `dtype`.
    """
    segment_BL = ((position_BL == 0) & (sample_BL >= 0)).cumsum(1)
    segment_BL = torch.where(sample_BL >= 0, segment_BL, 0)  # padding sees padding only
    same_BLL = segment_BL[:, :, None] == segment_BL[:, None, :]
    hidden = torch.zeros(same_BLL.shape, dtype=dtype, device=sample_BL.device)
    return hidden.masked_fill_(~same_BLL.tril(), torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def keeps_rows_apart(model: nn.Module, longest: int, *, by_position: bool = False) -> bool:
    """Whether the rows of a packed line get the logits that each of them gets alone.

    Args:
        model: A causal language model, in any mode; its mode is restored.
        longest: Tokens of the longest line, for models whose attention has a window.
        by_position: Whether the model gets positions that start again, and no mask.
    """
    config: Any = model.config
    if not _layers_can(config.get_text_config(), longest, by_position):
        return False
    was_training = model.training
    model.eval()
    try:
        return _probe(model, by_position)
    except (TypeError, ValueError, IndexError, RuntimeError):
        return False  # the model takes no positions or no mask of four axes
    finally:
        model.train(was_training)


def _layers_can(config: Any, longest: int, by_position: bool) -> bool:
    """Whether all layers are attention over the whole line, by what the configuration says of them.

    Recurrent layers and convolutions carry one row into the next, though before training often less
    than the test pass can tell. The mask for packing would replace that of a window or of chunks.
    """
    if not set(getattr(config, "layer_types", None) or ()) <= _WITHOUT_MEMORY:
        return False
    window = getattr(config, "sliding_window", None)
    if window is not None and window < longest and not by_position:
        return False
    chunk = getattr(config, "attention_chunk_size", None)
    return chunk is None or chunk >= longest


def _probe(model: nn.Module, by_position: bool) -> bool:
    device = next(model.parameters()).device
    dtype: torch.dtype = model.dtype  # type: ignore[assignment]
    size = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    rows = [torch.arange(length, device=device) * 31 % size for length in PROBE]
    sample_BL = torch.tensor([[n for n, length in enumerate(PROBE) for _ in range(length)]])
    position_BL = torch.tensor([[p for length in PROBE for p in range(length)]])
    mask = block_mask(sample_BL.to(device), position_BL.to(device), dtype)
    packed = model(
        input_ids=torch.cat(rows)[None],
        position_ids=position_BL.to(device),
        use_cache=False,
        **({} if by_position else {"attention_mask": mask}),
    ).logits[0]
    alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    error = (packed.float() - alone.float()).norm() / alone.float().norm()
    return bool(error < (_TOLERANCE if dtype == torch.float32 else 30 * _TOLERANCE))
