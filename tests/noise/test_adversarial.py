"""Adversarial perturbation: of all signs, those that raise the loss the most; once more by hand.

Shape letters: B rows, L positions, D embedding width.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.integrations.transformers import with_noise
from symnoise_ray.noise.embedding import noise_scale
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.preflight.plan import as_text, plan
from symnoise_ray.training.loop import train
from tests.noise.helpers import (
    WIDTH,
    Rows,
    answer_loss,
    apart,
    first_rows,
    gradient,
    noise_by_hand,
    noise_of,
    trained_gradients,
)

Trial = Callable[..., TrialConfig]

ASCENT: dict[str, Any] = {"noise__type": "adversarial", "noise__alpha": 1}
QUICK = {"train__num_clean_rows": 1, "train__probe_alpha": 0, "train__max_steps": 1}


def worst_signs(model: nn.Module, rows: Rows, config: TrialConfig) -> Tensor:
    """The scaled signs of the gradient in the embeddings, of each row for itself."""
    shape = (*rows.input_ids_BL.shape, WIDTH)
    shift_BLD = torch.zeros(shape, requires_grad=True)
    (slope_BLD,) = torch.autograd.grad(answer_loss(model, rows, shift_BLD), shift_BLD)
    scale_B = noise_scale(rows.mask_BL.sum(1), WIDTH, config.noise)
    return scale_B[:, None, None] * slope_BLD.sign() * rows.mask_BL[..., None]


def losses(config: TrialConfig) -> list[float]:
    """The training loss of every step."""
    records: list[dict[str, Any]] = []
    train(config, records.append).release()
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    ("size", "clean", "execution"), [(4, False, "sequential"), (1, True, "sequential"),
                                     (4, True, "concat")],
)  # fmt: skip
def test_a_step_of_training_has_the_gradient_by_hand(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, size: int, clean: bool, execution: str
) -> None:
    config = trial(
        **ASCENT,
        **QUICK,
        noise__include_clean=clean,
        noise__execution=execution,
        train__micro_batch_size=size,
    )
    (trained,) = trained_gradients(config, monkeypatch)
    model, (rows,) = first_rows(config)
    loss = answer_loss(model, rows, worst_signs(model, rows, config))
    if clean:
        loss = (loss + answer_loss(model, rows, torch.zeros(()))) / 2
    assert apart(trained, gradient(model, loss / rows.count)) < 2e-6


@pytest.mark.usefixtures("process_group")
def test_it_raises_the_loss_more_than_any_draw_of_signs(trial: Trial) -> None:
    config = trial(**ASCENT, **QUICK)
    model, (rows,) = first_rows(config)
    (worst,) = losses(config)
    signs = noise_of("bernoulli", alpha=1)
    with torch.no_grad():
        drawn = [
            sign * noise_by_hand(rows, signs, step=step)
            for step, sign in itertools.product(range(20), (+1, -1))
        ]
        others = [float(answer_loss(model, rows, shift)) / rows.count for shift in drawn]
        clean = float(answer_loss(model, rows, torch.zeros(()))) / rows.count
    assert worst - clean > 5 * max(abs(other - clean) for other in others)


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "way",
    [
        {"train__packing": "on"},
        {"train__gradient_checkpointing": True},
        {"train__zero_stage": 2},
        {"train__zero_stage": 3},
    ],
    ids=str,
)
def test_packed_recomputed_or_sharded_it_has_the_same_losses(
    trial: Trial, way: dict[str, Any]
) -> None:
    settings = {**ASCENT, **QUICK, "train__max_steps": 3}
    expected = losses(trial(**settings, train__packing="off"))
    assert losses(trial(**settings, **way)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("process_group")
def test_adapters_train_although_the_embedding_is_frozen(trial: Trial) -> None:
    settings = {**QUICK, "train__max_steps": 3, "lora__rank": 2}
    assert losses(trial(**ASCENT, **settings))[0] > losses(trial(**settings))[0] + 0.01


@pytest.mark.usefixtures("process_group")
def test_the_pass_that_finds_the_noise_is_counted_everywhere(trial: Trial) -> None:
    config = trial(**ASCENT, train__compute_match="samples", train__max_steps=4)
    need = forecast(config, 1, Options())
    trained = train(config, lambda _record: None)
    trained.release()
    batch = config.train.global_batch_size
    assert need.num_steps == trained.summary["num_steps"] == 2
    assert trained.summary["num_passed_rows"] == 2 * 2 * batch
    assert need.passes_per_step == 2 * need.micro_batches


def test_finding_the_noise_takes_two_thirds_of_a_pass_that_trains(trial: Trial) -> None:
    flops = {
        kind: forecast(trial(noise__type=kind, noise__alpha=1), 1, Options()).flops
        for kind in ("adversarial", "bernoulli", "independent")
    }
    assert flops["independent"] == 2 * (flops["bernoulli"] or 0) > 0
    # Attention has no weights, and is counted in full.
    assert 1 + 2 / 3 <= (flops["adversarial"] or 0) / (flops["bernoulli"] or 1) < 1.75


def test_the_plan_tells_of_the_further_pass(trial: Trial, tmp_path: Any) -> None:
    for kind, told in (("adversarial", "1; to find the noise: 1)"), ("bernoulli", "1)")):
        file = tmp_path / f"{kind}.yaml"
        file.write_text(f"noise: {{type: {kind}, alpha: 1}}")
        assert f"copies of the batch: {told}" in as_text(plan(str(file), [], Options()))


def test_other_trainers_cannot_be_given_it() -> None:
    with pytest.raises(UserError, match="must only add noise to the embeddings, but adversarial"):
        with_noise(object, type="adversarial", alpha=1)
