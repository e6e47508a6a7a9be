"""What a trial or a sweep will need: steps, passes, memory, disk, arithmetic, judge calls.

In: a search space or a trial's file. Out: a `Plan` of `Forecast`s, trials that need the same in
one. Starts nothing and loads no weights; rows are read and tokenised where data and tokenizer lie
here, and what is not known is said, never guessed. Without the data, rows are as long as
`data.max_length` allows, so the memory forecast is an upper end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from symnoise_ray import demo
from symnoise_ray.config import DataConfig, ModelConfig, NoiseConfig, SweepConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.inputs import anchor_paths, model_source, row_limit
from symnoise_ray.loading import load_sweep, load_trial, read_yaml
from symnoise_ray.memory import GIB, Memory, Pass, disk, memory
from symnoise_ray.plans import SweepPlans, size_text
from symnoise_ray.prompts import choose_template
from symnoise_ray.rows import HELD_BACK, read_prompts, read_train
from symnoise_ray.shapes import ModelShape, read_shape
from symnoise_ray.space import Space, check_sweep, corners, describe, search_size
from symnoise_ray.tokens import tokenise, tokenise_prompt

QUESTION_TOKENS = 400
"""Assumption: tokens of what a judge is asked beside the prompt and the two answers."""


@dataclass(frozen=True)
class Options:
    """What the command is told beside the configuration.

    `num_rows` takes the place of the data, `model_config` that of the model; `num_workers` is for
    a trial's file; `gpu_memory` is in GiB; `teraflops` is what one worker reaches.
    """

    num_rows: int | None = None
    model_config: Path | None = None
    num_workers: int | None = None
    gpu_memory: float | None = None
    teraflops: float | None = None


@dataclass(frozen=True)
class Rows:
    """The training rows, as far as they are known; lengths are in tokens, after cutting."""

    num_rows: int | None
    num_tokens: int | None
    num_answer_tokens: int | None
    longest: int
    answer_share: float
    num_prompts: int | None
    longest_prompt: int
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """One trial's need. Sizes are in bytes; counts that cannot be known are None."""

    num_workers: int
    num_parameters: int
    num_trained: int
    num_steps: int | None
    rows: Rows
    copies: tuple[int, ...]
    micro_batches: int
    memory: Memory
    disk: dict[str, float]
    flops: float | None
    judge_calls: int | None
    judge_cost: float | None
    notes: tuple[str, ...]

    @property
    def passes_per_step(self) -> int:
        """Forward and backward passes of one worker per optimizer step, at most."""
        return self.micro_batches * len(self.copies)


@dataclass(frozen=True)
class Plan:
    """Forecasts with the names of the trials that each is for; `size` tells a sweep's trials."""

    name: str
    size: str | None
    num_trials: int
    options: Options
    forecasts: list[tuple[list[str], TrialConfig, Forecast]]


def plan(source: str, overrides: Sequence[str], options: Options) -> Plan:
    """Forecast every trial of a sweep that is known, or one trial.

    The searched trials are not known before they are drawn: both ends of every range and every
    choice stand for them.

    Raises:
        UserError: a setting, the data or the model cannot be used.
    """
    path = Path(source)
    if path.is_file() and not _is_space(path):
        config = load_trial(path, overrides)
        workers = options.num_workers or 1
        found = [(["trial"], config, forecast(config, workers, options))]
        return Plan(source, None, 1, options, found)
    if options.num_workers is not None:
        raise UserError("--workers is for a trial's file; a sweep has workers.num_workers")
    sweep, document = load_sweep(source, overrides)
    check_sweep(sweep, document)
    sweep = anchor_paths(sweep)
    groups: list[tuple[list[str], TrialConfig, Forecast]] = []
    for name, config in _trials(sweep):
        need = forecast(config, sweep.workers.num_workers, options)
        same = next((names for names, _, other in groups if other == need), None)
        if same is None:
            groups.append(([name], config, need))
        elif name not in same:
            same.append(name)
    confirm = sweep.confirm
    confirmed = (confirm.top_k + 1) * confirm.num_seeds if confirm.top_k else 0
    num_trials = len(sweep.baselines) + search_size(sweep) + confirmed
    return Plan(sweep.name, size_text(sweep), num_trials, options, groups)


def _is_space(path: Path) -> bool:
    """A search space has a name, a trial has none."""
    return "name" in read_yaml(path.read_text("utf-8", "replace"), str(path)).values


def _trials(sweep: SweepConfig) -> Iterator[tuple[str, TrialConfig]]:
    """The baselines, and the ends of the search space."""
    plans = SweepPlans(sweep, Path())
    for index, point in enumerate(sweep.baselines):
        trial = plans.search(index, point)
        yield trial.name, trial.config
    if sweep.parameters and search_size(sweep):
        for point in corners(Space(sweep.parameters)):
            config = plans.config(point)
            yield f"searched {describe(config).split()[0]}", config


