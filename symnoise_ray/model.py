"""Causal language models and tokenizers: loaded once, copied per trial, exported.

In: a `ModelConfig`. Out: a model in memory and its tokenizer; later, a plain Hugging Face folder.
Weights are read once per process and copied for every trial, so a warm worker loads nothing.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from symnoise_ray.config import ModelConfig
from symnoise_ray.errors import UserError
from symnoise_ray.inputs import model_source

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Loaded(NamedTuple):
    """A model of a trial's own, its tokenizer, and the longest sequence it takes (or None)."""

    model: nn.Module
    tokenizer: Any
    context: int | None


def load(config: ModelConfig) -> Loaded:
    """A fresh copy of the model and its tokenizer.

    Raises:
        UserError: the model or tokenizer cannot be read, or the tokenizer has more words than the
            model has embeddings.
    """
    model, tokenizer = _load_once(config)
    context = getattr(model.config, "max_position_embeddings", None)
    return Loaded(copy.deepcopy(model), tokenizer, context)


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer alone.

    Raises:
        UserError: it cannot be read, or has no end-of-sequence token.
    """
    import transformers  # half a second that a check of the configuration need not pay

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**_location(config))
    except Exception as error:
        raise UserError(f"{_unreadable(config, 'tokenizer')}, but {_first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: the tokenizer must have an end-of-text token")
    return tokenizer


@functools.lru_cache(maxsize=2)
def _load_once(config: ModelConfig) -> tuple[nn.Module, Any]:
    import transformers  # see load_tokenizer

    tokenizer = load_tokenizer(config)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **_location(config), dtype=DTYPES[config.dtype], use_safetensors=True
        )
    except Exception as error:
        raise UserError(f"{_unreadable(config, 'model')}, but {_first_line(error)}") from None
    embeddings = model.get_input_embeddings()
    if isinstance(embeddings, nn.Embedding) and len(tokenizer) > embeddings.num_embeddings:
        raise UserError(
            f"model.name={config.name}: the tokenizer has {len(tokenizer)} words but the model "
            f"only {embeddings.num_embeddings} embeddings; nothing is resized silently"
        )
    return model, tokenizer


def _location(config: ModelConfig) -> dict[str, Any]:
    return {
        "pretrained_model_name_or_path": model_source(config),
        "revision": config.revision or "main",
        "trust_remote_code": config.trust_remote_code,
    }


def _unreadable(config: ModelConfig, what: str) -> str:
    return f"model.name={config.name}: must be a folder or hub name with a readable {what}"


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def export(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write a plain Hugging Face folder: safetensors, tokenizer, generation settings."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
