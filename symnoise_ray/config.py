"""What a trial and a sweep are: frozen, complete, strictly checked descriptions.

In: YAML 1.2 text and `key=value` overrides. Out: `TrialConfig` and `SweepConfig`.
What is not in a `TrialConfig` cannot change a trial's result. Unknown keys are refused with the
file, the line and the nearest name. Imports neither torch nor ray, so a check takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import re
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
RowField = Literal[
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "dataset",
]
"""Our names of what a row holds."""
TEMPLATE_NAMES = ("auto", "alpaca", "vicuna", "short", "tokenizer")
ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


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


class DataConfig(Section):
    """What is trained on, and the prompts that are answered and judged."""

    train: str | tuple[str, ...] | dict[str, float] = "demo"
    """Training rows: a JSON, JSONL or Parquet file, a folder of them, a Hugging Face data set (its
    name, or a folder it was saved to), `alpaca`, `evol-instruct`, `sharegpt` or `open-platypus`
    (the paper's data sets), or `demo`. Several sources: a list, or a mapping of source to weight.
    A weight is how often a source's rows are seen per epoch: 2 is every row twice, 0.5 a half that
    is drawn once and stays the same in all epochs and trials."""
    fields: dict[RowField, str] = {}
    """Columns of the training rows where they are none of the known shapes: our name -> theirs,
    such as `{instruction: question, output: answer}`; other columns are not looked at."""
    prompt_fields: dict[RowField, str] = {}
    """The same for `eval_prompts` and `confirm_prompts`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What a row that breaks a rule does: it ends everything, told with file and row, or it is
    left out and counted by reason."""
    eval_prompts: str | None = None
    """Rows whose prompts are answered and judged in the search; the demo's own by default."""
    confirm_prompts: str | None = None
    """Rows kept for the confirmation; by default the demo's own. `held_back` (what a sweep that
    confirms sets when there are none) keeps a seeded half of `eval_prompts` for it."""
    prompts: Literal["eval", "confirm"] = "eval"
    """Which of the two prompt sets this trial answers."""
    template: str = "auto"
    """Prompt text around a row: `alpaca`, `vicuna`, `short` (Alpaca's without the preamble),
    `tokenizer` (the tokenizer's own chat template), or a YAML file with `request`,
    `request_with_input`, `preamble` and `preamble_with_input`, where `{request}` and `{input}`
    stand for the row's; `auto` is `short` for the demo, else `alpaca` for instruction rows and
    `vicuna` for conversations."""
    max_length: int | None = Field(None, ge=8)
    """Tokens per row at most; longer rows are cut at the end. By default 512, or the model's
    context where that is shorter; more than the context is refused."""
    max_train_rows: int | None = Field(None, ge=1)
    """Use only the first so many usable training rows of every source."""
    max_eval_prompts: int | None = Field(None, ge=1)
    """Use only the first so many prompts of each prompt set."""
    texts: str | None = None
    """Plain texts, to see what fine-tuning forgets: a source of strings, or of rows with `text`, on
    which the loss per token is measured beside the clean loss."""
    num_texts: int = Field(64, ge=1)
    """Use only the first so many plain texts."""
    overlap_ngram: int = Field(13, ge=0)
    """Words in a row that a training row may not share with a judged prompt without being counted
    as overlapping; a request that is a whole prompt always is. 0 does not look."""
    drop_overlap: bool = False
    """Leave overlapping training rows out."""

    def __hash__(self) -> int:
        """Equal settings have equal hashes; Python has none for mappings."""
        return hash(json.dumps(self.model_dump(), sort_keys=True))

    @field_validator("train", mode="before")
    @classmethod
    def _sources_are_named(cls, train: Any) -> Any:
        names = [train] if isinstance(train, str) else train
        sound = isinstance(names, list | tuple | dict) and all(
            isinstance(name, str) and name for name in names
        )
        if not sound or not names or len(set(names)) < len(names):
            raise ValueError(
                "must be a source, a list of sources, or a mapping of source to weight, each "
                f"named once, but got {train!r}"
            )
        for name, weight in train.items() if isinstance(train, dict) else ():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name} must be a number > 0, but got {weight!r}")
        return train

    @field_validator("template")
    @classmethod
    def _template_is_known(cls, template: str) -> str:
        if template not in TEMPLATE_NAMES and not template.endswith((".yaml", ".yml")):
            raise ValueError(
                f"must be one of {', '.join(TEMPLATE_NAMES)}, or a file that ends in "
                f".yaml, but got {template!r}"
            )
        return template

    @model_validator(mode="after")
    def _overlap_can_be_seen(self) -> Self:
        if self.drop_overlap and not self.overlap_ngram:
            raise ValueError("data.drop_overlap needs data.overlap_ngram >= 1, but got 0")
        return self

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
    """How a fine-tuned model answers the prompts: greedily, or by sampling."""

    max_new_tokens: int = Field(128, ge=1)
    """Tokens per answer at most."""
    batch_size: int = Field(32, ge=1)
    """Prompts decoded together on one worker."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Logits of tokens that were read or written are divided by this (negative ones multiplied);
    1 is none. The preset of the NEFTune and SymNoise papers is greedy with 1.2."""
    temperature: float = Field(0.0, ge=0, le=10)
    """0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature)."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Tokens are drawn from the likeliest ones that have this probability together; 1 is all."""
    seed: int = Field(0, ge=0, lt=2**32)
    """What is drawn depends on this and the prompt's number alone, not on batches or workers."""

    @model_validator(mode="after")
    def _sampling_is_asked_for(self) -> Self:
        for name, default in (("top_p", 1.0), ("seed", 0)):
            value = getattr(self, name)
            if self.temperature == 0 and value != default:
                raise ValueError(
                    f"generate.{name} has no meaning for generate.temperature=0 (greedy), but got "
                    f"{value}; give a temperature or leave it out"
                )
        return self


