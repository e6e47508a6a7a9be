"""Any family of models is trained, exported as a plain folder, and read back as it was."""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.utils.logging import enable_progress_bar

from symnoise_ray.config import ModelConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.models.weights import _load_once, adapt, checkpoint_state, export, load
from tests.models.test_deepspeed_engine import Run, rows_of, settings, three_steps

pytestmark = pytest.mark.usefixtures("process_group")

SHAPE: dict[str, Any] = {
    "vocab_size": 328,  # some families bring a word or two of their own
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2}
OTHER_WORDS = {
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.1, "dropout": 0.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(**SHAPE, **GROUPED),
    "qwen2": Qwen2Config(**SHAPE, **GROUPED),
    "gemma": GemmaConfig(**SHAPE, **GROUPED, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**SHAPE),
    "phi": PhiConfig(**SHAPE),
    "opt": OPTConfig(**{**SHAPE, **OTHER_WORDS["opt"]}),
    "gpt2": GPT2Config(vocab_size=328, bos_token_id=0, eos_token_id=0, **OTHER_WORDS["gpt2"]),
}


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """Weights of these folders are of no use to other tests."""
    yield
    _load_once.cache_clear()


def family(name: str) -> nn.Module:
    """A model with random weights, the same every time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(FAMILIES[name]).eval()


def logits_of(model: nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=rows_of(9)[0]).logits.clone()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("rank", [None, 4], ids=["full", "lora"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_model_is_read_back_as_it_was(
    name: str, rank: int | None, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    untrained = logits_of(family(name))
    with Run(settings(lora={"rank": rank}), family(name)) as run:
        losses = three_steps(run.engine).losses
        expected = logits_of(run.model)
        export(run.model, tokenizer, tmp_path / "model")
        handed = {name: each.clone() for name, each in checkpoint_state(run.model).items()}
    written = load_file(tmp_path / "model" / "model.safetensors")
    assert written.keys() <= handed.keys(), "tied weights are written once"
    assert all(torch.equal(handed[each], tensor) for each, tensor in written.items())
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= files
    assert {"tokenizer.json", "tokenizer_config.json"} <= files
    assert not any(file.startswith("adapter") for file in files)
    loaded = load(ModelConfig(name=str(tmp_path / "model")))
    assert loaded.tokenizer.encode("fox") == tokenizer.encode("fox")
    assert type(loaded.model) is type(family(name))
    tolerance = 0 if rank is None else 1e-5
    torch.testing.assert_close(logits_of(loaded.model), expected, rtol=tolerance, atol=tolerance)
    assert (expected - untrained).abs().max() > 0.05
    assert len(losses) == 3


def test_the_folder_holds_the_same_weights_as_the_first_one(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    loaded = load(ModelConfig(name=str(tiny_model_dir)))
    with Run(settings(lora={"rank": 4}), loaded.model) as run:
        export(run.model, loaded.tokenizer, tmp_path)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_model_dir, tmp_path)
    )
    assert before.keys() == after.keys()
    # An adapter starts as an update of 0.
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_model_in_bf16_is_written_in_bf16(tmp_path: Path, tiny_model_dir: Path) -> None:
    config = ModelConfig(name=str(tiny_model_dir), dtype="bf16")
    loaded = load(config)
    trial = settings(model={"dtype": "bf16"}, lora={"rank": 4}, train={"zero_stage": 3})
    with Run(trial, loaded.model) as run:
        three_steps(run.engine)
        expected = logits_of(run.model)
        export(run.model, loaded.tokenizer, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    found = logits_of(load(ModelConfig(name=str(tmp_path), dtype="bf16")).model)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("stage", [0, 3])
def test_an_adapter_is_written_alone_and_finds_its_model(
    stage: int, tmp_path: Path, tiny_model_dir: Path
) -> None:
    loaded = load(ModelConfig(name=str(tiny_model_dir)))
    config = settings(lora={"rank": 4, "merge": False}, train={"zero_stage": stage})
    with Run(config, loaded.model) as run:
        three_steps(run.engine)
        expected = logits_of(run.model)
        export(run.model, loaded.tokenizer, tmp_path, merge=config.lora.merge)
    assert not (tmp_path / "model.safetensors").exists()
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 7
    found = logits_of(load(ModelConfig(name=str(tmp_path))).model)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_exporting_leaves_the_model_as_it_was(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with Run(settings(lora={"rank": 4}), family("llama")) as run:
        three_steps(run.engine)
        before = logits_of(run.model)
        for name in ("first", "second"):
            export(run.model, tokenizer, tmp_path / name)
        assert torch.equal(logits_of(run.model), before)
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


# What cannot be read


def test_an_attention_whose_package_is_missing_is_told(tiny_model_dir: Path) -> None:
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("FlashAttention is here")
    message = r"^model\.attention=flash_attention_2: .*; set model\.attention=sdpa or eager$"
    with pytest.raises(UserError, match=message):
        load(ModelConfig(name=str(tiny_model_dir), dtype="bf16", attention="flash_attention_2"))


def test_loading_draws_no_bar_where_there_is_no_terminal(
    tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    enable_progress_bar()
    load(ModelConfig(name=str(tiny_model_dir)))
    assert capfd.readouterr() == ("", "")


# What cannot be adapted


def lora(**values: Any) -> TrialConfig:
    return TrialConfig.model_validate({"lora": {"rank": 4, **values}})


@pytest.mark.parametrize("unknown", ["q_prj", "embed_tokens", "model.layers.0", "proj"])
def test_a_layer_that_does_not_exist_or_is_not_linear_is_named(unknown: str) -> None:
    message = rf"must name linear layers .* but '{unknown}' is none; .*: .*down_proj, .*q_proj"
    with pytest.raises(UserError, match=message):
        adapt(family("llama"), lora(target_modules=["q_proj", unknown]))


def test_one_layer_alone_can_be_adapted() -> None:
    model = adapt(family("llama"), lora(target_modules=["model.layers.1.mlp.up_proj"]))
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 1


def test_a_head_that_is_tied_to_the_embedding_is_not_adapted() -> None:
    with pytest.raises(UserError, match=r"must not name 'lm_head', because .* tied to the token"):
        adapt(family("gpt2"), lora(target_modules=["lm_head"]))


def test_all_linear_layers_but_the_head_are_adapted() -> None:
    model = adapt(family("llama"), lora())
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    linear = {
        name for name, module in family("llama").named_modules() if isinstance(module, nn.Linear)
    }
    assert adapted == linear - {"lm_head"}


def test_four_bits_need_a_package_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = lora(quantize="nf4", merge=False)
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(UserError, match=r"nf4 needs the package bitsandbytes .*: pip install"):
            adapt(family("llama"), config)
    elif not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"nf4 needs a GPU on every worker"):
            adapt(family("llama"), config)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig.model_validate({"train": {"compile": True}})
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        UserError, match=r"train\.compile=true needs a compiler .* of g\+\+ is here"
    ):
        adapt(family("llama"), config)


def test_only_the_layers_are_compiled_and_not_for_answers() -> None:
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler here")
    model = adapt(family("llama"), TrialConfig.model_validate({"train": {"compile": True}}))
    compiled = [
        name for name, module in model.named_modules() if module._compiled_call_impl is not None
    ]
    assert compiled == ["model.layers.0", "model.layers.1"]


def test_more_words_than_embeddings_are_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    config = LlamaConfig(**{**SHAPE, "vocab_size": 64})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has 320 words but the model only 64 embeddings"):
        load(ModelConfig(name=str(tmp_path)))
