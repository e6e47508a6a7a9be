"""Noise on token embeddings: NEFTune (arXiv 2310.05914), SymNoise (2312.01523, 2605.23171) and kin.

In: a model, the noise settings, and for every forward pass the tokens' samples and positions, and
the step. Out: x + sign * s * e in place of x = embedding(input_ids), s = alpha / sqrt(L * D).
The noise comes from a counter-based generator (`philox`): it is a pure function of (seed, step,
sample, position, component), whatever the batch, worker or device. It touches no other random
state, so switching the noise off changes nothing else.

Shape letters: B rows, L positions, D embedding width, C copies, W random words per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn

from symnoise_ray.errors import UserError
from symnoise_ray.noise.philox import random_words
from symnoise_ray.noise.types import (
    GAUSSIAN,
    NOISES,
    RADEMACHER,
    UNIFORM,
    Copy,
    Law,
    NoiseSettings,
)


def _rademacher(words_BLW: Tensor) -> Tensor:
    """+1 or -1 with probability 1/2 each, one bit per component."""
    bytes_BLN = words_BLW.view(torch.uint8).int()
    place = torch.arange(8, device=words_BLW.device)
    bits = torch.arange(256, device=words_BLW.device)[:, None] >> place & 1
    return F.embedding(bytes_BLN, bits * 2.0 - 1).flatten(2)  # a table: no shift per component


def _uniform(words_BLW: Tensor) -> Tensor:
    """Uniform on (-1, 1), symmetric and exact in fp32: the odd multiples of 2**-23."""
    return ((words_BLW.view(torch.int32) >> 8) | 1).float() * 2.0**-23


def _gaussian(words_BLW: Tensor) -> Tensor:
    """Standard normal by inverting its distribution function; absolute values are at most 5.3."""
    return (torch.erfinv(_uniform(words_BLW).double()) * math.sqrt(2)).float()


DRAWS: dict[Law, Callable[[Tensor], Tensor]] = {
    RADEMACHER: _rademacher,
    UNIFORM: _uniform,
    GAUSSIAN: _gaussian,
}
"""Law -> components (B, L, N) from random words (B, L, W)."""


def noise_scale(length: Tensor, width: int, config: NoiseSettings) -> Tensor:
    """Scale s of the noise on tokens of rows of so many tokens, in fp32, of the shape of `length`.

    Units: alpha is dimensionless; the result is in embedding units.
    Source: alpha / sqrt(L * D), NEFTune experiment_code/train.py:149-156, with L the row's real
        tokens. `matched` follows 2605.23171: every law is divided to uniform noise's RMS norm.
    """
    return strength(config) / torch.sqrt(length.float() * width)


def strength(config: NoiseSettings) -> float:
    """alpha, and under `matched` what gives every law the root mean square of uniform noise."""
    law = NOISES[config.type].law
    factor = UNIFORM.rms / law.rms if config.scale == "matched" and law else 1.0
    return (config.alpha or 0.0) * factor


def _lengths(sample_BL: Tensor, position_BL: Tensor) -> Tensor:
    """Number of tokens in the segment of each token; shape (B, L)."""
    real_BL = sample_BL >= 0
    segment_BL = ((position_BL == 0) & real_BL).cumsum(1)
    count_BL = torch.zeros(len(sample_BL), sample_BL.shape[1] + 1, device=sample_BL.device)
    return count_BL.scatter_add(1, segment_BL, real_BL.float()).gather(1, segment_BL)


def draw_noise(
    sample_BL: Tensor,
    position_BL: Tensor,
    step: int,
    draw: int,
    width: int,
    config: NoiseSettings,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The noise e of a batch and its scale s, both in fp32.

    A token is scaled by the length of its own segment, and its noise depends on its place among the
    tokens of the segment, so left padding, right padding and packing make no difference. Padding
    has scale 0. With `noise.length: padded` a whole row, padding included, is one segment.

    Shapes: sample_BL, position_BL (B, L), int64; sample -1 is padding, and positions count from 0
        within every segment. Returns (B, L, D) and (B, L, 1).
    """
    if config.length == "padded":
        position_BL = torch.arange(sample_BL.shape[1], device=sample_BL.device).expand_as(sample_BL)
        sample_BL = sample_BL.amax(1, keepdim=True).clamp_min(0).expand_as(sample_BL)
    scale_BL = noise_scale(_lengths(sample_BL, position_BL), width, config)
    scale_BL1 = torch.where(sample_BL >= 0, scale_BL, 0.0)[..., None]
    if NOISES[config.type].law is None or not config.alpha:
        return torch.zeros(*sample_BL.shape, width, device=sample_BL.device), scale_BL1
    noise_BLD = components(sample_BL, position_BL, step, draw, width, config.type, seed)
    return noise_BLD, scale_BL1


