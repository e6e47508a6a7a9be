"""The noise in TRL's `SFTTrainer`: the losses of the concatenated copies by hand.

TRL is no part of what the project installs, so these tests run where somebody has it.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from symnoise_ray.integrations.transformers import with_noise
from tests.conftest import llama
from tests.noise.helpers import Rows, losses_by_hand, noise_of, places

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")

STEPS, SEED, LR, SAME = 3, 7, 1e-2, 1e-5
NOISE = {"type": "symnoise", "alpha": 5.0}
LENGTHS = [5, 3, 2, 6]
"""Tokens of the rows of a step: two micro-batches of two rows."""


def rows() -> list[dict[str, list[int]]]:
    """Tokenised rows; the first two tokens of each are a prompt, if it is long enough."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randint(2, 64, (length,), generator=generator).tolist() for length in LENGTHS]
    return [{"input_ids": ids, "labels": [-100] * (len(ids) // 3) + ids[len(ids) // 3 :]}
            for ids in made]  # fmt: skip


def by_trl(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    noise: dict[str, Any] | None = NOISE,
    adapter: LoraConfig | None = None,
    **settings: Any,
) -> list[float]:
    """The losses of `SFTTrainer` over steps on the same four rows."""
    kind = trl.SFTTrainer if noise is None else with_noise(trl.SFTTrainer, **noise)
    defaults: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = kind(
        model=llama(vocab_size=320),
        args=trl.SFTConfig(
            output_dir=str(folder),
            max_steps=STEPS,
            learning_rate=LR,
            lr_scheduler_type="constant",
            seed=SEED,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **{**defaults, **settings},
        ),
        train_dataset=Dataset.from_list(rows()),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    trainer.train()
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def by_hand() -> list[float]:
    """The same with all copies of the four rows in one batch, the noise added to embeddings."""
    model, config = llama(vocab_size=320), noise_of("symnoise")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    ids_BL = pad_sequence([torch.tensor(r["input_ids"]) for r in rows()], batch_first=True)
    labels_BL = pad_sequence(
        [torch.tensor(r["labels"]) for r in rows()], batch_first=True, padding_value=-100
    )
    mask_BL = (torch.arange(ids_BL.shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    batch = Rows(ids_BL, labels_BL, *places(mask_BL, torch.arange(4)))
    found = []
    for step in range(1, STEPS + 1):
        loss = torch.stack(losses_by_hand(model, batch, config, step=step, seed=SEED)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_checkpointing": False},
        {"padding_free": True, "max_length": None},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
    ],
    ids=["accumulated", "without checkpointing", "packed in one line", "in one batch"],
)
def test_three_steps_have_the_losses_of_the_concatenated_copies_by_hand(
    tmp_path: Path, tokenizer_with_pad: PreTrainedTokenizerFast, settings: dict[str, Any]
) -> None:
    found = by_trl(tmp_path, tokenizer_with_pad, **settings)
    assert found == pytest.approx(by_hand(), abs=SAME)


def test_without_noise_every_loss_is_that_of_the_plain_trainer(
    tmp_path: Path, tokenizer_with_pad: PreTrainedTokenizerFast
) -> None:
    plain = by_trl(tmp_path, tokenizer_with_pad, None)
    assert by_trl(tmp_path, tokenizer_with_pad, {"type": "none"}) == plain
    assert by_trl(tmp_path, tokenizer_with_pad, {"type": "symnoise", "alpha": 0}) == plain
    assert by_trl(tmp_path, tokenizer_with_pad) != plain


def test_a_model_with_adapters_gets_the_same_noise(
    tmp_path: Path, tokenizer_with_pad: PreTrainedTokenizerFast
) -> None:
    adapter = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    found = by_trl(tmp_path, tokenizer_with_pad, adapter=adapter)
    # New adapters change nothing, so the first step is that of the whole model.
    assert found[0] == pytest.approx(by_hand()[0], abs=SAME)
