"""Noise in the `Trainer` of transformers and in its subclasses, such as TRL's `SFTTrainer`.

In: a trainer class and the noise settings. Out: a subclass that trains with the noise. It is a
subclass and no callback, because a callback sees no batch and cannot run a second backward pass,
and a pair of noises needs two. Each pass is a whole `training_step` of the trainer, on the same
labels and with the loss divided by the number of passes. So any model, collator and loss function
may be used, and the loss stays a mean: to repeat the rows inside one pass would double loss and
gradient, since the trainer divides by the tokens that it counted before (`num_items_in_batch`).

Shape letters: B lines, L positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from symnoise_ray.config import NoiseConfig
from symnoise_ray.config.loading import Document, build
from symnoise_ray.errors import UserError
from symnoise_ray.noise.embedding import NoisyEmbedding
from symnoise_ray.noise.types import adds_noise, num_copies, only_adds, passes

SAMPLE = "noise_sample"
"""Key of a batch, (B, L), int64: the number of the row that each token comes from, -1 on padding.
A collator may add it; the noise of a row is then the same in any batch and on any worker. The model
does not get it."""

TrainerClass = TypeVar("TrainerClass", bound=type)


def with_noise(trainer_class: TrainerClass, **settings: Any) -> TrainerClass:
    """A trainer class that adds noise to the token embeddings in training.

    Evaluation, prediction and generation have no noise. The noise is a function of the trainer's
    `seed`, the optimizer step, the row and the token. Without noise (`type="none"` or `alpha=0`)
    every bit is that of the trainer class itself.

    Args:
        trainer_class: `transformers.Trainer` or a subclass of it.
        settings: Those of the section `noise` of a trial: `type`, `alpha`, `scale`, `length`,
            `include_clean`, `generator`. `execution` is always `sequential`.

    Raises:
        UserError: a setting is wrong. The trainer itself raises it when it is made, if it runs in a
            way that the noise does not know, and in training, if a batch does not tell its rows.
    """
    config = build(NoiseConfig, Document(dict(settings), {}, "with_noise"))
    if not only_adds(config.type):
        raise UserError(
            f"with_noise: type must only add noise to the embeddings, but {config.type} changes "
            "the loss or the passes as well; train with `symnoise-ray train`"
        )
    if config.execution != "sequential":
        raise UserError(
            "with_noise: execution must be sequential, since the trainer counts the tokens of a "
            f"batch before its rows are repeated, but got {config.execution!r}; leave it out"
        )

    class Noisy(trainer_class):  # type: ignore[misc, valid-type]
        """The trainer class with noise; `noise` runs its passes."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.noise = _Noise(self, config)

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            def run() -> Tensor:
                loss: Tensor = super(Noisy, self).training_step(model, inputs, *args, **kwargs)
                return loss

            return self.noise.train(run, inputs)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = {name: value for name, value in inputs.items() if name != SAMPLE}
            return self.noise.share(super().compute_loss(model, inputs, *args, **kwargs))

    Noisy.__name__ = Noisy.__qualname__ = f"Noisy{trainer_class.__name__}"
    return Noisy  # type: ignore[return-value]


