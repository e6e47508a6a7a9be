"""One gradient, however a step is cut: copies in turn or together, micro-batches, workers, packing.

The reference is the mean over the concatenated copies of the whole batch, by hand. Beside each
right way stands the wrong one that is easily written instead, which the reference tells apart.

Shape letters: B rows, L positions, D embedding width, V vocabulary.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor
from transformers import LlamaForCausalLM

from symnoise_ray.config import TrialConfig
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import NOISES, passes
from tests.noise.helpers import (
    MASK_BL,
    TYPES,
    WIDTH,
    Rows,
    answer_loss,
    apart,
    first_rows,
    gradient,
    hooked_gradient,
    losses_by_hand,
    noise_by_hand,
    noise_of,
    small_rows,
    trained_gradients,
)
from tests.ranks import run_ranks

Trial = Callable[..., TrialConfig]

SAME = 1e-6
PAIRS = [name for name in TYPES if len(NOISES[name].copies) > 1]
WAYS: dict[str, dict[str, Any]] = {
    "in turn": {},
    "together": {"noise__execution": "concat"},
    "in turn, by rows": {"train__micro_batch_size": 1},
    "together, by rows": {"noise__execution": "concat", "train__micro_batch_size": 1},
}


@pytest.fixture
def model(tiny_model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The tiny model in float64, so that what differs is no rounding (but for its fp32 norms)."""
    return tiny_model.double()


def strong(trial: Trial, noise_type: str = "symnoise", **settings: Any) -> TrialConfig:
    """One step under noise about as large as the embeddings, on 4 rows of unequal lengths."""
    quick = {"train__num_clean_rows": 1, "train__probe_alpha": 0, "train__max_steps": 1}
    settings = {"train__micro_batch_size": 4, **quick, **settings}
    alpha = {} if noise_type in ("none", "duplicate") else {"noise__alpha": 5}
    return trial(noise__type=noise_type, **alpha, **settings)


def reference(config: TrialConfig) -> Tensor:
    """The gradient of a trial's first step by hand, from the whole batch at once."""
    model, (batch,) = first_rows(config)
    return gradient(model, torch.stack(losses_by_hand(model, batch, config.noise)).mean())


# The hook, in float64


@pytest.mark.parametrize(
    ("noise_type", "execution"),
    [*((name, "sequential") for name in TYPES), *((name, "concat") for name in PAIRS)],
)
def test_the_hooks_gradient_is_the_one_by_hand(
    model: LlamaForCausalLM, noise_type: str, execution: str
) -> None:
    config, batch = noise_of(noise_type, execution=execution), small_rows()
    by_hand = gradient(model, torch.stack(losses_by_hand(model, batch, config)).mean())
    assert apart(hooked_gradient(model, config, [batch]), by_hand) < SAME


@pytest.mark.parametrize("noise_type", PAIRS)
def test_clean_rows_join_the_mean_over_three_copies(
    model: LlamaForCausalLM, noise_type: str
) -> None:
    batch = small_rows()
    losses = losses_by_hand(model, batch, noise_of(noise_type))
    clean = answer_loss(model, batch, torch.zeros(())) / batch.count
    by_hand = gradient(model, (losses[0] + losses[1] + clean) / 3)
    for execution in ("sequential", "concat"):
        config = noise_of(noise_type, include_clean=True, execution=execution)
        assert apart(hooked_gradient(model, config, [batch]), by_hand) < SAME


def test_a_duplicated_batch_has_the_gradient_of_the_plain_one(model: LlamaForCausalLM) -> None:
    twice, once = (
        hooked_gradient(model, noise_of(name), [small_rows()]) for name in ("duplicate", "none")
    )
    assert apart(twice, once) < 1e-9


def rows_alone() -> list[Rows]:
    """The rows of the small batch one by one, without their padding."""
    pieces = []
    for index, length in enumerate(MASK_BL.sum(1).tolist()):
        rows = slice(index, index + 1), slice(0, length)
        whole = small_rows()
        parts = whole.input_ids_BL, whole.labels_BL, whole.sample_BL, whole.position_BL
        pieces.append(Rows(*(part[rows] for part in parts)))
    return pieces


@pytest.mark.parametrize("noise_type", TYPES)
def test_a_padded_batch_has_the_gradient_of_its_unpadded_rows(
    model: LlamaForCausalLM, noise_type: str
) -> None:
    whole = hooked_gradient(model, noise_of(noise_type), [small_rows()])
    assert apart(hooked_gradient(model, noise_of(noise_type), rows_alone()), whole) < SAME


