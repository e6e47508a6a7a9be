"""The training of one trial on one rank, without Ray.

In: a `TrialConfig`, and a function `report` that takes a record per step. Out: a fine-tuned model
in memory (`Trained`). A loss is the sum over answer tokens, divided by their number in the whole
optimizer step, so every token has the same weight, whatever its micro-batch, worker or copy.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.token_table import TokenTable
from symnoise_ray.data.tokens import padding_id
from symnoise_ray.errors import CancelledError, InfrastructureError
from symnoise_ray.models import deepspeed_engine
from symnoise_ray.models.process import choose_device, give_memory_back, join_process_group
from symnoise_ray.models.weights import adapt, decoder_layers, load, may_share
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.layers import NoisyLayers
from symnoise_ray.noise.types import (
    NOISES,
    Copy,
    compares,
    num_ascents,
    num_averaged,
    num_passes,
    passes,
)
from symnoise_ray.records.metrics import timed
from symnoise_ray.training.batches import Batch, Batches
from symnoise_ray.training.checkpoints import Saver, agreed, identity, restore
from symnoise_ray.training.corpus import further_tables, token_table
from symnoise_ray.training.evaluation import Evaluation
from symnoise_ray.training.meter import Meter
from symnoise_ray.training.objective import Objective, require_finite
from symnoise_ray.training.schedule import lr_at, num_steps, require_even_split

Report = Callable[[dict[str, Any]], None]


class Interlude(Protocol):
    """What a model may be wanted for between two steps; it must leave the model as it was."""

    def wanted(self) -> bool:
        """Whether it is wanted; asked on rank 0 in every step."""

    def hold(self, model: Any, tokenizer: Any, template: str, context: int | None) -> None:
        """Use the model; called on all ranks after the same step."""


@dataclass
class Progress:
    """How far a training has come; a checkpoint holds it as JSON.

    `loss` is that of the last step, `first` and `last` are the first and the latest evaluation.
    """

    loss: float = math.nan
    num_answer_tokens: int = 0
    num_passed_tokens: int = 0
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)


@dataclass
class Trained:
    """A fine-tuned model in memory, and how training went."""

    engine: Any
    tokenizer: Any
    template: str
    context: int | None
    counts: Counter[str]
    summary: dict[str, float]

    @property
    def model(self) -> nn.Module:
        """The fine-tuned model itself."""
        model: nn.Module = self.engine.module
        return model

    def release(self) -> None:
        """Free the memory; the model cannot be used afterwards."""
        deepspeed_engine.stop(self.engine)
        del self.engine
        give_memory_back()


def train(
    config: TrialConfig,
    report: Report,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    seconds: dict[str, float] | None = None,
    caches: Path | None = None,
    checkpoints: Path | None = None,
    interlude: Interlude | None = None,
) -> Trained:
    """Fine-tune one model from start to end on this rank.

    Args:
        config: The trial; nothing else decides its result.
        report: Called once per step, with a record that holds `step` and measured values.
        cancelled: Called on rank 0 in every step; if it returns true, all ranks stop at that step.
        seconds: The wall-clock seconds of every phase are added to it.
        caches: Folder for tokenised rows, on storage that all workers share; None caches nothing.
        checkpoints: Folder for this trial's checkpoints, on storage that all workers share. If it
            holds a complete one, training goes on from there. None writes no checkpoints.
        interlude: What the model may be wanted for between two steps.

    Raises:
        UserError: the batch cannot be split over the workers, or the model cannot take noise.
        InfrastructureError: a checkpoint could not be written.
        DivergedError: a loss was not finite.
        CancelledError: `cancelled` returned true.
    """
    seconds = {} if seconds is None else seconds
    with timed(seconds, "load"):
        device = choose_device()
        join_process_group(device)
        require_even_split(config.train.global_batch_size, dist.get_world_size())
        _agree_on(config)
        seed_everything(config.train.seed)
        model, tokenizer, context = load(config.model, shared=may_share(config, device))
        table = token_table(config, context, caches)
        further = further_tables(config, table.template, context)
        engine = deepspeed_engine.start(adapt(model, config).to(device), config)
    try:
        with timed(seconds, "load"):
            loop = _Loop(config, engine, table, further, padding_id(tokenizer), device)
            if interlude is not None:
                loop.wanted = interlude.wanted
                loop.hold = partial(
                    interlude.hold, engine.module, tokenizer, table.template, context
                )
            if checkpoints is not None:
                loop.resume(Saver(checkpoints, identity(config)))
        with timed(seconds, "train"), Meter(engine.module, device) as meter:
            summary = loop.run(report, cancelled)
    except BaseException:
        deepspeed_engine.stop(engine)  # the next trial of this process needs the memory
        raise
    summary |= meter.rates(loop.progress.num_passed_tokens) | {"num_train_rows": len(table)}
    return Trained(engine, tokenizer, table.template, context, +table.counts, summary)


def _agree_on(config: TrialConfig) -> None:
    """Stop unless all workers have the same configuration."""
    digests: list[Any] = [None] * dist.get_world_size()
    if len(digests) > 1:
        dist.all_gather_object(digests, config.digest())
    if len(set(digests)) > 1:
        raise InfrastructureError(
            f"all workers must have the same configuration, but their digests are {digests}"
        )


def seed_everything(seed: int) -> None:
    """Seed the generators of models and libraries; noise and data order have their own."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _noise(model: nn.Module, config: TrialConfig) -> NoisyEmbedding | NoisyLayers:
    """What adds the noise of a trial: to the embeddings, or to the layers."""
    if NOISES[config.noise.type].at_layers:
        return NoisyLayers(decoder_layers(model), config.noise, config.train.seed)
    return NoisyEmbedding(model, config.noise, config.train.seed)


