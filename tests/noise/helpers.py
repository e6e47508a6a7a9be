"""What the tests of the noise share: small batches, and the noise and the loss written out by hand.

`losses_by_hand` adds the noise to `inputs_embeds`, so it needs no hook, engine or narrowed head.

Shape letters: B rows, L positions, D embedding width, V vocabulary.
"""

import random
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn

import symnoise_ray.models.deepspeed_engine
from symnoise_ray.config import NoiseConfig, TrialConfig
from symnoise_ray.data.rows import read_train
from symnoise_ray.data.tokens import TokenRow, tokenise
from symnoise_ray.models.weights import load
from symnoise_ray.noise.embedding import NoisyEmbedding, draw_noise
from symnoise_ray.noise.types import NOISES, Copy, only_adds, passes
from symnoise_ray.training.loop import train

TYPES = [name for name in NOISES if only_adds(name)]
"""The types whose loss is the mean over copies with something added to the embeddings."""
NOISELESS = [name for name in TYPES if NOISES[name].law is None]
NOISY = [name for name in TYPES if name not in NOISELESS]
LAWS = list({NOISES[name].law: name for name in reversed(NOISY)}.values())[::-1]
"""The first type of every law: the noise of a type is that of its law."""
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


# Gradients


def answers(mask_BL: Tensor = MASK_BL) -> Tensor:
    """Labels of rows whose prompts (one or two tokens) and padding are not trained on."""
    labels_BL = tokens(mask_BL).masked_fill(mask_BL == 0, -100)
    labels_BL[:, 0] = -100
    labels_BL[0, 1] = -100
    return labels_BL


class Rows(NamedTuple):
    """Token rows padded on the right, made here without the package's own batches."""

    input_ids_BL: Tensor
    labels_BL: Tensor
    sample_BL: Tensor
    position_BL: Tensor

    @property
    def mask_BL(self) -> Tensor:  # noqa: N802 - shape letters, as everywhere
        """1 at tokens, 0 at padding."""
        return (self.sample_BL >= 0).long()

    @property
    def count(self) -> int:
        """Answer tokens; the first position is never predicted."""
        return int((self.labels_BL[:, 1:] != -100).sum())


def small_rows(mask_BL: Tensor = MASK_BL, sample_B: Tensor = SAMPLE_B) -> Rows:
    """`tokens` and `answers` with their places."""
    return Rows(tokens(mask_BL), answers(mask_BL), *places(mask_BL, sample_B))


def answer_loss(model: nn.Module, rows: Rows, noise_BLD: Tensor) -> Tensor:
    """Summed cross-entropy of the answer tokens at these shifted embeddings."""
    embeds_BLD = model.get_input_embeddings()(rows.input_ids_BL)
    logits_BLV = model(
        inputs_embeds=embeds_BLD + noise_BLD.to(embeds_BLD.dtype), attention_mask=rows.mask_BL
    ).logits
    logits_NV, targets_N = logits_BLV[:, :-1].flatten(0, 1), rows.labels_BL[:, 1:].flatten()
    return F.cross_entropy(logits_NV, targets_N, reduction="sum")


def noise_by_hand(
    rows: Rows, config: NoiseConfig, *, step: int = 1, seed: int = 0, number: int = 0
) -> Tensor:
    """The scaled noise of a rows of the tiny model."""
    place = rows.sample_BL, rows.position_BL
    noise_BLD, scale_BL1 = draw_noise(*place, step, number, WIDTH, config, seed)
    return noise_BLD * scale_BL1


def losses_by_hand(
    model: nn.Module, rows: Rows, config: NoiseConfig, *, step: int = 1, seed: int = 0
) -> list[Tensor]:
    """Mean loss per answer token of every copy that is trained on."""
    copies = [copy for group in passes(config) for copy in group]
    shifts = [
        copy.sign * noise_by_hand(rows, config, step=step, seed=seed, number=copy.draw)
        for copy in copies
    ]
    return [answer_loss(model, rows, shift) / rows.count for shift in shifts]


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    """Gradient of a loss in all parameters, as one vector."""
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


def hooked_gradient(
    model: nn.Module, config: NoiseConfig, batches: list[Rows], *, step: int = 1, seed: int = 0
) -> Tensor:
    """Gradient of the mean loss through `NoisyEmbedding`, summed over micro-batches and passes."""
    groups = passes(config)
    count = sum(batch.count for batch in batches) * sum(len(group) for group in groups)
    noisy = NoisyEmbedding(model, config, seed)
    total = torch.zeros(())
    for batch in batches:
        for group in groups:
            with noisy.applied(group, batch.sample_BL, batch.position_BL, step):
                logits_BLV = model(
                    input_ids=batch.input_ids_BL.repeat(len(group), 1),
                    attention_mask=batch.mask_BL.repeat(len(group), 1),
                ).logits
                loss = F.cross_entropy(
                    logits_BLV[:, :-1].flatten(0, 1),
                    batch.labels_BL.repeat(len(group), 1)[:, 1:].flatten(),
                    reduction="sum",
                )
                total = total + gradient(model, loss / count)
    noisy.remove()
    return total


def apart(one: Tensor, other: Tensor) -> float:
    """Distance of two gradients, relative to the second."""
    return float((one - other).norm() / other.norm())


# Trials


def padded(rows: list[TokenRow], numbers: list[int]) -> Rows:
    """These of all rows as one batch."""
    longest = max(len(rows[number].input_ids) for number in numbers)
    mask_BL = torch.zeros(len(numbers), longest, dtype=torch.long)
    input_ids_BL, labels_BL = torch.zeros_like(mask_BL), torch.full_like(mask_BL, -100)
    for index, number in enumerate(numbers):
        end = len(rows[number].input_ids)
        mask_BL[index, :end] = 1
        input_ids_BL[index, :end] = torch.tensor(rows[number].input_ids)
        labels_BL[index, :end] = torch.tensor(rows[number].labels)
    return Rows(input_ids_BL, labels_BL, *places(mask_BL, torch.tensor(numbers)))


def all_rows(config: TrialConfig) -> tuple[nn.Module, list[TokenRow]]:
    """A trial's fresh model, and its training rows."""
    model, tokenizer, _ = load(config.model)
    examples = read_train(config.data).examples
    tokenised = tokenise(examples, tokenizer, config.data.template, config.data.max_length)
    return model, tokenised.rows


def first_rows(config: TrialConfig, size: int | None = None) -> tuple[nn.Module, list[Rows]]:
    """A trial's fresh model, and its first step as one batch, or in pieces of so many rows."""
    model, rows = all_rows(config)
    order = list(range(len(rows)))
    random.Random(config.train.seed).shuffle(order)
    numbers = order[: config.train.global_batch_size]
    size = size or len(numbers)
    pieces = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return model, [padded(rows, piece) for piece in pieces]


def trained_gradients(config: TrialConfig, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradient of every optimizer step of `train`, as the optimizer sees it."""
    seen: list[Tensor] = []
    step = symnoise_ray.models.deepspeed_engine.step

    def record(engine: Any) -> float:
        seen.append(torch.cat([p.grad.flatten().clone() for p in engine.module.parameters()]))
        return step(engine)

    with monkeypatch.context() as patch:
        patch.setattr(symnoise_ray.models.deepspeed_engine, "step", record)
        train(config, lambda _record: None).release()
    return seen
