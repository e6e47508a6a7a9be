"""One trial in a process of its own, around TRL's `SFTTrainer`, as a loop of the shell runs it.

fresh_process.py CONFIG FOLDER: the losses of every step are left in FOLDER. Rows, their order, the
optimizer and its schedule are those of the sweep, so the losses are the sweep's too.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from symnoise_ray.config import TrialConfig
from symnoise_ray.config.loading import load_trial
from symnoise_ray.integrations.transformers import SAMPLE, with_noise
from symnoise_ray.models.weights import load
from symnoise_ray.training.batches import Batches
from symnoise_ray.training.corpus import token_table
from symnoise_ray.training.schedule import lr_at

LOSSES = "losses.json"


def batches(config: TrialConfig, context: int | None, num_steps: int) -> Iterator[dict[str, Any]]:
    """The sweep's own batches, as a collator hands them to a trainer."""
    table, train = token_table(config, context, None), config.train
    made = Batches(
        table,
        global_batch_size=train.global_batch_size,
        micro_batch_size=train.micro_batch_size,
        seed=train.seed,
        pad_id=0,
    )
    for _ in range(num_steps):
        (batch,) = made.micro_batches(made.next_step(), 0, 1)
        yield {
            "input_ids": batch.input_ids_BL,
            "labels": batch.labels_BL,
            "attention_mask": batch.mask_BL,
            SAMPLE: batch.sample_BL,
        }


def trainer_of(config: TrialConfig, folder: Path) -> Any:
    """An `SFTTrainer` of the trial."""
    model, tokenizer, context = load(config.model)
    optim, num_steps = config.optim, config.train.max_steps
    assert num_steps is not None
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=optim.betas, eps=optim.eps,
        weight_decay=optim.weight_decay,
    )  # fmt: skip
    schedule = LambdaLR(optimizer, lambda step: lr_at(step, num_steps, optim) / optim.lr)
    noise = config.noise.model_dump(exclude_defaults=True)
    loader = DataLoader(list(batches(config, context, num_steps)), batch_size=None)  # type: ignore[arg-type]

    class InOrder(with_noise(trl.SFTTrainer, **noise)):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return loader

    return InOrder(
        model=model,
        args=trl.SFTConfig(
            output_dir=str(folder), max_steps=num_steps, seed=config.train.seed,
            max_grad_norm=optim.max_grad_norm, logging_steps=1, save_strategy="no",
            report_to="none", use_cpu=True, bf16=False, disable_tqdm=True,
            gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}]),
        processing_class=tokenizer,
        optimizers=(optimizer, schedule),
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[2])
    target.mkdir(parents=True)
    trainer = trainer_of(load_trial(Path(sys.argv[1])), target)
    trainer.train()
    history = [record for record in trainer.state.log_history if "loss" in record]
    assert all(record["grad_norm"] > 0 for record in history)
    (target / LOSSES).write_text(json.dumps([record["loss"] for record in history]))
