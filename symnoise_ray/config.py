"""What a trial and a sweep are: frozen, complete, strictly checked descriptions.

In: YAML 1.2 text and `key=value` overrides. Out: `TrialConfig` and `SweepConfig`.
What is not in a `TrialConfig` cannot change a trial's result. Unknown keys are refused with the
file, the line and the nearest name. Imports neither torch nor ray, so a check takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from symnoise_ray import deepspeed_json

NoiseType = Literal[
    "none",
    "neftune",
    "gaussian",
    "bernoulli",
    "symnoise",
    "symuniform",
    "symgaussian",
    "independent",
    "duplicate",
]
NOISELESS = ("none", "duplicate")
"""Types that add nothing, so an alpha would have no meaning."""

Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python would take true for 1 where a number is due."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and "bool" not in str(field.annotation):
            raise ValueError(f"must be a number or text, but got {value}")
        return value


class ModelConfig(Section):
    """Which causal language model is fine-tuned."""

    name: str = "demo"
    """A Hugging Face model name, a folder, or `demo` (the embedded tiny LLaMA)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; a 40-digit commit is required for remote code."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of weights and activations; bf16 keeps fp32 master weights in the optimizer."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; only with a pinned revision."""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        pinned = self.revision is not None and len(self.revision) == 40
        if self.trust_remote_code and not pinned:
            raise ValueError(
                "model.trust_remote_code needs model.revision to be a 40-digit commit, "
                f"but got revision={self.revision!r}"
            )
        return self


class DataConfig(Section):
    """What is trained on, and the prompts that are answered and judged."""

    train: str = "demo"
    """Training rows: a JSON or JSONL file (Alpaca rows or chat messages), a Hugging Face data
    set name, or `demo`."""
    eval_prompts: str | None = None
    """Rows whose prompts are answered and judged in the search; the demo's own by default."""
    confirm_prompts: str | None = None
    """Rows kept for the confirmation; by default the demo's own. `held_back` (what a sweep that
    confirms sets when there are none) keeps a seeded half of `eval_prompts` for it."""
    prompts: Literal["eval", "confirm"] = "eval"
    """Which of the two prompt sets this trial answers."""
    template: Literal["auto", "alpaca", "vicuna", "short"] = "auto"
    """Prompt text around a row; `auto` is `short` for the demo, else `alpaca` for instruction
    rows and `vicuna` for conversations."""
    max_length: int = Field(512, ge=8)
    """Tokens per row at most; longer rows are cut at the end."""
    max_train_rows: int | None = Field(None, ge=1)
    """Use only the first so many training rows."""
    max_eval_prompts: int | None = Field(None, ge=1)
    """Use only the first so many prompts of each prompt set."""

    @model_validator(mode="after")
    def _prompts_are_known(self) -> Self:
        if self.train != "demo" and self.eval_prompts is None:
            raise ValueError(
                "data.eval_prompts must be given when data.train is not 'demo', "
                f"but got data.train={self.train!r} alone"
            )
        return self


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
    """L in the scale: the row's real tokens (the NEFTune paper's code), or the padded length with
    noise on the padding too (the Hugging Face hook)."""
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
        if self.type in NOISELESS and self.alpha is not None:
            raise ValueError(
                f"noise.alpha has no meaning for noise.type={self.type}, but got "
                f"noise.alpha={self.alpha:g}; leave it out, or vary it under a `when:`"
            )
        if self.type not in NOISELESS and self.alpha is None:
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
    global_batch_size: int = Field(128, ge=1)
    """Rows per optimizer step over all workers; the copies of a pair count once."""
    micro_batch_size: int = Field(16, ge=1)
    """Rows per forward pass and worker; changes memory and speed, not the gradient."""
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


