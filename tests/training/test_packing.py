"""Rows that share a line are trained exactly as if each had a line of its own."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.training.loop import train
from symnoise_ray.training.objective import Objective
from symnoise_ray.training.packing import PROBE, block_mask, keeps_rows_apart, pack
from tests.conftest import PAIRS

Trial = Callable[..., TrialConfig]
LENGTHS = random.Random(3).choices(range(1, 61), k=200)


def test_every_row_stands_in_one_line_and_no_line_is_too_long() -> None:
    lines = pack(LENGTHS, 60)
    assert sorted(number for line in lines for number in line) == list(range(200))
    assert all(sum(LENGTHS[number] for number in line) <= 60 for line in lines)


def test_packing_leaves_little_room() -> None:
    least = math.ceil(sum(LENGTHS) / 60)
    assert len(pack(LENGTHS, 60)) <= 1.1 * least
    assert len(pack([60] * 5, 60)) == 5
    assert pack([7], 7) == [[0]]


def test_a_token_sees_itself_and_what_precedes_it_in_its_own_row() -> None:
    sample_BL = torch.tensor([[4, 4, 4, 4, 9, -1]])
    position_BL = torch.tensor([[0, 1, 0, 1, 0, 0]])  # row 4 twice, one after the other
    sees = block_mask(sample_BL, position_BL, torch.float32)[0, 0] == 0
    assert sees.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}


def family(name: str, **settings: Any) -> nn.Module:
    """A tiny random model of a family."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**SMALL, **settings})
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "gemma", "opt", "gpt2", "gpt_neox", "phi"]
)
def test_the_usual_families_keep_rows_apart(name: str, attention: str) -> None:
    model = family(name, attn_implementation=attention)
    assert keeps_rows_apart(model, 12)
    assert keeps_rows_apart(model, 12, by_position=True) == (name != "opt")
    assert model.training


HYBRIDS: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 8, "num_hidden_layers": 1},
    "jamba": {
        **{"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
        **{"expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1},
        **{"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    },
    "lfm2_moe": {
        **{"moe_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1},
        **{"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    },
    "falcon_h1": {
        **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4},
        "mamba_chunk_size": 8,
    },
}


@pytest.mark.parametrize("name", HYBRIDS)
@pytest.mark.parametrize("scale", [0.001, 1])
def test_a_model_that_remembers_is_found_out_however_little_it_does_so(name: str, scale: float):
    """Before training, such layers pass on so little that a test pass alone may not see it."""
    model = family(name, **HYBRIDS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    assert not keeps_rows_apart(model, 12)
    assert not keeps_rows_apart(model, 12, by_position=True)


def test_chunks_shorter_than_the_line_are_not_masked_over() -> None:
    sizes = {"intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 8}
    model = family("llama4_text", **sizes, use_qk_norm=False)
    assert set(model.config.layer_types) == {"chunked_attention"}  # type: ignore[operator]
    assert keeps_rows_apart(model, 8)
    assert not keeps_rows_apart(model, 9)
    assert not keeps_rows_apart(model, 9, by_position=True)


def test_a_window_shorter_than_the_line_is_not_masked_over() -> None:
    model = family("mistral", sliding_window=8)
    assert keeps_rows_apart(model, 8)
    assert not keeps_rows_apart(model, 9)


@pytest.fixture
def uneven(trial: Trial, alpaca_file: Callable[..., Path]) -> Trial:
    """Trials on rows of which one is so long that many others fit into its line."""
    rows = str(alpaca_file([*PAIRS, ("Say it all.", "the wind and the sea " * 8)]))
    common = {"data__train": rows, "train__global_batch_size": 8}
    return lambda **settings: trial(**{**common, **settings})


def run(config: TrialConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    records: list[dict[str, Any]] = []
    trained = train(config, records.append)
    trained.release()
    return records, trained.summary


@pytest.mark.sampled(2)
@pytest.mark.parametrize("execution", ["sequential", "concat"])
@pytest.mark.parametrize("noise_type", ["none", "neftune", "symnoise"])
@pytest.mark.usefixtures("process_group")
def test_packed_and_padded_rows_give_the_same_losses(
    uneven: Trial, noise_type: str, execution: str
) -> None:
    noise = {} if noise_type == "none" else {"noise__alpha": 10}
    common = {"noise__type": noise_type, "noise__execution": execution, **noise}
    packed, about_packed = run(uneven(train__packing="on", **common))
    padded, about_padded = run(uneven(train__packing="off", **common))
    assert about_packed["packed"]
    assert not about_padded["packed"]
    for one, other in zip(packed, padded, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("execution", ["sequential", "concat"])
@pytest.mark.usefixtures("process_group")
def test_one_line_told_apart_by_positions_gives_the_same_losses(
    uneven: Trial, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The form that FlashAttention is given; torch's attention tells the rows apart likewise.
    common = {"noise__type": "symnoise", "noise__alpha": 10, "noise__execution": execution}
    masked, _ = run(uneven(train__packing="on", **common))
    shapes: list[tuple[int, int]] = []
    forward = LlamaForCausalLM.forward

    def watched(self: Any, input_ids: Any = None, **inputs: Any) -> Any:
        if "position_ids" in inputs:
            shapes.append(tuple(input_ids.shape))
            assert "attention_mask" not in inputs
        return forward(self, input_ids=input_ids, **inputs)

    def by_position(self: Objective, engine: Any) -> None:
        init(self, engine)
        self.by_position = True
        monkeypatch.setattr(LlamaForCausalLM, "forward", watched)

    init = Objective.__init__
    monkeypatch.setattr(Objective, "__init__", by_position)
    in_one_line, about = run(uneven(train__packing="on", **common))
    assert about["packed"]
    assert {lines for lines, _ in shapes} == {1}
    assert any(width > sum(PROBE) for _, width in shapes), "not only the probe is packed"
    for one, other in zip(in_one_line, masked, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.usefixtures("process_group")
def test_packing_that_was_asked_for_is_not_silently_left_out(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "forward", _deaf(LlamaForCausalLM.forward))
    with pytest.raises(UserError, match=r"train\.packing=on needs a model that keeps packed rows"):
        run(trial(train__packing="on"))
    assert not run(trial(train__packing="auto"))[1]["packed"]


def _deaf(forward: Any) -> Any:
    """A forward pass that listens neither to the mask nor to positions."""

    def deaf(self: Any, attention_mask: Any = None, position_ids: Any = None, **inputs: Any) -> Any:
        return forward(self, **inputs)

    return deaf
