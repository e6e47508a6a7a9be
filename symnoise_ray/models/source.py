"""Where a model lies: in the package (the demo), in a folder, or on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symnoise_ray.config import ModelConfig
from symnoise_ray.demo import content
from symnoise_ray.errors import UserError
from symnoise_ray.records.files import contents

HUB_SECONDS = 5.0
"""Seconds within which a connection to the hub must be made."""
ANSWER_SECONDS = 60.0
"""Seconds within which the hub must answer, on slow networks."""

# Families whose class in transformers takes these sizes as they stand. Others have defaults of
# their own, other names, or (Gemma) another activation than config.json names.
_PLAIN_FAMILIES = ("granite", "llama", "mistral", "olmo2", "qwen2", "qwen3", "smollm3", "stablelm")
_SIZES = (
    *("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"),
    *("intermediate_size", "max_position_embeddings"),
)
_UNUSUAL = (
    *("auto_map", "text_config", "attn_implementation", "_attn_implementation"),
    "output_attentions",
)


def model_source(config: ModelConfig) -> str:
    """The folder or hub name that `model.name` stands for."""
    return str(content.model_dir()) if config.name == "demo" else config.name


def remote_code(config: ModelConfig) -> dict[str, Any]:
    """The arguments with which transformers runs a model's own code, or refuses to.

    A model may take its code from another repository, where it would be that of the branch `main`;
    here it is the code of the pinned commit, or an error.
    """
    if not config.trust_remote_code:
        return {"trust_remote_code": False}
    return {"trust_remote_code": True, "code_revision": config.revision}


def weights_digests(config: ModelConfig) -> dict[str, str]:
    """What fixes a model's weights: the hashes of a folder's files, or the commit on the hub.

    Raises:
        OSError, ValueError: as `hub_config`.
    """
    source = model_source(config)
    if Path(source).is_dir():
        return contents([source], weights=True)
    return {source: hub_config(config).parent.name}  # the cache names a snapshot by its commit


def plain_config(folder: Path) -> dict[str, Any] | None:
    """The config.json of a folder where transformers would take its sizes as they stand.

    It is read in a moment, while transformers imports torch first. None where there is no such
    file, or where only transformers can say what it means.
    """
    try:
        held = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(held, dict) or held.get("model_type") not in _PLAIN_FAMILIES:
        return None
    sizes = [held.get(name) for name in _SIZES]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    if any(held.get(name) for name in _UNUSUAL):
        return None
    whole_heads = held["hidden_size"] % held["num_attention_heads"] == 0
    return held if whole_heads and isinstance(held.get("hidden_act"), str) else None


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


def refuse_path(named: str, name: str) -> None:
    """Refuse a model that is not here and whose name can only be a path, which no hub knows.

    Raises:
        UserError: it is one; `named` names the model.
    """
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        place = str(Path(name).absolute())
        at = "" if place == name else f" at {place}"
        raise UserError(f"{named}: the folder of the model must exist, but there is none{at}")


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


WITH_ENCODER = "an encoder with a decoder"


def no_decoder(named: str, model_type: str, kind: str) -> str:
    """The message about a model of a kind that cannot be trained here; `named` names the model."""
    return (
        f"{named}: must be a causal language model (a decoder alone), but its model_type "
        f"{model_type} is {kind}; choose another model"
    )


def base_model(config: ModelConfig) -> ModelConfig | None:
    """The model that an adapter in a folder belongs to; None where the folder holds no adapter.

    Raises:
        OSError, ValueError: the adapter's settings cannot be read, or do not name it.
    """
    file = Path(model_source(config)) / "adapter_config.json"
    if not file.exists():
        return None
    name = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not name:
        raise ValueError(f"{file.name} has no base_model_name_or_path")
    return config.model_copy(update={"name": name, "revision": None})
