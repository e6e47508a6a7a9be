"""R3F: the loss on the clean rows, and how far noise moves the predictions; once more by hand.

The divergence by hand is written with probabilities, as R3F's own code in fairseq has it.

Shape letters: B rows, L positions, D embedding width, N answer positions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from pydantic import ValidationError
from torch import Tensor, nn

from symnoise_ray.config import NoiseConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.integrations.transformers import with_noise
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.training.loop import train
from symnoise_ray.training.objective import symmetric_kl
from tests.noise.helpers import Rows, apart, first_rows, gradient, noise_by_hand, trained_gradients

Trial = Callable[..., TrialConfig]

SAME = 2e-6
STRONG: dict[str, Any] = {"noise__type": "r3f", "noise__alpha": 5}
QUICK = {"train__num_clean_rows": 1, "train__probe_alpha": 0, "train__max_steps": 1}


def answer_logits(model: nn.Module, rows: Rows, noise_BLD: Tensor) -> Tensor:
    """Logits before every answer token, (N, V), at these shifted embeddings."""
    embeds_BLD = model.get_input_embeddings()(rows.input_ids_BL) + noise_BLD
    logits_BLV = model(inputs_embeds=embeds_BLD, attention_mask=rows.mask_BL).logits[:, :-1]
    return logits_BLV[rows.labels_BL[:, 1:] != -100]


def by_hand(config: TrialConfig) -> tuple[Tensor, float, float]:
    """Gradient of a trial's first step, its cross-entropy, and its divergence."""
    model, (rows,) = first_rows(config)
    clean_NV = answer_logits(model, rows, torch.zeros(()))
    noisy_NV = answer_logits(model, rows, noise_by_hand(rows, config.noise))
    labels_N = rows.labels_BL[:, 1:][rows.labels_BL[:, 1:] != -100]
    entropy = F.cross_entropy(clean_NV, labels_N)
    pairs = ((noisy_NV, clean_NV), (clean_NV, noisy_NV))
    divergence = torch.stack(
        [
            F.kl_div(F.log_softmax(one, -1), F.softmax(two, -1), reduction="sum")
            for one, two in pairs
        ]
    ).sum()
    loss = entropy + config.noise.kl_weight * divergence / rows.count
    return gradient(model, loss), entropy.item(), divergence.item() / rows.count


def losses(config: TrialConfig) -> list[float]:
    """The training loss of every step."""
    records: list[dict[str, Any]] = []
    train(config, records.append).release()
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_step_of_training_has_the_gradient_by_hand(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, weight: float, size: int
) -> None:
    config = trial(**STRONG, **QUICK, noise__kl_weight=weight, train__micro_batch_size=size)
    (trained,) = trained_gradients(config, monkeypatch)
    expected, entropy, divergence = by_hand(config)
    assert apart(trained, expected) < SAME
    assert losses(config) == pytest.approx([entropy + weight * divergence], rel=1e-5)
    assert divergence > 0.01


@pytest.mark.usefixtures("process_group")
def test_with_the_weight_zero_it_is_plain_training_at_the_same_compute(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    weightless = trial(**STRONG, **QUICK, noise__kl_weight=0)
    (trained,) = trained_gradients(weightless, monkeypatch)
    (plain,) = trained_gradients(trial(**QUICK, noise__type="duplicate"), monkeypatch)
    assert apart(trained, plain) < SAME
    (weighted,) = trained_gradients(trial(**STRONG, **QUICK), monkeypatch)
    assert apart(weighted, plain) > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")
def test_packed_and_sharded_it_has_the_losses_of_plain_rows(trial: Trial) -> None:
    settings = {**STRONG, **QUICK, "train__max_steps": 2}
    expected = losses(trial(**settings, train__packing="off"))
    for other in ({"train__packing": "on"}, {"train__zero_stage": 3}):
        assert losses(trial(**settings, **other)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("process_group")
def test_the_forecast_has_its_two_copies_and_matched_compute_halves_the_steps(
    trial: Trial,
) -> None:
    counted = {}
    for noise in ("r3f", "symnoise", "duplicate"):
        alpha = {} if noise == "duplicate" else {"noise__alpha": 5.0}
        samples = {"train__compute_match": "samples", "train__max_steps": 4}
        config = trial(noise__type=noise, **alpha, **samples)
        need = forecast(config, 1, Options())
        trained = train(config, lambda _record: None)
        trained.release()
        counted[noise] = (
            need.num_steps,
            sum(need.copies),
            need.flops,
            trained.summary["num_steps"],
            trained.summary["num_passed_rows"],
        )
    assert counted["r3f"] == counted["symnoise"] == counted["duplicate"]
    assert counted["r3f"][0] == counted["r3f"][3] == 2


def test_the_divergence_is_zero_for_equals_symmetric_and_that_of_two_coins() -> None:
    one, other = (torch.tensor([[p, 1 - p]]).log() for p in (0.5, 0.9))
    assert float(symmetric_kl(one, one)) == 0
    assert float(symmetric_kl(one, other)) == pytest.approx(float(symmetric_kl(other, one)))
    # (p - q) (log p - log q), summed: 0.4 * log 9.
    assert float(symmetric_kl(one, other)) == pytest.approx(0.8789, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "r3f", "include_clean": True}, r"include_clean has no meaning for .*type=r3f"),
        ({"type": "symnoise", "kl_weight": 0.5}, r"kl_weight has no meaning .*=symnoise.*got 0\.5"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NoiseConfig.model_validate({"alpha": 5.0, **settings})


def test_packed_lines_of_flash_attention_are_refused() -> None:
    values = {
        "noise": {"type": "r3f", "alpha": 5},
        "model": {"attention": "flash_attention_2", "dtype": "bf16"},
    }
    with pytest.raises(ValidationError, match=r"type=r3f needs train\.packing=off under .*flash"):
        TrialConfig.model_validate(values)
    TrialConfig.model_validate({**values, "train": {"packing": "off"}})


def test_other_trainers_cannot_be_given_it() -> None:
    with pytest.raises(UserError, match="must only add noise to the embeddings, but r3f changes"):
        with_noise(object, type="r3f", alpha=5)
