"""The model that is fine-tuned, and whether all of it is."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section


class ModelConfig(Section):
    """Which causal language model is fine-tuned."""

    name: str = "demo"
    """A Hugging Face model name, a folder, or `demo` (the embedded tiny LLaMA)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; a 40-digit commit is required for remote code."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of weights and activations; bf16 keeps fp32 master weights in the optimizer."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Implementation of attention; `flash_attention_2` needs its package, a GPU and bf16."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; only with a pinned revision."""

    @model_validator(mode="after")
    def _flash_attention_has_its_type(self) -> Self:
        if self.attention == "flash_attention_2" and self.dtype != "bf16":
            raise ValueError(
                f"model.attention=flash_attention_2 needs model.dtype=bf16, but got {self.dtype}"
            )
        return self

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        pinned = self.revision is not None and len(self.revision) == 40
        if self.trust_remote_code and not pinned:
            raise ValueError(
                "model.trust_remote_code needs model.revision to be a 40-digit commit, "
                f"but got revision={self.revision!r}"
            )
        return self


class LoraConfig(Section):
    """Low-rank adapters (arXiv 2106.09685); all weights are trained when `rank` is null."""

    rank: int | None = Field(None, ge=1)
    """Rank of the update of each adapted layer; null trains all weights."""
    alpha: float = Field(16.0, gt=0, allow_inf_nan=False)
    """The update is scaled by alpha/rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on an adapter's input."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that are adapted (`[q_proj, v_proj]`), or `all-linear`: every one
    but the output head."""
    merge: bool = True
    """A saved model has the adapters merged into its weights; false saves the adapter alone."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` keeps the frozen weights in 4 bits (QLoRA, arXiv 2305.14314); needs a GPU and the
    extra `qlora`."""

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
