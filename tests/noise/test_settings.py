"""The noise under what real trainings add: checkpointing, LoRA, compilation, bf16, ZeRO, dropout.

Beside these: clean rows that join the noisy ones, and the probe that measures the curvature.

Shape letters: B rows, L positions, D embedding width.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM

from symnoise_ray.config import NoiseConfig, TrialConfig
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import NOISES, Copy, passes
from symnoise_ray.training.loop import train
from tests.noise.helpers import (
    MASK_BL,
    SEED,
    TYPES,
    all_rows,
    apart,
    draw,
    embed,
    first_rows,
    losses_by_hand,
    noise_of,
    padded,
    places,
    tokens,
)

Trial = Callable[..., TrialConfig]

GROUP = (Copy(+1),)
PROBE_SEED = 23
"""Another one would make curvatures differ from those of earlier sweeps."""
LIKE_THE_HOOK = noise_of("neftune", length="padded", generator="torch")


def records_of(config: TrialConfig) -> list[dict[str, Any]]:
    """What a trial reports."""
    records: list[dict[str, Any]] = []
    train(config, records.append).release()
    return records


def losses(config: TrialConfig) -> list[float]:
    """The training loss of every step."""
    return [record["loss"] for record in records_of(config) if "loss" in record]


# Gradient checkpointing


def next_word_loss(logits_BLV: Tensor) -> Tensor:
    """Any loss of all real tokens."""
    return logits_BLV[MASK_BL == 1].logsumexp(-1).square().mean()


def noisy_gradient(
    model: nn.Module, config: NoiseConfig, *, whole: bool = False, outside: bool = False
) -> Tensor:
    """Gradient under noise; the whole model checkpointed, or its backward pass done too late."""
    torch.manual_seed(0)
    model.zero_grad()
    noisy = NoisyEmbedding(model, config, SEED)

    def logits_of(ids_BL: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids_BL, attention_mask=MASK_BL, use_cache=False).logits
        return logits

    with noisy.applied(GROUP, *places(), 2):
        logits = (
            checkpoint(logits_of, tokens(), use_reentrant=False) if whole else logits_of(tokens())
        )
        loss = next_word_loss(logits)
        if not outside:
            loss.backward()
    if outside:
        loss.backward()
    noisy.remove()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("config", [noise_of("symnoise"), LIKE_THE_HOOK], ids=["counter", "torch"])
def test_a_recomputed_forward_pass_sees_the_same_noise(
    tiny_model: LlamaForCausalLM, config: NoiseConfig
) -> None:
    model = tiny_model.train()
    plain = noisy_gradient(model, config)
    assert torch.equal(noisy_gradient(model, config, whole=True), plain)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert torch.equal(noisy_gradient(model, config), plain)
    model.gradient_checkpointing_disable()


def test_recomputed_outside_its_step_the_noise_would_be_missed(
    tiny_model: LlamaForCausalLM,
) -> None:
    model, config = tiny_model.train(), noise_of("symnoise")
    plain = noisy_gradient(model, config)
    assert torch.equal(noisy_gradient(model, config, outside=True), plain)
    assert apart(noisy_gradient(model, config, whole=True, outside=True), plain) > 0.1


# LoRA


LORA: dict[str, dict[str, Any]] = {
    "on layers": {"target_modules": ["q_proj"]},
    "on the embedding too": {"target_modules": ["embed_tokens", "q_proj"]},
    "with the embedding trained whole": {
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens"],
    },
    "with some words trained": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": [1, 2, 3],
    },
}


@pytest.mark.parametrize("kind", LORA)
def test_lora_models_get_the_noise_once_and_keep_their_keys(
    tiny_model: LlamaForCausalLM, kind: str
) -> None:
    model = get_peft_model(tiny_model, LoraConfig(r=2, init_lora_weights=False, **LORA[kind]))
    config, keys = noise_of("symnoise"), list(model.state_dict())
    clean_BLD = model.get_input_embeddings()(tokens()).detach()
    moved_BLD = embed(model, config, GROUP) - clean_BLD
    assert torch.allclose(moved_BLD, draw(config), atol=1e-6)
    clean = model(input_ids=tokens(), attention_mask=MASK_BL).logits
    noisy = NoisyEmbedding(model, config, SEED)
    assert list(model.state_dict()) == keys
    with noisy.applied(GROUP, *places(), 2):
        inside = model(input_ids=tokens(), attention_mask=MASK_BL).logits
    by_hand = model(inputs_embeds=clean_BLD + draw(config), attention_mask=MASK_BL).logits
    assert torch.allclose(inside, by_hand, atol=1e-5)
    assert torch.equal(model(input_ids=tokens(), attention_mask=MASK_BL).logits, clean)
    assert not torch.allclose(inside, clean, atol=0.1)


def test_lora_with_checkpointing_has_the_same_gradient(tiny_model: LlamaForCausalLM) -> None:
    config = noise_of("symnoise")
    lora = LoraConfig(r=2, init_lora_weights=False, **LORA["on layers"])
    model = get_peft_model(tiny_model, lora).train()
    plain = noisy_gradient(model, config)
    model.enable_input_require_grads()  # what PEFT asks for when the embedding is frozen
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert torch.equal(noisy_gradient(model, config), plain)
    assert plain.norm() > 0


# torch.compile


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "backend"),
    [(noise_of("symnoise"), "aot_eager"), (LIKE_THE_HOOK, "eager")],
    ids=["counter", "torch"],
)
def test_a_compiled_model_is_one_graph_and_as_noisy_as_the_plain_one(
    tiny_model: LlamaForCausalLM, config: NoiseConfig, backend: str
) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    noisy = NoisyEmbedding(tiny_model, config, SEED)
    compiled = torch.compile(tiny_model, backend=backend, fullgraph=True)  # a break would raise

    def both(mask_BL: Tensor) -> list[Tensor]:
        logits = []
        for model in (tiny_model, compiled):
            torch.manual_seed(0)
            inputs = {"input_ids": tokens(mask_BL), "attention_mask": mask_BL}
            logits.append(model(**inputs, use_cache=False).logits.detach())
        return logits

    graphs = []
    for step in range(6):
        mask_BL = F.pad(MASK_BL, (0, step % 3))  # lengths change, as those of batches do
        sample_BL, position_BL = places(mask_BL)
        with noisy.applied((Copy(-1) if step % 2 else Copy(+1),), sample_BL, position_BL, step):
            eager, ours = both(mask_BL)
        assert torch.allclose(ours, eager, atol=1e-5)
        clean_eager, clean_ours = both(mask_BL)
        assert torch.allclose(clean_ours, clean_eager, atol=1e-5)
        assert not torch.allclose(ours, clean_ours, atol=0.1)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert not torch._dynamo.utils.counters["graph_break"]
    # With noise and without, for one length and for any; nothing new after the third step.
    assert graphs[-1] == graphs[2] <= 6
    torch.compiler.reset()


# bf16


@pytest.mark.parametrize("noise_type", [name for name in TYPES if NOISES[name].law])
def test_bf16_is_rounded_once_from_fp32(tiny_model: LlamaForCausalLM, noise_type: str) -> None:
    model, config = tiny_model.to(torch.bfloat16), noise_of(noise_type)
    clean_BLD = model.get_input_embeddings()(tokens()).float().detach()
    expected_BLD = (clean_BLD + draw(config)).bfloat16()
    given_BLD = embed(model, config, GROUP)
    assert given_BLD.dtype == torch.bfloat16
    assert torch.equal(given_BLD, expected_BLD)
    twice_rounded_BLD = model.get_input_embeddings()(tokens()) + draw(config).bfloat16()
    assert not torch.equal(given_BLD, twice_rounded_BLD)


# ZeRO-3


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "execution", ["sequential", pytest.param("concat", marks=pytest.mark.slow)]
)
def test_sharded_weights_train_under_the_same_noise(trial: Trial, execution: str) -> None:
    settings = {"noise__type": "symnoise", "noise__alpha": 5, "noise__execution": execution}
    settings |= {"train__max_steps": 3}
    replicated, sharded = (
        records_of(trial(train__zero_stage=stage, **settings)) for stage in (0, 3)
    )
    for one, other in zip(replicated, sharded, strict=True):
        for record in (one, other):
            for name in ("curvature", "first_difference"):  # differences of nearly equal losses
                record.pop(name, None)
        assert other == pytest.approx(one, rel=1e-5)
    plain = losses(trial(train__zero_stage=3, train__max_steps=1))
    assert abs(sharded[1]["loss"] - plain[0]) > 1e-2


# Evaluation and generation


@pytest.mark.parametrize("noise_type", TYPES)
def test_evaluation_and_generation_are_clean(tiny_model: LlamaForCausalLM, noise_type: str) -> None:
    ids_BL = tokens()[:1]
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    words = tiny_model.generate(ids_BL, attention_mask=torch.ones_like(ids_BL), **settings)
    logits = tiny_model.train()(input_ids=ids_BL).logits
    noisy = NoisyEmbedding(tiny_model, noise_of(noise_type, alpha=50), SEED)
    with noisy.applied(GROUP, *places(), 1):
        tiny_model(input_ids=tokens())
    assert torch.equal(tiny_model(input_ids=ids_BL).logits, logits)
    tiny_model.eval()
    again = tiny_model.generate(ids_BL, attention_mask=torch.ones_like(ids_BL), **settings)
    assert torch.equal(again, words)


def test_noise_does_not_wait_for_the_embeddings_training_mode(
    tiny_model: LlamaForCausalLM,
) -> None:
    model, config = tiny_model.train(), noise_of("symnoise")
    model.get_input_embeddings().eval()  # as a frozen embedding may be
    clean_BLD = model.get_input_embeddings()(tokens()).detach()
    assert torch.allclose(embed(model, config, GROUP) - clean_BLD, draw(config), atol=1e-6)


# Resuming, and switching off


@pytest.mark.parametrize("noise_type", [name for name in TYPES if NOISES[name].law])
def test_a_resumed_training_draws_the_noise_of_the_one_that_ran_through(
    tiny_model: LlamaForCausalLM, noise_type: str
) -> None:
    config, group = noise_of(noise_type, execution="concat"), passes(noise_of(noise_type))[0]
    running = NoisyEmbedding(tiny_model, config, SEED)
    seen = []
    for step in range(6):
        torch.rand(step)  # other random streams move on as they like
        with running.applied(group, *places(), step):
            seen.append(tiny_model.get_input_embeddings()(tokens()).detach())
    running.remove()
    for step in (5, 3, 0):
        assert torch.equal(embed(tiny_model, config, group, step=step), seen[step])
    assert not torch.equal(seen[5], seen[4])


def test_noise_leaves_dropout_masks_alone(tiny_model: LlamaForCausalLM) -> None:
    masks: list[Tensor] = []
    dropout = nn.Dropout(0.5)
    layer = tiny_model.model.layers[0]
    layer.register_forward_hook(lambda _module, _inputs, output: dropout(output))
    dropout.register_forward_hook(lambda _m, _i, output: masks.append(output.detach() == 0))
    for noise_type in TYPES:
        torch.manual_seed(0)
        noisy = NoisyEmbedding(tiny_model, noise_of(noise_type), SEED)
        for step in range(2):
            with noisy.applied(GROUP, *places(), step):
                tiny_model.train()(input_ids=tokens())
        noisy.remove()
    for first, second in zip(masks[2::2], masks[3::2], strict=True):
        assert torch.equal(first, masks[0])
        assert torch.equal(second, masks[1])
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.usefixtures("process_group")
def test_noise_leaves_the_rows_of_every_step_alone(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[list[int]]] = []
    forward = LlamaForCausalLM.forward

    def see(self: Any, *arguments: Any, **settings: Any) -> Any:
        seen[-1].append(sorted(settings["input_ids"].flatten().tolist()))
        return forward(self, *arguments, **settings)

    monkeypatch.setattr(LlamaForCausalLM, "forward", see)
    quick = {"train__max_steps": 4, "train__num_clean_rows": 1}
    for alpha in ({}, {"noise__type": "neftune", "noise__alpha": 5}):
        seen.append([])
        losses(trial(**alpha, **quick))
    assert seen[0] == seen[1]
    assert len(seen[0]) > 8


# Clean rows beside noisy ones


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("execution", ["sequential", "concat"])
@pytest.mark.parametrize("noise_type", ["symnoise", "neftune"])
def test_with_clean_rows_the_loss_is_the_mean_over_all_copies(
    trial: Trial, noise_type: str, execution: str
) -> None:
    strength = {"noise__type": noise_type, "noise__alpha": 5, "noise__execution": execution}
    settings = {"train__max_steps": 1, "train__num_clean_rows": 1, **strength}
    config = trial(noise__include_clean=True, **settings)
    model, (rows,) = first_rows(config)
    with torch.no_grad():
        *noisy, clean = (float(loss) for loss in losses_by_hand(model, rows, config.noise))
        assert [clean] == pytest.approx(
            [float(loss) for loss in losses_by_hand(model, rows, noise_of("none"))], rel=1e-6
        )
    assert len(noisy) == len(NOISES[noise_type].copies)
    assert losses(config) == pytest.approx([(sum(noisy) + clean) / (len(noisy) + 1)], rel=1e-6)
    assert losses(trial(**settings)) == pytest.approx([sum(noisy) / len(noisy)], rel=1e-6)
    assert abs(sum(noisy) / len(noisy) - clean) > 1e-3


# The probe of the curvature


@pytest.mark.usefixtures("process_group")
def test_the_probe_is_the_second_difference_on_the_clean_rows(trial: Trial) -> None:
    config = trial(train__num_clean_rows=12, train__probe_alpha=8, train__max_steps=1)
    first, *_ = records_of(config)
    assert first["curvature"] == pytest.approx(2 * (first["noisy_loss"] - first["clean_loss"]))
    model, rows = all_rows(config)
    assert len(rows) == 12
    batch = padded(rows, list(range(12)))
    probe = noise_of("symnoise", alpha=8)
    with torch.no_grad():
        plus, minus = losses_by_hand(model, batch, probe, step=0, seed=PROBE_SEED)
        (clean,) = losses_by_hand(model, batch, noise_of("none"))
    assert first["clean_loss"] == pytest.approx(float(clean), rel=1e-6)
    assert first["noisy_loss"] == pytest.approx(float(plus + minus) / 2, rel=1e-6)
    assert abs(first["curvature"]) > 1e-2
    apart = []
    for number in range(12):
        row = padded(rows, [number])
        with torch.no_grad():
            plus, minus = losses_by_hand(model, row, probe, step=0, seed=PROBE_SEED)
        apart.append(abs(float(plus - minus)))
    # The L2 norm of a row's sign noise is alpha, whatever its length.
    assert draw(probe, MASK_BL).flatten(1).norm(dim=1).tolist() == pytest.approx([8.0] * 4)
    assert first["first_difference"] == pytest.approx(sum(apart) / 12 / (2 * 8), rel=1e-4)
    assert first["first_difference"] > 1e-3


@pytest.mark.usefixtures("process_group")
def test_the_probe_is_the_same_whatever_the_noise_until_the_weights_differ(trial: Trial) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"noise__type": "symnoise", "noise__alpha": 5},
        {"noise__type": "gaussian", "noise__alpha": 1},
        {"noise__type": "duplicate", "noise__execution": "concat"},
    ]
    records = [records_of(trial(train__max_steps=2, **given)) for given in settings]
    assert "curvature" in records[0][0]
    for other in records[1:]:
        assert other[0] == records[0][0]
    assert records[1][2]["curvature"] != records[0][2]["curvature"]


@pytest.mark.usefixtures("process_group")
def test_a_probe_of_strength_zero_is_left_out_and_changes_no_training(trial: Trial) -> None:
    settings = {"noise__type": "symnoise", "noise__alpha": 5, "train__max_steps": 2}
    without, with_probe = (
        records_of(trial(train__probe_alpha=alpha, **settings)) for alpha in (0, 5)
    )
    for one, other in zip(without, with_probe, strict=True):
        probed = ("noisy_loss", "curvature", "first_difference")
        measured = {name: other.pop(name) for name in probed if name in other}
        assert bool(measured) == ("clean_loss" in one)
        assert one == other
