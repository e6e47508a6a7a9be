"""How the next token of an answer is chosen, and how a batch of prompts is decoded.

In: tokenised prompts, a model, the trial's `generate` settings. Out: texts. Only these
settings decide; of those in the model's folder, only the tokens that end an answer are used.

Shape letters: B prompts of a batch, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from symnoise_ray.config import GenerateConfig
from symnoise_ray.data.tokens import padding_id
from symnoise_ray.models.deepspeed_engine import is_sharded
from symnoise_ray.models.process import choose_device
from symnoise_ray.models.weights import uncompiled


class Decoding(transformers.LogitsProcessor):  # type: ignore[misc]
    """Changes the logits so that the largest one is the next token, sampled or greedy.

    Sampling adds Gumbel noise (the Gumbel-max trick: the largest of log p + g is a draw from p).
    Every prompt has a random stream of its own, which depends on the seed and the prompt's number
    and is drawn on the CPU. So an answer depends neither on the batch, nor on the device, nor on
    other workers. The repetition penalty is that of CTRL (arXiv 1909.05858) over the prompt and the
    answer, but not over padding: if padding is the end token, it would keep short prompts from
    ending.
    """

    def __init__(self, config: GenerateConfig, numbers: list[tuple[int, int]]) -> None:
        self.config = config
        self.mask_BT = torch.zeros(0)
        self._streams = [
            torch.Generator().manual_seed(seed_of(config.seed, *number)) for number in numbers
        ]

    @property
    def processors(self) -> transformers.LogitsProcessorList:
        """The processors for `generate`; none if the logits stay the same."""
        plain = self.config.temperature == 0 and self.config.repetition_penalty == 1
        return transformers.LogitsProcessorList([] if plain else [self])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """From logits (B, V) after tokens (B, T) to the values of which the largest is chosen."""
        logits_BV = scores.float()
        if self.config.repetition_penalty != 1:
            logits_BV = self._penalised(input_ids, logits_BV)
        if self.config.temperature == 0:
            return logits_BV
        logits_BV = (logits_BV / self.config.temperature).log_softmax(-1)
        if self.config.top_p < 1:
            logits_BV = _nucleus(logits_BV, self.config.top_p)
        size = logits_BV.shape[1]
        waits_BV = torch.stack([torch.empty(size).exponential_(generator=g) for g in self._streams])
        return logits_BV - waits_BV.to(logits_BV.device).log()

    def _penalised(self, ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
        real_BT = torch.ones_like(ids_BT)
        real_BT[:, : self.mask_BT.shape[1]] = self.mask_BT.to(ids_BT)
        seen_BV = torch.zeros_like(logits_BV).scatter_add_(1, ids_BT, real_BT.float()) > 0
        penalty = self.config.repetition_penalty
        lowered_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
        return torch.where(seen_BV, lowered_BV, logits_BV)


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, mixed so that similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _nucleus(logprobs_BV: Tensor, top_p: float) -> Tensor:
    """Minus infinity for tokens outside the smallest set of likeliest ones with mass `top_p`."""
    sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.exp().cumsum(-1) - sorted_BV.exp()
    outside_BV = torch.zeros_like(before_BV, dtype=torch.bool)
    outside_BV.scatter_(1, order_BV, before_BV >= top_p)
    return logprobs_BV.masked_fill(outside_BV, -math.inf)


def decode(
    prompts: list[list[int]],
    model: nn.Module,
    tokenizer: Any,
    decoding: Decoding,
    together: bool,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Answers to prompts, up to the first end token, without surrounding white space.

    They are cut off once `cancelled`, which is asked at every token, returns true. Workers that
    decode together go on until all of them want to stop.
    """
    ends = ends_of(model, tokenizer)
    input_ids, decoding.mask_BT = left_padded(prompts, padding_id(tokenizer))
    output = generate(
        model,
        input_ids,
        decoding.mask_BT,
        transformers.GenerationConfig(
            max_new_tokens=decoding.config.max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=padding_id(tokenizer),
            eos_token_id=ends,
        ),
        logits_processor=decoding.processors,
        stopping_criteria=transformers.StoppingCriteriaList([_Stop(cancelled)]),
        synced_gpus=together,
    )
    return texts_of(output[:, input_ids.shape[1] :].tolist(), ends, tokenizer)


def texts_of(rows: list[list[int]], ends: list[int], tokenizer: Any) -> list[str]:
    """Generated tokens as texts, each up to the first token that ends an answer."""
    answers = [list(itertools.takewhile(lambda token: token not in ends, row)) for row in rows]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


class _Stop(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends all answers of a batch at once."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.cancelled = cancelled

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self.cancelled(), device=input_ids.device)


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: that of the tokenizer, and those of the model.

    Chat models name several in their generation settings, such as the end of a text and the end of
    a turn. These take precedence over the model's configuration.
    """
    named = model.generation_config.eos_token_id
    if named is None:
        named = getattr(model.config.get_text_config(decoder=True), "eos_token_id", None)
    if not isinstance(named, list):
        named = [] if named is None else [named]
    return sorted({tokenizer.eos_token_id, *named})


def left_padded(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) padded on the left, and a mask (B, T) with 1 where there is no padding."""
    length = max(map(len, rows))
    ids_BT = torch.full((len(rows), length), pad_id)
    mask_BT = torch.zeros_like(ids_BT)
    for index, row in enumerate(rows):
        ids_BT[index, length - len(row) :] = torch.tensor(row)
        mask_BT[index, length - len(row) :] = 1
    return ids_BT, mask_BT


@torch.no_grad()
def generate(
    model: Any,
    ids_BT: Tensor,
    mask_BT: Tensor,
    settings: transformers.GenerationConfig,
    **arguments: Any,
) -> Any:
    """Generate with transformers by these settings alone.

    It would fill up what they leave open from the generation settings of the model. These are
    therefore replaced in the meantime and put back, because an export writes them.
    """
    # A sharded weight may lie on another device than the one where it is gathered.
    device = choose_device() if is_sharded(model) else next(model.parameters()).device
    own, model.generation_config = model.generation_config, settings
    try:
        with uncompiled(model):
            return model.generate(
                input_ids=ids_BT.to(device),
                attention_mask=mask_BT.to(device),
                generation_config=settings,
                **arguments,
            )
    finally:
        model.generation_config = own
