"""Random words from a counter: Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), the generator of numpy.random.Philox.

In: the samples and positions of tokens, a step, a draw and a seed. Out: 64-bit words that are a
pure function of these, whatever the batch, the worker or the device. There is no state to save, and
no other random stream is touched. On the CPU numpy makes the words in C, with one call per segment;
other devices compute the same bits with torch's integers.

Shape letters: B rows, L positions, W words per token.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 4
"""Number of words that one value of the counter gives."""

_KEY_HIGH = 0x53594D4E  # second word of the key; the first is the seed
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def random_words(
    sample_BL: Tensor, position_BL: Tensor, num_words: int, *, step: int, draw: int, seed: int
) -> Tensor:
    """At least `num_words` words per token; zeros on padding.

    Token t of a sample takes blocks t*W/4+1 .. (t+1)*W/4 of the stream of (seed, sample, step,
    draw). The first block has number 1, because numpy counts up before it gives a block.

    Shapes: sample_BL, position_BL (B, L), int64; sample -1 is padding, and positions count from 0
        within every segment. Returns (B, L, W) with W a multiple of 4, int64.
    """
    blocks = -(-num_words // BLOCK)
    if sample_BL.device.type == "cpu":
        return _words_in_numpy(sample_BL, position_BL, blocks, step, draw, seed)
    return words_in_torch(sample_BL, position_BL, blocks, step, draw, seed)


def _words_in_numpy(
    sample_BL: Tensor, position_BL: Tensor, blocks: int, step: int, draw: int, seed: int
) -> Tensor:
    sample, position = sample_BL.numpy().ravel(), position_BL.numpy().ravel()
    real = sample >= 0
    words = np.zeros((*sample_BL.shape, blocks * BLOCK), np.uint64)
    tokens = words.reshape(-1, blocks * BLOCK)
    starts = np.flatnonzero(real & (position == 0))
    # From one start to the next, all tokens but the padding belong to one segment.
    lengths = np.add.reduceat(real.astype(int), starts) if len(starts) else starts
    key = np.array([seed, _KEY_HIGH], np.uint64)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        counter = np.array([0, sample[start], step, draw], np.uint64)
        stream = np.random.Philox(key=key, counter=counter)
        tokens[start : start + length] = stream.random_raw(length * blocks * BLOCK).reshape(
            length, -1
        )
    return torch.from_numpy(words.view(np.int64))


def words_in_torch(
    sample_BL: Tensor, position_BL: Tensor, blocks: int, step: int, draw: int, seed: int
) -> Tensor:
    """The same words with torch's 64-bit integers, on any device."""
    block = torch.arange(1, blocks + 1, device=sample_BL.device)
    shape = (*sample_BL.shape, blocks)
    counter = (position_BL[..., None] * blocks + block, sample_BL[..., None].expand(shape))
    rest = (torch.full(shape, value, device=sample_BL.device) for value in (step, draw))
    words = torch.stack(philox((*counter, *rest), (seed, _KEY_HIGH)), dim=-1).flatten(2)  # type: ignore[arg-type]
    return words * (sample_BL >= 0)[..., None]


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four 64-bit words per counter, as int64 tensors; both pairs of words advance together."""
    device = counter[0].device

    def pair(values: tuple[int, int]) -> Tensor:
        signed = [_signed(value) for value in values]
        return torch.tensor(signed, device=device).view(2, *[1] * counter[0].dim())

    even, odd = torch.stack(counter[::2]), torch.stack(counter[1::2])
    multiplier = pair(_MULTIPLIERS)
    for number in range(_ROUNDS):
        round_key = pair((key[0] + number * _WEYL[0], key[1] + number * _WEYL[1]))
        high, low = _product(even, multiplier)
        even, odd = high.flip(0) ^ odd ^ round_key, low.flip(0)
    return [even[0], odd[0], even[1], odd[1]]


def _signed(value: int) -> int:
    """The int64 that has the low 64 bits of a number."""
    return (value + 2**63) % 2**64 - 2**63


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low words of the 128-bit products of unsigned words, from 32-bit halves."""
    a0, a1, b0, b1 = a & _LOW, (a >> 32) & _LOW, b & _LOW, (b >> 32) & _LOW
    middle0, middle1 = a0 * b1, a1 * b0
    carry = ((a0 * b0) >> 32 & _LOW) + (middle0 & _LOW) + (middle1 & _LOW)
    high = a1 * b1 + (middle0 >> 32 & _LOW) + (middle1 >> 32 & _LOW) + (carry >> 32)
    return high, a * b
