"""One rank trains alone: noise changes the loss and nothing else, and nothing is left behind."""

import gc
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from symnoise_ray.config import OptimConfig, TrialConfig
from symnoise_ray.data.rows import read_prompts, read_train
from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.data.tokens import tokenise
from symnoise_ray.errors import CancelledError, DataError, DivergedError, UserError
from symnoise_ray.generation.answering import complete
from symnoise_ray.models.deepspeed_engine import deepspeed_config
from symnoise_ray.models.process import give_memory_back
from symnoise_ray.models.weights import load
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import NOISES, Copy
from symnoise_ray.training.batches import Batches
from symnoise_ray.training.loop import train
from symnoise_ray.training.schedule import lr_at

pytestmark = pytest.mark.usefixtures("process_group")

Trial = Callable[..., TrialConfig]


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> Iterator[None]:
    """What is alive before these tests is no concern of the garbage collections in them."""
    import deepspeed  # noqa: F401 - its modules are thousands of objects

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def run(config: TrialConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records and summary of one training; the model is given up."""
    records: list[dict[str, Any]] = []
    trained = train(config, records.append)
    trained.release()
    return records, trained.summary


def losses(config: TrialConfig) -> list[float]:
    """The training loss of every step."""
    return [record["loss"] for record in run(config)[0] if "loss" in record]


def losses_and_answers(config: TrialConfig) -> tuple[list[float], list[str]]:
    """The training loss of every step, and the trained model's answers."""
    records: list[dict[str, Any]] = []
    trained = train(config, records.append)
    completions, _ = complete(
        trained.model,
        trained.tokenizer,
        read_prompts(config.data, "eval").examples,
        trained.template,
        config.generate,
        context=trained.context,
        generator="trial",
    )
    trained.release()
    return [r["loss"] for r in records if "loss" in r], [c.output for c in completions]


# What a training tells


def test_the_loss_falls_and_every_step_is_reported(trial: Trial) -> None:
    config = trial(train__max_steps=12)
    records, summary = run(config)
    assert [record["step"] for record in records] == list(range(13))
    assert set(records[0]) == {
        *("step", "clean_loss", "noisy_loss", "curvature", "first_difference")
    }
    for record in records[1:]:
        assert {"step", "loss", "lr"} <= set(record)
    assert [r["step"] for r in records if "clean_loss" in r] == [0, 6, 12]
    assert summary["num_steps"] == 12
    assert summary["num_train_rows"] == 12
    assert summary["first_clean_loss"] == records[0]["clean_loss"]
    assert summary["clean_loss"] == records[-1]["clean_loss"]
    assert summary["loss"] == records[-1]["loss"]
    assert summary["clean_loss"] < 0.6 * summary["first_clean_loss"]
    assert records[-1]["loss"] < 0.7 * records[1]["loss"]


def test_answer_tokens_are_counted_once_whatever_the_noise(trial: Trial) -> None:
    plain = run(trial(train__max_steps=3))[1]["num_answer_tokens"]
    for execution in ("sequential", "concat"):
        config = trial(
            train__max_steps=3, noise__type="symnoise", noise__alpha=5, noise__execution=execution
        )
        assert run(config)[1]["num_answer_tokens"] == plain > 0


def test_the_time_of_loading_and_training_is_kept_apart(trial: Trial) -> None:
    seconds: dict[str, float] = {}
    train(trial(train__max_steps=1), lambda _record: None, seconds=seconds).release()
    assert set(seconds) == {"load", "train"}
    assert all(value > 0 for value in seconds.values())


# Noise and nothing else


def test_alpha_zero_trains_and_answers_like_no_noise_bit_for_bit(trial: Trial) -> None:
    plain = losses_and_answers(trial(train__max_steps=4))
    for noise_type in (name for name, noise in NOISES.items() if noise.law):
        config = trial(train__max_steps=4, noise__type=noise_type, noise__alpha=0)
        assert losses_and_answers(config) == plain, noise_type


def test_one_seed_gives_the_same_losses_and_answers_bit_for_bit(trial: Trial) -> None:
    config = trial(noise__type="symnoise", noise__alpha=5)
    first = losses_and_answers(config)
    assert losses_and_answers(config) == first
    assert losses(trial(noise__type="symnoise", noise__alpha=5, train__seed=1)) != first[0]


def test_noise_leaves_the_order_of_the_data_alone(trial: Trial) -> None:
    tiny = losses(trial(noise__type="gaussian", noise__alpha=1e-6))
    assert tiny == pytest.approx(losses(trial()), rel=1e-4)


@pytest.mark.parametrize("noise_type", ["symnoise", "independent", "duplicate"])
@pytest.mark.parametrize("execution", ["sequential", "concat"])
def test_the_loss_of_a_pair_is_a_mean_and_not_a_sum(
    trial: Trial, noise_type: str, execution: str
) -> None:
    alpha = {} if noise_type == "duplicate" else {"noise__alpha": 1e-4}
    config = trial(noise__type=noise_type, noise__execution=execution, **alpha)
    assert losses(config) == pytest.approx(losses(trial()), rel=1e-3)


def test_both_executions_of_a_pair_train_alike(trial: Trial) -> None:
    sequential, concat = (
        losses(trial(noise__type="symnoise", noise__alpha=5, noise__execution=execution))
        for execution in ("sequential", "concat")
    )
    assert concat[:3] == pytest.approx(sequential[:3], rel=1e-5)
    assert sequential != losses(trial())


def test_every_row_gets_the_noise_of_its_own_number(trial: Trial) -> None:
    config = trial(noise__type="bernoulli", noise__alpha=50, train__max_steps=1)
    model, tokenizer, _ = load(config.model)
    tokens = tokenise(read_train(config.data).examples, tokenizer, "short", 96)
    batches = Batches(
        TokenTable.of(tokens), global_batch_size=4, micro_batch_size=4, seed=0, pad_id=0
    )
    (batch,) = batches.micro_batches(batches.next_step(), rank=0, world_size=1)
    noisy = NoisyEmbedding(model, config.noise, config.train.seed)
    with torch.no_grad(), noisy.applied((Copy(+1),), batch.sample_BL, batch.position_BL, 1):
        logits_BLV = model(input_ids=batch.input_ids_BL, attention_mask=batch.mask_BL).logits
    labels = batch.labels_BL[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), labels)
    assert losses(config) == pytest.approx([float(expected)], rel=1e-5)


