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
    """Peak learning rate, above 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up. `cosine` and `linear` fall to 0."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Fraction of the steps, from 0 to below 1, in which the learning rate rises from 0 to its
    peak."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Decoupled weight decay of AdamW, at least 0; 0 has no effect."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of AdamW's two moments, each from 0 to below 1."""
    eps: float = Field(1e-8, gt=0, allow_inf_nan=False)
    """The number above 0 that AdamW adds to its denominator."""
    max_grad_norm: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Gradients are clipped to this L2 norm. 0 switches clipping off."""


class TrainConfig(Section):
    """How long a trial trains, in which pieces, and what it measures and saves on the way."""

    num_epochs: float = Field(3.0, gt=0, allow_inf_nan=False)
    """Passes over the training rows, above 0; fractions are allowed."""
    max_steps: int | None = Field(None, ge=1)
    """Most optimizer steps. By default `num_epochs` alone decides."""
    compute_match: Literal["steps", "samples", "gpu_seconds"] = "steps"
    """What is equal for all noise types. `steps`: all take the same number of steps, so a pair
    needs twice the compute. `samples`: the same number of rows passes through the model, so a pair
    takes half the steps, and so does `adversarial`, whose noise takes a pass to find.
    `gpu_seconds`: all train about as long. A sweep measures before its first trial what a step
    takes with each kind of noise, and divides the steps by it."""
    step_cost: float | None = Field(None, gt=0, allow_inf_nan=False)
    """What an optimizer step of this trial takes, over one of plain fine-tuning; above 0. Only
    `compute_match: gpu_seconds` uses it. A sweep measures it and does not take it from its file; a
    single trial needs it."""
    global_batch_size: int = Field(128, ge=1)
    """Rows per optimizer step over all workers, a multiple of their number. The copies of a row
    count once."""
    micro_batch_size: int = Field(16, ge=1)
    """Most rows per forward pass of one worker; with packing, most lines. It changes memory and
    speed, and the gradient by rounding alone. With `model.dtype: bf16` the passes of a step are
    added up in bf16, so many small ones round more. A file for `train.deepspeed` with
    `{"data_types": {"grad_accum_dtype": "fp32"}}` adds them up in fp32, at ZeRO stages 1 to 3."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Whether several short rows share one line of the batch. No row may see another, and no line
    is longer than the longest row. `auto` packs if a test pass shows that the model keeps the rows
    of a line apart; `on` stops with an error if it does not; `off` never packs."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the order of the rows, of the noise and of dropout, from 0."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """Stage of DeepSpeed ZeRO. 0: every worker holds everything. 1: the workers share the optimizer
    states. 2: the gradients too. 3: the weights too."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in the CPU's memory: `none`; the `optimizer` states, for ZeRO stages 1 to 3; or
    `all`, the weights too, for stage 3."""
    gradient_checkpointing: bool = False
    """Compute each layer's activations a second time in the backward pass, which needs less memory
    and more time."""
    compile: bool = False
    """Compile each layer with torch.compile for training. The workers need a C++ compiler."""
    deepspeed: str | None = None
    """Further DeepSpeed settings: a JSON file, or its text. A key that other settings of the trial
    decide may stand in it with the same value or as "auto" only. The content becomes part of the
    trial."""
    num_evals: int = Field(4, ge=1)
    """How often the clean loss is measured: before the first step, and so many times evenly over
    the steps, the last step included."""
    num_clean_rows: int = Field(32, ge=1)
    """Number of training rows on which the clean loss (without noise) is measured. They are drawn
    with a fixed seed, so they are the same in all trials."""
    probe_alpha: float = Field(5.0, ge=0, allow_inf_nan=False)
    """Strength of the noise with which the curvature of the loss is measured on the same rows; it
    is sign noise for every noise type. 0 measures no curvature, and saves two thirds of the time of
    an evaluation."""
    checkpoint_minutes: float = Field(10.0, ge=0, allow_inf_nan=False)
    """Minutes between two checkpoints, which is the most training that a lost worker costs. 0
    writes no checkpoints."""
    save_model: bool = False
    """Save the fine-tuned model as a Hugging Face folder beside the results."""

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
