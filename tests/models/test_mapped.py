"""Weights that nobody trains lie in memory once for all; what a trial writes is its own."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from symnoise_ray.config import ModelConfig
from symnoise_ray.errors import UserError
from symnoise_ray.models.process import give_memory_back
from symnoise_ray.models.weights import Loaded, _load_once, load
from tests.models.test_weights import family

WIDE = LlamaConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=2,
    num_attention_heads=4,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=None,
    tie_word_embeddings=True,
)
"""9 million weights, 37 MB in fp32: more than a process wins or loses meanwhile."""


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """Weights of these folders are of no use to other tests."""
    _load_once.cache_clear()
    yield
    _load_once.cache_clear()


def saved(
    folder: Path, model: nn.Module, tokenizer: PreTrainedTokenizerFast, dtype: str = "fp32"
) -> ModelConfig:
    """A model in a folder, as a trial in fp32 names it."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    model.to(dtypes[dtype]).save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return ModelConfig(name=str(folder))


@pytest.fixture
def small(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> ModelConfig:
    """A tiny LLaMA whose file has the dtype of the training."""
    return saved(tmp_path / "small", family("llama"), tokenizer)


@pytest.fixture
def wide(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> ModelConfig:
    """A model whose weights show in the memory of a process."""
    return saved(tmp_path / "wide", AutoModelForCausalLM.from_config(WIDE), tokenizer)


def own_bytes() -> int:
    """What this process holds that no file holds."""
    give_memory_back()
    found = re.search(r"Anonymous: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    assert found is not None
    return 1024 * int(found[1])


def size(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def weights(loaded: Loaded) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma"])
@pytest.mark.parametrize("stored", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_copy_is_the_model_as_transformers_reads_it(
    shared: bool, stored: str, name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    config = saved(tmp_path / name, family(name), tokenizer, stored)
    loaded = load(config, shared=shared)
    read = AutoModelForCausalLM.from_pretrained(config.name, dtype=torch.float32)
    assert_equal(loaded.model.state_dict(), read.state_dict())
    tied = [m.get_input_embeddings().weight is m.lm_head.weight for m in (loaded.model, read)]
    assert tied[0] == tied[1]
    rows = torch.arange(12)[None]
    with torch.no_grad():
        logits = [model.eval()(input_ids=rows).logits for model in (loaded.model, read)]
    torch.testing.assert_close(*logits)


def test_weights_that_nobody_trains_need_no_memory_of_their_own(wide: ModelConfig) -> None:
    load(wide, shared=True)
    before = own_bytes()
    copies = [load(wide, shared=True) for _ in range(4)]
    for copy in copies:
        assert all(parameter.data.abs().sum() > 0 for parameter in copy.model.parameters())
    assert own_bytes() - before < 0.2 * size(copies[0].model)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["fp32", "bf16"])
def test_between_two_trials_a_process_holds_no_weights(
    stored: str,
    small: ModelConfig,
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The memory of threads that have ended stays with the process until it is used again.
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
    load(small)  # what the first model of a process leaves behind
    model = AutoModelForCausalLM.from_config(WIDE)
    config = saved(tmp_path / "wide", model, tokenizer, stored)
    before = own_bytes()
    whole = size(load(config).model)
    between = own_bytes()
    assert between - before < 0.2 * whole
    held = load(config)
    assert 0.8 * whole < own_bytes() - between < 1.2 * whole, "a trial has one copy"
    del held
    assert own_bytes() - before < 0.2 * whole


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_trial_writes_reaches_no_other_one(shared: bool, small: ModelConfig) -> None:
    file = Path(small.name) / "model.safetensors"
    content = file.read_bytes()
    first = load(small, shared=shared)
    beside, expected = load(small, shared=shared), weights(first)
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.fill_(1.0)
    assert_equal(weights(beside), expected)
    assert_equal(weights(load(small, shared=shared)), expected)
    assert file.read_bytes() == content


def test_a_copy_to_train_lies_where_torch_puts_tensors(small: ModelConfig) -> None:
    assert {p.data_ptr() % 64 for p in load(small).model.parameters()} == {0}


@pytest.mark.parametrize("shared", [False, True])
def test_a_model_whose_files_are_replaced_or_gone_stays_as_it_was_read(
    shared: bool, small: ModelConfig, tmp_path: Path
) -> None:
    expected = weights(load(small))
    file = Path(small.name) / "model.safetensors"
    other = tmp_path / "other"
    AutoModelForCausalLM.from_config(WIDE).save_pretrained(other)
    (other / file.name).rename(file)
    assert_equal(weights(load(small, shared=shared)), expected)
    shutil.rmtree(small.name)
    assert_equal(weights(load(small, shared=shared)), expected)


def test_a_model_that_is_written_to_while_trials_begin_with_it_is_an_error(
    small: ModelConfig,
) -> None:
    load(small)
    file = Path(small.name) / "model.safetensors"
    with file.open("r+b") as opened:
        opened.seek(-4, 2)
        opened.write(b"\0\0\0\0")
    with pytest.raises(UserError, match=r"model\.safetensors: must stay as it is .* written to"):
        load(small)


def test_weights_that_were_changed_while_they_were_read_are_not_taken_from_the_file(
    small: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_pretrained = AutoModelForCausalLM.from_pretrained

    def changed(*arguments: Any, **given: Any) -> Any:
        model, found = from_pretrained(*arguments, **given)
        with torch.no_grad():
            model.lm_head.weight.mul_(2)  # as a family may that scales its weights
        return model, found

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", changed)
    doubled = load(small, shared=True).model.lm_head.weight
    monkeypatch.undo()
    plain = from_pretrained(small.name).lm_head.weight
    assert torch.equal(doubled, 2 * plain)
