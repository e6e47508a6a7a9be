"""What every trainer is told of a winner, in the words of transformers, and what none can be told.

In: a `Winner`. Out: training arguments, the sections that make its rows, and notes on what differs
from the sweep's own training. A setting that changes the result and has no counterpart is refused.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.integrations.winner import Winner
from symnoise_ray.models.source import model_source
from symnoise_ray.noise.types import only_adds


class Batches(NamedTuple):
    """How a global batch is cut: rows per process and pass, and passes per step."""

    size: int
    passes: int


def batches(winner: Winner) -> Batches:
    """The largest equal pieces of a process's share that are no larger than the micro-batch."""
    train = winner.config.train
    share = train.global_batch_size // winner.num_workers
    size = next(n for n in range(min(train.micro_batch_size, share), 0, -1) if share % n == 0)
    return Batches(size, share // size)


def arguments(winner: Winner) -> dict[str, Any]:
    """Values of `transformers.TrainingArguments` that all trainers share."""
    optim, train = winner.config.optim, winner.config.train
    warmup = math.ceil(optim.warmup_ratio * winner.num_steps)
    schedule = "constant_with_warmup" if optim.schedule == "constant" and warmup else optim.schedule
    size, passes = batches(winner)
    return {
        "max_steps": winner.num_steps,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "optim": "adamw_torch",
        "learning_rate": optim.lr,
        "lr_scheduler_type": schedule,
        "warmup_steps": warmup,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "adam_epsilon": optim.eps,
        "max_grad_norm": optim.max_grad_norm,
        "seed": train.seed,
        "bf16": winner.config.model.dtype == "bf16",
    }


_ANSWERED = {"prompts", "max_eval_prompts", "max_confirm_prompts", "texts", "num_texts"}
"""Settings of data that no training row depends on."""
_PROMPTS = {"confirm_prompts", "confirm_share", "prompt_fields", "group_field", "overlap_ngram"}
"""Those on which a row depends only where rows that overlap with prompts are left out."""


def sections(config: TrialConfig) -> dict[str, dict[str, Any]]:
    """The settings of model and data that `training_rows` needs, defaults left out."""
    drops = config.data.drop_overlap
    unused = _ANSWERED if drops else _ANSWERED | _PROMPTS
    data = config.data.model_dump(mode="json", exclude_defaults=True, exclude=unused)
    model = config.model.model_dump(mode="json", exclude_defaults=True)
    look = {} if drops else {"overlap_ngram": 0}  # or the prompts would be read, to be counted
    return {"model": {**model, "name": base_model(config)}, "data": {**data, **look}}


def base_model(config: TrialConfig) -> str:
    """The name or folder of the model that is fine-tuned; a folder as an absolute path."""
    source = model_source(config.model)
    return str(Path(source).absolute()) if Path(source).is_dir() else source


def require_said(winner: Winner) -> None:
    """Refuse settings that no exported file says.

    Raises:
        UserError: the winner has such a setting.
    """
    config = winner.config
    if not only_adds(config.noise.type):
        raise UserError(
            "export: the noise must only add to the embeddings, but the setting of "
            f"{winner.arm} has noise.type={config.noise.type}, which changes the loss or the "
            "passes too; train with `symnoise-ray train`, or take --arm for another setting"
        )
    if config.train.deepspeed is not None:
        raise UserError(
            "export: train.deepspeed must not be set, since its keys may change the result and "
            "another trainer names them otherwise, but it is; train with `symnoise-ray train`"
        )
    if config.lora.quantize != "none":
        raise UserError(
            f"export: lora.quantize must be none, but is {config.lora.quantize}; no exported file "
            "loads weights of 4 bits; train with `symnoise-ray train`"
        )


def notes(winner: Winner) -> list[str]:
    """What differs from the sweep's own training, a sentence each."""
    config = winner.config
    optim, train = config.optim, config.train
    size, passes = batches(winner)
    found = [
        f"Start {_counted(winner.num_workers, 'process', 'processes')}: {size} rows each, "
        f"{_counted(passes, 'time', 'times')} per step, make the sweep's {train.global_batch_size} "
        "rows.",
        "The rows come in another order than in the sweep, so the losses differ as with a new "
        "seed.",
        "Paths of data are those of the sweep, relative to where it was started.",
    ]
    if train.packing != "off":
        found.append("Rows do not share lines here, which costs time and changes no loss.")
    if math.ceil(optim.warmup_ratio * winner.num_steps):
        found.append("The warm-up here begins at 0, that of the sweep one step further.")
    if optim.weight_decay:
        found.append("Biases and norms have no weight decay here; in the sweep they have.")
    if train.zero_stage or train.offload != "none":
        found.append(
            f"The sweep used ZeRO stage {train.zero_stage}, a matter of memory; give your trainer "
            "a DeepSpeed configuration if it needs one."
        )
    if train.compile:
        found.append("The sweep compiled the layers, a matter of time.")
    if config.lora.rank is not None and config.lora.merge:
        found.append("The adapter is saved alone; merge it into the model afterwards.")
    return found


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def comment(words: Iterable[str]) -> list[str]:
    """Paragraphs as lines of a comment, of Python or YAML; no text can end it."""
    return [f"# {line}" for word in words for line in textwrap.wrap(word, 96)]
