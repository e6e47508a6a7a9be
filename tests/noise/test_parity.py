"""NEFTune as transformers has it: with `padded` and torch's generator, the same bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

import symnoise_ray.training.loop
from symnoise_ray.config import TrialConfig
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import Copy
from symnoise_ray.training.loop import train
from tests.noise.helpers import MASK_BL, SEED, draw, noise_of, places, tokens

Trial = Callable[..., TrialConfig]

ALPHA = 5.0
LIKE_THE_HOOK = {"alpha": ALPHA, "length": "padded", "generator": "torch"}
GROUP = (Copy(+1),)


def by_transformers(model: LlamaForCausalLM, seed: int) -> Tensor:
    """Embeddings of the small batch under transformers' own hook."""
    handle = activate_neftune(model, ALPHA)
    torch.manual_seed(seed)
    embeds_BLD: Tensor = model.get_input_embeddings()(tokens()).detach()
    deactivate_neftune(model, handle)
    return embeds_BLD


def by_us(model: LlamaForCausalLM, seed: int, **settings: Any) -> Tensor:
    """The same by ours."""
    noisy = NoisyEmbedding(model, noise_of("neftune", **{**LIKE_THE_HOOK, **settings}), SEED)
    torch.manual_seed(seed)
    with noisy.applied(GROUP, *places(), 1):
        embeds_BLD: Tensor = model.get_input_embeddings()(tokens()).detach()
    noisy.remove()
    return embeds_BLD


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_the_embeddings_are_those_of_transformers_bit_for_bit(
    tiny_model: LlamaForCausalLM, seed: int, dtype: torch.dtype
) -> None:
    model = tiny_model.to(dtype).train()
    assert torch.equal(by_us(model, seed), by_transformers(model, seed))
    clean_BLD = model.get_input_embeddings()(tokens())
    assert not torch.equal(by_us(model, seed)[MASK_BL == 0], clean_BLD[MASK_BL == 0])


def test_torchs_stream_is_left_where_transformers_leaves_it(tiny_model: LlamaForCausalLM) -> None:
    by_transformers(tiny_model.train(), 0)
    state = torch.get_rng_state()
    by_us(tiny_model, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_different_seed_length_or_generator_is_not_the_hook(
    tiny_model: LlamaForCausalLM,
) -> None:
    hooked = by_transformers(tiny_model.train(), 0)
    assert not torch.equal(by_us(tiny_model, 1), hooked)
    assert not torch.equal(by_us(tiny_model, 0, generator="counter"), hooked)
    assert not torch.equal(by_us(tiny_model, 0, generator="counter", length="true"), hooked)
    assert not torch.equal(by_us(tiny_model, 0, alpha=ALPHA * (1 + 1e-6)), hooked)


def test_the_counters_padded_noise_has_the_hooks_range(tiny_model: LlamaForCausalLM) -> None:
    model = tiny_model.train()
    clean_BLD = model.get_input_embeddings()(tokens()).detach()
    hooked = [by_transformers(model, seed) - clean_BLD for seed in range(50)]
    config = noise_of("neftune", length="padded")
    ours = [draw(config, step=step) for step in range(50)]
    most, our_most = (torch.stack(drawn).abs().amax().item() for drawn in (hooked, ours))
    # 32,000 uniform values each: both largest are within 1e-3 of the bound, and not beyond it.
    assert our_most == pytest.approx(most, rel=1e-3)
    spread, our_spread = (torch.stack(drawn).std().item() for drawn in (hooked, ours))
    assert our_spread == pytest.approx(spread, rel=4 * (0.8 / 4 / 32_000 * 2) ** 0.5)


def losses(config: TrialConfig) -> list[float]:
    """The loss of every step."""
    records: list[dict[str, Any]] = []
    train(config, records.append).release()
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_training_has_the_losses_of_transformers_hook_bit_for_bit(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    quick = {"model__dtype": dtype, "train__max_steps": 3, "train__num_clean_rows": 1}
    ours = {f"noise__{name}": value for name, value in LIKE_THE_HOOK.items()}
    noised = losses(trial(noise__type="neftune", **ours, **quick))
    load = symnoise_ray.training.loop.load

    def load_with_hook(*arguments: Any, **how: Any) -> Any:
        loaded = load(*arguments, **how)
        activate_neftune(loaded.model, ALPHA)
        return loaded

    clean = losses(trial(**quick))
    monkeypatch.setattr(symnoise_ray.training.loop, "load", load_with_hook)
    assert noised == losses(trial(**quick))
    assert noised != clean