def test_the_clean_loss_is_measured_without_noise(trial: Trial) -> None:
    strong = trial(noise__type="symnoise", noise__alpha=500, train__max_steps=1)
    noisy, clean = run(strong)[1], run(trial(train__max_steps=1))[1]
    assert noisy["first_clean_loss"] == clean["first_clean_loss"]
    assert noisy["loss"] > clean["loss"] + 0.1


# Batches


@pytest.mark.parametrize("noise_type", ["none", "symnoise"])
def test_the_micro_batch_changes_memory_and_not_the_gradient(trial: Trial, noise_type: str) -> None:
    alpha = {} if noise_type == "none" else {"noise__alpha": 5}
    whole, *others = (
        losses(
            trial(
                noise__type=noise_type,
                train__global_batch_size=8,
                train__micro_batch_size=size,
                train__max_steps=2,
                **alpha,
            )
        )
        for size in (8, 3, 1)
    )
    for other in others:
        assert other == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_norm_of_the_gradient_is_told(trial: Trial, stage: int) -> None:
    records, _ = run(trial(train__zero_stage=stage, train__max_steps=2))
    assert all(0 < record["grad_norm"] < 100 for record in records[1:])


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("noise_type", ["none", "symnoise"])
def test_sharding_does_not_change_training(trial: Trial, stage: int, noise_type: str) -> None:
    alpha = {} if noise_type == "none" else {"noise__alpha": 5}
    replicated, sharded = (
        losses(trial(noise__type=noise_type, train__zero_stage=zero_stage, **alpha))
        for zero_stage in (0, stage)
    )
    assert sharded == pytest.approx(replicated, rel=1e-5)


def test_gradients_are_clipped_to_their_norm_and_zero_switches_it_off(trial: Trial) -> None:
    free, clipped = (
        losses(trial(optim__max_grad_norm=norm, train__max_steps=3)) for norm in (0.0, 1e-12)
    )
    # AdamW's first step does not depend on the gradient's size, unless it drowns in epsilon.
    assert clipped[0] == free[0]
    assert abs(clipped[2] - clipped[0]) < abs(free[2] - free[0])


def test_bf16_trains(trial: Trial) -> None:
    values = losses(trial(model__dtype="bf16", noise__type="symnoise", noise__alpha=5))
    assert values[-1] < values[0]


# The learning rate


def optim(**settings: Any) -> OptimConfig:
    return OptimConfig(lr=1.0, **settings)


def test_the_learning_rate_rises_over_the_warm_up_to_its_peak() -> None:
    settings = optim(schedule="constant", warmup_ratio=0.3)
    rates = [lr_at(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0.0]),
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_after_it_the_schedule_takes_it_to_its_end(schedule: Any, expected: list[float]) -> None:
    settings = optim(schedule=schedule, warmup_ratio=0.2)
    # 100 steps: 20 of warm-up, then the schedule over the other 80, its end at step 100.
    rates = [lr_at(step, 100, settings) for step in (20, 40, 60, 80, 100)]
    assert rates == pytest.approx(expected, abs=1e-12)
    assert lr_at(19, 100, settings) == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_no_step_is_wasted_on_a_rate_of_zero(schedule: Any, num_steps: int) -> None:
    settings = optim(schedule=schedule, warmup_ratio=0.03)
    rates = [lr_at(step, num_steps, settings) for step in range(num_steps)]
    assert min(rates) > 0
    assert max(rates) == 1.0


