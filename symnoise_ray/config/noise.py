"""The noise: law, pairing, strength, execution."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from symnoise_ray.config.section import Section
from symnoise_ray.noise.types import NOISES, adds_noise


class _RowsOfTheTable:
    """The JSON Schema of a noise type lists the rows that the table has when it is written."""

    def __get_pydantic_json_schema__(self, _core: Any, _handler: Any) -> dict[str, Any]:
        return {"enum": list(NOISES), "type": "string"}


def _known_type(name: str) -> str:
    if name not in NOISES:
        first, last = ", ".join(map(repr, list(NOISES)[:-1])), repr(list(NOISES)[-1])
        raise PydanticCustomError(
            "noise_type", "Input should be {known}", {"known": f"{first} or {last}"}
        )
    return name


NoiseType = Annotated[str, AfterValidator(_known_type), _RowsOfTheTable()]
"""A row of the table of noise types."""


class NoiseConfig(Section):
    """The noise that is added to the token embeddings in training, as the papers define it."""

    type: NoiseType = "none"
    """Law and pairing of the noise; `symnoise` trains on x+e and x-e with one shared e."""
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Strength, dimensionless: a row of L tokens of width d gets noise of size
    alpha/sqrt(L*d). Required by every type that adds noise, refused by the others."""
    scale: Literal["published", "matched"] = "published"
    """`published`: each law as its paper scales it; `matched`: all laws have the RMS norm
    alpha/sqrt(3) per row that uniform noise has."""
    length: Literal["true", "padded"] = "true"
    """L in the scale: the row's real tokens (the NEFTune paper's code), or the length of the padded
    or packed line with noise on the padding too (the Hugging Face hook)."""
    execution: Literal["sequential", "concat"] = "sequential"
    """How the copies of a pair run: one after the other (half the memory) or as one batch."""
    include_clean: bool = False
    """Train on the clean rows as well, as one more copy of the batch (3B rows for a pair)."""
    generator: Literal["counter", "torch"] = "counter"
    """`counter`: a function of seed, step, sample and position alone; `torch`: torch's own stream,
    drawn as the Hugging Face hook draws, for `neftune` with `length: padded` only."""

    @model_validator(mode="before")
    @classmethod
    def _uniform_is_neftune(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("type") == "uniform":
            return {**values, "type": "neftune"}
        return values

    @model_validator(mode="after")
    def _alpha_belongs_to_noise(self) -> Self:
        noisy = adds_noise(self.type)
        if not noisy and self.alpha is not None:
            raise ValueError(
                f"noise.alpha has no meaning for noise.type={self.type}, but got "
                f"noise.alpha={self.alpha:g}; leave it out, or vary it under a `when:`"
            )
        if noisy and self.alpha is None:
            raise ValueError(f"noise.alpha must be given for noise.type={self.type}")
        return self

    @model_validator(mode="after")
    def _torch_draws_like_the_hook(self) -> Self:
        if self.generator == "torch" and (self.type, self.length) != ("neftune", "padded"):
            raise ValueError(
                "noise.generator=torch copies the Hugging Face hook, so it needs "
                "noise.type=neftune and noise.length=padded, but got "
                f"noise.type={self.type} and noise.length={self.length}"
            )
        return self

    @model_validator(mode="after")
    def _clean_rows_join_noisy_ones(self) -> Self:
        if self.include_clean and self.type == "none":
            raise ValueError(
                "noise.include_clean adds clean rows to noisy ones, so it has no meaning for "
                "noise.type=none; leave it out, or vary it under a `when:`"
            )
        return self
