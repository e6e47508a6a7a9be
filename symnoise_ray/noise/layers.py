"""Noise on hidden states: what every layer of the decoder hands on, in place of the embeddings.

In: a model's layers, the noise settings, and for every forward pass the tokens' samples and
positions, and the step. Out: h + sign * alpha * std(h) * e in place of each layer's output h. The
random numbers are those of `embedding`, with a draw of its own for every layer. They are drawn when
a layer hands on, so one layer's noise exists at a time. Transformers recomputes a layer without its
hooks, so its noise is drawn once; a model whose own code runs them again gets the same noise.

Shape letters: B rows, L positions, D width, C copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from symnoise_ray.errors import UserError
from symnoise_ray.noise.embedding import components, strength
from symnoise_ray.noise.types import Copy, NoiseSettings

_DRAWS_PER_COPY = 2**32
"""Between the numbers of two copies' draws; no model has so many layers."""


class NoisyLayers:
    """Adds noise to the output of layers, and only inside `applied`.

    The spread of a token's hidden state is the standard deviation of its D components, so the noise
    of a row depends on no other row. It enters once, and no gradient flows through it.

    Source: NoiseFiT, arXiv 2504.03302, whose code multiplies two spreads; docs/noise.md says what
        is taken from it and what is not.
    """

    def __init__(self, layers: Sequence[nn.Module], config: NoiseSettings, seed: int) -> None:
        if not layers:
            raise UserError(
                f"noise.type={config.type} needs a model with a list of layers, but none of as "
                "many layers as its configuration names was found; choose another noise.type"
            )
        self.config, self.seed = config, seed
        self._places: tuple[tuple[Copy, ...], Tensor, Tensor, int] | None = None
        self._hooks = [
            layer.register_forward_hook(partial(self._add, number))
            for number, layer in enumerate(layers)
        ]

    @contextmanager
    def applied(
        self, copies: tuple[Copy, ...], sample_BL: Tensor, position_BL: Tensor, step: int
    ) -> Iterator[None]:
        """Add noise to every layer's output inside; the batch must hold the rows once per copy.

        Run the backward pass inside too, as with `NoisyEmbedding.applied`.

        Shapes: sample_BL and position_BL (B, L) of one copy, as `draw_noise` takes them.
        """
        if self.config.alpha and any(copy.sign for copy in copies):
            self._places = (copies, sample_BL, position_BL, step)
        try:
            yield
        finally:
            self._places = None

    def _add(self, number: int, _layer: nn.Module, _inputs: object, output: Any) -> Any:
        if self._places is None:
            return None
        if isinstance(output, tuple):
            return (self._noised(number, output[0]), *output[1:])
        return self._noised(number, output)

    def _noised(self, number: int, hidden_BLD: Tensor) -> Tensor:
        """The output of a layer, of all copies, with its noise."""
        assert self._places is not None
        copies, sample_BL, position_BL, step = self._places
        fine = torch.promote_types(hidden_BLD.dtype, torch.float32)
        width = hidden_BLD.shape[-1]
        noises = [self._noise(number, copy, width, sample_BL, position_BL, step) for copy in copies]
        wide_BLD = hidden_BLD.to(fine)
        spread_BL1 = wide_BLD.detach().std(-1, keepdim=True, correction=0)
        noise_BLD = torch.cat(noises).to(fine) * strength(self.config)
        return torch.addcmul(wide_BLD, noise_BLD, spread_BL1).to(hidden_BLD.dtype)

    def _noise(
        self, number: int, copy: Copy, width: int, sample_BL: Tensor, position_BL: Tensor, step: int
    ) -> Tensor:
        """The signed components of one copy, 0 on padding; shape (B, L, D)."""
        draw = copy.draw * _DRAWS_PER_COPY + number
        place = (sample_BL, position_BL, step, draw)
        noise_BLD = components(*place, width, self.config.type, self.seed)
        return torch.where(sample_BL[..., None] >= 0, copy.sign * noise_BLD, 0.0)

    def remove(self) -> None:
        """Detach from the model."""
        for hook in self._hooks:
            hook.remove()
