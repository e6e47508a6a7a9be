"""What a training step costs: ours, a bare PyTorch loop, and other trainers, as ratios.

    python benchmarks/training.py [--rounds 15] [--shape 1B] [--tiny] [--json]

All contenders train the same rows of one model in turn, step by step, on one thread, in CPU time.
Each is a whole training as its users run it, in a thread that waits for its turn after every step,
so reading the rows, the learning rate and the record of a step count. Equal losses of the first
steps, and gradients that are not zero, are asserted before a time is told; only a failed assertion
ends with a status other than 0. A ratio is the median over the rounds, its spread the quartiles. A
step has one micro-batch, so that all pad alike; steps of several, whose rows only ours sorts by
length, are measured apart. TRL is compared where it is installed: `pip install trl==1.16.0`.

Where torch sees a GPU, or a `--shape` is named, something else is measured: our clean and our
SymNoise step of a model of 1.2 B weights (`--shape 0.5B`: of 0.5 B) in bf16, against the rate of a
plain matrix product; hide the GPU (`CUDA_VISIBLE_DEVICES=`) for the figures of the CPU. `--tiny`
only shows that the benchmark runs: its figures mean nothing.

Shape letters: B rows, L positions, V vocabulary.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import symnoise_ray
from symnoise_ray.config import TrialConfig
from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.data.tokens import IGNORE_INDEX
from symnoise_ray.models.process import choose_device
from symnoise_ray.models.weights import load
from symnoise_ray.training.batches import Batches
from symnoise_ray.training.corpus import token_table
from symnoise_ray.training.loop import train

Tick = Callable[[float, float], None]
"""Called with loss and gradient norm after every step; returns when the next one may begin."""

CEILINGS = {"step_vs_bare": 0.95, "step_vs_bare_answer_head": 1.05}
"""Bars on seconds over seconds; a bare step has the head on all positions unless it says so."""
FLOORS = {
    "rate_vs_trl": 1.3,
    "packed_rate_vs_trl_packed": 1.25,
    "packed_rate_vs_padded": 1.4,
}
"""Bars on real tokens per second over real tokens per second."""
GPU_FLOORS = {"symnoise_rate_vs_clean": 0.49, "utilization_clean": 0.55}
"""Bars on a GPU; the second is a share of the rate of a plain matrix product."""
BARS = CEILINGS | FLOORS | GPU_FLOORS
MAX_SPREAD = 0.10
"""The bare loop measured against itself may spread so far; beyond it, no bar is judged."""
MAX_DIFFERENCE = 1e-4
NUM_CHECKED = 3
"""Steps before the measured ones; their losses and gradient norms are compared."""
SEED = 0
SYMNOISE = {"type": "symnoise", "alpha": 5}
LR = 1e-4
PEERS = {"accelerate": "pip install accelerate", "trl": "pip install trl==1.16.0"}
"""What the other trainers need (the first one is Hugging Face's own), and how to get it."""


class Sizes(NamedTuple):
    """A LLaMA's shape, and the rows: `batch` of them per step, in `micros` micro-batches."""

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int
    shortest: int
    longest: int
    batch: int
    micros: int


# Lengths are log-uniform, so that about half of a padded batch of 8 is padding.
FULL = Sizes(8, 256, 688, 8, 8, 8192, 24, 256, 8, 1)
TINY = Sizes(2, 32, 64, 4, 4, 128, 8, 32, 4, 1)
SHAPES = {
    "1B": Sizes(16, 2048, 8192, 32, 8, 128256, 64, 1024, 64, 8),
    "0.5B": Sizes(24, 896, 4864, 14, 2, 151936, 64, 1024, 64, 8),
}
"""Models for GPUs: the shapes of Llama 3.2 1B and of Qwen 2.5 0.5B."""
NUM_SORTED = 4
"""Micro-batches of a step in the part that measures sorting."""


class Step(NamedTuple):
    """One step of a contender; `tokens` are those of its rows, padding left out."""

    seconds: float
    loss: float
    grad_norm: float
    tokens: int


class Ratio(NamedTuple):
    """A ratio, and the quartiles of the rounds' ratios."""

    value: float
    low: float
    high: float


class OverError(Exception):
    """Ends a training that was measured."""


class Contender:
    """A training that goes on by one step when it is told to."""

    def __init__(self, training: Callable[[Tick], object], tokens: list[int]) -> None:
        self._training, self._tokens = training, iter(tokens)
        self._go, self._came = threading.Semaphore(0), threading.Semaphore(0)
        self._told: tuple[float, float] | None = None
        self._error: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self.first_loss: float | None = None
        """What the first step must show, where its rows are not those of the others."""

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._training(self._tick)
        except BaseException as error:
            self._error = error
        self._told = None
        self._came.release()

    def _tick(self, loss: float, grad_norm: float) -> None:
        self._told = loss, grad_norm
        self._came.release()
        self._go.acquire()
        if self._over:
            raise OverError

    def step(self) -> Step:
        """The next step; the first one also sets the training up."""
        if not self._thread.ident:
            self._thread.start()
        began = clock()
        self._go.release()
        self._came.acquire()
        seconds = clock() - began
        if self._error is not None:
            raise self._error
        assert self._told is not None, "a training ended before it was measured"
        return Step(seconds, *self._told, next(self._tokens))

    def finish(self) -> None:
        """End the training where it stands."""
        if self._thread.ident:
            self._over = True
            self._go.release()
            self._thread.join()


def clock() -> float:
    """Seconds that this process computed on the CPU; on a GPU, time when its work was done."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def in_turn(contenders: dict[str, Contender], rounds: int) -> dict[str, list[Step]]:
    """Steps of every contender, one in every round; the first few are those to compare."""
    steps: dict[str, list[Step]] = {name: [] for name in contenders}
    gc.collect()
    try:
        for _ in range(NUM_CHECKED + rounds):
            for name, contender in contenders.items():
                steps[name].append(contender.step())
    finally:
        for contender in contenders.values():
            contender.finish()
    return steps


# The job: a model, rows, and the order in which every contender sees them


@dataclass
class Job:
    """What all contenders of one part train, and for how many steps."""

    folder: Path
    sizes: Sizes
    num_steps: int
    dtype: str = "fp32"

    def config(self, *, packing: str = "off", noise: dict[str, Any] | None = None) -> TrialConfig:
        """The trial; all but packing and noise is the same for every contender."""
        rows = str(self.folder / "rows.jsonl")
        return TrialConfig.model_validate(
            {
                "model": {"name": str(self.folder / "model"), "dtype": self.dtype},
                "noise": noise or {},
                "data": {
                    "train": rows,
                    "eval_prompts": rows,
                    "template": str(self.folder / "template.yaml"),
                    "max_length": self.sizes.longest,
                },
                "optim": {"lr": LR, "schedule": "constant", "warmup_ratio": 0},
                "train": {
                    "max_steps": self.num_steps,
                    "num_epochs": 1_000_000,
                    "global_batch_size": self.sizes.batch,
                    "micro_batch_size": self.micro_batch_size,
                    "packing": packing,
                    "num_evals": 1,
                    "num_clean_rows": 1,
                    "probe_alpha": 0,
                },
            }
        )

    @property
    def micro_batch_size(self) -> int:
        """Rows of a micro-batch."""
        return self.sizes.batch // self.sizes.micros

    @functools.cached_property
    def table(self) -> TokenTable:
        """The tokenised rows, as training reads them."""
        return token_table(self.config(), self.sizes.longest, None)

    @functools.cached_property
    def order(self) -> list[list[int]]:
        """Row numbers of every step, in the order of our stream."""
        batches = Batches(
            self.table,
            global_batch_size=self.sizes.batch,
            micro_batch_size=self.micro_batch_size,
            seed=self.config().train.seed,
            pad_id=0,
        )
        return [batches.next_step() for _ in range(self.num_steps)]

    @property
    def tokens(self) -> list[int]:
        """Tokens of every step."""
        return [sum(self.table.lengths[number] for number in rows) for rows in self.order]

    @property
    def padding(self) -> float:
        """Share of padding where micro-batches are cut from the rows as they come."""
        micros = [micro for rows in self.order for micro in self.cut(rows)]
        lengths = [[self.table.lengths[number] for number in micro] for micro in micros]
        return 1 - sum(map(sum, lengths)) / sum(len(micro) * max(micro) for micro in lengths)

    def cut(self, rows: list[int]) -> list[list[int]]:
        """Rows in micro-batches, unsorted."""
        starts = range(0, len(rows), self.micro_batch_size)
        return [rows[start : start + self.micro_batch_size] for start in starts]

    def data(self) -> list[dict[str, list[int]]]:
        """The rows of all steps as other trainers take them."""
        rows = [self.table.row(number) for step in self.order for number in step]
        return [
            {"input_ids": [int(token) for token in row[0]], "labels": [int(x) for x in row[1]]}
            for row in rows
        ]


def make_files(folder: Path, sizes: Sizes, dtype: torch.dtype) -> None:
    """A model with random weights, a tokenizer of one token per word, and rows for them."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        max_position_embeddings=sizes.longest,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    with choose_device():  # a CPU takes a minute to draw a billion weights
        model = LlamaForCausalLM(config)
    model.to(dtype).save_pretrained(folder / "model")
    words = {"</s>": 0} | {f"w{number}": number for number in range(1, sizes.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(
        folder / "model"
    )
    template = 'request: "{request}"\nrequest_with_input: "{request} {input}"\n'
    (folder / "template.yaml").write_text(template)
    rows = [row_of(sizes, number) for number in range(64 * sizes.batch)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row_of(sizes: Sizes, number: int) -> dict[str, str]:
    """Random words; the first half of a row is its prompt."""
    drawn = random.Random(number)
    length = round(sizes.shortest * (sizes.longest / sizes.shortest) ** drawn.random())
    words = [f"w{drawn.randrange(1, sizes.vocabulary)}" for _ in range(length - 1)]
    return {
        "instruction": " ".join(words[: length // 2]),
        "output": " ".join(words[length // 2 :]),
    }


# The contenders


def ours(job: Job, packing: str = "off", noise: dict[str, Any] | None = None) -> Contender:
    """`train()` as a trial calls it, with a record per step."""

    def training(tick: Tick) -> None:
        def report(record: dict[str, Any]) -> None:
            if record["step"]:
                tick(record["loss"], record["grad_norm"])

        train(job.config(packing=packing, noise=noise), report).release()

    return Contender(training, job.tokens)


def bare(job: Job, *, answers_only: bool = False) -> Contender:
    """The loop that everyone would write, on rows in the order that they come."""

    def training(tick: Tick) -> None:
        device = choose_device()
        model = load(job.config().model).model.to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0, fused=True)
        rows = [tuple(map(torch.tensor, row.values())) for row in job.data()]
        for start in range(0, len(rows), job.sizes.batch):
            of_step = rows[start : start + job.sizes.batch]
            count = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in of_step)
            total = 0.0
            for first in range(0, len(of_step), job.micro_batch_size):
                ids, labels = zip(*of_step[first : first + job.micro_batch_size], strict=True)
                ids_BL = pad_sequence(ids, batch_first=True).to(device)
                mask_BL = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
                labels_BL = pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX)
                loss = token_loss(
                    model, ids_BL, mask_BL.to(device), labels_BL.to(device), answers_only
                )
                (loss / count).backward()
                total += float(loss.detach()) / count
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tick(total, float(norm))

    return Contender(training, job.tokens)


def token_loss(
    model: Any, ids_BL: Tensor, mask_BL: Tensor, labels_BL: Tensor, answers_only: bool
) -> Tensor:
    """Summed cross-entropy; the head on all positions, or on those before an answer's token."""
    next_BL = F.pad(labels_BL[:, 1:], (0, 1), value=IGNORE_INDEX)
    hidden_BLD = model.model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False)[0]
    if answers_only:
        hidden_BLD, next_BL = (x[next_BL != IGNORE_INDEX] for x in (hidden_BLD, next_BL))
    logits = model.lm_head(hidden_BLD).float()
    return F.cross_entropy(
        logits.flatten(0, -2), next_BL.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )


class Ticks(transformers.TrainerCallback):
    """Waits for its turn after every logged step of Hugging Face's loop."""

    def __init__(self) -> None:
        self.tick: Tick = lambda loss, norm: None

    def on_log(
        self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_more: Any
    ) -> None:
        """A step is over when its loss is logged."""
        if "loss" in logs:
            self.tick(float(logs["loss"]), float(logs["grad_norm"]))


def trainer_settings(job: Job, micro_batch_size: int) -> dict[str, Any]:
    """The same training in Hugging Face's words: what differs from the defaults, and no files."""
    return {
        "output_dir": str(job.folder / "trainer"),
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": job.sizes.micros,
        "train_sampling_strategy": "sequential",
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_steps": job.num_steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(),
    }


def attended(trainer: Any, tokens: list[int]) -> Contender:
    """A contender of a trainer; it must not think that it is one of several processes."""
    assert trainer.accelerator.num_processes == 1
    assert trainer.accelerator.distributed_type.name == "NO"
    trainer.remove_callback(transformers.PrinterCallback)
    ticks = Ticks()
    trainer.add_callback(ticks)

    def training(tick: Tick) -> None:
        ticks.tick = tick
        trainer.train()

    return Contender(training, tokens)


def hugging_face(job: Job) -> Contender:
    """`transformers.Trainer` with the collator of its examples."""
    model, tokenizer, _ = load(job.config().model)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**trainer_settings(job, job.micro_batch_size)),
        train_dataset=job.data(),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    )
    return attended(trainer, job.tokens)


def trl(job: Job, *, packed: bool = False) -> Contender:
    """TRL's `SFTTrainer`; packed, its lines hold about as many tokens as our rows of a step."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    lines = max(1, round(statistics.mean(job.tokens) / job.sizes.longest))
    model, tokenizer, _ = load(job.config().model)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **trainer_settings(job, lines if packed else job.micro_batch_size),
            max_length=job.sizes.longest,
            packing=packed,
            gradient_checkpointing=False,  # TRL's default is to recompute
        ),
        train_dataset=datasets.Dataset.from_list(job.data()),
        processing_class=tokenizer,
    )
    if not packed:
        return attended(trainer, job.tokens)
    data = trainer.train_dataset
    per_line = [sum(lengths) for lengths in data["seq_lengths"]]
    tokens = [sum(per_line[start : start + lines]) for start in range(0, len(per_line), lines)]
    contender = attended(trainer, [*tokens, *tokens])  # few lines more than one epoch has
    contender.first_loss = loss_row_by_row(job, data[:lines])
    return contender


@torch.no_grad()
def loss_row_by_row(job: Job, lines: dict[str, list[list[int]]]) -> float:
    """Mean loss of packed lines when every row stands alone, by a model that has not trained."""
    model = load(job.config().model).model
    total, count = 0.0, 0
    columns = (lines[name] for name in ("input_ids", "labels", "seq_lengths"))
    for ids, labels, lengths in zip(*columns, strict=True):
        for start, stop in itertools.pairwise(itertools.accumulate(lengths, initial=0)):
            ids_BL, labels_BL = (torch.tensor([part[start:stop]]) for part in (ids, labels))
            total += float(token_loss(model, ids_BL, torch.ones_like(ids_BL), labels_BL, False))
            count += int((labels_BL != IGNORE_INDEX).sum())
    return total / count


# Figures and the report


def main_contenders(job: Job) -> tuple[dict[str, Contender], list[str]]:
    """All contenders of steps with one micro-batch, and what is left out and why.

    Other trainers come first: ours makes a group of processes, which they would join.
    """
    contenders = {}
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    if "accelerate" not in missing:
        contenders["HF Trainer"] = hugging_face(job)
    if not missing:
        contenders |= {"TRL": trl(job), "TRL, packed": trl(job, packed=True)}
    contenders |= {
        "bare": bare(job),
        "bare, again": bare(job),
        "bare, answer head": bare(job, answers_only=True),
        "ours": ours(job),
        "ours, packed": ours(job, "on"),
        "ours, packed, symnoise": ours(job, "on", SYMNOISE),
    }
    left_out = [f"{name} is not installed, so it is left out: {PEERS[name]}" for name in missing]
    return contenders, left_out


def assert_equal_work(
    steps: dict[str, list[Step]], contenders: dict[str, Contender], reference: str
) -> float:
    """The first steps have equal losses and gradient norms; returns the largest difference.

    Norms are those before clipping, so equal losses with a gradient of zero cannot pass.
    """
    largest = 0.0
    for name, taken in steps.items():
        assert all(math.isfinite(s.loss) and s.grad_norm > 0 for s in taken), f"{name}: no gradient"
        if name.endswith("symnoise"):
            assert taken[0].loss != steps[reference][0].loss, "the noise did nothing"
            continue
        first_loss = contenders[name].first_loss
        pairs = [(taken[0].loss, first_loss)] if first_loss is not None else []
        if first_loss is None:
            for step, other in zip(taken[:NUM_CHECKED], steps[reference], strict=False):
                pairs += [(step.loss, other.loss), (step.grad_norm, other.grad_norm)]
        difference = max(abs(one - other) / other for one, other in pairs)
        assert difference < MAX_DIFFERENCE, f"{name} trains something else: off by {difference}"
        largest = max(largest, difference)
    return largest


def ratio_of(values: list[float], others: list[float]) -> Ratio:
    """Median and quartiles of the rounds' ratios."""
    rounds = [one / other for one, other in zip(values, others, strict=True)]
    low, middle, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return Ratio(middle, low, high)


def ratios_of(steps: dict[str, list[Step]], names: dict[str, tuple[str, str]]) -> dict[str, Ratio]:
    """Ratios by name, seconds or (`rate` in the name) real tokens per second; absent ones not."""
    ratios = {}
    for name, pair in names.items():
        if not steps.keys() >= set(pair):
            continue
        measured = [steps[contender][NUM_CHECKED:] for contender in pair]
        ratios[name] = ratio_of(
            *(
                [s.tokens / s.seconds if "rate" in name else s.seconds for s in taken]
                for taken in measured
            )
        )
    return ratios


MAIN = {
    "step_vs_bare": ("ours", "bare"),
    "step_vs_bare_answer_head": ("ours", "bare, answer head"),
    "bare_vs_itself": ("bare, again", "bare"),
    "hf_vs_bare": ("HF Trainer", "bare"),
    "trl_vs_bare": ("TRL", "bare"),
    "rate_vs_hf": ("ours", "HF Trainer"),
    "rate_vs_trl": ("ours", "TRL"),
    "packed_rate_vs_trl_packed": ("ours, packed", "TRL, packed"),
    "packed_rate_vs_padded": ("ours, packed", "ours"),
    "symnoise_rate_vs_clean": ("ours, packed, symnoise", "ours, packed"),
}
SORTING = {
    "sorted_rate_vs_unsorted": ("ours, sorted", "bare, unsorted"),
    "packed_rate_vs_sorted": ("ours, packed", "ours, sorted"),
    "packed_rate_vs_unsorted": ("ours, packed", "bare, unsorted"),
}


def num_steps(rounds: int) -> int:
    """Steps to plan: one more than are taken, since ours measures its clean loss in the last."""
    return NUM_CHECKED + rounds + 1


def measure_main(folder: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Ours against all others, one micro-batch per step."""
    job = Job(folder, sizes, num_steps(rounds))
    contenders, left_out = main_contenders(job)
    steps = in_turn(contenders, rounds)
    difference = assert_equal_work(steps, contenders, "bare")
    ratios = ratios_of(steps, MAIN) | utilization(job, steps)
    return report_of(job, steps, ratios, difference) | {"left_out": left_out}


def measure_sorting(folder: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """What sorting and packing give where a step has several micro-batches."""
    sizes = sizes._replace(batch=NUM_SORTED * sizes.batch, micros=NUM_SORTED)
    job = Job(folder, sizes, num_steps(rounds))
    contenders = {
        "bare, unsorted": bare(job, answers_only=True),
        "ours, sorted": ours(job),
        "ours, packed": ours(job, "on"),
    }
    steps = in_turn(contenders, rounds)
    difference = assert_equal_work(steps, contenders, "bare, unsorted")
    return report_of(job, steps, ratios_of(steps, SORTING), difference)


def measure_gpu(folder: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Our clean and our SymNoise step in bf16."""
    job = Job(folder, sizes, num_steps(rounds), "bf16")
    contenders = {
        "ours, packed": ours(job, "on"),
        "ours, packed, symnoise": ours(job, "on", SYMNOISE),
    }
    steps = in_turn(contenders, rounds)
    difference = assert_equal_work(steps, contenders, "ours, packed")
    ratios = ratios_of(steps, MAIN) | utilization(job, steps)
    return report_of(job, steps, ratios, difference)


def report_of(
    job: Job, steps: dict[str, list[Step]], ratios: dict[str, Ratio], difference: float
) -> dict[str, Any]:
    """One part's figures."""
    return {
        **{name: ratio.value for name, ratio in ratios.items()},
        "spread": {name: [ratio.low, ratio.high] for name, ratio in ratios.items()},
        "largest_difference": difference,
        "steps": {name: step_row(taken[NUM_CHECKED:]) for name, taken in steps.items()},
        "rows_per_step": job.sizes.batch,
        "micro_batches_per_step": job.sizes.micros,
        "padding_share": job.padding,
        "rounds": job.num_steps - NUM_CHECKED - 1,
    }


def step_row(taken: list[Step]) -> dict[str, float]:
    """Median milliseconds of a step, and real tokens per second."""
    return {
        "ms": 1000 * statistics.median(step.seconds for step in taken),
        "tokens_per_second": statistics.median(step.tokens / step.seconds for step in taken),
    }


def utilization(job: Job, steps: dict[str, list[Step]]) -> dict[str, Ratio]:
    """Operations per second of packed steps over those of a matrix product of the same type."""
    peak = matmul_rate(getattr(torch, {"fp32": "float32", "bf16": "bfloat16"}[job.dtype]))
    needed = [operations(job, rows) for rows in job.order[NUM_CHECKED:-1]]
    forms = {"clean": ("ours, packed", 1), "symnoise": ("ours, packed, symnoise", 2)}
    return {
        f"utilization_{form}": ratio_of(
            [copies * count / peak for count in needed],
            [step.seconds for step in steps[name][NUM_CHECKED:]],
        )
        for form, (name, copies) in forms.items()
    }


def operations(job: Job, rows: list[int]) -> float:
    """Operations that training on these rows needs, without those on padding.

    6 per weight and token, the head's per answer token only, and causal attention with
    6 * layers * width * L**2 per row of L tokens (PaLM, arXiv 2204.02311, halved for the mask).
    """
    sizes = job.sizes
    key_width = sizes.width * sizes.key_heads // sizes.heads
    layer = sizes.width * (2 * sizes.width + 2 * key_width + 3 * sizes.inner)
    lengths = [job.table.lengths[number] for number in rows]
    answers = sum(job.table.num_answer_tokens[number] for number in rows)
    return 6.0 * (
        sizes.layers * layer * sum(lengths)
        + sizes.vocabulary * sizes.width * answers
        + sizes.layers * sizes.width * sum(length**2 for length in lengths)
    )


def matmul_rate(dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, the median of ten measurements."""
    size, repeats = (8192, 10) if torch.cuda.is_available() else (512, 1)
    one, other = (torch.randn(size, size, device=choose_device()).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(12):  # the first two warm up
        began = clock()
        for _ in range(repeats):
            one @ other
        seconds.append((clock() - began) / repeats)
    return 2 * size**3 / statistics.median(seconds[2:])


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    shape, rounds, before = arguments.shape, arguments.rounds, os.getloadavg()[0]
    sizes = TINY if arguments.tiny else SHAPES.get(shape, FULL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, sizes, torch.bfloat16 if shape else torch.float32)
        if shape:
            figures = measure_gpu(folder, sizes, rounds)
        else:
            figures = measure_main(folder, sizes, rounds)
            several = measure_sorting(folder, sizes, max(2, rounds // 3))
            figures |= {name: several.pop(name) for name in SORTING}
            figures["spread"] |= several.pop("spread")
            figures["several_micro_batches"] = several
    figures["settings"] = settings(sizes, shape) | {"load_average": [before, os.getloadavg()[0]]}
    return figures


def settings(sizes: Sizes, shape: str | None) -> dict[str, Any]:
    """What the figures were taken with."""
    versions = {name: importlib.metadata.version(name) for name in ("deepspeed", "transformers")}
    for name in PEERS:
        if importlib.util.find_spec(name) is not None:
            versions[name] = importlib.metadata.version(name)
    on_gpu = torch.cuda.is_available()
    return {
        **sizes._asdict(),
        "shape": shape,
        "dtype": "bf16" if shape else "fp32",
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": {
            "symnoise_ray": symnoise_ray.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **versions,
        },
    }


def verdict(figures: dict[str, Any], name: str) -> str:
    """Whether a bar holds, or why this run cannot tell."""
    value, bar = figures[name], BARS[name]
    low, high = figures["spread"][name]
    holds = value <= bar if name in CEILINGS else value >= bar
    said = f"{name} {value:.3g}, bar {bar:.3g}: {'holds' if holds else 'MISSED'}"
    again_low, again_high = figures["spread"].get("bare_vs_itself", (1.0, 1.0))
    if again_high - again_low > MAX_SPREAD:
        return f"{said}, but the bare loop against itself spreads too far to tell"
    return f"{said}, but within the spread" if low <= bar <= high else said


def show(figures: dict[str, Any]) -> None:
    """The same figures for people."""
    for part in (figures, figures.get("several_micro_batches")):
        if part is None:
            continue
        print(
            f"\nsteps of {part['rows_per_step']} rows in {part['micro_batches_per_step']} "
            f"micro-batch(es), {part['padding_share']:.0%} padding\n{'':28}ms  real tokens/s"
        )
        for name, row in part["steps"].items():
            print(f"  {name:24}{row['ms']:8.1f}{row['tokens_per_second']:11.0f}")
    print(f"\nratio{'':38}spread")
    for name, (low, high) in figures["spread"].items():
        print(f"  {name:32}{figures[name]:9.4g}   {low:.4g}  {high:.4g}")
    print(f"\n{json.dumps(figures['settings'])}\n")
    for line in (*figures.get("left_out", ()), *figures["bars"].values()):
        print(line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--shape", choices=SHAPES, default="1B" if torch.cuda.is_available() else None
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bars = GPU_FLOORS if arguments.shape else CEILINGS | FLOORS
    with contextlib.redirect_stdout(sys.stderr):  # deepspeed's messages are none of our figures
        figures = measure(arguments)
    figures["bars"] = {name: verdict(figures, name) for name in bars if name in figures}
    if arguments.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
