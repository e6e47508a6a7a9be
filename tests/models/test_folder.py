"""A model folder is refused in one line unless it is a whole decoder with its tokenizer."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from symnoise_ray.config import LoraConfig, ModelConfig
from symnoise_ray.demo.content import model_dir
from symnoise_ray.errors import UserError
from symnoise_ray.models.folder import _is_plainly_whole, look
from symnoise_ray.models.weights import load
from tests.models.test_shape import OTHERS, PLAIN, SIZES

Change = Callable[[dict[str, torch.Tensor]], object]
QUICK = [name for name in PLAIN if name not in ("OLMo 2", "StableLM")]
"""Families that are checked without transformers."""


@pytest.fixture
def model(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> Callable[[str, dict[str, Any]], Path]:
    """Writes a folder with a random model of a family that has as many words as its tokenizer."""

    def write(family: str, sizes: dict[str, Any]) -> Path:
        folder = tmp_path / family
        words = {"vocab_size": len(tokenizer)}
        config = getattr(transformers, f"{family}Config")(**{**sizes, **words})
        auto = AutoModelForCausalLM
        if family in ("Bert", "T5"):
            auto = getattr(transformers, {"Bert": "BertForMaskedLM"}.get(family, "T5Model"))
        made = auto.from_config(config) if auto is AutoModelForCausalLM else auto(config)
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return write


def change(folder: Path, how: Change) -> ModelConfig:
    """The model of a folder with other weights."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    how(weights)
    save_file(weights, file, metadata={"format": "pt"})
    return ModelConfig(name=str(folder))


def without(names: Iterable[str]) -> Change:
    return lambda weights: [weights.pop(name) for name in names]


@pytest.mark.parametrize("name", QUICK)
def test_the_usual_families_are_known_to_be_whole_by_their_files_alone(
    name: str, model: Callable[..., Path]
):
    folder = model(*PLAIN[name])
    assert _is_plainly_whole(folder)
    assert look(ModelConfig(name=str(folder))).notes == ()
    first = next(iter(load_file(folder / "model.safetensors")))
    change(folder, without([first]))
    assert not _is_plainly_whole(folder)


@pytest.mark.parametrize("name", [*OTHERS, "OLMo 2", "StableLM"])
def test_other_families_are_whole_if_transformers_finds_a_place_for_every_weight(
    name: str, model: Callable[..., Path]
):
    family, sizes = {**OTHERS, **PLAIN}[name]
    folder = model(family, sizes)
    assert not _is_plainly_whole(folder)
    notes = look(ModelConfig(name=str(folder))).notes
    assert len(notes) == (family == "Gemma2"), "which has no SDPA attention"


def test_each_weight_that_is_missing_is_refused_by_the_check_and_by_the_worker(
    model: Callable[..., Path], tmp_path: Path
):
    folder = model("Llama", SIZES)
    names = sorted(load_file(folder / "model.safetensors"))
    assert len(names) == 21
    for number, name in enumerate(names):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(folder, copy)
        config = change(copy, without([name]))
        told = rf"must hold the weights .*, but they lack 1 tensor that it needs \({name}\);"
        for read in (look, load):
            with pytest.raises(UserError, match=told) as error:
                read(config)
            assert "\n" not in error.value.message


def test_nine_of_the_demos_weights_cannot_be_missing(tmp_path: Path):
    folder = tmp_path / "demo"
    shutil.copytree(model_dir(), folder)
    names = list(load_file(folder / "model.safetensors"))[:9]
    config = change(folder, without(names))
    for read in (look, load):
        # The head of the demo is its embedding, which is among them.
        with pytest.raises(UserError, match=r"they lack 10 tensors .* and 7 more\)"):
            read(config)


@pytest.mark.parametrize(
    ("add", "told"),
    [
        ({"model.layers.7.mlp.up_proj.weight": (48, 32)}, "has no place for"),
        ({"value_head.weight": (1, 32)}, "has no place for"),
        ({"model.norm.weight": (33,)}, "of another shape"),
    ],
)
def test_weights_of_another_model_are_refused(
    add: dict[str, tuple[int, ...]], told: str, model: Callable[..., Path]
):
    new = {name: torch.zeros(shape) for name, shape in add.items()}
    config = change(model("Llama", SIZES), lambda weights: weights.update(new))
    for read in (look, load):
        with pytest.raises(UserError, match=rf"they hold 1 tensor .*{told}"):
            read(config)


