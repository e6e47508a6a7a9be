"""Noise on hidden states: every layer's output moves by alpha times its own spread, once.

Shape letters: B rows, L positions, D width.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MixtralConfig

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.integrations.transformers import with_noise
from symnoise_ray.models.weights import decoder_layers
from symnoise_ray.noise.embedding import draw_noise
from symnoise_ray.noise.layers import NoisyLayers
from symnoise_ray.noise.types import Copy, passes
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.training.loop import train
from tests.noise.helpers import (
    MASK_BL,
    SEED,
    WIDTH,
    answer_loss,
    apart,
    first_rows,
    gradient,
    noise_of,
    places,
    tokens,
    trained_gradients,
)
from tests.noise.test_families import FAMILIES, family_model

Trial = Callable[..., TrialConfig]

ALPHA = 0.3
HIDDEN: dict[str, Any] = {"noise__type": "hidden", "noise__alpha": ALPHA}
QUICK = {"train__num_clean_rows": 1, "train__probe_alpha": 0, "train__max_steps": 1}
GROUP = (Copy(+1),)


def normal(number: int, place: tuple[Tensor, Tensor], step: int, seed: int) -> Tensor:
    """The normal numbers of a layer: the draw of its number, as `gaussian` draws."""
    noise_BLD, _ = draw_noise(*place, step, number, WIDTH, noise_of("gaussian"), seed)
    return noise_BLD * (place[0] >= 0)[..., None]


def add_by_hand(model: nn.Module, place: tuple[Tensor, Tensor], step: int, seed: int) -> None:
    """Let every layer of a LLaMA add its noise in its own forward function."""

    def noisy(forward: Callable[..., Tensor], number: int) -> Callable[..., Tensor]:
        def run(*arguments: Any, **settings: Any) -> Tensor:
            hidden_BLD = forward(*arguments, **settings)
            mean_BL1 = hidden_BLD.mean(-1, keepdim=True)
            spread_BL1 = (hidden_BLD - mean_BL1).square().mean(-1, keepdim=True).sqrt().detach()
            return hidden_BLD + ALPHA * spread_BL1 * normal(number, place, step, seed)

        return run

    for number, layer in enumerate(model.model.layers):
        layer.forward = noisy(layer.forward, number)


def outputs(model: LlamaForCausalLM, group: tuple[Copy, ...] = GROUP) -> list[Tensor]:
    """What the first layer of the tiny model hands on, and the logits, of a batch under noise."""
    seen: list[Tensor] = []
    noisy = NoisyLayers(decoder_layers(model), noise_of("hidden", ALPHA), SEED)
    watch = model.model.layers[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    count = len(group)
    with noisy.applied(group, *places(), 2):
        logits = model(
            input_ids=tokens().repeat(count, 1), attention_mask=MASK_BL.repeat(count, 1)
        ).logits
    watch.remove()
    noisy.remove()
    return [seen[0].detach(), logits.detach()]


def test_a_layer_hands_on_its_output_moved_by_alpha_times_its_spread(
    tiny_model: LlamaForCausalLM,
) -> None:
    (clean_BLD, _), (noisy_BLD, _) = outputs(tiny_model, (Copy(0),)), outputs(tiny_model)
    spread_BL1 = clean_BLD.std(-1, keepdim=True, correction=0)
    expected_BLD = ALPHA * spread_BL1 * normal(0, places(), 2, SEED)
    assert torch.allclose(noisy_BLD - clean_BLD, expected_BLD, atol=1e-6)
    assert torch.equal(noisy_BLD[MASK_BL == 0], clean_BLD[MASK_BL == 0])
    assert (noisy_BLD[MASK_BL == 1] != clean_BLD[MASK_BL == 1]).any()


def test_the_spread_enters_once() -> None:
    """Twice the state, twice the noise; with the spread twice it would be four times."""
    layer, hidden_BLD = nn.Identity(), torch.randn(*MASK_BL.shape, WIDTH)
    noisy = NoisyLayers([layer], noise_of("hidden", ALPHA), SEED)
    with noisy.applied(GROUP, *places(), 2):
        once, twice = (layer(k * hidden_BLD) - k * hidden_BLD for k in (1, 2))
    assert torch.allclose(twice, 2 * once, atol=1e-5)
    assert torch.equal(layer(hidden_BLD), hidden_BLD)


def test_copies_of_one_pass_have_their_signs(tiny_model: LlamaForCausalLM) -> None:
    both_BLD = outputs(tiny_model, (Copy(+1), Copy(-1)))[0]
    clean_BLD = outputs(tiny_model, (Copy(0),))[0]
    plus_BLD, minus_BLD = both_BLD.chunk(2)
    assert torch.allclose((plus_BLD + minus_BLD) / 2, clean_BLD, atol=1e-6)
    assert torch.allclose(plus_BLD, outputs(tiny_model)[0], atol=1e-6)
    assert not torch.allclose(plus_BLD, clean_BLD, atol=0.01)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_step_of_training_has_the_gradient_by_hand(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, checkpointed: bool
) -> None:
    config = trial(**HIDDEN, **QUICK, train__gradient_checkpointing=checkpointed)
    (trained,) = trained_gradients(config, monkeypatch)
    model, (rows,) = first_rows(config)
    nothing = torch.zeros(())
    plain = gradient(model, answer_loss(model, rows, nothing) / rows.count)
    add_by_hand(model, (rows.sample_BL, rows.position_BL), step=1, seed=config.train.seed)
    expected = gradient(model, answer_loss(model, rows, nothing) / rows.count)
    assert apart(trained, expected) < 2e-6
    assert apart(trained, plain) > 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")
def test_packed_alone_or_sharded_a_row_has_the_same_noise(trial: Trial) -> None:
    def losses(**settings: Any) -> list[float]:
        records: list[dict[str, Any]] = []
        config = trial(**HIDDEN, **{**QUICK, "train__max_steps": 2, **settings})
        train(config, records.append).release()
        return [record["loss"] for record in records if "loss" in record]

    expected = losses(train__packing="off")
    ways = (
        {"train__packing": "on"},
        {"train__packing": "off", "train__micro_batch_size": 1},
        {"train__zero_stage": 3},
    )
    for way in ways:
        assert losses(**way) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_of_every_family_are_found(family: str) -> None:
    model = family_model(family)
    assert len(decoder_layers(model)) == model.config.num_hidden_layers
    clean = model(input_ids=tokens(), attention_mask=MASK_BL).logits
    noisy = NoisyLayers(decoder_layers(model), noise_of("hidden", ALPHA), SEED)
    with noisy.applied(GROUP, *places(), 2):
        moved = model(input_ids=tokens(), attention_mask=MASK_BL).logits
    assert not torch.allclose(moved[MASK_BL == 1], clean[MASK_BL == 1], atol=1e-3)
    assert torch.equal(model(input_ids=tokens(), attention_mask=MASK_BL).logits, clean)


def test_experts_are_no_layers() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = MixtralConfig(**sizes, **heads, num_hidden_layers=2, num_local_experts=6)
    found = decoder_layers(AutoModelForCausalLM.from_config(config))
    assert [type(layer).__name__ for layer in found] == ["MixtralDecoderLayer"] * 2


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"noise\.type=hidden needs a model with a list of layers"):
        NoisyLayers([], noise_of("hidden", ALPHA), SEED)


def test_it_is_forecast_at_the_cost_of_its_control(trial: Trial) -> None:
    hidden, control = (
        forecast(trial(noise__type=kind, noise__alpha=ALPHA), 1, Options())
        for kind in ("hidden", "gaussian")
    )
    assert (hidden.num_steps, hidden.flops) == (control.num_steps, control.flops)
    assert passes(noise_of("hidden", ALPHA)) == passes(noise_of("gaussian"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise__length": "padded"}, r"noise\.length has no meaning for noise\.type=hidden"),
        ({"train__compile": True}, r"noise\.type=hidden needs train\.compile=false, but got true"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    trial: Trial, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        trial(**HIDDEN, **settings)


def test_other_trainers_cannot_be_given_it() -> None:
    with pytest.raises(UserError, match="must only add noise to the embeddings, but hidden change"):
        with_noise(object, type="hidden", alpha=0.1)
