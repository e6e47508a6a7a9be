"""What a model's folder holds, compared with what its architecture needs, before anything runs.

In: a `ModelConfig`. Out: a `Look`, or an error of one line. For the usual families the headers of
the safetensors files and config.json say everything, in a moment. Otherwise transformers builds the
model as a skeleton without numbers, which takes the seconds that torch needs to be imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from symnoise_ray.config import LoraConfig, ModelConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.models.shape import Shapes, read_shape, stored_shapes
from symnoise_ray.models.source import (
    WITH_ENCODER,
    base_model,
    context_length,
    hub_config,
    model_source,
    no_decoder,
    plain_config,
    refuse_path,
)
from symnoise_ray.models.tokenizer import count_words, require_embeddings

_LAYER = {
    "input_layernorm.weight": ("width",),
    "post_attention_layernorm.weight": ("width",),
    "self_attn.q_proj.weight": ("queries", "width"),
    "self_attn.k_proj.weight": ("keys", "width"),
    "self_attn.v_proj.weight": ("keys", "width"),
    "self_attn.o_proj.weight": ("width", "queries"),
    "mlp.gate_proj.weight": ("inner", "width"),
    "mlp.up_proj.weight": ("inner", "width"),
    "mlp.down_proj.weight": ("width", "inner"),
}
_BIASES = {
    "self_attn.q_proj.bias": ("queries",),
    "self_attn.k_proj.bias": ("keys",),
    "self_attn.v_proj.bias": ("keys",),
}
_HEAD_NORMS = {"self_attn.q_norm.weight": ("head",), "self_attn.k_norm.weight": ("head",)}
_FAMILIES = {
    "llama": _LAYER,
    "mistral": _LAYER,
    "granite": _LAYER,
    "smollm3": _LAYER,
    "qwen2": _LAYER | _BIASES,
    "qwen3": _LAYER | _HEAD_NORMS,
}
"""Weights of one layer, and the names of their sizes, of families without further ones."""


@dataclass(frozen=True)
class Look:
    """What is known of a model before it runs: its context in tokens, and notes for people."""

    context: int | None
    notes: tuple[str, ...] = ()


def look(
    config: ModelConfig,
    lora: Iterable[LoraConfig] = (),
    setting: str = "model.name",
    *,
    tokenizer: bool = True,
) -> Look:
    """Check a model as far as this machine holds it; of a hub model that is config.json.

    Args:
        config: The model.
        lora: Adapters that are to be put into it.
        setting: What names the model, for messages.
        tokenizer: Whether its folder must hold a tokenizer.

    Raises:
        UserError: it cannot be read, is no decoder, lacks weights or has others, has no tokenizer
            or one with more words than embeddings, or lacks a layer for an adapter.
    """
    adapters = [each for each in lora if each.rank is not None]
    folder, named = Path(model_source(config)), f"{setting}={config.name}"
    if not folder.exists():
        return _look_at_hub(config, adapters, setting)
    try:
        base = base_model(config)
        if base is not None:
            _read_headers(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{named}: must be readable, but {one_line(error)}") from None
    place = setting if base is None else f"{named}: base_model_name_or_path"
    if base is not None and not Path(base.name).exists():
        return _look_at_hub(base, adapters, place)
    return _look_at_weights(
        base or config,
        adapters,
        place,
        lambda: count_words(config, setting) if tokenizer else 0,
    )


def _look_at_weights(
    config: ModelConfig, lora: list[LoraConfig], setting: str, words: Callable[[], int]
) -> Look:
    """Of a whole model; `words` counts those of its tokenizer, once the model can be read."""
    folder = Path(model_source(config))
    try:
        held = _read_settings(folder)
        _read_headers(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{setting}={config.name}: must be readable, but {one_line(error)}"
        ) from None
    if held.get("is_encoder_decoder"):
        raise UserError(no_decoder(f"{setting}={config.name}", held["model_type"], WITH_ENCODER))
    count = words()
    if config.trust_remote_code or not _is_plainly_whole(folder):
        return _look_at_skeleton(config, lora, count, setting)
    require_embeddings(f"{setting}={config.name}", count, held["vocab_size"])
    for each in lora:
        read_shape(config).adapted(each)
    return Look(context_length(held))


def _read_settings(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "model_type" not in held:
        raise ValueError("config.json has no model_type")
    return held


def _read_headers(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError("it holds no *.safetensors")
    for file in files:
        with safe_open(file, framework="numpy"):
            pass


def _is_plainly_whole(folder: Path) -> bool:
    """Whether the files hold exactly the weights of a usual family; if not, transformers decides.

    So a wrong list here could only cost time, as long as it never calls a broken model whole.
    """
    held = plain_config(folder)
    stored = stored_shapes(folder)
    if held is None or stored is None:
        return False
    wanted = plain_shapes(held)
    if wanted is None:
        return False
    head = {"lm_head.weight": wanted["model.embed_tokens.weight"]}
    tied = held.get("tie_word_embeddings") is True
    return stored == wanted | head or (tied and stored == wanted)


def plain_shapes(held: dict[str, Any]) -> Shapes | None:
    """Names and shapes of the weights that a config.json of a usual family describes.

    The output head is left out. None where the family or a setting is not a usual one.
    """
    layer = _FAMILIES.get(held["model_type"])
    key_heads, biased = held.get("num_key_value_heads"), ("attention_bias", "mlp_bias")
    if layer is None or not isinstance(key_heads, int) or any(map(held.get, biased)):
        return None
    width, heads = held["hidden_size"], held["num_attention_heads"]
    head = held.get("head_dim")
    if head is None:
        if held["model_type"] == "qwen3":  # it has a default of its own
            return None
        head = width // heads
    sizes = {
        "width": width,
        "head": head,
        "queries": heads * head,
        "keys": key_heads * head,
        "inner": held["intermediate_size"],
    }
    shapes: Shapes = {
        "model.embed_tokens.weight": (held["vocab_size"], width),
        "model.norm.weight": (width,),
    }
    for number in range(held["num_hidden_layers"]):
        for name, size in layer.items():
            shapes[f"model.layers.{number}.{name}"] = tuple(sizes[part] for part in size)
    return shapes


def _look_at_skeleton(
    config: ModelConfig, lora: list[LoraConfig], words: int, setting: str
) -> Look:
    from torch import nn  # seconds, for families that are not plain

    from symnoise_ray.models.pretrained import read_pretrained
    from symnoise_ray.models.weights import check_targets

    model, note = read_pretrained(config, skeleton=True, setting=setting)
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    if isinstance(embeddings, nn.Embedding):
        require_embeddings(f"{setting}={config.name}", words, embeddings.num_embeddings)
    for each in lora:
        if each.target_modules != "all-linear":
            check_targets(model, each.target_modules)
    return Look(context_length(model.config), () if note is None else (note,))


def _look_at_hub(config: ModelConfig, lora: list[LoraConfig], setting: str) -> Look:
    """By the config.json alone; what can only be a path is not asked for on the hub."""
    named, place = f"{setting}={config.name}", Path(config.name).absolute()
    refuse_path(named, config.name)
    try:
        file = hub_config(config)
    except Exception as error:
        # One message for every cause: no such name, no access, no network and no cached copy.
        raise UserError(
            f"{named}: must be {'demo, ' if setting == 'model.name' else ''}a folder that exists, "
            f"or the name of a model on the Hugging Face hub, but there is no {place}, and on the "
            f"hub {one_line(error, 200)}"
        ) from None
    held = plain_config(file.parent)
    if held is None:
        from symnoise_ray.models.pretrained import read_settings, require_decoder  # torch

        settings = read_settings(config, setting)
        require_decoder(settings, named)
        context = context_length(settings)
    else:
        context = context_length(held)
    for each in lora:
        if each.target_modules != "all-linear":
            read_shape(config).adapted(each)
    return Look(context)
