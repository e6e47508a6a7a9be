"""Where a model lies: in the package (the demo), in a folder, or on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symnoise_ray.config import ModelConfig
from symnoise_ray.demo import content

HUB_SECONDS = 5.0
"""Seconds within which a connection to the hub must be made."""
ANSWER_SECONDS = 60.0
"""Seconds within which the hub must answer, on slow networks."""


def model_source(config: ModelConfig) -> str:
    """The folder or hub name that `model.name` stands for."""
    return str(content.model_dir()) if config.name == "demo" else config.name


def context_length(settings: Any) -> int | None:
    """Tokens that a model takes at most; None where its configuration gives no such number.

    Args:
        settings: The configuration, as transformers holds it or as config.json holds it.
    """
    if isinstance(settings, dict):  # GPT-2 and RWKV name it otherwise, which transformers knows
        text = settings.get("text_config") or settings
        names = ("max_position_embeddings", "n_positions", "context_length")
        return next((text[name] for name in names if name in text), None)
    return getattr(settings.get_text_config(), "max_position_embeddings", None)


def hub_config(config: ModelConfig) -> Path:
    """The config.json of a model on the hub, or the cached one where the hub cannot be reached.

    Raises:
        OSError, ValueError: no such name, no access, or no connection and no cached copy.
    """
    import huggingface_hub  # a third of a second, for hub names only

    name, file, revision = config.name, "config.json", config.revision
    url = huggingface_hub.hf_hub_url(name, file, revision=revision)
    try:
        # By itself the library tries for half a minute where there is no network. Any answer will
        # do, also a slow one: only the connection must be made soon.
        seconds = (HUB_SECONDS, ANSWER_SECONDS, ANSWER_SECONDS, HUB_SECONDS)
        huggingface_hub.get_session().head(url, timeout=seconds)
    except Exception as error:  # no name, no route, no answer, offline by choice
        cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        if not isinstance(cached, str):
            raise OSError(f"it is not cached, and the hub cannot be reached: {error}") from None
        return Path(cached)
    return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