def test_the_learning_rate_of_every_step_is_the_schedules(trial: Trial) -> None:
    config = trial(optim__schedule="linear", optim__warmup_ratio=0.5)
    rates = [record["lr"] for record in run(config)[0][1:]]
    assert rates == [lr_at(step, 6, config.optim) for step in range(6)]


# Bad ends


def test_a_diverging_training_ends_with_its_step(trial: Trial) -> None:
    records: list[dict[str, Any]] = []
    config = trial(optim__lr=1e30, optim__schedule="constant", optim__warmup_ratio=0)
    with pytest.raises(
        DivergedError, match=r"training loss must be finite, .* at step 2 of 6, after a loss of \d"
    ):
        train(config, records.append)
    assert [record["step"] for record in records] == [0, 1]


def test_a_training_that_diverges_in_its_last_step_does_not_end_well(trial: Trial) -> None:
    config = trial(optim__lr=1e30, train__max_steps=1)
    with pytest.raises(DivergedError, match="finite"):
        train(config, lambda _record: None)


def test_the_loss_on_plain_texts_is_measured_beside(trial: Trial, tmp_path: Path) -> None:
    texts = ["The quiet river sleeps.", "", {"text": "A red fox and a blue bird."}]
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(texts))
    config = trial(data__texts=str(file))
    records, summary = run(config)
    model, tokenizer, _ = load(config.model)
    total = count = 0.0
    for text in (texts[0], texts[2]["text"]):  # type: ignore[index]
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        logits_LV = model(input_ids=ids).logits[0, :-1].detach()
        total += float(torch.nn.functional.cross_entropy(logits_LV, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert records[0]["text_loss"] == pytest.approx(total / count, rel=1e-5)
    assert summary["text_loss"] != records[0]["text_loss"]
    assert "text_loss" not in run(trial())[1]


def test_texts_that_are_none_are_refused(trial: Trial, tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps([{"story": "once"}]))
    with pytest.raises(DataError, match=r"texts\.json row 1: must be a text, or a row with `text`"):
        run(trial(data__texts=str(file)))


def test_a_cancelled_training_ends_at_the_next_step(trial: Trial) -> None:
    records: list[dict[str, Any]] = []
    with pytest.raises(CancelledError, match="cancelled at step 3 of 6"):
        train(trial(), records.append, cancelled=lambda: len(records) == 3)
    assert [record["step"] for record in records] == [0, 1, 2]


def test_a_model_that_cannot_be_read_is_told(trial: Trial, tmp_path: Any) -> None:
    with pytest.raises(
        UserError, match=r"model\.name=.*: must be a folder or hub name with a read"
    ):
        train(trial(model__name=str(tmp_path)), lambda _record: None)


# The engine


def test_the_switch_of_deepspeed_that_the_engine_uses_exists() -> None:
    import deepspeed

    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__


def test_deepspeeds_settings_follow_the_trial(trial: Trial) -> None:
    config = trial(model__dtype="bf16", train__zero_stage=2, optim__max_grad_norm=0.5)
    settings = deepspeed_config(config, world_size=4)
    assert settings["train_micro_batch_size_per_gpu"] == 2
    assert settings["train_batch_size"] == 8
    assert settings["gradient_accumulation_steps"] == 1
    assert settings["gradient_clipping"] == 0.5
    assert settings["bf16"] == {"enabled": True}
    assert settings["zero_optimization"] == {"stage": 2}


def engines_alive() -> int:
    """Engines and optimizers that were made in these tests and are still there."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    give_memory_back()
    kinds = (DeepSpeedEngine, torch.optim.Optimizer)
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


def tensor_bytes_alive() -> int:
    """Bytes of all tensors that were made in these tests and are still there."""
    give_memory_back()
    things = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in things}.values())


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_no_engine_and_no_weights_stay_after_a_trial(trial: Trial, stage: int) -> None:
    config = trial(
        train__max_steps=1, train__zero_stage=stage, noise__type="symnoise", noise__alpha=5
    )
    run(config)
    before = tensor_bytes_alive()
    for _ in range(5):
        run(config)
        assert engines_alive() == 0
    assert tensor_bytes_alive() <= before


def test_no_engine_and_no_weights_stay_after_a_trial_that_failed(trial: Trial) -> None:
    config = trial(optim__lr=1e30, optim__schedule="constant", optim__warmup_ratio=0)
    left = []
    for _ in range(4):
        with pytest.raises(DivergedError, match="finite"):
            train(config, lambda _record: None)
        assert engines_alive() == 0
        left.append(tensor_bytes_alive())
    assert left[-1] <= left[0]


def test_released_weights_cannot_be_used(trial: Trial) -> None:
    trained = train(trial(train__max_steps=1), lambda _record: None)
    trained.release()
    with pytest.raises(AttributeError, match="engine"):
        trained.model  # noqa: B018 - reading it is the point