def judge_types(name: str) -> tuple[str, ...]:
    """Judges that a setting of `JudgeConfig` means something for."""
    if name in ("type", "reference", "min_coverage", "cache", "self_check", "early"):
        return ("reference", "api", "local")
    if name in ("model", "revision", "prompt"):
        return ("api", "local")
    return ("local",) if name in ("dtype", "batch_size", "max_length") else ("api",)


class JudgeConfig(Section):
    """Who says which of two answers is better, and against what."""

    type: Literal["reference", "api", "local"] = "reference"
    """`reference`: the answer nearer to the gold answer wins; deterministic and offline. `api`: a
    model behind an OpenAI-compatible endpoint. `local`: a Hugging Face model in this process."""
    reference: str = "baseline"
    """`baseline` (the plain fine-tuned trial of this sweep) or a file of AlpacaEval model
    outputs."""
    model: str | None = None
    """The judging model: its name at the endpoint (`api`), or a Hugging Face name or folder
    (`local`)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model (`local`), or your own word for what the endpoint serves
    (`api`); a new one means new verdicts."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Type of a local judge's weights."""
    batch_size: int = Field(16, ge=1)
    """Items that a local judge reads together, each in both orders."""
    max_length: int = Field(4096, ge=64)
    """Tokens of a local judge's prompt at most; a longer one is a failed verdict."""
    prompt: str = "pairwise"
    """What the judge is asked: `pairwise`, or a YAML file with `system`, `user` and `labels`, where
    `{instruction}`, `{first}` and `{second}` stand for JSON strings."""
    verdict: Literal["auto", "logprobs", "text"] = "auto"
    """How an endpoint's verdict is read: from the log-probabilities of the two labels, from the
    text, or `auto`: the former where the endpoint gives them."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Sampling temperature at the endpoint."""
    max_new_tokens: int = Field(8, ge=1)
    """Tokens that the endpoint may answer with."""
    base_url: str = "https://api.openai.com/v1"
    """The endpoint."""
    api_key_env: str | None = None
    """NAME of the environment variable that holds the key; the key itself never stands here."""
    api_key_file: str | None = None
    """File that holds the key, in place of a variable; an endpoint without keys needs neither."""
    concurrency: int = Field(8, ge=1, le=256)
    """Calls on their way to the endpoint at once, per trial that is being judged."""
    requests_per_minute: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Calls per minute at most, per trial that is being judged."""
    tokens_per_minute: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Tokens per minute at most, in and out, per trial that is being judged."""
    timeout_seconds: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds within which a call must be answered whole."""
    max_retries: int = Field(5, ge=0)
    """How often a call that failed, or brought no verdict, is made again."""
    retry_seconds: float = Field(1.0, gt=0, allow_inf_nan=False)
    """First wait before a retry, doubled each time and spread at random by up to its half; an
    endpoint's Retry-After goes before it."""
    max_wait_seconds: float = Field(120.0, gt=0, allow_inf_nan=False)
    """Longest wait before a retry; an endpoint that asks for more has failed."""
    max_calls: int | None = Field(None, ge=1)
    """Budget of the sweep: calls at most, retries counted."""
    max_total_tokens: int | None = Field(None, ge=1)
    """Budget of the sweep: tokens at most, in and out."""
    max_cost: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Budget of the sweep: money at most, in the currency of the two prices."""
    price_input: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Price of a million tokens read by the endpoint."""
    price_output: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Price of a million tokens written by the endpoint."""
    min_coverage: float = Field(0.95, gt=0, le=1)
    """Fraction of the items that must have verdicts in both orders; below it a trial is invalid."""
    cache: str = "verdicts"
    """Folder of the verdicts that were given, so that none is asked for twice; a relative path
    starts where the sweep directories lie."""
    self_check: bool = True
    """Try the judge on planted pairs before the first trial, and refuse one that fails."""
    early: bool = False
    """Judge a searched trial's prompts in a random order and stop once it is decided, with 5 %
    error, on which side of 50 % the whole set lies; the confirmation always judges all of it."""

    @model_validator(mode="after")
    def _keys_belong_to_the_type(self) -> Self:
        for name, field in type(self).model_fields.items():
            owners = judge_types(name)
            if self.type not in owners and getattr(self, name) != field.default:
                raise ValueError(
                    f"judge.{name} belongs to judge.type={' or '.join(owners)}, but got "
                    f"judge.type={self.type}"
                )
        if self.type != "reference" and not self.model:
            raise ValueError(f"judge.model must be given for judge.type={self.type}")
        return self

    @model_validator(mode="after")
    def _the_key_is_not_here(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("judge.api_key_env and judge.api_key_file exclude each other")
        if self.api_key_env is not None and not ENVIRONMENT_NAME.fullmatch(self.api_key_env):
            # The value is not shown: it may be the key.
            raise ValueError(
                "judge.api_key_env must be the NAME of an environment variable, such as "
                "OPENAI_API_KEY, never the key itself"
            )
        if not self.base_url.startswith(("http://", "https://")) or "@" in self.base_url:
            raise ValueError("judge.base_url must be http(s)://host/path without user or password")
        if self.max_cost is not None and not self.price_input + self.price_output:
            raise ValueError("judge.max_cost needs judge.price_input and judge.price_output")
        return self


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
            "zero_optimization.offload_param.device": fixed(
                offload, on_cpu[train.offload == "all"]
            ),
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
    contrasts: tuple[tuple[NoiseType, NoiseType], ...] = ()
    """Pairs of noise types whose win rates over plain fine-tuning are compared with each other,
    such as `[[symnoise, independent]]`; both are confirmed whatever `top_k` says."""

    @model_validator(mode="after")
    def _contrasts_can_be_made(self) -> Self:
        if self.contrasts and not self.top_k:
            raise ValueError("confirm.contrasts needs confirm.top_k >= 1, but got 0")
        for one, other in self.contrasts:
            if one == other or "none" in (one, other):
                raise ValueError(
                    "confirm.contrasts must name two different noise types, plain fine-tuning not "
                    f"among them, but got [{one}, {other}]"
                )
        return self


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
