"""The tokenizer of a model, loaded in one way for training, previews and forecasts."""

from __future__ import annotations

from typing import Any

from symnoise_ray.config import ModelConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.models.source import model_source


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a model, without the model.

    Raises:
        UserError: it cannot be read, or has no end-of-sequence token.
    """
    import transformers  # half a second, which a check of the configuration saves

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**location(config))
    except Exception as error:
        raise UserError(f"{unreadable(config, 'tokenizer')}, but {one_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={config.name}: the tokenizer must have an end-of-text token")
    return tokenizer


def location(config: ModelConfig) -> dict[str, Any]:
    """The arguments with which transformers' `from_pretrained` finds a model or tokenizer."""
    return {
        "pretrained_model_name_or_path": model_source(config),
        "revision": config.revision or "main",
        "trust_remote_code": config.trust_remote_code,
    }


def unreadable(config: ModelConfig, what: str) -> str:
    """The beginning of the message about a model or tokenizer that cannot be read."""
    return f"model.name={config.name}: must be a folder or hub name with a readable {what}"