def forecast(config: TrialConfig, num_workers: int, options: Options) -> Forecast:
    """What one trial needs on so many workers.

    Raises:
        UserError: the batch cannot be spread over the workers, or data or model cannot be used.
    """
    batch = config.train.global_batch_size
    if batch % num_workers:
        raise UserError(
            f"train.global_batch_size={batch} must be a multiple of the {num_workers} workers"
        )
    shape = read_model(config.model, options.model_config)
    rows = read_rows(config, shape, options.num_rows)
    copies = copies_by_pass(config.noise)
    steps = num_steps(config, rows.num_rows)
    return Forecast(
        num_workers=num_workers,
        num_parameters=shape.num_parameters,
        num_trained=shape.num_trained(config.lora),
        num_steps=steps,
        rows=rows,
        copies=copies,
        micro_batches=-(-(batch // num_workers) // config.train.micro_batch_size),
        memory=memory(
            shape, config, num_workers, largest_pass(config, rows, num_workers), rows.longest_prompt
        ),
        disk=disk(shape, config),
        flops=None if steps is None else flops(shape, config, rows, steps, sum(copies)),
        judge_calls=None if rows.num_prompts is None else 2 * rows.num_prompts,
        judge_cost=judge_cost(config, rows),
        notes=_notes(shape, config),
    )


@functools.lru_cache(maxsize=8)
def read_model(config: ModelConfig, model_config: Path | None) -> ModelShape:
    """A model's shape, read once per process; see `read_shape`."""
    return read_shape(config, model_config)


def copies_by_pass(noise: NoiseConfig) -> tuple[int, ...]:
    """Copies of the batch in each forward pass, as `noise.passes` groups them."""
    paired = ("symnoise", "symuniform", "symgaussian", "independent", "duplicate")
    number = (2 if noise.type in paired else 1) + noise.include_clean
    if noise.alpha == 0:
        number = 1
    return (number,) if noise.execution == "concat" else (1,) * number


def num_steps(config: TrialConfig, num_rows: int | None) -> int | None:
    """Optimizer steps, as `Batches.num_steps` counts them; None where the rows are unknown."""
    train = config.train
    if num_rows is None:
        return None
    steps = max(1, int(train.num_epochs * num_rows + 1e-6) // train.global_batch_size)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def largest_pass(config: TrialConfig, rows: Rows, num_workers: int) -> Pass:
    """The forward pass that holds the most: whole micro-batches of the longest row."""
    train, noise = config.train, config.noise
    lines = min(train.micro_batch_size, train.global_batch_size // num_workers)
    copies = max(copies_by_pass(noise))
    answers = min(rows.longest - 1, round(rows.longest * rows.answer_share))
    noisy = bool(noise.alpha) and noise.generator == "counter"
    # A pair shares one draw; copies with draws of their own are stacked, each with its noise.
    draws = copies if noise.type == "independent" and copies > 1 else 1
    return Pass(lines * copies, rows.longest, lines * copies * answers, lines * draws * noisy)


def flops(
    shape: ModelShape, config: TrialConfig, rows: Rows, steps: int, copies: int
) -> float | None:
    """Floating-point operations of training, over all workers; None where tokens are unknown.

    Per token 2 operations per weight forwards and 4 backwards (2 where the weights are frozen),
    and 2 again with checkpointing; attention adds 4 L D per layer and direction. After equation 3
    of arXiv 2205.05198, with the head on answer tokens only; padding and evaluation are left out.
    """
    if rows.num_rows is None or rows.num_tokens is None or rows.num_answer_tokens is None:
        return None
    seen = steps * config.train.global_batch_size / rows.num_rows * copies
    backward = 1 if config.lora.rank is not None else 2
    times = 1 + backward + config.train.gradient_checkpointing
    width, mean = shape.num_heads * shape.head_width, rows.num_tokens / rows.num_rows
    attention = 4 * shape.num_layers * width * mean * (3 + config.train.gradient_checkpointing)
    per_token = 2 * shape.num_linear * times + attention
    head = 2 * shape.vocab_size * shape.width * (1 + backward)
    return seen * (rows.num_tokens * per_token + rows.num_answer_tokens * head)


def judge_cost(config: TrialConfig, rows: Rows) -> float | None:
    """Money for an endpoint's verdicts on one trial, in the currency of its prices; None unknown.

    An upper end: prompts and answers as long as the longest may be, in the trained model's own
    tokens; retries are left out, and so are verdicts that are stored already, which cost nothing.
    """
    judge = config.judge
    if judge.type != "api" or not judge.price_input + judge.price_output:
        return None
    if rows.num_prompts is None:
        return None
    read = QUESTION_TOKENS + rows.longest_prompt + 2 * config.generate.max_new_tokens
    each = read * judge.price_input + judge.max_new_tokens * judge.price_output
    return 2 * rows.num_prompts * each / 1e6


def _notes(shape: ModelShape, config: TrialConfig) -> tuple[str, ...]:
    notes = []
    if shape.mixture:
        notes.append("a mixture of experts: activations are counted for one expert per token")
    if config.train.packing != "off":
        notes.append("packing makes fewer passes than these, which are without")
    if config.train.compile:
        notes.append("train.compile mostly lowers activations; it is not counted")
    if config.noise.generator == "torch":
        notes.append("noise from torch's generator is not held through a pass and not counted")
    return tuple(notes)


def read_rows(config: TrialConfig, shape: ModelShape, num_rows: int | None) -> Rows:
    """Numbers of the training rows and prompts, or why they are not known.

    Raises:
        DataError: data that is here is broken.
    """
    limit = row_limit(config.data, shape.context)
    nothing = Rows(num_rows, None, None, limit, 1.0, None, limit, ())
    if num_rows is not None:
        why = f"tokens: every row is taken as {limit} tokens, data not read"
        return replace(nothing, unknown=(why,))
    absent = [name for name in _sources(config.data) if not Path(name).exists()]
    if absent:
        why = f"rows: {absent[0]} is not a file or folder here (--rows gives their number)"
        return replace(nothing, unknown=(why,))
    tokenizer = model_source(config.model)
    if not any(Path(tokenizer).glob("tokenizer*")):
        counted = _counted(_data_alone(config.data))
        why = f"tokens: {tokenizer} has no tokenizer here, so every row is taken as {limit} tokens"
        return replace(nothing, num_rows=counted[0], num_prompts=counted[1], unknown=(why,))
    return _tokenised(_data_alone(config.data), config.model, limit)


def _sources(data: DataConfig) -> list[str]:
    named = [data.train] if isinstance(data.train, str) else list(data.train)
    given = [name for name in (data.eval_prompts, data.confirm_prompts) if name is not None]
    files = [str(demo.train_file()) if name == "demo" else name for name in named]
    return files + [name for name in given if name != HELD_BACK]


def _data_alone(data: DataConfig) -> DataConfig:
    """The same rows; overlap that only is counted need not be looked for."""
    return data if data.drop_overlap else data.model_copy(update={"overlap_ngram": 0})


@functools.lru_cache(maxsize=8)
def _counted(data: DataConfig) -> tuple[int, int]:
    return len(read_train(data).examples), len(
        read_prompts(data, data.prompts, gold=False).examples
    )


@functools.lru_cache(maxsize=8)
def _tokenised(data: DataConfig, model: ModelConfig, limit: int) -> Rows:
    import transformers  # two seconds, and only where there is a tokenizer

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            model_source(model), trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # it raises all kinds for what is not whole
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model.name={model.name}: must have a readable tokenizer, but {reason}"
        ) from None
    examples = read_train(data).examples
    template = choose_template(data.template, data.train, examples)
    rows = tokenise(examples, tokenizer, template, limit).rows
    prompts = read_prompts(data, data.prompts, gold=False).examples
    lengths = [len(row.input_ids) for row in rows]
    answers = [row.num_answer_tokens for row in rows]
    shares = [answer / length for answer, length in zip(answers, lengths, strict=True)]
    return Rows(
        num_rows=len(rows),
        num_tokens=sum(lengths),
        num_answer_tokens=sum(answers),
        longest=max(lengths),
        answer_share=max(shares),
        num_prompts=len(prompts),
        longest_prompt=max(len(tokenise_prompt(one, tokenizer, template)) for one in prompts),
        unknown=(),
    )


CHEAPEST_FIRST = [
    {"zero_stage": stage, "offload": offload, "gradient_checkpointing": again}
    for offload in ("none", "optimizer", "all")
    for again in (False, True)
    for stage in (0, 1, 2, 3)
]
"""Ways to need less memory that leave the gradient as it is."""


def what_fits(config: TrialConfig, num_workers: int, options: Options) -> dict[str, Any] | None:
    """The first settings of `train` that fit, micro-batches halved last; None if none do."""
    assert options.gpu_memory is not None
    sizes = [config.train.micro_batch_size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    for size in sizes:
        for change in CHEAPEST_FIRST:
            values = config.model_dump()
            values["train"] |= {**change, "micro_batch_size": size}
            try:
                other = TrialConfig.model_validate(values)
            except ValidationError:
                continue  # settings that exclude each other
            need = forecast(other, num_workers, options).memory.need
            if need <= options.gpu_memory * GIB:
                found = {**change, "micro_batch_size": size}
                own = config.train.model_dump()
                return {name: value for name, value in found.items() if value != own[name]}
    return None


def to_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values; sizes are in GiB and say so."""
    trials = []
    for names, config, need in plan.forecasts:
        values = {
            **asdict(need),
            "passes_per_step": need.passes_per_step,
            "memory_gib": {
                "need": need.memory.need / GIB,
                "largest_phase": need.memory.phase,
                "parts": _gib(need.memory.parts),
                "phases": _gib(need.memory.phases),
                "host": _gib(need.memory.host),
            },
            "disk_gib": _gib(need.disk),
        }
        del values["memory"], values["disk"]
        if plan.options.gpu_memory is not None:
            fits = need.memory.need <= plan.options.gpu_memory * GIB
            values["fits"] = fits
            if not fits:
                values["would_fit"] = what_fits(config, need.num_workers, plan.options)
        if (hours := gpu_hours(need, plan.options)) is not None:
            values["gpu_hours"] = hours
        trials.append({"trials": names, **values})
    return {"name": plan.name, "num_trials": plan.num_trials, "forecasts": trials}


def gpu_hours(need: Forecast, options: Options) -> float | None:
    """Hours of one GPU's time for a trial's training, at the speed that was given."""
    if need.flops is None or options.teraflops is None:
        return None
    return need.flops / (options.teraflops * 1e12) / 3600


def _gib(sizes: dict[str, float]) -> dict[str, float]:
    return {name: size / GIB for name, size in sizes.items()}


def as_text(plan: Plan) -> str:
    """The plan for people: one block per forecast."""
    lines = [f"{plan.name}: {plan.size}" if plan.size else plan.name]
    for names, config, need in plan.forecasts:
        lines += ["", ", ".join(names) + ":", *(f"  {line}" for line in _told(config, need, plan))]
    return "\n".join(lines)


def _told(config: TrialConfig, need: Forecast, plan: Plan) -> Iterator[str]:
    rows, train = need.rows, config.train
    yield f"parameters: {need.num_parameters:,}, of them trained {need.num_trained:,}"
    told = "unknown" if rows.num_rows is None else f"{rows.num_rows:,}"
    tokens = "unknown" if rows.num_tokens is None else f"{rows.num_tokens:,}"
    yield f"rows: {told}; tokens: {tokens}; longest row: {rows.longest} tokens"
    yield from (f"unknown {why}" for why in rows.unknown)
    steps = "unknown" if need.num_steps is None else f"{need.num_steps:,}"
    yield (
        f"steps: {steps} of {train.global_batch_size} rows; per step and worker "
        f"{need.passes_per_step} forward and backward passes (micro-batches: {need.micro_batches}, "
        f"copies of the batch: {' + '.join(map(str, need.copies))})"
    )
    yield from _memory_told(config, need, plan.options)
    yield f"disk: {_sizes(need.disk)}"
    if need.flops is not None:
        hours = gpu_hours(need, plan.options)
        at = "" if hours is None else f", {hours:.3g} GPU-hours"
        yield f"training: {need.flops:.3g} floating-point operations{at}"
    calls = "unknown" if need.judge_calls is None else f"{need.judge_calls:,}"
    cost = "" if need.judge_cost is None else f", at most about {need.judge_cost:.2f} in money"
    yield f"judge: {calls} verdicts (every prompt in both orders){cost}"
    yield from (f"note: {note}" for note in need.notes)


def _memory_told(config: TrialConfig, need: Forecast, options: Options) -> Iterator[str]:
    used = need.memory
    shared = f"workers: {need.num_workers}, ZeRO {config.train.zero_stage}"
    yield (
        f"memory per worker: {_size(used.need)}, most in the {used.phase} ({shared}, "
        f"offload {config.train.offload}, {config.model.dtype})"
    )
    yield f"  parts: {_sizes(used.parts)}"
    yield f"  phases: {_sizes(used.phases)}"
    yield f"  in the host's memory: {_sizes(used.host)}"
    if options.gpu_memory is None:
        return
    spare = options.gpu_memory - used.need / GIB
    if spare >= 0:
        yield f"  fits in {options.gpu_memory:g} GiB, with {spare:.2f} GiB to spare"
        return
    yield f"  DOES NOT FIT in {options.gpu_memory:g} GiB: {-spare:.2f} GiB too much"
    found = what_fits(config, need.num_workers, options)
    if found is None:
        yield "  no ZeRO stage, offload, checkpointing or smaller micro-batch makes it fit"
    else:
        settings = " ".join(f"train.{name}={_word(value)}" for name, value in found.items())
        yield f"  would fit with {settings}"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sizes(sizes: dict[str, float]) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in sizes.items() if size) or "nothing"


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.2f} MiB"
