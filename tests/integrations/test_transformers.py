"""The noise in Hugging Face's `Trainer`: the losses of our own loop, and of the halves by hand."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.data.tokens import TokenRows
from symnoise_ray.errors import UserError
from symnoise_ray.integrations.transformers import SAMPLE, rows_of, with_noise
from symnoise_ray.models.weights import load
from symnoise_ray.training.batches import Batch, Batches
from symnoise_ray.training.loop import train
from symnoise_ray.training.packing import block_mask
from tests.conftest import PAIRS, llama
from tests.noise.helpers import Rows, all_rows, losses_by_hand, noise_of, places, tokens
from tests.ranks import run_ranks

Trial = Callable[..., TrialConfig]
Arrays = dict[str, Tensor]

STEPS, SEED, LR = 3, 7, 1e-2
SAME = 1e-5
MASKS = [
    torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]),
]
"""Two micro-batches of one step, padded on the right."""


@pytest.fixture
def make_model() -> Callable[[], LlamaForCausalLM]:
    """Makes the tiny model, the same each time."""
    return lambda: llama(vocab_size=64)


class Stream(IterableDataset[Arrays]):
    """Micro-batches in the order in which they are given, again and again."""

    def __init__(self, batches: list[Arrays]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Arrays]:
        return iter(self.batches)


def arrays(mask_BL: Tensor) -> Arrays:
    """A micro-batch as collators make it: every token but the first and the padding is learned."""
    ids_BL = tokens(mask_BL)
    labels_BL = ids_BL.masked_fill(mask_BL == 0, -100)
    return {"input_ids": ids_BL, "attention_mask": mask_BL, "labels": labels_BL}


SMALL = [arrays(mask_BL) for mask_BL in MASKS]


def make(
    model: LlamaForCausalLM,
    folder: Path,
    batches: list[Arrays] = SMALL,
    noise: dict[str, Any] | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
    **settings: Any,
) -> Trainer:
    """A trainer whose steps have two micro-batches; plain without `noise`."""
    defaults: dict[str, Any] = {
        "max_steps": STEPS,
        "gradient_accumulation_steps": 2,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "seed": SEED,
        "optim": "adamw_torch",
    }
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        **{**defaults, **settings},
    )
    kind = Trainer if noise is None else with_noise(Trainer, **noise)
    return kind(
        model=model,
        args=args,
        train_dataset=Stream(batches),
        eval_dataset=Stream(batches),
        data_collator=lambda items: dict(items[0]),
        callbacks=list(callbacks),
    )


def losses(trainer: Trainer) -> list[float]:
    """The training loss of every step."""
    trainer.train()
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# The same as our own loop


def micro_batches(config: TrialConfig, *, packed: bool) -> list[Arrays]:
    """The micro-batches of our own loop, as a collator would hand them to a trainer."""
    _, rows = all_rows(config)
    table, train = TokenTable.of(TokenRows(rows, {})), config.train
    batches = Batches(
        table,
        global_batch_size=train.global_batch_size,
        micro_batch_size=train.micro_batch_size,
        seed=train.seed,
        pad_id=0,
        packed=packed,
    )
    return [
        as_arrays(batch)
        for _ in range(STEPS)
        for batch in batches.micro_batches(batches.next_step(), 0, 1)
    ]


def as_arrays(batch: Batch) -> Arrays:
    taken = {"input_ids": batch.input_ids_BL, "labels": batch.labels_BL, SAMPLE: batch.sample_BL}
    if not batch.packed:
        return {**taken, "attention_mask": batch.mask_BL}
    mask = block_mask(batch.sample_BL, batch.position_BL, torch.float32)
    return {**taken, "attention_mask": mask, "position_ids": batch.position_BL}


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "noise",
    [
        {"type": "symnoise", "alpha": 5.0},
        {"type": "symnoise", "alpha": 5.0, "include_clean": True},
        {"type": "neftune", "alpha": 5.0, "scale": "matched"},
        {"type": "independent", "alpha": 5.0},
        {"type": "duplicate"},
        {"type": "none"},
    ],
    ids=lambda noise: "-".join(map(str, noise.values())),
)
@pytest.mark.parametrize("packing", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_three_steps_have_the_losses_of_our_own_loop(
    trial: Trial,
    alpaca_file: Callable[..., Path],
    tmp_path: Path,
    noise: dict[str, Any],
    packing: str,
) -> None:
    quick = {
        "optim__schedule": "constant", "optim__warmup_ratio": 0, "optim__lr": LR,
        "train__max_steps": STEPS, "train__num_clean_rows": 1, "train__probe_alpha": 0,
        "train__seed": SEED, "train__packing": packing,
    }  # fmt: skip
    if packing == "on":
        long = ("Tell it all.", "the quiet fox sleeps near the old garden and the sea " * 2)
        rows = str(alpaca_file([*PAIRS, long], "long.json"))  # others share lines of its length
        quick |= {"train__global_batch_size": 13, "train__micro_batch_size": 1, "data__train": rows}
    config = trial(**quick, **{f"noise__{name}": value for name, value in noise.items()})
    records: list[dict[str, Any]] = []
    train(config, records.append).release()
    ours = [record["loss"] for record in records if "loss" in record]
    batches = micro_batches(config, packed=packing == "on")
    assert any("position_ids" in batch for batch in batches) == (packing == "on")
    per_step = len(batches) // STEPS
    assert per_step * STEPS == len(batches)
    assert per_step > 1
    trainer = make(
        load(config.model).model, tmp_path, batches, noise, gradient_accumulation_steps=per_step
    )
    assert losses(trainer) == pytest.approx(ours, abs=SAME)


# The same as by hand


def by_hand(
    model: LlamaForCausalLM, settings: dict[str, Any], numbers: tuple[int, ...] = (0, 1, 2, 3)
) -> list[float]:
    """Losses of steps on both micro-batches in one, all copies of the rows together.

    The rows of a step are numbered in the order in which they come.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    config = noise_of(**{"noise_type": settings["type"], **settings})
    mask_BL = torch.cat([torch.nn.functional.pad(each, (0, 5 - each.shape[1])) for each in MASKS])
    ids_BL = torch.cat(
        [torch.nn.functional.pad(each["input_ids"], (0, 5 - each["input_ids"].shape[1]))
         for each in SMALL]
    )  # fmt: skip
    labels_BL = ids_BL.masked_fill(mask_BL == 0, -100)
    rows = Rows(ids_BL, labels_BL, *places(mask_BL, torch.tensor(numbers)))
    found = []
    for step in range(1, STEPS + 1):
        loss = torch.stack(losses_by_hand(model, rows, config, step=step, seed=SEED)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.sampled(1)
@pytest.mark.parametrize("noise_type", ["symnoise", "symgaussian", "independent", "bernoulli"])
def test_three_steps_have_the_losses_of_the_concatenated_copies_by_hand(
    make_model: Callable[[], LlamaForCausalLM], tmp_path: Path, noise_type: str
) -> None:
    noise = {"type": noise_type, "alpha": 5.0}
    found = losses(make(make_model(), tmp_path, SMALL * STEPS, noise))
    assert found == pytest.approx(by_hand(make_model(), noise), abs=SAME)
    clean = losses(make(make_model(), tmp_path, SMALL * STEPS))
    assert found != pytest.approx(clean, abs=1e-3)


def test_two_equal_copies_change_neither_loss_nor_gradient(
    make_model: Callable[[], LlamaForCausalLM], tmp_path: Path
) -> None:
    plain, twice = make_model(), make_model()
    # Plain gradient descent: AdamW would hide a gradient of twice the size.
    settings = {"optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1}
    expected = losses(make(plain, tmp_path, SMALL * STEPS, **settings))
    found = losses(make(twice, tmp_path, SMALL * STEPS, {"type": "duplicate"}, **settings))
    assert found == pytest.approx(expected, abs=SAME)
    assert torch.allclose(weights(twice), weights(plain), atol=1e-6)


IN_PROCESSES = """
import json, pathlib, sys, tempfile
import deepspeed
from tests.conftest import llama
from tests.integrations.test_transformers import SMALL, STEPS, losses, make
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
noise, settings = map(json.loads, sys.argv[1:])
folder = pathlib.Path(tempfile.mkdtemp())
print("losses", json.dumps(losses(make(llama(64), folder, SMALL * STEPS, noise, **settings))))
"""
DEEPSPEED = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "numbers", "settings"),
    [
        (2, (0, 2, 1, 3), {"gradient_accumulation_steps": 1, "ddp_backend": "gloo"}),
        (1, (0, 1, 2, 3), {"deepspeed": {**DEEPSPEED, "zero_optimization": {"stage": 0}}}),
        (1, (0, 1, 2, 3), {"deepspeed": {**DEEPSPEED, "zero_optimization": {"stage": 2}}}),
    ],
    ids=["two workers", "deepspeed", "zero 2"],
)
def test_workers_and_deepspeed_take_the_same_steps(
    make_model: Callable[[], LlamaForCausalLM],
    monkeypatch: pytest.MonkeyPatch,
    num_ranks: int,
    numbers: tuple[int, ...],
    settings: dict[str, Any],
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    noise = {"type": "symnoise", "alpha": 5.0}
    settings = {**settings, "accelerator_config": {"dispatch_batches": False}}
    texts = map(json.dumps, (noise, settings))
    printed = run_ranks(IN_PROCESSES, *texts, num_ranks=num_ranks)[0]
    (found,) = re.findall(r"^losses (.+)$", printed, re.MULTILINE)
    assert json.loads(found) == pytest.approx(by_hand(make_model(), noise, numbers), abs=SAME)


# Nothing where there is no noise


@pytest.mark.sampled(1)
@pytest.mark.parametrize("noise", [{"type": "none"}, {"type": "symnoise", "alpha": 0}], ids=str)
def test_without_noise_every_bit_is_that_of_the_plain_trainer(
    make_model: Callable[[], LlamaForCausalLM], tmp_path: Path, noise: dict[str, Any]
) -> None:
    plain, noisy = make_model(), make_model()
    assert losses(make(noisy, tmp_path, SMALL * STEPS, noise)) == losses(
        make(plain, tmp_path, SMALL * STEPS)
    )
    assert torch.equal(weights(noisy), weights(plain))


def test_padded_neftune_from_torchs_stream_is_the_trainers_own_bit_for_bit(
    make_model: Callable[[], LlamaForCausalLM], tmp_path: Path
) -> None:
    own, ours = make_model(), make_model()
    noise = {"type": "neftune", "alpha": 5, "length": "padded", "generator": "torch"}
    expected = losses(make(own, tmp_path, SMALL * STEPS, neftune_noise_alpha=5))
    assert losses(make(ours, tmp_path, SMALL * STEPS, noise)) == expected
    assert torch.equal(weights(ours), weights(own))


class Answers(TrainerCallback):
    """What the model says at the end of every step: logits, and an answer."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.answers: list[list[int]] = []

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        """Ask the model as it is in the middle of training."""
        ids = SMALL[0]["input_ids"][:1]
        with torch.no_grad():
            self.logits.append(model(input_ids=ids).logits)
            answer = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip
        self.answers.append(answer[0].tolist())


def test_evaluation_and_generation_have_no_noise(
    make_model: Callable[[], LlamaForCausalLM], tmp_path: Path
) -> None:
    def run(noise: dict[str, Any] | None) -> tuple[list[float], Answers]:
        answers = Answers()
        still = {"learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1}
        trainer = make(make_model(), tmp_path, SMALL * STEPS, noise, (answers,), **still)
        trainer.train()
        history = trainer.state.log_history
        return [record["eval_loss"] for record in history if "eval_loss" in record], answers

    (clean, said), (noisy, noisy_said) = run(None), run({"type": "symnoise", "alpha": 50})
    assert len(noisy) == STEPS
    assert noisy == clean
    assert noisy_said.answers == said.answers
    assert torch.equal(torch.stack(noisy_said.logits), torch.stack(said.logits))


def test_a_trained_model_carries_no_hook(
    make_model: Callable[[], LlamaForCausalLM], tmp_path: Path
) -> None:
    trainer = make(make_model(), tmp_path, noise={"type": "symnoise", "alpha": 5}, max_steps=1)
    trainer.train()
    assert not trainer.model.get_input_embeddings()._forward_hooks


# The rows of a batch

LINES = torch.tensor([[5, 6, 7, 8, 9, 0]])


@pytest.mark.parametrize(
    ("batch", "real", "begins"),
    [
        ({"attention_mask": [[1, 1, 1, 1, 1, 0]]}, [1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]),
        ({"attention_mask": [[0, 0, 1, 1, 1, 1]]}, [0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]),
        ({"position_ids": [[0, 1, 2, 0, 1, 2]]}, [1] * 6, [1, 0, 0, 1, 0, 0]),
        (
            {"position_ids": [[0, 1, 0, 1, 2, 0]], "attention_mask": [[1, 1, 1, 1, 1, 0]]},
            [1, 1, 1, 1, 1, 0],
            [1, 0, 1, 0, 0, 0],
        ),
        (
            {"position_ids": [[0, 1, 0, 1, 2, 0]], SAMPLE: [[4, 4, 9, 9, 9, -1]]},
            [1, 1, 1, 1, 1, 0],
            [1, 0, 1, 0, 0, 0],
        ),
    ],
    ids=["padded right", "padded left", "packed", "packed and padded", "numbered"],
)
def test_rows_are_told_by_mask_positions_or_numbers(
    batch: dict[str, Any], real: list[int], begins: list[int]
) -> None:
    given = {name: torch.tensor(value) for name, value in batch.items()}
    real_BL, begins_BL = rows_of({"input_ids": LINES, **given})
    assert real_BL.int().tolist() == [real]
    assert begins_BL.int().tolist() == [begins]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": LINES}, "must have input_ids .* but has only labels"),
        ({"input_ids": LINES}, "must tell its padding, .* but has no attention_mask"),
        (
            {"input_ids": LINES, "attention_mask": torch.zeros(1, 1, 6, 6)},
            "but has an attention_mask of 4 axes",
        ),
        (
            {"input_ids": LINES, "position_ids": torch.zeros(3, 1, 6)},
            r"position_ids of a batch must have the shape \(1, 6\)",
        ),
    ],
)
def test_a_batch_that_does_not_tell_its_rows_is_refused(batch: Arrays, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows_of(batch)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "symnoize", "alpha": 5}, "with_noise: type: input should be 'none', "),
        ({"type": "symnoise"}, "noise.alpha must be given for noise.type=symnoise"),
        ({"type": "symnoise", "alpha": 5, "strength": 1}, "'strength' is not a setting"),
        ({"type": "symnoise", "alpha": 5, "execution": "concat"}, "must be sequential"),
    ],
)
def test_a_wrong_setting_is_refused_before_there_is_a_trainer(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        with_noise(Trainer, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neftune_noise_alpha": 5}, "there would be two noises"),
        ({"torch_compile": True}, "torch_compile must be off"),
    ],
)
def test_a_way_to_run_that_the_noise_does_not_know_is_refused(
    make_model: Callable[[], LlamaForCausalLM],
    tmp_path: Path,
    settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UserError, match=f"NoisyTrainer: .*{message}"):
        make(make_model(), tmp_path, noise={"type": "symnoise", "alpha": 5}, **settings)
