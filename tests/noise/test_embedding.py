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
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from symnoise_ray.errors import UserError
from symnoise_ray.noise.embedding import NoisyEmbedding, draw_noise, noise_scale
from symnoise_ray.noise.philox import random_words, words_in_torch
from symnoise_ray.noise.types import NOISES, Copy, passes
from tests.noise.helpers import (
    LAWS,
    MASK_BL,
    NOISELESS,
    NOISY,
    ONE_SIDED_SIGNS,
    SAMPLE_B,
    SEED,
    TYPES,
    WIDTH,
    draw,
    embed,
    noise_of,
    places,
    tokens,
)

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
@pytest.mark.parametrize("noise_type", LAWS)
def test_padding_gets_exactly_nothing(noise_type: str, side: str) -> None:
    mask_BL = MASK_BL if side == "right" else MASK_BL.flip(1)
    noise_BLD = draw(noise_of(noise_type), mask_BL)
    assert noise_BLD.shape == (*MASK_BL.shape, WIDTH)
    assert (noise_BLD[mask_BL == 0] == 0).all()
    assert (noise_BLD[mask_BL == 1] != 0).all()


def test_the_noise_of_a_type_is_that_of_its_law() -> None:
    of_law = {NOISES[name].law: draw(noise_of(name)) for name in LAWS}
    for name in NOISY:
        assert torch.equal(draw(noise_of(name)), of_law[NOISES[name].law]), name
    for name in NOISELESS:
        assert (draw(noise_of(name)) == 0).all(), name


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


@pytest.mark.parametrize(
    ("noise_type", "execution"),
    [*((name, "sequential") for name in TYPES), ("symnoise", "concat"), ("independent", "concat")],
)
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


@pytest.mark.parametrize("noise_type", LAWS)
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


@pytest.mark.parametrize("width", [1, 32, 33, 130])
@pytest.mark.parametrize("noise_type", LAWS)
def test_any_width_is_filled(noise_type: str, width: int) -> None:
    mask_BL = torch.ones(1, 40, dtype=torch.long)
    noise_BLD = draw(noise_of(noise_type), mask_BL, torch.tensor([0]), width=width)
    assert noise_BLD.shape == (1, 40, width)
    assert len({tuple(row.tolist()) for row in noise_BLD[0]}) > min(40, 2**width) / 2


# How much


@pytest.mark.parametrize("noise_type", LAWS)
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


@pytest.mark.parametrize("noise_type", LAWS)
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


@pytest.mark.parametrize("noise_type", LAWS)
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


