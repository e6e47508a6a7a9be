"""The needs of one trial: steps, passes, memory, disk, arithmetic, calls of the judge.

In: a trial's configuration and its number of workers. Out: a `Forecast`, and the settings of
`train` that would fit into a GPU. It starts nothing and loads no weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from symnoise_ray.config import ModelConfig, TrialConfig
from symnoise_ray.generation.room import prompt_room
from symnoise_ray.models.folder import look
from symnoise_ray.models.shape import ModelShape, read_shape
from symnoise_ray.models.source import model_source
from symnoise_ray.noise.types import num_ascents, num_copies, num_draws, passes
from symnoise_ray.preflight.memory import GIB, Memory, Pass, disk, memory
from symnoise_ray.preflight.row_counts import Rows, read_rows
from symnoise_ray.space.step_costs import matches_seconds, with_assumed_cost
from symnoise_ray.training.schedule import num_steps, require_even_split

QUESTION_TOKENS = 400
"""Assumption: tokens of the judge's question without the prompt and the two answers."""


@dataclass(frozen=True)
class Options:
    """The options of the command beside the configuration.

    `num_rows` is the number of training rows, which are then not read, and `row_tokens` their mean
    number of tokens. `model_config` is a config.json to read in place of the model's. `num_workers`
    is for a trial's file. `gpu_memory` is in GiB, and `teraflops` is the speed that one worker
    reaches, in 1e12 operations per second.
    """

    num_rows: int | None = None
    row_tokens: float | None = None
    model_config: Path | None = None
    num_workers: int | None = None
    gpu_memory: float | None = None
    teraflops: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The needs of one trial. Sizes are in bytes; numbers that are not known are None."""

    num_workers: int
    num_parameters: int
    num_trained: int
    num_steps: int | None
    rows: Rows
    copies: tuple[int, ...]
    ascents: int
    micro_batches: int
    memory: Memory
    disk: dict[str, float]
    flops: float | None
    judge_calls: int | None
    judge_cost: float | None
    notes: tuple[str, ...]

    @property
    def passes_per_step(self) -> int:
        """Most forward and backward passes of one worker per optimizer step."""
        return self.micro_batches * (len(self.copies) + self.ascents)


def forecast(config: TrialConfig, num_workers: int, options: Options) -> Forecast:
    """Forecast what one trial needs on so many workers.

    Raises:
        UserError: the batch cannot be split over the workers, or data or model cannot be used.
    """
    batch = config.train.global_batch_size
    require_even_split(batch, num_workers)
    shape = read_model(config.model, options.model_config)
    room = prompt_room(config.generate, shape.context)
    rows = read_rows(config, shape, options.num_rows, options.row_tokens)
    asked = rows.longest_prompt if room is None else min(rows.longest_prompt, room)
    copies = tuple(len(group) for group in passes(config.noise))
    steps = None if rows.num_rows is None else num_steps(with_assumed_cost(config), rows.num_rows)
    return Forecast(
        num_workers=num_workers,
        num_parameters=shape.num_parameters,
        num_trained=shape.num_trained(config.lora),
        num_steps=steps,
        rows=rows,
        copies=copies,
        ascents=num_ascents(config.noise),
        micro_batches=-(-(batch // num_workers) // config.train.micro_batch_size),
        memory=memory(shape, config, num_workers, largest_pass(config, rows, num_workers), asked),
        disk=disk(shape, config),
        flops=None if steps is None else flops(shape, config, rows, steps),
        judge_calls=_judge_calls(config, rows),
        judge_cost=judge_cost(config, rows),
        notes=_notes(shape, config),
    )


@functools.lru_cache(maxsize=8)
def read_model(config: ModelConfig, model_config: Path | None) -> ModelShape:
    """The shape of a model, read once per process; its weights are checked where they lie here.

    Raises:
        UserError: as `read_shape` and `look` say.
    """
    shape = read_shape(config, model_config)
    if model_config is None and any(Path(model_source(config)).glob("*.safetensors")):
        look(config, tokenizer=False)
    return shape


def largest_pass(config: TrialConfig, rows: Rows, num_workers: int) -> Pass:
    """The forward pass that needs the most memory: a full micro-batch of the longest row."""
    train, noise = config.train, config.noise
    lines = min(train.micro_batch_size, train.global_batch_size // num_workers)
    largest = max(passes(noise), key=len)
    copies = len(largest)
    answers = min(rows.longest - 1, round(rows.longest * rows.answer_share))
    noisy = bool(noise.alpha) and noise.generator == "counter"
    noises = lines * num_draws(largest) * noisy
    return Pass(lines * copies, rows.longest, lines * copies * answers, noises)


def flops(shape: ModelShape, config: TrialConfig, rows: Rows, steps: int) -> float | None:
    """Floating-point operations of training, over all workers; None if the tokens are not known.

    A token takes 2 operations per weight in the forward pass and 4 in the backward pass (2 if the
    weights are frozen), and 2 more with checkpointing; attention adds 4 L D per layer and
    direction. Source: equation 3 of arXiv 2205.05198, with the head on answer tokens only. Padding
    and evaluation are left out. A pass that finds the noise costs as much as with frozen weights.
    """
    if rows.num_rows is None or rows.num_tokens is None or rows.num_answer_tokens is None:
        return None
    width, mean = shape.num_heads * shape.head_width, rows.num_tokens / rows.num_rows
    attention = 4 * shape.num_layers * width * mean * (3 + config.train.gradient_checkpointing)
    trained = 1 if config.lora.rank is not None else 2
    total = 0.0
    for count, backward in ((num_copies(config.noise), trained), (num_ascents(config.noise), 1)):
        times = 1 + backward + config.train.gradient_checkpointing
        per_token = 2 * shape.num_linear * times + attention
        head = 2 * shape.vocab_size * shape.width * (1 + backward)
        total += count * (rows.num_tokens * per_token + rows.num_answer_tokens * head)
    return steps * config.train.global_batch_size / rows.num_rows * total


def gpu_hours(need: Forecast, options: Options) -> float | None:
    """GPU-hours of a trial's training at the given speed; None if the speed is not given."""
    if need.flops is None or options.teraflops is None:
        return None
    return need.flops / (options.teraflops * 1e12) / 3600


