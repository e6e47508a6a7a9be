"""The contract of the noise: what it adds, where, how much, and what it leaves alone.

Shape letters: B rows, L positions, D embedding width.
"""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from symnoise_ray.config import NOISELESS, NoiseConfig
from symnoise_ray.errors import UserError
from symnoise_ray.noise import NOISES, Copy, NoisyEmbedding, draw_noise, noise_scale, passes
from symnoise_ray.philox import philox, random_words, words_in_torch

TYPES = list(NOISES)
NOISY = [name for name in TYPES if name not in NOISELESS]
ONE_SIDED_SIGNS = ["bernoulli", "symnoise", "independent"]
WIDTH = 32
SEED = 7

# Rows of 5, 2, 4 and 1 tokens; the padding stands on the right.
MASK_BL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 0, 0]])
SAMPLE_B = torch.tensor([11, 3, 8, 40])


def noise_of(noise_type: str, alpha: float = 5.0, **settings: Any) -> NoiseConfig:
    """Settings of a noise type; those without noise take no alpha."""
    strength = {} if noise_type in NOISELESS else {"alpha": alpha}
    return NoiseConfig.model_validate({"type": noise_type, **strength, **settings})


def places(mask_BL: Tensor = MASK_BL, sample_B: Tensor = SAMPLE_B) -> tuple[Tensor, Tensor]:
    """Sample and position of every token, as a batch has them; sample -1 is padding."""
    sample_BL = torch.where(mask_BL == 1, sample_B[:, None], -1)
    return sample_BL, (mask_BL.cumsum(1) - 1).clamp_min(0)


def draw(
    config: NoiseConfig,
    mask_BL: Tensor = MASK_BL,
    sample_B: Tensor = SAMPLE_B,
    *,
    step: int = 2,
    number: int = 0,
    width: int = WIDTH,
    seed: int = SEED,
) -> Tensor:
    """The scaled noise of a batch."""
    place = places(mask_BL, sample_B)
    noise_BLD, scale_BL1 = draw_noise(*place, step, number, width, config, seed)
    return noise_BLD * scale_BL1