def test_tables_that_old_files_hold_beside_the_weights_are_no_mistake(model: Callable[..., Path]):
    new = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.zeros(4) for n in range(2)}
    folder = model("Llama", SIZES)
    config = change(folder, lambda weights: weights.update(new))
    look(config)
    load(config)
    assert _is_plainly_whole(folder)


@pytest.mark.parametrize("stored", [True, False])
def test_a_head_that_is_the_embedding_need_not_be_stored(stored: bool, model: Callable[..., Path]):
    folder = model("Llama", {**SIZES, "tie_word_embeddings": True})
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")

    def head(weights: dict[str, torch.Tensor]) -> None:
        if stored:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    config = change(folder, head)
    look(config)
    load(config)


BERT = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
T5 = {"vocab_size": 96, "d_model": 32, "d_ff": 48, "num_layers": 1, "num_heads": 4, "d_kv": 8}


@pytest.mark.parametrize(
    ("family", "sizes", "kind"),
    [("Bert", BERT, "an encoder, whose"), ("T5", T5, "an encoder with a decoder")],
)
def test_a_model_that_is_no_decoder_is_refused(
    family: str, sizes: dict[str, Any], kind: str, model: Callable[..., Path]
):
    config = ModelConfig(name=str(model(family, sizes)))
    told = rf"must be a causal language model .*its model_type {family.lower()} is {kind}"
    for read in (look, load):
        with pytest.raises(UserError, match=told):
            read(config)


def test_a_folder_without_a_tokenizer_is_refused(model: Callable[..., Path]):
    folder = model("Llama", SIZES)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=rf"must hold the model's tokenizer .*{folder} has none"):
        look(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX"])
def test_a_tokenizer_with_more_words_than_embeddings_is_refused(
    family: str, model: Callable[..., Path], tokenizer: PreTrainedTokenizerFast
):
    folder = model(family, {**SIZES, "num_key_value_heads": 4})
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    new = {"content": "<new>", "special": True, "lstrip": False, "rstrip": False}
    new |= {"single_word": False, "normalized": False}
    settings["added_tokens_decoder"] = {str(len(tokenizer)): new}
    file.write_text(json.dumps(settings))
    told = f"has {len(tokenizer) + 1} words but the model only {len(tokenizer)} embeddings"
    for read in (look, load):
        with pytest.raises(UserError, match=told):
            read(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX"])
def test_an_adapter_for_a_layer_that_is_not_there_is_refused(
    family: str, model: Callable[..., Path]
):
    config = ModelConfig(name=str(model(family, {**SIZES, "num_key_value_heads": 4})))
    there, told = {
        "Llama": ("q_proj", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        "GPTNeoX": ("dense", "dense, dense_4h_to_h, dense_h_to_4h, .*query_key_value"),
    }[family]
    look(config, [LoraConfig(rank=4), LoraConfig(rank=4, target_modules=(there,))])
    with pytest.raises(UserError, match=rf"but 'W_q' is none; its linear layers are: {told}"):
        look(config, [LoraConfig(rank=4, target_modules=("W_q",))])


def test_a_model_without_sdpa_gets_eager_attention_and_a_note(
    model: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    sizes = {**SIZES, "state_size": 8}
    config = ModelConfig(name=str(model("Mamba", sizes)))
    (note,) = look(config).notes
    assert note == f"model.name={config.name} has no SDPA attention; model.attention=eager is used"
    assert load(config).model.config._attn_implementation == "eager"
    assert note in caplog.text
    with pytest.raises(UserError, match=r"model\.attention=flash_attention_2: must be there"):
        load(config.model_copy(update={"attention": "flash_attention_2", "dtype": "bf16"}))


@pytest.mark.parametrize("base", ["there", "absent"])
def test_of_an_adapter_the_model_that_it_belongs_to_is_checked(
    base: str, model: Callable[..., Path], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
):
    folder = model("Llama", SIZES)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    import peft

    whole.add_adapter(peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    adapter = tmp_path / "adapter"
    whole.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    config = ModelConfig(name=str(adapter))
    if base == "there":
        look(config)
        load(config)
        change(folder, without(["model.norm.weight"]))
        for read in (look, load):
            with pytest.raises(UserError, match=r"lack 1 tensor that it needs \(model\.norm"):
                read(ModelConfig(name=str(adapter), dtype="bf16"))
        return
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=rf"base_model_name_or_path={folder}: .* there is no"):
        look(config)
