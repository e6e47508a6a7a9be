"""The optimizer, and how long and in which pieces a trial trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from symnoise_ray.config import deepspeed_json
from symnoise_ray.config.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Section):
    """AdamW and its learning-rate schedule."""

    lr: float = Field(5e-5, gt=0, allow_inf_nan=False)
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up; cosine and linear end at 0."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Fraction of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Decoupled weight decay."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    eps: float = Field(1e-8, gt=0, allow_inf_nan=False)
    """AdamW's denominator offset."""
    max_grad_norm: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Gradients are clipped to this L2 norm; 0 switches clipping off."""


class TrainConfig(Section):
    """How long and in which pieces a trial trains."""

    num_epochs: float = Field(3.0, gt=0, allow_inf_nan=False)
    """Passes over the training rows."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps at most, whatever `num_epochs` says."""
    compute_match: Literal["steps", "samples"] = "steps"
    """What all noise types get alike: `steps`, so that a pair pays twice the compute, or `samples`
    (rows that pass through the model), so that a pair takes half the steps."""
    global_batch_size: int = Field(128, ge=1)
    """Rows per optimizer step over all workers; the copies of a pair count once."""
    micro_batch_size: int = Field(16, ge=1)
    """Rows (packed: lines) per forward pass and worker; changes memory and speed, not the
    gradient."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Several short rows in one line no longer than the longest row, none seeing another: `auto`
    packs where a trial forward pass shows that the model keeps them apart."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of data order, noise and dropout."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 0 replicates, 1 shards optimizer states, 2 gradients too, 3 weights too."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Keep in the CPU's memory: the `optimizer` states (ZeRO 1-3), or `all`, the weights too
    (ZeRO 3)."""
    gradient_checkpointing: bool = False
    """Recompute each layer's activations in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile each layer with torch.compile for training; needs a C++ compiler on the workers."""
    deepspeed: str | None = None
    """Further DeepSpeed settings: a JSON file or its text. What this trial decides itself may
    stand there only with the same value or as "auto"; the content becomes part of the trial."""
    num_evals: int = Field(4, ge=1)
    """How often the clean loss is measured, evenly over the steps, the last step included; it is
    measured once more before the first."""
    num_clean_rows: int = Field(32, ge=1)
    """Training rows, drawn once by seed, on which the clean (noise-free) loss is measured."""
    probe_alpha: float = Field(5.0, ge=0, allow_inf_nan=False)
    """Strength of the sign noise with which the curvature of the loss is measured on the same rows,
    alike for every noise type; 0 measures none and saves two thirds of the time."""
    checkpoint_minutes: float = Field(10.0, ge=0, allow_inf_nan=False)
    """How much training a lost worker may cost: a checkpoint is written so often; 0 writes none."""
    save_model: bool = False
    """Keep the fine-tuned weights as a Hugging Face folder beside the results."""

    @field_validator("deepspeed", mode="before")
    @classmethod
    def _deepspeed_is_read(cls, value: Any) -> Any:
        return None if value is None else deepspeed_json.canonical(value)

    @model_validator(mode="after")
    def _sharding_allows_the_rest(self) -> Self:
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError(
                "train.offload=optimizer needs train.zero_stage to be 1, 2 or 3, but got 0"
            )
        if self.offload == "all" and self.zero_stage != 3:
            raise ValueError(
                f"train.offload=all needs train.zero_stage=3, but got {self.zero_stage}"
            )
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "train.compile=true needs train.zero_stage to be 0, 1 or 2, but got 3, which "
                "gathers the weights of a layer while it runs"
            )
        return self
