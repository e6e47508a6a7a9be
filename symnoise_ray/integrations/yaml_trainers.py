"""A winner as YAML for axolotl and for LLaMA-Factory.

In: a `Winner`. Out: the text of a configuration. Both trainers know one noise, the NEFTune of
transformers, which is scaled by the length of the padded line and added to padding too. So a winner
without noise can be said in full, one with `neftune` with a comment, and other noise not at all.
"""

from __future__ import annotations

import json
import re
from typing import Any

from symnoise_ray.data.tokens import DEFAULT_LENGTH
from symnoise_ray.errors import UserError
from symnoise_ray.integrations.recipe import (
    arguments,
    base_model,
    comment,
    notes,
    require_said,
    sections,
)
from symnoise_ray.integrations.winner import Winner
from symnoise_ray.noise.types import adds_noise

ROWS = {"axolotl": 'to_json("rows.jsonl")', "llama-factory": 'save_to_disk("rows")'}


def axolotl(winner: Winner) -> str:
    """The configuration for `axolotl train`.

    Raises:
        UserError: axolotl cannot be told a setting of the winner.
    """
    config, given = winner.config, arguments(winner)
    values: dict[str, Any] = {
        "base_model": base_model(config),
        "revision_of_model": config.model.revision,
        "trust_remote_code": config.model.trust_remote_code,
        "attn_implementation": config.model.attention,
        "datasets": [{"path": "rows.jsonl", "ds_type": "json", "type": None}],
        "val_set_size": 0,
        "sequence_len": config.data.max_length or DEFAULT_LENGTH,
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "output_dir": f"{winner.sweep}-{winner.arm}",
        "micro_batch_size": given.pop("per_device_train_batch_size"),
        "optimizer": given.pop("optim"),
        "lr_scheduler": given.pop("lr_scheduler_type"),
        **given,
        "fp16": False,
        "tf32": False,
        "gradient_checkpointing": config.train.gradient_checkpointing,
    }
    if config.lora.rank is not None:
        everything = config.lora.target_modules == "all-linear"
        targets = None if everything else list(config.lora.target_modules)
        values |= {
            "adapter": "lora",
            "lora_r": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "lora_dropout": config.lora.dropout,
            "lora_target_linear": everything,
            "lora_target_modules": targets,
        }
    return _text("axolotl", winner, values)


def llama_factory(winner: Winner) -> str:
    """The configuration for `llamafactory-cli train`.

    Raises:
        UserError: LLaMA-Factory cannot be told a setting of the winner.
    """
    config = winner.config
    attention = {"sdpa": "sdpa", "eager": "disabled", "flash_attention_2": "fa2"}
    values: dict[str, Any] = {
        "model_name_or_path": base_model(config),
        "model_revision": config.model.revision or "main",
        "trust_remote_code": config.model.trust_remote_code,
        "flash_attn": attention[config.model.attention],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full" if config.lora.rank is None else "lora",
        "tokenized_path": "rows",
        "dataset": "rows",  # LLaMA-Factory asks for a name, and then reads the tokens
        "template": "empty",
        "cutoff_len": config.data.max_length or DEFAULT_LENGTH,
        "packing": False,
        "output_dir": f"{winner.sweep}-{winner.arm}",
        **arguments(winner),
        "disable_gradient_checkpointing": not config.train.gradient_checkpointing,
    }
    if config.lora.rank is not None:
        targets = config.lora.target_modules
        values |= {
            "lora_rank": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "lora_dropout": config.lora.dropout,
            "lora_target": "all" if targets == "all-linear" else ",".join(targets),
        }
    return _text("llama-factory", winner, values)


def _text(trainer: str, winner: Winner, values: dict[str, Any]) -> str:
    require_said(winner)
    remark = _noise_remark(trainer, winner)
    if remark:
        values = values | {"neftune_noise_alpha": winner.config.noise.alpha}
    arguments = ", ".join(f"{name}={value!r}" for name, value in sections(winner.config).items())
    words = [
        f"Arm {winner.arm} of the sweep {winner.sweep}, for {trainer}.",
        *(winner.reason, winner.sentence),
        *notes(winner),
        *remark,
        "Write the rows first, as the sweep made their tokens, with this Python:",
    ]
    code = [
        "import datasets",
        "from symnoise_ray.integrations.rows import training_rows",
        f"rows = training_rows({arguments})",
        f"datasets.Dataset.from_list(rows).{ROWS[trainer]}",
    ]
    lines = [f"{name}: {_scalar(value)}" for name, value in values.items() if value is not None]
    return "\n".join([*comment(words), *(f"#     {line}" for line in code), *lines]) + "\n"


def _noise_remark(trainer: str, winner: Winner) -> list[str]:
    """What the trainer's own noise does otherwise; nothing where there is no noise.

    Raises:
        UserError: the trainer does not know this noise.
    """
    noise = winner.config.noise
    silent = noise.alpha == 0 and adds_noise(noise.type)
    if noise.include_clean or (noise.type not in ("none", "neftune") and not silent):
        also = " with noise.include_clean=true" if noise.include_clean else ""
        raise UserError(
            f"export: {trainer} must know the noise, but has NEFTune alone, and the setting of "
            f"{winner.arm} has noise.type={noise.type}{also}; use --to trl, or --arm for another "
            "setting"
        )
    if noise.type == "none" or silent:
        return []
    if noise.generator == "torch":
        return ["The noise is that of the sweep: NEFTune scaled by the padded line's length."]
    if noise.length == "padded":
        return ["The noise has the same law and scale, with other random numbers."]
    return [
        "THE NOISE IS NOT THE SAME. It is scaled by the length of the padded line and added to "
        "padding too. In the sweep it was scaled by each row's own length, so here a row that is "
        "shorter than the longest of its batch gets less. --to trl keeps the sweep's noise."
    ]


def _scalar(value: Any) -> str:
    """A value in YAML 1.1 and 1.2 alike: a number such as 1e-05 is text in 1.1 without its dot.

    Signs beyond ASCII are escaped, so that the text can be printed anywhere. JSON would write an
    emoji as two halves, which YAML does not put together.
    """
    text = json.dumps(value, ensure_ascii=False)
    text = re.sub(r"[^ -~]", lambda sign: _escape(ord(sign[0])), text)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