class _Noise:
    """The noise of one trainer, which is a `transformers.Trainer`."""

    def __init__(self, trainer: Any, config: NoiseConfig) -> None:
        self.trainer, self.config = trainer, config
        self.groups = passes(config)
        self.is_idle = num_copies(config) == 1 and not (adds_noise(config.type) and config.alpha)
        self._num_parts = 1
        self._step, self._num_samples = -1, torch.zeros((), dtype=torch.long)
        if not self.is_idle:
            _require_known(trainer)

    def train(self, training_step: Callable[[], Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Forward and backward passes of one micro-batch; returns its loss, the mean of the passes.

        The embedding carries the hook only for this long, so a saved or exchanged model has none.
        """
        if self.is_idle:
            return training_step()
        trainer = self.trainer
        sample_BL, position_BL = self._places(inputs)
        model = trainer.accelerator.unwrap_model(trainer.model)
        noisy = NoisyEmbedding(model, self.config, trainer.args.seed)
        self._num_parts = len(self.groups)
        losses = []
        try:
            for number, group in enumerate(self.groups, 1):
                step = trainer.state.global_step + 1
                with (
                    noisy.applied(group, sample_BL, position_BL, step),
                    self._is_boundary(last=number == len(self.groups)),
                ):
                    losses.append(training_step())
        finally:
            self._num_parts = 1
            noisy.remove()
        return torch.stack(losses).sum()

    def share(self, result: Any) -> Any:
        """A pass's part of the loss: of (loss, outputs) or of a loss alone."""
        if self._num_parts == 1:
            return result
        if isinstance(result, tuple):
            return (result[0] / self._num_parts, *result[1:])
        return result / self._num_parts

    @contextmanager
    def _is_boundary(self, *, last: bool) -> Iterator[None]:
        """Let only the last pass end an accumulation: under DeepSpeed a backward pass that ends it
        takes the optimizer step too."""
        state = self.trainer.accelerator.gradient_state
        wanted = state.sync_gradients
        state._set_sync_gradients(wanted and last)
        try:
            yield
        finally:
            state._set_sync_gradients(wanted)

    def _places(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Sample and position of every token, as `NoisyEmbedding.applied` takes them."""
        device = self.trainer.args.device
        real_BL, start_BL = rows_of(inputs)
        real_BL, start_BL = real_BL.to(device), start_BL.to(device)
        count_BL = real_BL.cumsum(1)
        begin_BL = torch.where(start_BL, count_BL, 0).cummax(1).values
        position_BL = torch.where(real_BL, count_BL - begin_BL, 0)
        if SAMPLE in inputs:
            return torch.where(real_BL, inputs[SAMPLE].to(device), -1), position_BL
        return torch.where(real_BL, self._numbered(start_BL), -1), position_BL

    def _numbered(self, start_BL: Tensor) -> Tensor:
        """A number for every row: of all rows of an optimizer step, on all workers, its own."""
        trainer = self.trainer
        if self._step != trainer.state.global_step:
            self._step = trainer.state.global_step
            self._num_samples = torch.zeros_like(self._num_samples)
        number_BL = start_BL.flatten().cumsum(0).view_as(start_BL) - 1
        earlier = self._num_samples.to(start_BL.device)
        self._num_samples = earlier + start_BL.sum()
        sample_BL: Tensor = (number_BL + earlier) * trainer.args.world_size
        return sample_BL + int(trainer.args.process_index)


def rows_of(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Which tokens of a batch are no padding, and which of them begin a row.

    Shapes: (B, L) each, bool. A line has several rows where `position_ids` begin again at 0.

    Raises:
        UserError: the batch has no `input_ids`, or does not tell its padding.
    """
    ids_BL = inputs.get("input_ids")
    if ids_BL is None:
        raise UserError(
            "a batch must have input_ids for noise on token embeddings, but has only "
            f"{', '.join(sorted(inputs))}"
        )
    mask, position, sample = (inputs.get(k) for k in ("attention_mask", "position_ids", SAMPLE))
    for name, value in (("position_ids", position), (SAMPLE, sample)):
        if value is not None and value.shape != ids_BL.shape:
            raise UserError(
                f"{name} of a batch must have the shape {tuple(ids_BL.shape)} of its input_ids "
                f"to tell its rows, but has {tuple(value.shape)}"
            )
    if sample is not None:
        real_BL = sample >= 0
    elif mask is not None and mask.shape == ids_BL.shape:
        real_BL = mask.bool()
    elif mask is None and position is not None:
        real_BL = torch.ones_like(ids_BL, dtype=torch.bool)
    else:
        shown = "no attention_mask" if mask is None else f"an attention_mask of {mask.dim()} axes"
        raise UserError(
            "a batch must tell its padding, by an attention_mask of two axes, by position_ids "
            f"without padding, or by {SAMPLE}, but has {shown}; let the collator add one of them"
        )
    begins_BL = real_BL & (real_BL.cumsum(1) == 1)
    if position is not None:
        begins_BL |= real_BL & (position == 0)
    return real_BL, begins_BL


def _require_known(trainer: Any) -> None:
    """Refuse ways to run in which the noise would be wrong or silently missing.

    Raises:
        UserError: the trainer runs in such a way.
    """
    args = trainer.args
    split = trainer.get_tp_size() * trainer.get_cp_size() * trainer.get_sp_size()
    refused = {
        "neftune_noise_alpha must not be set, or there would be two noises": (
            args.neftune_noise_alpha is not None
        ),
        "torch_compile must be off, since a compiled embedding does not call its hooks": (
            args.torch_compile
        ),
        "every GPU needs a process of its own (torchrun, accelerate launch), not DataParallel": (
            args.n_gpu > 1
        ),
        "a batch must lie on one device, without tensor, context or sequence parallelism": (
            split > 1
        ),
        "the model must be a decoder alone, since an encoder-decoder embeds two texts": bool(
            getattr(trainer.model.config, "is_encoder_decoder", False)
        ),
    }
    for rule, broken in refused.items():
        if broken:
            raise UserError(f"{type(trainer).__name__}: {rule}; change it, or train without noise")