def tokens(mask_BL: Tensor = MASK_BL) -> Tensor:
    """Input ids of the right shape; padding is word 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 64, mask_BL.shape, generator=generator) * mask_BL


def embed(model: nn.Module, config: NoiseConfig, group: tuple[Copy, ...], step: int = 2) -> Tensor:
    """Embeddings of one forward pass under noise."""
    noisy = NoisyEmbedding(model, config, SEED)
    with noisy.applied(group, *places(), step):
        embeds = model.get_input_embeddings()(tokens().repeat(len(group), 1))
    noisy.remove()
    return embeds.detach()


# The contract of every type


@pytest.mark.parametrize("noise_type", TYPES)
def test_at_alpha_zero_the_model_computes_the_same_bit_for_bit(
    tiny_model: LlamaForCausalLM, noise_type: str
) -> None:
    clean = tiny_model(input_ids=tokens(), attention_mask=MASK_BL).logits
    noisy = NoisyEmbedding(tiny_model, noise_of(noise_type, alpha=0), SEED)
    with noisy.applied((Copy(+1),), *places(), 1):
        logits = tiny_model(input_ids=tokens(), attention_mask=MASK_BL).logits
        ids = tokens()
        plain = F.embedding(ids, tiny_model.get_input_embeddings().weight)
        assert torch.equal(tiny_model.get_input_embeddings()(ids), plain)
    assert torch.equal(logits, clean)


@pytest.mark.parametrize("noise_type", TYPES)
def test_at_alpha_zero_the_batch_is_trained_once(noise_type: str) -> None:
    if noise_type in NOISY:
        assert passes(noise_of(noise_type, alpha=0)) == [(Copy(+1),)]
    else:
        copies = [copy for group in passes(noise_of(noise_type)) for copy in group]
        assert copies == list(NOISES[noise_type].copies)


@pytest.mark.parametrize("noise_type", TYPES)
def test_nothing_is_added_outside_a_training_step(
    tiny_model: LlamaForCausalLM, noise_type: str
) -> None:
    clean = tiny_model(input_ids=tokens(), attention_mask=MASK_BL).logits
    noisy = NoisyEmbedding(tiny_model, noise_of(noise_type), SEED)
    assert torch.equal(tiny_model(input_ids=tokens(), attention_mask=MASK_BL).logits, clean)
    with noisy.applied((Copy(+1),), *places(), 1):
        inside = tiny_model(input_ids=tokens(), attention_mask=MASK_BL).logits
    assert torch.equal(tiny_model(input_ids=tokens(), attention_mask=MASK_BL).logits, clean)
    assert torch.equal(inside, clean) == (noise_type in NOISELESS)


def test_nothing_is_added_after_a_step_that_failed(tiny_model: LlamaForCausalLM) -> None:
    clean = tiny_model(input_ids=tokens()).logits
    noisy = NoisyEmbedding(tiny_model, noise_of("symnoise"), SEED)
    with (
        pytest.raises(ArithmeticError, match="the step failed"),
        noisy.applied((Copy(+1),), *places(), 1),
    ):
        raise ArithmeticError("the step failed")
    assert torch.equal(tiny_model(input_ids=tokens()).logits, clean)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("noise_type", TYPES)
def test_padding_gets_exactly_nothing(noise_type: str, side: str) -> None:
    mask_BL = MASK_BL if side == "right" else MASK_BL.flip(1)
    noise_BLD = draw(noise_of(noise_type), mask_BL)
    assert noise_BLD.shape == (*MASK_BL.shape, WIDTH)
    assert (noise_BLD[mask_BL == 0] == 0).all()
    moved = (noise_BLD[mask_BL == 1] != 0).all()
    assert bool(moved) == (noise_type in NOISY)


def test_a_row_of_padding_alone_gets_nothing() -> None:
    mask_BL = torch.tensor([[0, 0, 0], [1, 1, 0]])
    noise_BLD = draw(noise_of("symnoise"), mask_BL, torch.tensor([0, 1]))
    assert (noise_BLD[0] == 0).all()
    assert torch.isfinite(noise_BLD).all()


@pytest.mark.parametrize("noise_type", TYPES)
def test_the_state_dict_keeps_its_keys(tiny_model: LlamaForCausalLM, noise_type: str) -> None:
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    modules = [name for name, _ in tiny_model.named_modules()]
    noisy = NoisyEmbedding(tiny_model, noise_of(noise_type), SEED)
    assert list(tiny_model.state_dict()) == list(before)
    assert [name for name, _ in tiny_model.named_modules()] == modules
    noisy.remove()
    assert not tiny_model.get_input_embeddings()._forward_hooks
    after = tiny_model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("execution", ["sequential", "concat"])
@pytest.mark.parametrize("noise_type", TYPES)
def test_the_model_takes_every_copy_and_the_gradient_reaches_the_embedding(
    tiny_model: LlamaForCausalLM, noise_type: str, execution: str
) -> None:
    config = noise_of(noise_type, execution=execution)
    noisy = NoisyEmbedding(tiny_model, config, SEED)
    weight = tiny_model.get_input_embeddings().weight
    for group in passes(config):
        weight.grad = None
        count = len(group)
        with noisy.applied(group, *places(), 1):
            logits = tiny_model(
                input_ids=tokens().repeat(count, 1), attention_mask=MASK_BL.repeat(count, 1)
            ).logits
            assert logits.shape == (count * len(MASK_BL), MASK_BL.shape[1], 64)
            logits.logsumexp(-1).sum().backward()
        seen = tokens()[MASK_BL == 1].unique()
        assert weight.grad is not None
        assert (weight.grad[seen].abs().sum(1) > 0).all()


@pytest.mark.parametrize("noise_type", NOISY)
def test_drawing_noise_touches_no_other_random_state(noise_type: str) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    draw(noise_of(noise_type))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_a_model_without_a_token_embedding_is_refused() -> None:
    with pytest.raises(UserError, match=r"noise\.type=symnoise needs a model with a token embeddi"):
        NoisyEmbedding(nn.Linear(2, 2), noise_of("symnoise"), SEED)


def test_a_bf16_model_keeps_its_type_and_is_noised(tiny_model: LlamaForCausalLM) -> None:
    model = tiny_model.to(torch.bfloat16)
    embeds_BLD = embed(model, noise_of("symnoise", alpha=50), (Copy(+1), Copy(-1)))
    clean_BLD = model.get_input_embeddings()(tokens())
    assert embeds_BLD.dtype == torch.bfloat16
    real = MASK_BL == 1
    assert (embeds_BLD[:4][real] != clean_BLD[real]).all()
    assert torch.equal(embeds_BLD[:4][~real], clean_BLD[~real])
    mean_BLD = (embeds_BLD[:4].float() + embeds_BLD[4:].float()) / 2
    assert torch.allclose(mean_BLD, clean_BLD.float(), atol=0.03)


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "gemma", "opt", "gpt2", "gpt_neox", "phi"]
)
def test_the_token_embedding_of_every_family_is_found_and_moves_by_the_scale(family: str) -> None:
    small = {
        "vocab_size": 64,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "ffn_dim": 48,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "max_position_embeddings": 16,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small)).eval()
    config = noise_of("bernoulli")
    clean_BLD = model.get_input_embeddings()(tokens())
    moved_BLD = embed(model, config, (Copy(+1),)) - clean_BLD
    expected_BLD = draw(config, width=clean_BLD.shape[-1])
    assert torch.allclose(moved_BLD, expected_BLD, atol=1e-5)
    noisy = NoisyEmbedding(model, config, SEED)
    with noisy.applied((Copy(+1),), *places(), 2):
        inside = model(input_ids=tokens(), attention_mask=MASK_BL).logits
    outside = model(input_ids=tokens(), attention_mask=MASK_BL).logits
    assert not torch.allclose(inside[MASK_BL == 1], outside[MASK_BL == 1])


# The generator


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        (
            "0 0 0 0",
            "0 0",
            "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        ),
        (
            "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
            "ffffffffffffffff ffffffffffffffff",
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
            "452821e638d01377 be5466cf34e90c6c",
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_philox_gives_its_authors_known_answers(counter: str, key: str, words: str) -> None:
    def numbers(text: str) -> list[int]:
        return [int(word, 16) for word in text.split()]

    c0, c1, c2, c3 = (torch.tensor([number]).long() for number in signed(numbers(counter)))
    k0, k1 = numbers(key)
    given = [int(word) % 2**64 for word in philox((c0, c1, c2, c3), (k0, k1))]
    assert given == numbers(words)


def signed(numbers: list[int]) -> list[int]:
    """The int64 of the same bits."""
    return [(number + 2**63) % 2**64 - 2**63 for number in numbers]


@pytest.mark.parametrize("num_words", [1, 4, 7, 64])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_numpy_and_torch_make_the_same_words(num_words: int, seed: int) -> None:
    place = places(F.pad(MASK_BL, (2, 3)))
    words_BLW = random_words(*place, num_words, step=3, draw=1, seed=seed)
    blocks = words_BLW.shape[-1] // 4
    assert blocks == -(-num_words // 4)
    assert torch.equal(words_BLW, words_in_torch(*place, blocks, 3, 1, seed))
    assert (words_BLW[place[0] < 0] == 0).all()
    assert words_BLW[place[0] >= 0].unique().numel() == MASK_BL.sum() * blocks * 4


@pytest.mark.gpu
@pytest.mark.parametrize("noise_type", NOISY)
def test_a_gpu_draws_the_same_noise(noise_type: str) -> None:
    place = places(torch.ones(4, 50, dtype=torch.long))
    config = noise_of(noise_type)
    on_cpu, _ = draw_noise(*place, 2, 0, 100, config, SEED)
    on_gpu, _ = draw_noise(*(p.cuda() for p in place), 2, 0, 100, config, SEED)
    ulp = torch.finfo(torch.float32).eps * on_cpu.abs()
    assert ((on_gpu.cpu() - on_cpu).abs() <= ulp).all()
    if noise_type in ONE_SIDED_SIGNS:
        assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.parametrize("width", [1, 31, 32, 33, 130])
@pytest.mark.parametrize("noise_type", NOISY)
def test_any_width_is_filled(noise_type: str, width: int) -> None:
    mask_BL = torch.ones(1, 40, dtype=torch.long)
    noise_BLD = draw(noise_of(noise_type), mask_BL, torch.tensor([0]), width=width)
    assert noise_BLD.shape == (1, 40, width)
    assert len({tuple(row.tolist()) for row in noise_BLD[0]}) > min(40, 2**width) / 2


# How much


@pytest.mark.parametrize("noise_type", NOISY)
def test_the_scale_is_alpha_over_the_root_of_the_rows_own_length_times_width(
    noise_type: str,
) -> None:
    lengths_B = torch.tensor([1, 2, 100, 4096])
    expected = [5 / math.sqrt(length * WIDTH) for length in lengths_B.tolist()]
    scale_B = noise_scale(lengths_B, WIDTH, noise_of(noise_type))
    assert scale_B.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("noise_type", ONE_SIDED_SIGNS)
def test_every_component_of_a_real_token_moves_by_exactly_the_scale(noise_type: str) -> None:
    config = noise_of(noise_type)
    scale_B = noise_scale(MASK_BL.sum(1), WIDTH, config)
    expected_BLD = (scale_B[:, None] * MASK_BL)[:, :, None].expand(-1, -1, WIDTH)
    assert torch.equal(draw(config).abs(), expected_BLD)


def test_the_halves_of_symnoise_are_mirror_images_around_the_clean_embedding(
    tiny_model: LlamaForCausalLM,
) -> None:
    config = noise_of("symnoise", execution="concat")
    clean_BLD = tiny_model.get_input_embeddings()(tokens()).detach()
    (pair,) = passes(config)
    plus_BLD, minus_BLD = embed(tiny_model, config, pair).chunk(2)
    assert (plus_BLD + minus_BLD).div(2).sub(clean_BLD).abs().max() < 1e-6
    scale_B = noise_scale(MASK_BL.sum(1), WIDTH, config)
    for half_BLD in (plus_BLD, minus_BLD):
        moved_BL = (half_BLD - clean_BLD).abs()
        expected_BL = (scale_B[:, None] * MASK_BL)[:, :, None].expand_as(moved_BL)
        assert torch.allclose(moved_BL, expected_BL, atol=1e-6, rtol=0)


@pytest.mark.parametrize("noise_type", ["symnoise", "symuniform", "symgaussian"])
def test_a_pair_is_the_same_whether_it_runs_together_or_in_turn(
    tiny_model: LlamaForCausalLM, noise_type: str
) -> None:
    together = embed(tiny_model, noise_of(noise_type), (Copy(+1), Copy(-1)))
    in_turn = [embed(tiny_model, noise_of(noise_type), g) for g in passes(noise_of(noise_type))]
    assert torch.equal(together, torch.cat(in_turn))


def test_independent_copies_are_unrelated(tiny_model: LlamaForCausalLM) -> None:
    config = noise_of("independent", execution="concat")
    (group,) = passes(config)
    clean_BLD = tiny_model.get_input_embeddings()(tokens()).detach()
    halves = (embed(tiny_model, config, group) - clean_BLD.repeat(2, 1, 1)).chunk(2)
    moved = torch.stack([half_BLD[MASK_BL == 1].sign().flatten() for half_BLD in halves])
    assert abs(float(torch.corrcoef(moved)[0, 1])) < 4 / math.sqrt(moved.shape[1])


def test_duplicates_are_two_clean_copies(tiny_model: LlamaForCausalLM) -> None:
    config = noise_of("duplicate", execution="concat")
    (group,) = passes(config)
    clean_BLD = tiny_model.get_input_embeddings()(tokens()).detach()
    assert torch.equal(embed(tiny_model, config, group), clean_BLD.repeat(2, 1, 1))


@pytest.mark.parametrize("noise_type", NOISY)
def test_matched_noise_has_the_same_mean_square_whatever_its_law(noise_type: str) -> None:
    mask_BL = torch.ones(1, 800, dtype=torch.long)
    config = noise_of(noise_type, scale="matched")
    norm = draw(config, mask_BL, torch.tensor([0]), width=64).norm()
    assert float(norm) == pytest.approx(5 / math.sqrt(3), rel=0.01)


def test_matching_leaves_uniform_noise_as_it_is() -> None:
    published, matched = (draw(noise_of("neftune", scale=s)) for s in ("published", "matched"))
    assert torch.equal(published, matched)


@pytest.mark.parametrize(
    ("noise_type", "rms", "least", "most", "kurtosis"),
    [
        ("neftune", 1 / math.sqrt(3), 0.9999, 1.0, 1.8),
        ("symuniform", 1 / math.sqrt(3), 0.9999, 1.0, 1.8),
        ("gaussian", 1.0, 4.0, 6.0, 3.0),
        ("symgaussian", 1.0, 4.0, 6.0, 3.0),
        ("bernoulli", 1.0, 1.0, 1.0, 1.0),
        ("symnoise", 1.0, 1.0, 1.0, 1.0),
        ("independent", 1.0, 1.0, 1.0, 1.0),
    ],
)
def test_every_law_has_its_mean_spread_extent_and_shape(
    noise_type: str, rms: float, least: float, most: float, kurtosis: float
) -> None:
    length, width = 2000, 128
    mask_BL = torch.ones(1, length, dtype=torch.long)
    alpha = math.sqrt(length * width)  # so that the scale is 1
    values = draw(noise_of(noise_type, alpha), mask_BL, torch.tensor([0]), width=width).double()
    count = values.numel()
    assert abs(float(values.mean())) < 4 * rms / math.sqrt(count)
    assert float(values.square().mean().sqrt()) == pytest.approx(rms, rel=0.01)
    assert least - 1e-5 <= float(values.abs().max()) <= most + 1e-5
    assert float(values.pow(4).mean()) / rms**4 == pytest.approx(kurtosis, rel=0.05)
    # Neighbours in position and in component are unrelated.
    for first, second in ((values[:, 1:], values[:, :-1]), (values[..., 1:], values[..., :-1])):
        correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(float(correlation)) < 4 / math.sqrt(count)


# A pure function of seed, step, sample, position and component


def real(noise_BLD: Tensor, mask_BL: Tensor) -> list[Tensor]:
    """The noise of every row's real tokens."""
    return [row[mask == 1] for row, mask in zip(noise_BLD, mask_BL, strict=True)]