def _judge_calls(config: TrialConfig, rows: Rows) -> int | None:
    """One call per prompt and order; None if the prompts are not known."""
    if rows.num_prompts is None:
        return None
    return rows.num_prompts * (2 if config.judge.orders == "both" else 1)


def judge_cost(config: TrialConfig, rows: Rows) -> float | None:
    """Cost of an endpoint's verdicts on one trial, in the currency of its prices; None if unknown.

    All prompts and answers are taken as long as the longest may be, in tokens of the trained model,
    and of a conversation both sides with all turns. So it is an upper bound for a judge that needs
    no more tokens for the same texts, and for answers that this model gave. Retries are left out,
    and so are the marks that quoting adds to texts, and the saving by stored verdicts.
    """
    judge = config.judge
    calls = _judge_calls(config, rows)
    if calls is None or judge.type != "api" or not judge.price_input + judge.price_output:
        return None
    read = QUESTION_TOKENS + rows.longest_judged + 2 * config.generate.max_new_tokens
    each = read * judge.price_input + judge.max_new_tokens * judge.price_output
    return calls * each / 1e6


def _notes(shape: ModelShape, config: TrialConfig) -> tuple[str, ...]:
    notes = []
    if shape.mixture:
        notes.append("a mixture of experts: activations are counted for one expert per token")
    if config.train.packing != "off":
        notes.append("these passes are without packing, which makes fewer")
    if config.train.compile:
        notes.append("train.compile mostly lowers the memory of activations; this is not counted")
    if config.noise.generator == "torch":
        notes.append("noise from torch's generator is not kept during a pass, so it is not counted")
    if matches_seconds(config) and config.train.step_cost is None:
        notes.append("steps are counted as if time went by passes; the sweep measures it first")
    return tuple(notes)


CHEAPEST_FIRST = [
    {"zero_stage": stage, "offload": offload, "gradient_checkpointing": again}
    for offload in ("none", "optimizer", "all")
    for again in (False, True)
    for stage in (0, 1, 2, 3)
]
"""Settings that need less memory and do not change the gradient, the cheapest first."""


def what_fits(config: TrialConfig, num_workers: int, options: Options) -> dict[str, Any] | None:
    """The first settings of `train` that fit, with micro-batches halved last; None if none fits."""
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
