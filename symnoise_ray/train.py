"""One rank's training of one trial, without Ray: it is handed a `report` callable.

In: a `TrialConfig`. Out: a fine-tuned model in memory (`Trained`), and a record per step through
`report`. Losses are sums over answer tokens divided by the count of the whole optimizer step, so
micro-batches, workers and the copies of a pair weigh every token alike.
`symnoise-ray train CONFIG`, or `python -m symnoise_ray.train CONFIG`, runs it alone.
"""

from __future__ import annotations

import functools
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn

from symnoise_ray import engine as deepspeed_engine
from symnoise_ray.batches import Batch, Batches, collate
from symnoise_ray.config import DataConfig, ModelConfig, NoiseConfig, OptimConfig, TrialConfig
from symnoise_ray.errors import CancelledError, DivergedError, UserError
from symnoise_ray.head import AnswerHead
from symnoise_ray.model import load, load_tokenizer
from symnoise_ray.noise import Copy, NoisyEmbedding, passes
from symnoise_ray.prompts import choose_template
from symnoise_ray.records import timed
from symnoise_ray.rows import read_train
from symnoise_ray.tokens import TokenRows, padding_id, tokenise

Report = Callable[[dict[str, Any]], None]

_CLEAN_ROWS_SEED = 17
_PROBE_SEED = 23


@dataclass
class Trained:
    """A fine-tuned model in memory, and how training went."""

    engine: Any
    tokenizer: Any
    template: str
    context: int | None
    counts: Counter[str]
    summary: dict[str, Any]

    @property
    def model(self) -> nn.Module:
        """The fine-tuned model itself."""
        model: nn.Module = self.engine.module
        return model

    def release(self) -> None:
        """Free the memory; the model cannot be used afterwards."""
        deepspeed_engine.stop(self.engine)
        del self.engine
        deepspeed_engine.give_memory_back()


@dataclass(frozen=True)
class _Rows:
    tokens: TokenRows
    template: str
    counts: Counter[str]


def lr_at(step: int, num_steps: int, optim: OptimConfig) -> float:
    """Learning rate of step 0 .. num_steps-1: linear warm-up, then the schedule down to 0."""
    warmup = math.ceil(optim.warmup_ratio * num_steps)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
    }[optim.schedule]
    return optim.lr * factor


def train(
    config: TrialConfig,
    report: Report,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    seconds: dict[str, float] | None = None,
) -> Trained:
    """Fine-tune one model from start to end on this rank.

    Args:
        config: The whole truth of the trial.
        report: Called with a record per step on rank 0; records hold `step` and measured values.
        cancelled: Asked on rank 0 before every step; all ranks stop at the same step.
        seconds: Wall seconds by phase are added to it.

    Raises:
        UserError: the batch cannot be spread over the workers, or the model cannot be noised.
        DivergedError: a loss was not finite.
        CancelledError: `cancelled` said so.
    """
    seconds = {} if seconds is None else seconds
    with timed(seconds, "load"):
        device = deepspeed_engine.choose_device()
        deepspeed_engine.join_process_group(device)
        if config.train.global_batch_size % dist.get_world_size():
            raise UserError(
                f"train.global_batch_size={config.train.global_batch_size} must be a multiple of "
                f"the {dist.get_world_size()} workers"
            )
        seed_everything(config.train.seed)
        model, tokenizer, context = load(config.model)
        rows = _encode(config.data, config.model, context)
        engine = deepspeed_engine.start(model.to(device), config)
    with timed(seconds, "train"):
        pad_id = padding_id(tokenizer)
        summary = _Loop(config, engine, rows.tokens, pad_id, device).run(report, cancelled)
    summary["num_train_rows"] = len(rows.tokens.rows)
    return Trained(engine, tokenizer, rows.template, context, rows.counts, summary)


