"""The table of noise types: a row has a law (distribution) and the copies of the batch.

Everything that checks, forecasts, trains or reports noise types reads this table, which needs no
torch. A new noise type is one row of `NOISES`. A new law also needs a function in
`embedding.DRAWS`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Protocol


class Law(NamedTuple):
    """Distribution of the components of e.

    `per_word` components come from one random word of 64 bits; `rms` is their root mean square.
    """

    name: str
    per_word: int
    rms: float


class Copy(NamedTuple):
    """One copy of the batch: the sign of its noise (0: clean), and its independent draw."""

    sign: float
    draw: int = 0


class Noise(NamedTuple):
    """A noise type: its law (None: it adds no noise), and the copies of the batch.

    The loss is the mean over the copies. Where it `compares`, it is that of the first copy, and how
    far the predictions of the other copies are from the first one's is added. The noise is added to
    the embeddings, or, `at_layers`, to what every layer hands on. Where it `ascends`, the signs of
    the loss's gradient take the place of the draw, and the rows pass once more to find them.
    """

    law: Law | None
    copies: tuple[Copy, ...]
    compares: bool = False
    at_layers: bool = False
    ascends: bool = False


class NoiseSettings(Protocol):
    """The settings of the noise; `config.NoiseConfig` documents them."""

    @property
    def type(self) -> str:
        """A row of `NOISES`."""

    @property
    def alpha(self) -> float | None:
        """Strength, dimensionless."""

    @property
    def scale(self) -> Literal["published", "matched"]:
        """Whether all laws have the norm of uniform noise."""

    @property
    def length(self) -> Literal["true", "padded"]:
        """By which length the noise is scaled."""

    @property
    def execution(self) -> Literal["sequential", "concat"]:
        """Whether the copies run one after the other or together."""

    @property
    def include_clean(self) -> bool:
        """Whether the rows without noise are one more copy."""

    @property
    def generator(self) -> Literal["counter", "torch"]:
        """Where the random numbers come from."""


RADEMACHER = Law("rademacher", 64, 1.0)
UNIFORM = Law("uniform", 2, 1 / math.sqrt(3))
GAUSSIAN = Law("gaussian", 2, 1.0)

_PLAIN = (Copy(+1),)
_PAIR = (Copy(+1), Copy(-1))

NOISES: dict[str, Noise] = {
    "none": Noise(None, _PLAIN),
    "neftune": Noise(UNIFORM, _PLAIN),
    "gaussian": Noise(GAUSSIAN, _PLAIN),
    "bernoulli": Noise(RADEMACHER, _PLAIN),
    "symnoise": Noise(RADEMACHER, _PAIR),
    "symuniform": Noise(UNIFORM, _PAIR),
    "symgaussian": Noise(GAUSSIAN, _PAIR),
    "independent": Noise(RADEMACHER, (Copy(+1, 0), Copy(+1, 1))),
    "duplicate": Noise(None, _PAIR),
    "r3f": Noise(UNIFORM, (Copy(0), Copy(+1)), compares=True),
    "hidden": Noise(GAUSSIAN, _PLAIN, at_layers=True),
    "adversarial": Noise(RADEMACHER, _PLAIN, ascends=True),
}


def adds_noise(noise_type: str) -> bool:
    """Whether a type adds noise; `none` and the control `duplicate` add none."""
    return NOISES[noise_type].law is not None


def is_paired(noise_type: str) -> bool:
    """Whether a type trains on several copies of every batch."""
    return noise_type in NOISES and len(NOISES[noise_type].copies) > 1


def compares(settings: NoiseSettings) -> bool:
    """Whether the loss compares the predictions of copies; at alpha 0 they are equal."""
    return NOISES[settings.type].compares and settings.alpha != 0


def num_ascents(settings: NoiseSettings) -> int:
    """Passes of every row in one optimizer step that find the noise, and train on nothing."""
    return int(NOISES[settings.type].ascends and settings.alpha != 0)


def only_adds(noise_type: str) -> bool:
    """Whether a type does nothing but add to the embeddings: its loss is that of plain training."""
    noise = NOISES[noise_type]
    return not (noise.compares or noise.at_layers or noise.ascends)


def passes(settings: NoiseSettings) -> list[tuple[Copy, ...]]:
    """Copies of the batch grouped by forward pass: one each, or all in one.

    Copies whose predictions are compared are always in one.
    At alpha 0 the copies of a pair are equal, so only one is trained on: loss and gradient are then
    those of `none`, bit for bit. `duplicate` is the control that trains on two equal copies.
    """
    copies = NOISES[settings.type].copies + (Copy(0),) * settings.include_clean
    if settings.alpha == 0:
        copies = _PLAIN
    together = settings.execution == "concat" or compares(settings)
    return [copies] if together else [(copy,) for copy in copies]


def num_copies(settings: NoiseSettings) -> int:
    """Copies of every row that one optimizer step trains on."""
    return sum(len(group) for group in passes(settings))


def num_passes(settings: NoiseSettings) -> int:
    """Passes of every row through the model in one optimizer step: what `compute_match` counts."""
    return num_copies(settings) + num_ascents(settings)


def num_averaged(settings: NoiseSettings) -> int:
    """Copies over which the cross-entropy is a mean: all, or the first where they are compared."""
    return 1 if compares(settings) else num_copies(settings)


def num_draws(group: tuple[Copy, ...]) -> int:
    """Number of noise tensors that one forward pass holds; copies with the same draw share one."""
    return len(group) if len({copy.draw for copy in group}) > 1 else 1
