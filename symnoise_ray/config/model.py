"""The model that is fine-tuned, and the adapters that are trained in place of its weights."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit by all its digits: a branch or a tag could be moved to other code."""


class ModelConfig(Section):
    """Which causal language model is fine-tuned."""

    name: str = "demo"
    """Name of a model on the Hugging Face hub, a folder with a model, or `demo`, the tiny LLaMA
    that comes with the package."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; by default the branch `main`. Remote code needs
    a commit of 40 digits."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of the weights and activations. With `bf16` the optimizer keeps a copy of the weights
    in fp32."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Implementation of attention. A model without `sdpa` gets `eager`, and a line says so.
    `flash_attention_2` needs the package flash-attn, a GPU and `dtype: bf16`."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the model. `revision` must then be a commit, which holds
    for code that the model takes from another repository as well."""

    @model_validator(mode="after")
    def _flash_attention_has_its_type(self) -> Self:
        if self.attention == "flash_attention_2" and self.dtype != "bf16":
            raise ValueError(
                f"model.attention=flash_attention_2 needs model.dtype=bf16, but got {self.dtype}"
            )
        return self

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        pinned = self.revision is not None and COMMIT.fullmatch(self.revision)
        if self.trust_remote_code and not pinned:
            raise ValueError(
                "model.trust_remote_code needs model.revision to be a 40-digit commit, "
                f"but got revision={self.revision!r}"
            )
        return self


class LoraConfig(Section):
    """Low-rank adapters (arXiv 2106.09685). Without a `rank` all weights are trained."""

    rank: int | None = Field(None, ge=1)
    """Rank of the update of each adapted layer. Null trains all weights and uses no adapters."""
    alpha: float = Field(16.0, gt=0, allow_inf_nan=False)
    """The update of a layer is multiplied by alpha/rank; above 0."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability with which a component of an adapter's input is set to 0 in training; from 0 to
    below 1."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get an adapter, such as `[q_proj, v_proj]`; or `all-linear`,
    every linear layer except the output head."""
    merge: bool = True
    """Whether a saved model has the adapters merged into its weights. False saves the adapter
    alone."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` stores the frozen weights in 4 bits (QLoRA, arXiv 2305.14314). It needs a GPU, the
    extra `qlora` and `merge: false`."""

    @model_validator(mode="after")
    def _adapters_are_asked_for(self) -> Self:
        if self.target_modules == ():
            raise ValueError("lora.target_modules must name a layer, but is empty")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if self.rank is None and value != field.default:
                raise ValueError(
                    f"lora.{name} has no meaning without lora.rank, but got {value!r}; give a rank "
                    "or leave it out"
                )
        if self.quantize != "none" and self.merge:
            raise ValueError(
                f"lora.quantize={self.quantize} needs lora.merge=false, but got true: weights of "
                "4 bits cannot take an update; save the adapter alone"
            )
        return self