class _Loop:
    """The training loop of one trial."""

    def __init__(
        self,
        config: TrialConfig,
        engine: Any,
        table: TokenTable,
        further: dict[str, TokenTable],
        pad_id: int,
        device: torch.device,
    ) -> None:
        train = config.train
        self.config, self.engine, self.device = config, engine, device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.objective = Objective(engine)
        self.evaluation = Evaluation(self.objective, table, further, train, pad_id, device)
        self.batches = Batches(
            table,
            global_batch_size=train.global_batch_size,
            micro_batch_size=train.micro_batch_size,
            seed=train.seed,
            pad_id=pad_id,
            packed=self.objective.packs(train.packing, max(table.lengths)),
        )
        self.num_passes = num_passes(config.noise)
        self.groups = passes(config.noise)
        if not compares(config.noise):
            self.groups = self.objective.groups(self.groups)
        self.num_steps = num_steps(config, len(table))
        self.noisy = _noise(engine.module, config)
        self.wanted: Callable[[], bool] = lambda: False
        self.hold: Callable[[], None] = lambda: None
        self.held = False
        self.saver: Saver | None = None
        self.saved_at, self.due, self.start = time.monotonic(), False, 0
        self.progress = Progress()
        self.eval_steps = {
            round(self.num_steps * index / train.num_evals) for index in range(train.num_evals + 1)
        }

    def resume(self, saver: Saver) -> None:
        """Write checkpoints with `saver`, and go on from its newest complete one."""
        self.saver, self.saved_at = saver, time.monotonic()
        manifest = agreed(saver.folder, saver.identity)
        if manifest is None:
            return
        restore(self.engine, manifest)
        self.start, self.progress = manifest["step"], Progress(**manifest["progress"])
        for _ in range(self.start):
            self.batches.next_step()

    def run(self, report: Report, cancelled: Callable[[], bool]) -> dict[str, float]:
        """Train all steps, and measure the clean loss before, between and after them."""
        progress, train = self.progress, self.config.train
        if self.start == 0:
            progress.first = progress.last = self.evaluation.measure(0)
            report({"step": 0, **progress.first})
        for step in range(self.start + 1, self.num_steps + 1):
            lr = lr_at(step - 1, self.num_steps, self.config.optim)
            loss, grad_norm, num_tokens = self.step(step, lr, cancelled)
            progress.loss = loss
            progress.num_answer_tokens += num_tokens
            progress.num_passed_tokens += self.num_passed_tokens
            record = {"step": step, "loss": loss, "grad_norm": grad_norm, "lr": lr}
            if step in self.eval_steps:
                progress.last = self.evaluation.measure(step)
                record |= progress.last
            report(record)
            if self.held:
                self.hold()
            if self.due and self.saver is not None:
                self.saver.save(self.engine, step, asdict(progress))
                self.saved_at = time.monotonic()
        if self.saver is not None:
            self.saver.wait()
        for hooked in (self.noisy, self.evaluation, self.objective):
            hooked.remove()
        return {
            "num_steps": self.num_steps,
            "resumed_at": self.start,
            "loss": progress.loss,
            "packed": self.batches.packed,
            **progress.last,
            "first_clean_loss": progress.first["clean_loss"],
            "num_answer_tokens": progress.num_answer_tokens,
            "num_passed_tokens": progress.num_passed_tokens,
            "num_passed_rows": self.num_steps * self.num_passes * train.global_batch_size,
            "micro_batch_size": train.micro_batch_size,
        }

    def step(self, step: int, lr: float, cancelled: Callable[[], bool]) -> tuple[float, float, int]:
        """One optimizer step.

        Returns:
            The mean training loss per answer token, noise included; the L2 norm of the gradient
            before clipping; and the number of answer tokens.

        Every copy of the batch adds each token again, so the sum is divided by tokens times copies.
        The loss is thus a mean, and neither it nor the gradient grows with the number of copies.
        Where copies are compared, the first alone adds its tokens.
        """
        samples = self.batches.next_step()
        num_tokens = self.batches.num_answer_tokens(samples)
        micro_batches = self.batches.micro_batches(samples, self.rank, self.world_size)
        self.num_passed_tokens = self.num_passes * self.batches.num_tokens(samples)
        num_losses = num_tokens * num_averaged(self.config.noise)
        total = torch.zeros((), device=self.device)
        deepspeed_engine.set_lr(self.engine, lr)
        self.engine.train()
        for batch, group, is_last in self._runs(micro_batches):
            with self.noisy.applied(group, batch.sample_BL, batch.position_BL, step):
                loss = self._loss(batch, group) / num_losses
                # DeepSpeed averages gradients over the workers, but the loss is a sum over them.
                deepspeed_engine.accumulate(self.engine, loss * self.world_size, last=is_last)
            total += loss.detach()
        mean_loss = self._agree(total, step, cancelled)
        grad_norm = deepspeed_engine.step(self.engine)
        require_finite("gradient norm", grad_norm, self._where(step))
        return mean_loss, grad_norm, num_tokens

    def _runs(self, micro_batches: list[Batch]) -> Iterator[tuple[Batch, tuple[Copy, ...], bool]]:
        """The passes of a step: each with its copies, and whether it is the last one."""
        for batch in micro_batches:
            is_last = batch is micro_batches[-1]
            batch = self.objective.layout(batch).to(self.device)
            if num_ascents(self.config.noise):
                assert isinstance(self.noisy, NoisyEmbedding)
                self.noisy.ascend(partial(self.objective.bare_loss, batch))
            for group in self.groups:
                yield batch, group, is_last and group is self.groups[-1]

    def _loss(self, batch: Batch, group: tuple[Copy, ...]) -> Tensor:
        """The summed loss of one pass."""
        noise = self.config.noise
        if compares(noise):
            return self.objective.compared_loss(batch, len(group), noise.kl_weight)
        return self.objective.token_loss(batch, len(group))

    def _agree(self, loss: Tensor, step: int, cancelled: Callable[[], bool]) -> float:
        """The loss over all workers; rank 0 sends whether to stop, to save, or to be asked."""
        wishes = [0.0, 0.0, 0.0]
        if self.rank == 0:
            minutes = self.config.train.checkpoint_minutes
            late = bool(minutes) and time.monotonic() - self.saved_at >= 60 * minutes
            wishes = [float(cancelled()), float(late), float(self.wanted())]
        shared = torch.cat([loss[None], torch.tensor(wishes, device=self.device)])
        if self.world_size > 1:
            dist.all_reduce(shared)
        mean_loss, stopped, due, held = shared.tolist()
        if stopped:
            raise CancelledError(f"cancelled at step {step} of {self.num_steps}")
        require_finite("training loss", mean_loss, self._where(step))
        self.due, self.held = bool(due), bool(held)
        return float(mean_loss)

    def _where(self, step: int) -> str:
        """Which step this is, and the last finite loss before it."""
        last = self.progress.loss
        after = f", after a loss of {last:.4g}" if math.isfinite(last) else ""
        return f"step {step} of {self.num_steps}{after}"
