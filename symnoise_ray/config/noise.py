"""The noise: its distribution, the copies of the batch, its strength and its execution."""

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
"""The name of a row of the table of noise types."""


class NoiseConfig(Section):
    """The noise that training adds to the token embeddings or, as `hidden`, to hidden states."""

    type: NoiseType = "none"
    """Distribution of the noise, and the copies of the batch that are trained on. `none` is plain
    fine-tuning. `symnoise` trains on x+e and x-e with the same e. `r3f` trains on x, and draws the
    predictions at x+e to those at x. `hidden` adds Gaussian noise to what every layer hands on.
    `adversarial` takes the signs of the loss's gradient for e, which costs one more pass."""
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Strength of the noise, dimensionless, at least 0. The noise on a row of L tokens of width d
    is multiplied by alpha/sqrt(L*d); that of `hidden`, by alpha times the standard deviation of the
    token's hidden state. Types that add noise need it; the others refuse it."""
    scale: Literal["published", "matched"] = "published"
    """`published` scales every distribution as its paper does. `matched` gives all distributions
    the root mean square norm of uniform noise, alpha/sqrt(3) per row."""
    length: Literal["true", "padded"] = "true"
    """The length L by which the noise is scaled. `true` counts the row's tokens without padding, as
    the NEFTune paper's code does. `padded` takes the length of the padded or packed line, and adds
    noise to the padding too, as the hook of Hugging Face does."""
    execution: Literal["sequential", "concat"] = "sequential"
    """How the copies of a batch run: `sequential`, one after the other, which needs less memory; or
    `concat`, together as one larger batch."""
    include_clean: bool = False
    """Train on the rows without noise as well, as one more copy of the batch: a pair then has three
    copies."""
    kl_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight in the loss of how far noise moves the predictions, at least 0: the symmetric KL
    divergence per answer token. Only `r3f` has it; it always runs its two copies together."""
    generator: Literal["counter", "torch"] = "counter"
    """Where the random numbers come from. `counter` makes them a function of seed, step, sample and
    position alone. `torch` draws from torch's own stream as the hook of Hugging Face does; it works
    with `type: neftune` and `length: padded` only."""

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
    def _hidden_states_have_no_length(self) -> Self:
        if NOISES[self.type].at_layers and self.length != "true":
            raise ValueError(
                f"noise.length has no meaning for noise.type={self.type}, whose scale is that of "
                f"the hidden states, but got {self.length}; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _comparison_has_its_weight(self) -> Self:
        compared = NOISES[self.type].compares
        if compared and self.include_clean:
            raise ValueError(
                f"noise.include_clean has no meaning for noise.type={self.type}, which trains on "
                "the clean rows already; leave it out"
            )
        default = type(self).model_fields["kl_weight"].default
        if not compared and self.kl_weight != default:
            raise ValueError(
                f"noise.kl_weight has no meaning for noise.type={self.type}, which compares no "
                f"predictions, but got {self.kl_weight:g}; leave it out, or vary it under a `when:`"
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
