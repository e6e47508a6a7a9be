"""A winner as a Python script for TRL's `SFTTrainer`, with this package's noise in it.

In: a `Winner`. Out: the text of a script that trains the same setting on the same rows.
"""

from __future__ import annotations

from typing import Any

from symnoise_ray.integrations.recipe import (
    arguments,
    base_model,
    comment,
    notes,
    require_said,
    sections,
)
from symnoise_ray.integrations.winner import Winner

_SCRIPT = """{comment}

import datasets
import transformers
import trl
{peft}
from symnoise_ray.integrations.rows import training_rows
from symnoise_ray.integrations.transformers import with_noise

MODEL = {model!r}

if __name__ == "__main__":
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL, {place})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(
        MODEL, {place}, dtype="float32", attn_implementation={attention!r}
    )
    rows = training_rows({rows})
    arguments = trl.SFTConfig({arguments})
    trainer = with_noise(trl.SFTTrainer, {noise})(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,{adapter}
    )
    trainer.train()
    trainer.save_model()
"""


def trl_script(winner: Winner) -> str:
    """The script.

    Raises:
        UserError: the winner has a setting that the script cannot say.
    """
    require_said(winner)
    config = winner.config
    place: dict[str, Any] = {"revision": config.model.revision or "main"}
    if config.model.trust_remote_code:
        place |= {"trust_remote_code": True, "code_revision": config.model.revision}
    lora = _lora(winner)
    return _SCRIPT.format(
        comment="\n".join(comment(_words(winner))),
        peft="import peft\n" if lora else "",
        model=base_model(config),
        place=_named(place, None),
        attention=config.model.attention,
        rows=_named(sections(config), 8),
        arguments=_named(_sft_arguments(winner), 8),
        noise=_named(_noise(winner), None),
        adapter=f"\n        peft_config=peft.LoraConfig({_named(lora, 12)})," if lora else "",
    )


def _words(winner: Winner) -> list[str]:
    config = winner.config
    title = f"Arm {winner.arm} of the sweep {winner.sweep}, for TRL."
    found = [title, winner.reason, winner.sentence, *notes(winner)]
    if config.noise.execution != "sequential":
        found.append("The copies of a batch run one after the other here; the gradient is equal.")
    if config.model.dtype == "bf16":
        found.append("The weights stay in fp32 and the passes run in bf16, as in the sweep.")
    return found


def _sft_arguments(winner: Winner) -> dict[str, Any]:
    # The rows are cut already, and TRL's own defaults for precision and memory are others.
    return {
        "output_dir": f"{winner.sweep}-{winner.arm}",
        **arguments(winner),
        "gradient_checkpointing": winner.config.train.gradient_checkpointing,
        "max_length": None,
        "packing": False,
        "logging_steps": 1,
        "report_to": "none",
    }


def _noise(winner: Winner) -> dict[str, Any]:
    noise = winner.config.noise.model_dump(exclude_defaults=True, exclude={"execution"})
    return {"type": winner.config.noise.type, **noise}


def _lora(winner: Winner) -> dict[str, Any]:
    lora = winner.config.lora
    if lora.rank is None:
        return {}
    targets = lora.target_modules
    return {
        "task_type": "CAUSAL_LM",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
    }


def _named(values: dict[str, Any], indent: int | None) -> str:
    """Arguments by name: in one line, or one a line."""
    pairs = [f"{name}={value!r}" for name, value in values.items()]
    if indent is None:
        return ", ".join(pairs)
    inner = "".join(f"\n{' ' * indent}{pair}," for pair in pairs)
    return f"{inner}\n{' ' * (indent - 4)}"