def seed_everything(seed: int) -> None:
    """Seed what models and libraries draw from; noise and data order have their own generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@functools.lru_cache(maxsize=4)
def _encode(data: DataConfig, model: ModelConfig, context: int | None) -> _Rows:
    """Tokenised training rows; kept in the process, so the next trial on it tokenises nothing."""
    rows = read_train(data)
    template = choose_template(data.template, data.train, rows.examples)
    length = min(data.max_length, context or data.max_length)
    tokens = tokenise(rows.examples, load_tokenizer(model), template, length)
    return _Rows(tokens, template, rows.left_out + tokens.counts)


class _Loop:
    """The training loop of one trial."""

    def __init__(
        self,
        config: TrialConfig,
        engine: Any,
        tokens: TokenRows,
        pad_id: int,
        device: torch.device,
    ) -> None:
        train = config.train
        self.config, self.engine, self.device = config, engine, device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.batches = Batches(
            tokens.rows,
            global_batch_size=train.global_batch_size,
            micro_batch_size=train.micro_batch_size,
            seed=train.seed,
            pad_id=pad_id,
        )
        self.num_steps = self.batches.num_steps(train.num_epochs, train.max_steps)
        self.noisy = NoisyEmbedding(engine.module, config.noise, train.seed)
        probe = NoiseConfig(type="symnoise", alpha=train.probe_alpha)
        self.probe = NoisyEmbedding(engine.module, probe, _PROBE_SEED)
        self.head = AnswerHead(engine.module)
        self.clean_batches = self._clean_batches(tokens, pad_id)
        self.eval_steps = {
            round(self.num_steps * index / train.num_evals) for index in range(train.num_evals + 1)
        }

    def run(self, report: Report, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """Train all steps; the clean loss is measured before, on the way, and after."""
        first = last = self.evaluate(0)
        report({"step": 0, **first})
        loss, num_tokens = math.nan, 0
        for step in range(1, self.num_steps + 1):
            lr = lr_at(step - 1, self.num_steps, self.config.optim)
            loss, grad_norm, num_answer_tokens = self.step(step, lr, cancelled)
            num_tokens += num_answer_tokens
            record = {"step": step, "loss": loss, "grad_norm": grad_norm, "lr": lr}
            if step in self.eval_steps:
                record |= (last := self.evaluate(step))
            report(record)
        for hooked in (self.noisy, self.probe, self.head):
            hooked.remove()
        return {
            "num_steps": self.num_steps,
            "loss": loss,
            **last,
            "first_clean_loss": first["clean_loss"],
            "num_answer_tokens": num_tokens,
        }

    def step(self, step: int, lr: float, cancelled: Callable[[], bool]) -> tuple[float, float, int]:
        """One optimizer step.

        Returns:
            The mean training loss per answer token, noise included; the L2 norm of the gradient
            before clipping; and the number of answer tokens.

        Every copy of a pair counts each token again, so the sum is divided by tokens times
        copies: the loss, and with it the gradient, is a mean that pairing never doubles.
        """
        samples = self.batches.next_step()
        num_tokens = self.batches.num_answer_tokens(samples)
        micro_batches = self.batches.micro_batches(samples, self.rank, self.world_size)
        groups = passes(self.config.noise)
        num_copies = sum(len(group) for group in groups)
        runs = [(batch, group) for batch in micro_batches for group in groups]
        total = torch.zeros((), device=self.device)
        deepspeed_engine.set_lr(self.engine, lr)
        self.engine.train()
        for index, (batch, group) in enumerate(runs):
            batch = batch.to(self.device)
            with self.noisy.applied(group, batch.sample_BL, batch.position_BL, step):
                loss = self.token_loss(batch, len(group)) / (num_tokens * num_copies)
                # DeepSpeed averages gradients over the workers, but the loss is a sum over them.
                deepspeed_engine.accumulate(
                    self.engine, loss * self.world_size, last=index == len(runs) - 1
                )
            total += loss.detach()
        mean_loss = self._agree(total, step, cancelled)
        grad_norm = deepspeed_engine.step(self.engine)
        self._check_finite("gradient norm", grad_norm, step)
        return mean_loss, grad_norm, num_tokens

    def _agree(self, loss: Tensor, step: int, cancelled: Callable[[], bool]) -> float:
        """The loss over all workers; with it travels rank 0's wish to stop."""
        stop = float(self.rank == 0 and cancelled())
        both = torch.stack([loss, torch.tensor(stop, device=self.device)])
        if self.world_size > 1:
            dist.all_reduce(both)
        mean_loss, stopped = both.tolist()
        if stopped:
            raise CancelledError(f"cancelled at step {step} of {self.num_steps}")
        self._check_finite("training loss", mean_loss, step)
        return float(mean_loss)

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise DivergedError(
                f"the {what} must be finite, but is {value} at step {step} of {self.num_steps}; a "
                "smaller optim.lr or noise.alpha may help"
            )

    def token_loss(self, batch: Batch, num_copies: int = 1) -> Tensor:
        """Summed cross-entropy of the answer tokens, over all copies in this pass."""
        size = batch.input_ids_BL.numel()
        answer_N = torch.cat([batch.answer_N + copy * size for copy in range(num_copies)])
        with self.head.at(answer_N):
            logits = self.engine(
                input_ids=batch.input_ids_BL.repeat(num_copies, 1),
                attention_mask=batch.mask_BL.repeat(num_copies, 1),
                use_cache=False,
            ).logits
        logits_NV = self.head.select(logits, answer_N)
        return F.cross_entropy(
            logits_NV.float(), batch.target_N.repeat(num_copies), reduction="sum"
        )

    def _clean_batches(self, tokens: TokenRows, pad_id: int) -> list[Batch]:
        """This rank's share of the fixed rows on which the clean loss is measured."""
        train = self.config.train
        count = min(train.num_clean_rows, len(tokens.rows))
        chosen = random.Random(_CLEAN_ROWS_SEED).sample(range(len(tokens.rows)), count)
        chosen = sorted(chosen, key=lambda index: len(tokens.rows[index].input_ids))
        size = train.micro_batch_size
        own = [chosen[start : start + size] for start in range(0, count, size)]
        return [
            collate([tokens.rows[i] for i in samples], samples, pad_id).to(self.device)
            for samples in own[self.rank :: self.world_size]
        ]

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Losses per answer token on the same rows every time, without noise and with a probe's.

        The probe is a pair of sign noises that is the same for every noise type and at every step.
        Its second difference L(x+e) + L(x-e) - 2 L(x) is e'He up to fourth order, H the Hessian of
        the loss in the embeddings (Hutchinson's estimator of s**2 tr H): the curvature that
        symmetric noise is said to lower.
        """
        self.engine.eval()
        copies = [Copy(0), *([Copy(+1), Copy(-1)] if self.probe.config.alpha else [])]
        total = torch.zeros(len(copies) + 1, device=self.device, dtype=torch.float64)
        for batch in self.clean_batches:
            for index, copy in enumerate(copies):
                with self.probe.applied((copy,), batch.sample_BL, batch.position_BL, step=0):
                    total[index] += self.token_loss(batch)
            total[-1] += len(batch.target_N)
        if self.world_size > 1:
            dist.all_reduce(total)
        clean, *noisy = (total[:-1] / total[-1]).tolist()
        self._check_finite("clean loss", clean, step)
        losses = {"clean_loss": clean}
        if noisy:
            losses |= {"noisy_loss": sum(noisy) / 2, "curvature": sum(noisy) - 2 * clean}
        return losses


if __name__ == "__main__":  # the command line stands above this floor, so only here
    from symnoise_ray.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
