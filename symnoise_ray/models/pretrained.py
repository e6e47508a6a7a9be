"""A model as transformers reads it, refused unless it is a decoder with exactly its own weights.

In: a `ModelConfig`. Out: the model, in memory or as a skeleton without numbers. transformers itself
fills weights that a file lacks with random numbers and only warns; here that is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from symnoise_ray.config import ModelConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.models.source import WITH_ENCODER, base_model, no_decoder
from symnoise_ray.models.tokenizer import location, unreadable

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SHOWN = 3
_NO_ATTENTION = "support an attention"
"""In what transformers says of a model without the wanted attention."""


class Read(NamedTuple):
    """A model, and what a person should know about how it was read; None for nothing."""

    model: nn.Module
    note: str | None


def read_pretrained(
    config: ModelConfig,
    *,
    skeleton: bool = False,
    as_stored: bool = False,
    setting: str = "model.name",
) -> Read:
    """Read a model, with eager attention where it has no SDPA.

    Args:
        config: The model.
        skeleton: Read the names and shapes of the weights only: fast, and no memory is needed.
            FlashAttention is then not asked for, since the GPU may be elsewhere.
        as_stored: With the dtype of its files, so that the weights stay in them.
        setting: What names the model, for messages.

    Raises:
        UserError: the model cannot be read, is no decoder, lacks weights or has others, or has no
            such attention.
    """
    named = f"{setting}={config.name}"
    require_decoder(read_settings(config, setting), named)
    if (base := base_model(config)) is not None:
        # Of an adapter, transformers tells only the adapter's own weights.
        read_pretrained(base, skeleton=True, setting=f"{named}: base_model_name_or_path")
    attention, note = config.attention, None
    dtype = "auto" if as_stored else DTYPES[config.dtype]
    if skeleton and attention == "flash_attention_2":
        attention = "sdpa"
    try:
        try:
            model, found = _read(config, attention, skeleton, dtype)
        except ValueError as error:
            if attention != "sdpa" or _NO_ATTENTION not in str(error):
                raise
            note = f"{named} has no SDPA attention; model.attention=eager is used"
            model, found = _read(config, "eager", skeleton, dtype)
    except Exception as error:
        raise UserError(
            _without_attention(config, error)
            or f"{unreadable(config, 'model', setting)}, but {_reason(error)}"
        ) from None
    _require_own_weights(named, found)
    return Read(model, note)


def read_settings(config: ModelConfig, setting: str = "model.name") -> Any:
    """The configuration of a model as transformers holds it; of an adapter, that of its base.

    Raises:
        UserError: it cannot be read.
    """
    import transformers  # seconds, and only where a model is read

    try:
        found = base_model(config) or config
        return transformers.AutoConfig.from_pretrained(**location(found))
    except Exception as error:
        raise UserError(f"{unreadable(config, 'model', setting)}, but {one_line(error)}") from None


def _read(
    config: ModelConfig, attention: str, skeleton: bool, dtype: torch.dtype | str
) -> tuple[nn.Module, dict[str, Any]]:
    import transformers  # see _settings

    with _quiet():
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            **location(config),
            **({"device_map": "meta"} if skeleton else {}),
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `found` has them, with their names
        )
    return model, found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars and tables: what is wrong becomes one line of our own."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def require_decoder(settings: Any, named: str) -> None:
    """Refuse a model that reads ahead or needs an encoder; settings are transformers' own.

    Raises:
        UserError: it is an encoder, an encoder with a decoder, or has no causal language model.
    """
    from transformers.models.auto import modeling_auto  # with torch

    causal = type(settings) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    masked = type(settings) in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING
    own_code = "AutoModelForCausalLM" in (getattr(settings, "auto_map", None) or {})
    if getattr(settings, "is_encoder_decoder", False):
        kind = WITH_ENCODER
    elif masked and not getattr(settings, "is_decoder", False):
        kind = "an encoder, whose tokens see those after them"
    elif not causal and not own_code:
        kind = "none that transformers knows"
    else:
        return
    raise UserError(no_decoder(named, settings.model_type, kind))


def _require_own_weights(named: str, found: dict[str, Any]) -> None:
    """Refuse a model unless its files hold its weights, all of them and no others."""
    groups = {
        "lack {} that it needs ({})": sorted(found["missing_keys"]),
        "hold {} that it has no place for ({})": sorted(found["unexpected_keys"]),
        "hold {} of another shape ({})": sorted(str(each[0]) for each in found["mismatched_keys"]),
    }
    told = [
        words.format(f"{len(names)} tensor{'s' if len(names) > 1 else ''}", _listed(names))
        for words, names in groups.items()
        if names
    ]
    if told:
        raise UserError(
            f"{named}: its files must hold the weights that config.json describes, but they "
            f"{', and '.join(told)}; download or export the model again"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _reason(error: Exception) -> str:
    """An error in one line; the library's own may point at a table that is not shown."""
    if "above report" in str(error):
        return "its weights do not fit the architecture that config.json describes"
    return one_line(error)


def _without_attention(config: ModelConfig, error: Exception) -> str | None:
    """The message where the model has no such attention, or its package is missing; else None."""
    reason = one_line(error).split(". ")[0].removesuffix(".")
    if not re.search(f"{_NO_ATTENTION}|Flash ?Attention", reason):
        return None
    return (
        f"model.attention={config.attention}: must be there for model.name={config.name}, but "
        f"{reason}; set model.attention=sdpa or eager"
    )
