"""A shape by config.json and weights alone is the shape that transformers' classes give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig

from symnoise_ray.config import ModelConfig
from symnoise_ray.demo.content import model_dir
from symnoise_ray.models import shape as module
from symnoise_ray.models.shape import ModelShape, _plain_shape, read_shape, stored_shapes

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 80,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 0,
}
WIDE = {**SIZES, "head_dim": 16}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "LLaMA": ("Llama", SIZES),
    "LLaMA, tied": ("Llama", {**SIZES, "tie_word_embeddings": True}),
    "LLaMA, wide heads": ("Llama", WIDE),
    "Mistral": ("Mistral", SIZES),
    "Mistral, tied": ("Mistral", {**WIDE, "tie_word_embeddings": True}),
    "Qwen2": ("Qwen2", SIZES),
    "Qwen2, tied": ("Qwen2", {**SIZES, "tie_word_embeddings": True}),
    "Qwen3": ("Qwen3", WIDE),
    "Qwen3, tied": ("Qwen3", {**WIDE, "tie_word_embeddings": True}),
    "Granite": ("Granite", SIZES),
    "OLMo 2": ("Olmo2", SIZES),
    "SmolLM3": ("SmolLM3", SIZES),
    "StableLM": ("StableLm", SIZES),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Gemma": ("Gemma", WIDE),
    "Gemma 2": ("Gemma2", WIDE),
    "GPT-2": ("GPT2", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "GPT-NeoX": ("GPTNeoX", {**SIZES, "num_key_value_heads": 4}),
    "Mixtral": ("Mixtral", {**SIZES, "num_local_experts": 2}),
    "Phi": ("Phi", SIZES),
}


def saved(family: str, sizes: dict[str, Any], folder: Path) -> Path:
    """A folder with a model of random weights."""
    config: PreTrainedConfig = getattr(transformers, f"{family}Config")(**sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def plain(folder: Path) -> ModelShape | None:
    """The shape without transformers, where there is one."""
    stored = stored_shapes(folder)
    assert stored is not None
    return _plain_shape(f"model.name={folder}", folder, stored)


def whole(folder: Path) -> ModelShape:
    """The shape as transformers' classes give it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "plain_config", lambda _: None)
        return read_shape(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("name", PLAIN)
def test_plain_families_have_the_shape_that_transformers_gives(name: str, tmp_path: Path):
    folder = saved(*PLAIN[name], tmp_path)
    assert plain(folder) == whole(folder)


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_left_to_transformers(name: str, tmp_path: Path):
    folder = saved(*OTHERS[name], tmp_path)
    assert plain(folder) is None
    assert read_shape(ModelConfig(name=str(folder))).num_layers == 2


def test_the_shapes_of_models_in_use_are_those_of_transformers(tiny_model_dir: Path):
    for folder in (tiny_model_dir, model_dir()):
        assert plain(folder) == whole(folder)


def test_the_shape_of_a_published_model_is_that_of_transformers(shared_data: Path):
    folders = [file.parent for file in sorted(shared_data.glob("models/*/config.json"))]
    assert folders
    for folder in folders:
        assert plain(folder) == whole(folder)


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(held: dict[str, Any]) -> None:
        for name in names:
            held.pop(name)

    return change


UNCLEAR: dict[str, Callable[[dict[str, Any]], None]] = {
    "the family's own number of key heads": without("num_key_value_heads"),
    "the family's own choice of a tied head": without("tie_word_embeddings"),
    "the family's own activation": without("hidden_act"),
    "the family's own context": without("max_position_embeddings"),
    "another width of heads than stored": lambda held: held.update(head_dim=16),
    "code of its own": lambda held: held.update(auto_map={"AutoConfig": "own.Config"}),
    "attention of its own": lambda held: held.update(attn_implementation="eager"),
    "a decoder among other parts": lambda held: held.update(text_config={"hidden_size": 8}),
    "heads of unequal width": lambda held: held.update(hidden_size=33, head_dim=8),
    "a size that is no number": lambda held: held.update(vocab_size="96"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_config_json_does_not_say_is_left_to_transformers(name: str, tmp_path: Path):
    folder = saved("Mistral", SIZES, tmp_path)
    assert plain(folder) is not None
    file = folder / "config.json"
    held = json.loads(file.read_text())
    UNCLEAR[name](held)
    file.write_text(json.dumps(held))
    assert plain(folder) is None


def test_eager_attention_is_seen_where_config_json_asks_for_it(tmp_path: Path):
    folder = saved("Llama", SIZES, tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attn_implementation": "eager"}))
    assert read_shape(ModelConfig(name=str(folder))).eager_attention