class GenerateConfig(Section):
    """How a fine-tuned model answers the prompts (greedy decoding)."""

    max_new_tokens: int = Field(128, ge=1)
    """Tokens per answer at most."""
    batch_size: int = Field(32, ge=1)
    """Prompts decoded together on one worker."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """1 is none; the NEFTune paper decodes with 1.2."""


class JudgeConfig(Section):
    """Who says which of two answers is better, and against what."""

    type: Literal["reference"] = "reference"
    """`reference`: the answer nearer to the gold answer wins; deterministic and offline."""
    reference: str = "baseline"
    """`baseline` (the plain fine-tuned trial of this sweep) or a file of AlpacaEval model
    outputs."""


class TrialConfig(Section):
    """Everything that can change a trial's result."""

    model: ModelConfig = ModelConfig()
    """The model that is fine-tuned."""
    data: DataConfig = DataConfig()
    """Training rows and prompts."""
    noise: NoiseConfig = NoiseConfig()
    """Embedding noise."""
    optim: OptimConfig = OptimConfig()
    """Optimizer."""
    train: TrainConfig = TrainConfig()
    """Steps, batches, seed, sharding."""
    lora: LoraConfig = LoraConfig()
    """Low-rank adapters."""
    generate: GenerateConfig = GenerateConfig()
    """Decoding."""
    judge: JudgeConfig = JudgeConfig()
    """Judge."""

    @model_validator(mode="after")
    def _weights_can_be_sharded(self) -> Self:
        if self.lora.quantize != "none" and self.train.zero_stage == 3:
            raise ValueError(
                f"lora.quantize={self.lora.quantize} needs train.zero_stage to be 0, 1 or 2, but "
                "got 3, which cannot shard weights of 4 bits"
            )
        return self

    @model_validator(mode="after")
    def _deepspeed_file_agrees(self) -> Self:
        if self.train.deepspeed is not None:
            found = deepspeed_json.contradiction(self.train.deepspeed, self.deepspeed_keys())
            if found:
                raise ValueError(f"train.deepspeed: {found}")
        return self

    def deepspeed_keys(self) -> dict[str, deepspeed_json.Fixed]:
        """DeepSpeed's dotted keys that this trial decides, with their values."""
        train, optim = self.train, self.optim
        batch, micro_batch = train.global_batch_size, train.micro_batch_size
        follows = f"train.global_batch_size={batch} and train.micro_batch_size={micro_batch}"
        on_cpu = {True: "cpu", False: "none"}
        offload = f"train.offload={train.offload}"
        fixed = deepspeed_json.Fixed
        return {
            "train_batch_size": fixed(f"train.global_batch_size={batch}", batch),
            "train_micro_batch_size_per_gpu": fixed(
                f"train.micro_batch_size={micro_batch}", micro_batch
            ),
            "gradient_accumulation_steps": fixed(f"{follows}, from which it follows", None),
            "gradient_clipping": fixed(
                f"optim.max_grad_norm={optim.max_grad_norm:g}", optim.max_grad_norm
            ),
            "bf16.enabled": fixed(f"model.dtype={self.model.dtype}", self.model.dtype == "bf16"),
            "zero_optimization.stage": fixed(
                f"train.zero_stage={train.zero_stage}", train.zero_stage
            ),
            "zero_optimization.offload_optimizer.device": fixed(
                offload, on_cpu[train.offload != "none"]
            ),
            "zero_optimization.offload_param.device": fixed(offload, on_cpu[train.offload == "all"]),
            "optimizer.params.lr": fixed(f"optim.lr={optim.lr:g}", optim.lr),
            "optimizer.params.betas": fixed(f"optim.betas={list(optim.betas)}", list(optim.betas)),
            "optimizer.params.eps": fixed(f"optim.eps={optim.eps:g}", optim.eps),
            "optimizer.params.weight_decay": fixed(
                f"optim.weight_decay={optim.weight_decay:g}", optim.weight_decay
            ),
            "zero_allow_untested_optimizer": fixed("the optimizer, which is torch's AdamW", True),
            "zero_force_ds_cpu_optimizer": fixed("the optimizer, which is torch's AdamW", False),
        }

    def digest(self) -> str:
        """Hash of the resolved configuration, equal on every rank of a trial."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Parameter(Section):
    """One varied setting, in Optuna's words; both ends are inclusive."""

    type: Literal["float", "int", "categorical"]
    """Kind of distribution."""
    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Sample the logarithm uniformly."""
    step: float | None = Field(None, gt=0)
    """Distance between values; without it a float is continuous."""
    choices: tuple[bool | int | float | str | None, ...] | None = None
    """Values of a categorical parameter."""
    when: dict[str, tuple[Any, ...]] = {}
    """Other parameters -> values for which this one is sampled at all."""

    @model_validator(mode="after")
    def _range_is_sound(self) -> Self:
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("a categorical parameter needs a non-empty list of choices")
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("a categorical parameter takes choices, not low, high, step, log")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise ValueError("choices must differ from each other")
            return self
        if self.choices is not None:
            raise ValueError(f"choices belong to categorical, but type is {self.type}")
        if self.low is None or self.high is None:
            raise ValueError(f"a {self.type} parameter needs both low and high")
        if not self.low <= self.high:
            raise ValueError(f"low <= high must hold, but got low={self.low:g}, high={self.high:g}")
        numbers = (self.low, self.high, self.step or 1)
        if self.type == "int" and any(number != int(number) for number in numbers):
            raise ValueError("low, high and step of an int parameter must be whole numbers")
        if self.log and self.low <= 0:
            raise ValueError(f"low > 0 must hold when log is true, but got low={self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; choose one")
        return self


class SearchConfig(Section):
    """How the search proposes configurations."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`grid` tries every combination once and needs `step` or `choices` everywhere."""
    num_trials: int | None = Field(None, ge=0)
    """Trials beside the baselines; a grid's size by default, else required."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the sampler."""


class ConfirmConfig(Section):
    """Fresh seeds and fresh prompts for the best of the search, before anything is called best."""

    top_k: int = Field(0, ge=0)
    """Noise types confirmed, each by its best configuration; 0 confirms nothing."""
    num_seeds: int = Field(2, ge=1)
    """Fresh training seeds per confirmed configuration."""


class WorkersConfig(Section):
    """What one trial runs on, and how many trials run at once."""

    num_workers: int = Field(1, ge=1)
    """Ranks of one trial."""
    cpus_per_worker: int = Field(1, ge=1)
    """CPU cores of one rank; also its number of compute threads."""
    gpus_per_worker: int = Field(0, ge=0, le=1)
    """GPUs of one rank; 0 trains on the CPU over gloo."""
    max_slots: int | None = Field(None, ge=1)
    """Trials that train at once at most; by default as many as the cluster's resources hold."""
    start_minutes: float = Field(15.0, gt=0, allow_inf_nan=False)
    """Minutes within which the first worker group must be up, new machines included."""


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: str | None = None
    """MLflow tracking URI; by default a sqlite file beside the sweep directories."""
    experiment: str = "symnoise_ray"
    """MLflow experiment name."""


class SweepConfig(Section):
    """A sweep: what is held fixed, what is varied, what runs first, how it is judged at the end."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)
    """Name of the sweep and of its directory."""
    trial: dict[str, Any] = {}
    """Settings held fixed; what is left out keeps its default."""
    parameters: dict[str, Parameter] = {}
    """Dotted path into the trial -> how it is varied."""
    baselines: tuple[dict[str, Any], ...] = ()
    """Settings that run first, flagged as baselines."""
    search: SearchConfig = SearchConfig()
    """Sampler and number of trials."""
    confirm: ConfirmConfig = ConfirmConfig()
    """Confirmation of the best."""
    workers: WorkersConfig = WorkersConfig()
    """Resources."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