@pytest.mark.parametrize("noise_type", NOISY)
def test_padding_on_either_side_or_none_gives_every_token_the_same_noise(noise_type: str) -> None:
    config = noise_of(noise_type)
    right = real(draw(config), MASK_BL)
    left = real(draw(config, MASK_BL.flip(1)), MASK_BL.flip(1))
    wider = F.pad(MASK_BL, (3, 2))
    both = real(draw(config, wider), wider)
    for index, sample in enumerate(SAMPLE_B):
        alone = MASK_BL[index : index + 1, : int(MASK_BL[index].sum())]
        unpadded = draw(config, alone, sample[None])[0]
        for noise_LD in (right[index], left[index], both[index]):
            assert torch.equal(noise_LD, unpadded)


@pytest.mark.parametrize("noise_type", NOISY)
def test_a_rows_noise_does_not_depend_on_its_batch(noise_type: str) -> None:
    config = noise_of(noise_type)
    whole = draw(config)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(draw(config, MASK_BL[order], SAMPLE_B[order]), whole[order])
    parts = [draw(config, MASK_BL[i : i + 2], SAMPLE_B[i : i + 2]) for i in (0, 2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("noise_type", NOISY)
@pytest.mark.parametrize(
    "changed",
    [{"step": 3}, {"seed": SEED + 1}, {"number": 1}, {"sample_B": SAMPLE_B + 1}],
    ids=["step", "seed", "draw", "sample"],
)
def test_the_noise_differs_between(noise_type: str, changed: dict[str, Any]) -> None:
    config = noise_of(noise_type)
    one, other = draw(config), draw(config, **changed)
    assert torch.equal(draw(config), one)
    for first, second in zip(real(one, MASK_BL), real(other, MASK_BL), strict=True):
        assert not torch.equal(first, second)
    flat = torch.stack([torch.cat(real(n, MASK_BL)).flatten() for n in (one, other)])
    assert abs(float(torch.corrcoef(flat)[0, 1])) < 0.25


def test_the_noise_of_one_row_seen_twice_in_a_step_is_the_same() -> None:
    noise_BLD = draw(noise_of("symnoise"), MASK_BL[:1].repeat(2, 1), torch.tensor([5, 5]))
    assert torch.equal(noise_BLD[0], noise_BLD[1])


# The padded length


@pytest.mark.parametrize("noise_type", ONE_SIDED_SIGNS)
def test_the_padded_length_noises_padding_and_counts_it(noise_type: str) -> None:
    config = noise_of(noise_type, length="padded")
    expected = torch.tensor(5 / math.sqrt(MASK_BL.shape[1] * WIDTH))
    assert torch.allclose(draw(config).abs(), expected, rtol=1e-6)
    assert torch.equal(draw(config), draw(config, torch.ones_like(MASK_BL)))


def test_without_padding_both_lengths_agree() -> None:
    mask_BL = torch.ones(2, 6, dtype=torch.long)
    true, padded = (
        draw(noise_of("gaussian", length=length), mask_BL, SAMPLE_B[:2])
        for length in ("true", "padded")
    )
    assert torch.equal(true, padded)


# Two executions, one gradient


def gradients(
    model: LlamaForCausalLM, config: NoiseConfig, labels_BL: Tensor
) -> tuple[float, list[Tensor]]:
    """Loss per answer token and copy, and its gradient, over all passes of a step."""
    model.zero_grad()
    groups = passes(config)
    num_copies = sum(len(group) for group in groups)
    count = int((labels_BL[:, 1:] != -100).sum()) * num_copies
    noisy = NoisyEmbedding(model, config, SEED)
    total = 0.0
    for group in groups:
        with noisy.applied(group, *places(), 4):
            logits_BLV = model(
                input_ids=tokens().repeat(len(group), 1),
                attention_mask=MASK_BL.repeat(len(group), 1),
            ).logits
            loss = F.cross_entropy(
                logits_BLV[:, :-1].flatten(0, 1),
                labels_BL.repeat(len(group), 1)[:, 1:].flatten(),
                reduction="sum",
            )
            (loss / count).backward()
        total += float(loss.detach()) / count
    noisy.remove()
    return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.fixture
def labels() -> Tensor:
    """Labels of rows whose prompts (one or two tokens) and padding are not trained on."""
    labels_BL = tokens().masked_fill(MASK_BL == 0, -100)
    labels_BL[:, 0] = -100
    labels_BL[0, 1] = -100
    return labels_BL


@pytest.mark.parametrize("noise_type", [name for name in TYPES if len(NOISES[name].copies) > 1])
def test_concat_and_sequential_have_the_same_gradient(
    tiny_model: LlamaForCausalLM, labels: Tensor, noise_type: str
) -> None:
    model = tiny_model.double()
    (loss, grads), (other_loss, other_grads) = (
        gradients(model, noise_of(noise_type, execution=execution), labels)
        for execution in ("concat", "sequential")
    )
    assert loss == pytest.approx(other_loss, rel=1e-9)
    for grad, other in zip(grads, other_grads, strict=True):
        assert float((grad - other).norm()) <= 1e-6 * float(grad.norm())


def test_a_duplicated_batch_has_the_gradient_of_the_plain_one(
    tiny_model: LlamaForCausalLM, labels: Tensor
) -> None:
    model = tiny_model.double()
    loss, grads = gradients(model, noise_of("none"), labels)
    twice, twice_grads = gradients(model, noise_of("duplicate"), labels)
    assert twice == pytest.approx(loss, rel=1e-9)
    for grad, other in zip(grads, twice_grads, strict=True):
        assert torch.allclose(grad, other, rtol=1e-9, atol=1e-12)


def test_a_padded_batch_has_the_gradient_of_its_unpadded_rows(
    tiny_model: LlamaForCausalLM, labels: Tensor
) -> None:
    model = tiny_model.double()
    config = noise_of("symnoise")
    _, padded = gradients(model, config, labels)
    model.zero_grad()
    count = int((labels[:, 1:] != -100).sum()) * 2
    noisy = NoisyEmbedding(model, config, SEED)
    for index in range(len(MASK_BL)):
        end = int(MASK_BL[index].sum())
        rows = slice(index, index + 1), slice(0, end)
        for group in passes(config):
            with noisy.applied(group, *(place[rows] for place in places()), 4):
                logits = model(input_ids=tokens()[rows]).logits
                loss = F.cross_entropy(logits[0, :-1], labels[rows][0, 1:], reduction="sum")
                (loss / count).backward()
    unpadded = [p.grad for p in model.parameters() if p.grad is not None]
    for grad, other in zip(padded, unpadded, strict=True):
        assert float((grad - other).norm()) <= 1e-6 * float(grad.norm())


def test_a_symmetric_pair_cancels_what_is_odd_in_the_noise(
    tiny_model: LlamaForCausalLM, labels: Tensor
) -> None:
    model = tiny_model.double()
    clean, _ = gradients(model, noise_of("none"), labels)

    def excess(noise_type: str, alpha: float) -> float:
        return abs(gradients(model, noise_of(noise_type, alpha), labels)[0] - clean)

    # Halving alpha halves the effect of one-sided noise, and quarters that of the pair.
    assert excess("bernoulli", 0.02) / excess("bernoulli", 0.01) == pytest.approx(2, rel=0.1)
    assert excess("symnoise", 0.02) / excess("symnoise", 0.01) == pytest.approx(4, rel=0.1)