@pytest.mark.parametrize("noise_type", LAWS)
def test_a_rows_noise_does_not_depend_on_its_batch(noise_type: str) -> None:
    config = noise_of(noise_type)
    whole = draw(config)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(draw(config, MASK_BL[order], SAMPLE_B[order]), whole[order])
    parts = [draw(config, MASK_BL[i : i + 2], SAMPLE_B[i : i + 2]) for i in (0, 2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("noise_type", LAWS)
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


# Packing

# Rows of sample 3 (4 tokens), 9 (3), 3 again and padding; of 5 (2) behind padding, and 9.
PACKED_SAMPLE_BL = torch.tensor(
    [[3, 3, 3, 3, 9, 9, 9, 3, 3, 3, 3, -1], [-1, -1, 5, 5, 9, 9, 9, -1, -1, -1, -1, -1]]
)
PACKED_POSITION_BL = torch.tensor(
    [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 0], [0, 0, 0, 1, 0, 1, 2, 0, 0, 0, 0, 0]]
)
SEGMENTS = [(0, 0, 4), (0, 4, 7), (0, 7, 11), (1, 2, 4), (1, 4, 7)]
"""Of every segment: its row, its first place, and the place after its last."""


@pytest.mark.parametrize("noise_type", LAWS)
def test_every_packed_segment_has_the_noise_of_its_row_alone(noise_type: str) -> None:
    config = noise_of(noise_type)
    place = (PACKED_SAMPLE_BL, PACKED_POSITION_BL)
    noise_BLD, scale_BL1 = draw_noise(*place, 2, 1, WIDTH, config, SEED)
    for row, start, end in SEGMENTS:
        sample_B = PACKED_SAMPLE_BL[row, start][None]
        alone = torch.ones(1, end - start, dtype=torch.long)
        expected = draw(config, alone, sample_B, number=1)[0]
        assert torch.equal((noise_BLD * scale_BL1)[row, start:end], expected)
        assert scale_BL1[row, start:end].flatten().tolist() == pytest.approx(
            [5 / math.sqrt((end - start) * WIDTH)] * (end - start), rel=1e-6
        )
    assert ((noise_BLD * scale_BL1)[PACKED_SAMPLE_BL < 0] == 0).all()


def test_a_sample_packed_twice_has_the_same_noise_twice() -> None:
    place = (PACKED_SAMPLE_BL, PACKED_POSITION_BL)
    noise_BLD, _ = draw_noise(*place, 2, 0, WIDTH, noise_of("symnoise"), SEED)
    assert torch.equal(noise_BLD[0, 0:4], noise_BLD[0, 7:11])
    assert torch.equal(noise_BLD[0, 4:7], noise_BLD[1, 4:7])
    assert not torch.equal(noise_BLD[0, 0:3], noise_BLD[0, 4:7])


def test_packed_words_are_the_same_on_other_devices() -> None:
    place = (PACKED_SAMPLE_BL, PACKED_POSITION_BL)
    words_BLW = random_words(*place, 12, step=2, draw=1, seed=SEED)
    assert torch.equal(words_BLW, words_in_torch(*place, 3, 2, 1, SEED))


# What is refused


def test_embeddings_given_instead_of_input_ids_are_refused(tiny_model: LlamaForCausalLM) -> None:
    noisy = NoisyEmbedding(tiny_model, noise_of("symnoise"), SEED)
    embeds_BLD = tiny_model.get_input_embeddings()(tokens()).detach()
    with (
        pytest.raises(UserError, match=r"noise\.type=symnoise needs input_ids, .* was not called"),
        noisy.applied((Copy(+1),), *places(), 1),
    ):
        tiny_model(inputs_embeds=embeds_BLD)
    tiny_model(inputs_embeds=embeds_BLD)
    with noisy.applied((Copy(+1),), *places(), 2):
        tiny_model(input_ids=tokens())
    with (
        pytest.raises(UserError, match=r"was not called"),
        noisy.applied((Copy(+1),), *places(), 3),
    ):
        tiny_model(inputs_embeds=embeds_BLD)


@pytest.mark.parametrize("noise_type", TYPES)
def test_a_step_without_noise_may_be_given_embeddings(
    tiny_model: LlamaForCausalLM, noise_type: str
) -> None:
    noisy = NoisyEmbedding(tiny_model, noise_of(noise_type, alpha=0), SEED)
    with noisy.applied((Copy(+1),), *places(), 1):
        tiny_model(inputs_embeds=tiny_model.get_input_embeddings()(tokens()).detach())


def test_clean_rows_cannot_join_no_noise() -> None:
    with pytest.raises(ValidationError, match=r"noise\.include_clean .* no meaning .*type=none"):
        noise_of("none", include_clean=True)


@pytest.mark.parametrize(
    "settings",
    [{"noise_type": name, "length": "padded"} for name in NOISY if name != "neftune"]
    + [{"noise_type": "neftune"}, {"noise_type": "none"}],
)
def test_torchs_generator_serves_the_hooks_copy_alone(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"noise\.generator=torch copies the Hugging Face"):
        noise_of(**settings, generator="torch")


@pytest.mark.parametrize("noise_type", [name for name in TYPES if name != "none"])
def test_clean_rows_are_one_more_copy(noise_type: str) -> None:
    copies = [*NOISES[noise_type].copies, Copy(0)]
    in_turn = passes(noise_of(noise_type, include_clean=True))
    assert in_turn == [(copy,) for copy in copies]
    together = passes(noise_of(noise_type, include_clean=True, execution="concat"))
    assert together == [tuple(copies)]


DRAWN = {
    "bernoulli": [-1, 1, -1, 1, 1, 1, 1, 1, 1, 1],
    "neftune": [0.740483, 0.581027, -0.958802, -0.91983, 0.428554, 0.787014, -0.897271],
    "gaussian": [1.127534, 0.808204, -2.041528, -1.749703, 0.565924, 1.245397, -1.631764],
}


@pytest.mark.parametrize("noise_type", DRAWN)
def test_a_version_to_come_draws_the_noise_of_this_one(noise_type: str) -> None:
    """Else a trial could not be run again with a newer package."""
    noise_BLD, _ = draw_noise(*places(), 2, 0, WIDTH, noise_of(noise_type), SEED)
    expected = torch.tensor(DRAWN[noise_type], dtype=torch.float32)
    torch.testing.assert_close(noise_BLD[0, 1, : len(expected)], expected, atol=1e-6, rtol=0)
