"""Noise on token embeddings: NEFTune (arXiv 2310.05914), SymNoise (2312.01523, 2605.23171) and kin.

In: a model, a `NoiseConfig`, and for every forward pass the rows' masks, sample numbers and step.
Out: x + sign * s * e in place of x = embedding(input_ids), s = alpha / sqrt(L * D).
Each noise type is one row of `NOISES`: a law, and the copies of the batch that are trained on.
The noise comes from a counter-based generator of its own: it is a pure function of (seed, step,
sample, position, component), whatever the batch, worker or device. It never touches other
random state, so switching it off changes nothing else.

Shape letters: B rows, L positions, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from symnoise_ray.config import NoiseConfig
from symnoise_ray.errors import UserError


class Copy(NamedTuple):
    """One copy of the batch: the sign of its noise, and which independent draw it uses."""

    sign: float
    draw: int = 0


@dataclass(frozen=True)
class Noise:
    """A noise type: its law, its root mean square at scale 1, and its copies of the batch."""

    law: Callable[[Tensor, Tensor, int, int], Tensor] | None
    rms: float
    copies: tuple[Copy, ...]


# Philox-4x32-10: constants and round function from Salmon et al., "Parallel random numbers: as
# easy as 1, 2, 3", SC 2011.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF
_KEY_HIGH = 0x53594D4E  # second key word; the first is the seed


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four 32-bit random words per counter, as int64 tensors of the broadcast shape."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # A product of two 32-bit numbers fills the 64 bits; its sign is stripped by the masks.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            ((product0 >> 32) & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return list(torch.broadcast_tensors(c0, c1, c2, c3))  # type: ignore[no-untyped-call]


def _words(index_BL: Tensor, row_B3: Tensor, num_words: int, seed: int) -> Tensor:
    """`num_words` 32-bit words for every position; shape (B, L, num_words)."""
    blocks = -(-num_words // 4)
    block = torch.arange(blocks, device=index_BL.device)
    counter0 = index_BL[:, :, None] * blocks + block
    sample, step, draw = (row_B3[:, i, None, None] for i in range(3))
    words = torch.stack(philox((counter0, sample, step, draw), (seed, _KEY_HIGH)), dim=-1)
    return words.flatten(2)[:, :, :num_words]


def rademacher(index_BL: Tensor, row_B3: Tensor, width: int, seed: int) -> Tensor:
    """+1 or -1 with probability 1/2 each, one bit per component; shape (B, L, D)."""
    words = _words(index_BL, row_B3, -(-width // 32), seed)
    bits = (words[..., None] >> torch.arange(32, device=words.device)) & 1
    return bits.flatten(2)[:, :, :width].float() * 2 - 1


def uniform(index_BL: Tensor, row_B3: Tensor, width: int, seed: int) -> Tensor:
    """Uniform on (-1, 1), symmetric and exact in fp32: odd multiples of 2**-23; (B, L, D)."""
    words = _words(index_BL, row_B3, width, seed)
    return ((words >> 9) * 2 + 1).float() * 2.0**-23 - 1


def gaussian(index_BL: Tensor, row_B3: Tensor, width: int, seed: int) -> Tensor:
    """Standard normal by inverting its distribution function; shape (B, L, D)."""
    return torch.erfinv(uniform(index_BL, row_B3, width, seed)) * math.sqrt(2)


_PLAIN = (Copy(+1),)
_PAIR = (Copy(+1), Copy(-1))
_UNIFORM_RMS = 1 / math.sqrt(3)

NOISES: dict[str, Noise] = {
    "none": Noise(None, 0.0, _PLAIN),
    "neftune": Noise(uniform, _UNIFORM_RMS, _PLAIN),
    "gaussian": Noise(gaussian, 1.0, _PLAIN),
    "bernoulli": Noise(rademacher, 1.0, _PLAIN),
    "symnoise": Noise(rademacher, 1.0, _PAIR),
    "symuniform": Noise(uniform, _UNIFORM_RMS, _PAIR),
    "symgaussian": Noise(gaussian, 1.0, _PAIR),
    "independent": Noise(rademacher, 1.0, (Copy(+1, 0), Copy(+1, 1))),
    "duplicate": Noise(None, 0.0, _PAIR),
}


def passes(config: NoiseConfig) -> list[tuple[Copy, ...]]:
    """Copies of the batch grouped by forward pass: one each, or all in one.

    At alpha 0 the copies of a pair are equal, so one is trained: the same loss and gradient, bit
    for bit those of `none`. `duplicate` is the control that pays for two.
    """
    copies = _PLAIN if config.alpha == 0 else NOISES[config.type].copies
    return [copies] if config.execution == "concat" else [(copy,) for copy in copies]


def noise_scale(lengths_B: Tensor, width: int, config: NoiseConfig) -> Tensor:
    """Size s of the noise of each row.

    Shapes: lengths_B (B,), tokens per row. Returns (B,), fp32.
    Units: alpha is dimensionless; the result is in embedding units.
    Source: alpha / sqrt(L * D), NEFTune experiment_code/train.py:149-156, with L the row's real
        tokens. `matched` follows 2605.23171: every law is divided to uniform noise's RMS norm.
    """
    noise = NOISES[config.type]
    factor = _UNIFORM_RMS / noise.rms if config.scale == "matched" and noise.rms else 1.0
    return (config.alpha or 0.0) * factor / torch.sqrt(lengths_B.float() * width)


def draw_noise(
    mask_BL: Tensor,
    sample_B: Tensor,
    step: int,
    draw: int,
    width: int,
    config: NoiseConfig,
    seed: int,
) -> Tensor:
    """The scaled noise s * e of a batch, in fp32.

    A token's noise depends on its place among the real tokens of its row, so left and right
    padding are alike. Padding gets exactly 0, unless `noise.length` is `padded`.

    Shapes: mask_BL (B, L), 1 at real tokens; sample_B (B,). Returns (B, L, D).
    """
    law = NOISES[config.type].law
    padded = config.length == "padded"
    real_BL = torch.ones_like(mask_BL) if padded else mask_BL
    if law is None or not config.alpha:
        return torch.zeros(*mask_BL.shape, width, device=mask_BL.device)
    index_BL = (real_BL.long().cumsum(1) - 1).clamp_min(0)
    row_B3 = torch.stack(
        [sample_B.long(), torch.full_like(sample_B, step), torch.full_like(sample_B, draw)], dim=1
    )
    scale_B = noise_scale(real_BL.sum(1).clamp_min(1), width, config)
    noise_BLD = law(index_BL, row_B3, width, seed) * scale_B[:, None, None]
    return noise_BLD * real_BL[:, :, None]


class NoisyEmbedding:
    """Adds noise to the output of a model's token embedding, only inside `applied`.

    A forward hook: the module tree and the state-dict keys stay as they are, wrapped and sharded
    models gather their weights as usual, and evaluation and generation, which run outside
    `applied`, are clean by construction.
    """

    def __init__(self, model: nn.Module, config: NoiseConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._now: Callable[[Tensor], Tensor] | None = None
        find = getattr(model, "get_input_embeddings", lambda: None)
        embedding = find()
        if not isinstance(embedding, nn.Module):
            raise UserError(
                f"noise.type={config.type} needs a model with a token embedding, but "
                f"{type(model).__name__}.get_input_embeddings() gives {embedding!r}"
            )
        self._hook = embedding.register_forward_hook(self._add)

    @contextmanager
    def applied(
        self, copies: tuple[Copy, ...], mask_BL: Tensor, sample_B: Tensor, step: int
    ) -> Iterator[None]:
        """Noise every embedding lookup inside; the batch must hold the rows once per copy.

        Keep the backward pass inside too: a recomputed forward then sees the same noise.

        Shapes: mask_BL (B, L) and sample_B (B,) of one copy.
        """

        def noise(embeds: Tensor) -> Tensor:
            width = embeds.shape[-1]
            draws = {
                draw: draw_noise(mask_BL, sample_B, step, draw, width, self.config, self.seed)
                for draw in {copy.draw for copy in copies}
            }
            return torch.cat([copy.sign * draws[copy.draw] for copy in copies])

        self._now = noise if self.config.alpha else None
        try:
            yield
        finally:
            self._now = None

    def _add(self, _module: nn.Module, _inputs: object, embeds_BLD: Tensor) -> Tensor | None:
        if self._now is None:
            return None
        return (embeds_BLD.float() + self._now(embeds_BLD)).to(embeds_BLD.dtype)

    def remove(self) -> None:
        """Detach from the model."""
        self._hook.remove()