def components(
    sample_BL: Tensor,
    position_BL: Tensor,
    step: int,
    draw: int,
    width: int,
    noise_type: str,
    seed: int,
) -> Tensor:
    """The components e of a type that has a law, in fp32, (B, L, D); on padding they mean nothing.

    Shapes: as `draw_noise` takes them.
    """
    law = NOISES[noise_type].law
    assert law is not None
    num_words = -(-width // law.per_word)
    words_BLW = random_words(sample_BL, position_BL, num_words, step=step, draw=draw, seed=seed)
    return DRAWS[law](words_BLW)[..., :width]


def _width(embedding: object) -> int | None:
    """Width of a token embedding, also of one inside adapters; None for anything else."""
    parts = embedding.modules() if isinstance(embedding, nn.Module) else ()
    widths = (getattr(part, "embedding_dim", None) for part in parts)
    return next((width for width in widths if isinstance(width, int)), None)


class NoisyEmbedding:
    """Adds noise to the output of a model's token embedding, and only inside `applied`.

    It is a forward hook on the module that `get_input_embeddings()` returns. The module tree and
    the keys of the state dict stay the same, and wrapped and sharded models gather their weights as
    usual. Evaluation and generation run outside `applied`, so they have no noise. Position
    embeddings are other modules and get none. If the token embedding itself multiplies by sqrt(D)
    (Gemma), the noise is added after that, so alpha refers to the vectors that enter the first
    layer. If the model multiplies outside the module (Granite), the noise is multiplied too.
    """

    def __init__(self, model: nn.Module, config: NoiseSettings, seed: int) -> None:
        self.config, self.seed = config, seed
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        width = _width(embedding)
        if not isinstance(embedding, nn.Module) or width is None:
            raise UserError(
                f"noise.type={config.type} needs a model with a token embedding, but "
                f"{type(model).__name__}.get_input_embeddings() gives {embedding!r}"
            )
        self.width = width
        self._noise_CBLD: Tensor | None = None
        self._scale_CBL1: Tensor | None = None
        self._bound: float | None = None
        self._was_added = False
        self._signs_BLD: Tensor | None = None
        self._watched: list[Tensor] | None = None
        self._hook = embedding.register_forward_hook(self._add)

    @contextmanager
    def applied(
        self, copies: tuple[Copy, ...], sample_BL: Tensor, position_BL: Tensor, step: int
    ) -> Iterator[None]:
        """Add noise to every embedding lookup inside; the batch must hold the rows once per copy.

        The noise is drawn once, on entry. Run the backward pass inside too, so that a forward pass
        that is recomputed sees the same noise.

        Shapes: sample_BL and position_BL (B, L) of one copy, as `draw_noise` takes them.

        Raises:
            UserError: no token embedding was looked up, so no noise was added.
        """
        alpha = self.config.alpha if any(copy.sign for copy in copies) else None
        self._was_added = False
        if alpha:
            if self.config.generator == "torch":
                # transformers/integrations/neftune.py computes its bound in this way, to the bit.
                size = torch.tensor(sample_BL.shape[1] * self.width)
                self._bound = float(alpha / torch.sqrt(size))
            else:
                self._draw(copies, sample_BL, position_BL, step)
        try:
            yield
        finally:
            self._noise_CBLD = self._scale_CBL1 = self._bound = None
        if alpha and not self._was_added:
            raise UserError(
                f"noise.type={self.config.type} needs input_ids, but the token embedding was not "
                "called; inputs given as embeddings get no noise"
            )

    def ascend(self, loss_of: Callable[[], Tensor]) -> None:
        """Take the direction in which a loss rises as the noise of `applied`, in place of a draw.

        e is the sign of the gradient in the embeddings: of all signs, to first order, those that
        raise the loss the most. The weights get no gradient.

        Args:
            loss_of: Runs one forward pass of one copy of the rows, and gives a sum over rows.

        Source: arXiv 1412.6572, section 4; on word embeddings arXiv 1605.07725, section 3, which
            normalises the gradient to a length where this takes its signs.
        """
        self._watched = []
        try:
            loss = loss_of()
            (slope_BLD,) = torch.autograd.grad(loss, self._watched)
        finally:
            self._watched = None
        self._signs_BLD = slope_BLD.sign().float()

    def _draw(
        self, copies: tuple[Copy, ...], sample_BL: Tensor, position_BL: Tensor, step: int
    ) -> None:
        place = (sample_BL, position_BL, step)
        drawn = {
            draw: draw_noise(*place, draw, self.width, self.config, self.seed)
            for draw in dict.fromkeys(copy.draw for copy in copies)
        }
        noises = [noise_BLD for noise_BLD, _ in drawn.values()]
        if NOISES[self.config.type].ascends:
            assert self._signs_BLD is not None, "ascend was not called"
            noises = [self._signs_BLD]
        if len(drawn) > 1:
            noises = [drawn[copy.draw][0] for copy in copies]
        self._noise_CBLD = torch.stack(noises) if len(noises) > 1 else noises[0][None]
        self._scale_CBL1 = torch.stack([copy.sign * drawn[copy.draw][1] for copy in copies])

    def _add(self, _module: nn.Module, _inputs: object, embeds_BLD: Tensor) -> Tensor | None:
        if self._watched is not None:
            self._watched.append(embeds_BLD.detach().requires_grad_())
            return self._watched[-1]
        if self._bound is not None:
            self._was_added = True
            noise_BLD = torch.zeros_like(embeds_BLD).uniform_(-self._bound, self._bound)
            return embeds_BLD + noise_BLD
        if self._noise_CBLD is None or self._scale_CBL1 is None:
            return None
        self._was_added = True
        fine = torch.promote_types(embeds_BLD.dtype, torch.float32)
        clean_CBLD = embeds_BLD.to(fine).view(len(self._scale_CBL1), -1, *embeds_BLD.shape[1:])
        noise_CBLD, scale_CBL1 = self._noise_CBLD.to(fine), self._scale_CBL1.to(fine)
        noisy_CBLD = torch.addcmul(clean_CBLD, noise_CBLD, scale_CBL1)
        return noisy_CBLD.flatten(0, 1).to(embeds_BLD.dtype)

    def remove(self) -> None:
        """Detach from the model."""
        self._hook.remove()