def test_left_padding_has_the_gradient_of_right_padding(model: LlamaForCausalLM) -> None:
    right = small_rows()
    shift_B = MASK_BL.shape[1] - MASK_BL.sum(1)
    place_BL = (torch.arange(MASK_BL.shape[1]) - shift_B[:, None]) % MASK_BL.shape[1]
    parts = right.input_ids_BL, right.labels_BL, right.sample_BL, right.position_BL
    left = Rows(*(part.gather(1, place_BL) for part in parts))
    assert (left.sample_BL[:, -1] >= 0).all()
    config = noise_of("symnoise")
    noisy = NoisyEmbedding(model, config, 0)
    total = torch.zeros(())
    for group in passes(config):
        with noisy.applied(group, left.sample_BL, left.position_BL, 1):
            logits_BLV = model(
                input_ids=left.input_ids_BL,
                attention_mask=left.mask_BL,
                position_ids=left.position_BL,
            ).logits
        loss = F.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), left.labels_BL[:, 1:].flatten())
        total = total + gradient(model, loss / 2)
    noisy.remove()
    assert apart(total, hooked_gradient(model, config, [right])) < SAME


# The training loop, in fp32


STEPS = [
    *(("symnoise", way) for way in WAYS),
    ("independent", "together, by rows"),
    ("neftune", "in turn, by rows"),
    ("none", "in turn, by rows"),
]


@pytest.mark.sampled(3)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(("noise_type", "way"), STEPS)
def test_a_step_of_training_has_the_gradient_by_hand(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, noise_type: str, way: str
) -> None:
    config = strong(trial, noise_type, **WAYS[way])
    (trained,) = trained_gradients(config, monkeypatch)
    assert apart(trained, reference(config)) < SAME


TWO_WORKERS = """
import os, sys
import pytest, torch
from symnoise_ray.config import TrialConfig
from tests.noise.helpers import trained_gradients
source, folder = sys.argv[1:]
configs = [TrialConfig.model_validate_json(line) for line in open(source)]
seen = [trained_gradients(config, pytest.MonkeyPatch()) for config in configs]
torch.save(seen, f"{folder}/{os.environ['RANK']}")
"""


def run_two_workers(configs: list[TrialConfig], folder: Path) -> list[list[list[Tensor]]]:
    """Train on two real workers over gloo; what each saw of each trial's gradients."""
    source = folder / "configs.jsonl"
    source.write_text("".join(config.model_dump_json() + "\n" for config in configs))
    run_ranks(TWO_WORKERS, source, folder)
    return [torch.load(folder / rank) for rank in ("0", "1")]


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")
def test_two_workers_have_the_gradient_by_hand(trial: Trial, tmp_path: Path) -> None:
    configs = [
        strong(trial, name, **{"train__micro_batch_size": 2, **WAYS[way]}) for name, way in STEPS
    ]
    for seen in run_two_workers(configs, tmp_path):
        for config, (trained,) in zip(configs, seen, strict=True):
            assert apart(trained, reference(config)) < SAME, config.noise


# Ways that are easily written instead, and are wrong

TOLD_APART = 1e-2


@pytest.mark.usefixtures("process_group")
def test_the_mean_of_micro_batches_means_is_another_gradient(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = strong(trial, train__micro_batch_size=1)
    model, batches = first_rows(config, size=1)
    assert len({batch.count for batch in batches}) > 1
    means = [torch.stack(losses_by_hand(model, batch, config.noise)).mean() for batch in batches]
    wrong = gradient(model, torch.stack(means).mean())
    right = reference(config)
    assert apart(wrong, right) > TOLD_APART
    assert apart(trained_gradients(config, monkeypatch)[0], right) < SAME


@pytest.mark.usefixtures("process_group")
def test_the_padded_length_of_micro_batches_is_another_gradient(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = strong(trial, train__micro_batch_size=2)
    right = reference(config)
    model, batches = first_rows(config, size=2)
    count = 2 * sum(batch.count for batch in batches)
    wrong = torch.zeros_like(right)
    for batch in batches:
        noise_BLD = noise_by_hand(batch, config.noise).sign() * 5
        noise_BLD /= math.sqrt(batch.input_ids_BL.shape[1] * WIDTH)
        for shift in (noise_BLD, -noise_BLD):
            wrong += gradient(model, answer_loss(model, batch, shift) / count)
    assert apart(wrong, right) > TOLD_APART
    assert apart(trained_gradients(config, monkeypatch)[0], right) < SAME


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("execution", ["sequential", "concat"])
def test_dividing_by_the_tokens_of_one_copy_doubles_the_gradient(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, execution: str
) -> None:
    config = strong(trial, noise__execution=execution)
    model, (batch,) = first_rows(config)
    noise_BLD = noise_by_hand(batch, config.noise)
    embeds_BLD = model.get_input_embeddings()(batch.input_ids_BL)
    # Hugging Face's own loss, told the count of the rows before they were doubled.
    wrong = gradient(
        model,
        model(
            inputs_embeds=torch.cat([embeds_BLD + noise_BLD, embeds_BLD - noise_BLD]),
            attention_mask=batch.mask_BL.repeat(2, 1),
            labels=batch.labels_BL.repeat(2, 1),
            num_items_in_batch=batch.count,
        ).loss,
    )
    right = reference(config)
    assert apart(wrong, 2 * right) < SAME
    assert apart(trained_gradients(config, monkeypatch)[0], right) < SAME


def test_one_sign_per_row_is_another_gradient(model: LlamaForCausalLM) -> None:
    config, batch = noise_of("symnoise"), small_rows()
    noise_BLD = noise_by_hand(batch, config)
    sign_B11 = torch.tensor([1, -1, 1, -1])[:, None, None]
    wrong = gradient(model, answer_loss(model, batch, sign_B11 * noise_BLD) / batch.count)
    right = gradient(model, torch.stack(losses_by_hand(model, batch, config)).mean())
    assert apart(wrong, right) > TOLD_APART
    for execution in ("sequential", "concat"):
        ours = noise_of("symnoise", execution=execution)
        assert apart(hooked_gradient(model, ours, [batch]), right) < SAME


@pytest.mark.usefixtures("process_group")
def test_one_optimizer_step_takes_both_signs(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    config = strong(trial, train__max_steps=3)
    trained = trained_gradients(config, monkeypatch)
    assert len(trained) == 3
    assert apart(trained[0], reference(config)) < SAME


def test_the_signs_in_two_optimizer_steps_are_another_update(model: LlamaForCausalLM) -> None:
    config, batch = noise_of("symnoise"), small_rows()
    noise_BLD = noise_by_hand(batch, config)
    start = [parameter.detach().clone() for parameter in model.parameters()]

    def descend(shift_BLD: Tensor, lr: float) -> Tensor:
        """Plain gradient descent at one sign; the update that was made."""
        loss = answer_loss(model, batch, shift_BLD) / batch.count
        update = -lr * gradient(model, loss)
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(
                torch.nn.utils.parameters_to_vector(model.parameters()) + update,
                model.parameters(),
            )
        return update

    def difference(lr: float) -> float:
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), start, strict=True):
                parameter.copy_(value)
        right = -lr * hooked_gradient(model, config, [batch])
        return apart(descend(noise_BLD, lr / 2) + descend(-noise_BLD, lr / 2), right)

    assert difference(0.1) > TOLD_APART
    assert difference(0.1) / difference(0.01) == pytest.approx(10, rel=0.5)


# Packing


def packed(batch: Rows) -> tuple[dict[str, Tensor], Rows]:
    """All rows in one line: what keeps them apart in the model, and the line as a batch."""
    real_BL = batch.mask_BL == 1
    sample_L, position_L = batch.sample_BL[real_BL], batch.position_BL[real_BL]
    same_LL = sample_L[:, None] == sample_L
    allowed_LL = same_LL.tril()
    mask = torch.zeros(1, 1, *allowed_LL.shape, dtype=torch.float64)
    mask = mask.masked_fill(~allowed_LL, torch.finfo(torch.float64).min)
    ids_L, labels_L = batch.input_ids_BL[real_BL], batch.labels_BL[real_BL]
    line = Rows(ids_L[None], labels_L[None], sample_L[None], position_L[None])
    return {"attention_mask": mask, "position_ids": position_L[None]}, line


def packed_loss(model: LlamaForCausalLM, batch: Rows, **inputs: Tensor) -> Tensor:
    """Mean loss of the answers in a packed line."""
    apart, line = packed(batch)
    logits_LV = model(**inputs, **apart, use_cache=False).logits[0]
    return F.cross_entropy(logits_LV[:-1], line.labels_BL[0, 1:])


def test_packed_rows_have_the_gradient_of_rows_alone(model: LlamaForCausalLM) -> None:
    config, batch = noise_of("symnoise"), small_rows()
    right = gradient(model, torch.stack(losses_by_hand(model, batch, config)).mean())
    _, line = packed(batch)
    noisy = NoisyEmbedding(model, config, 0)
    total = torch.zeros_like(right)
    for group in passes(config):
        with noisy.applied(group, line.sample_BL, line.position_BL, 1):
            loss = packed_loss(model, batch, input_ids=line.input_ids_BL)
        total += gradient(model, loss / 2)
    noisy.remove()
    assert apart(total, right) < SAME
    # Wrong: the length of the line in the scale, as the Hugging Face hook has it.
    length = line.input_ids_BL.shape[1]
    noise_BLD = noise_by_hand(line, config).sign() * 5 / math.sqrt(length * WIDTH)
    wrong = torch.zeros_like(right)
    for sign in (+1, -1):
        embeds_BLD = model.get_input_embeddings()(line.input_ids_BL) + sign * noise_BLD
        loss = packed_loss(model, batch, inputs_embeds=embeds_BLD)
        wrong += gradient(model, loss / 2)
    assert apart(wrong, right) > TOLD_APART
