"""A fine-tuned model's answers to prompts, in AlpacaEval's shape.

In: a model, its tokenizer, examples. Out: `Completion`s in the order of the prompts.
Greedy decoding, sorted by length, spread over the workers; the same model gives the same answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from symnoise_ray.config import GenerateConfig, ModelConfig, TrialConfig
from symnoise_ray.engine import choose_device, is_sharded, join_process_group
from symnoise_ray.errors import DataError
from symnoise_ray.model import load, uncompiled
from symnoise_ray.prompts import Example, choose_template
from symnoise_ray.records import Completion
from symnoise_ray.rows import read_prompts, read_train
from symnoise_ray.tokens import padding_id, tokenise_prompt


def complete(
    model: nn.Module,
    tokenizer: Any,
    examples: list[Example],
    template: str,
    config: GenerateConfig,
    *,
    context: int | None,
    generator: str,
    between_batches: Callable[[], None] = lambda: None,
) -> tuple[list[Completion], Counter[str]]:
    """Answer every prompt; on several workers each rank answers a share and all get all.

    Prompts that leave no room for `max_new_tokens` lose their beginning, and are counted. Workers
    that share the weights of one model (ZeRO-3) run batch by batch together: one that has no
    prompt left repeats the shortest for the others' sake.
    """
    prompts, counts = _fitting(examples, tokenizer, template, config, context)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    own = by_length[rank::world_size]
    together = world_size > 1 and is_sharded(model)
    most = len(by_length[::world_size]) if together else len(own)
    texts: dict[int, str] = {}
    model.eval()
    for start in range(0, most, config.batch_size):
        between_batches()
        indices = own[start : start + config.batch_size] or by_length[:1]
        outputs = _decode([prompts[i] for i in indices], model, tokenizer, config, together)
        texts |= dict(zip(indices, outputs, strict=True))
    if world_size > 1:
        shares: list[Any] = [None] * world_size
        dist.all_gather_object(shares, texts)
        texts = {index: text for share in shares for index, text in share.items()}
    return [
        Completion(example.instruction, texts[index], generator, example.dataset, example.gold)
        for index, example in enumerate(examples)
    ], counts


def answer_alone(
    config: TrialConfig, model: ModelConfig, *, generator: str
) -> tuple[list[Completion], Counter[str]]:
    """Answer a trial's prompts with a model from disk, in this process."""
    device = choose_device()
    join_process_group(device)
    loaded = load(model)
    prompts = read_prompts(config.data, config.data.prompts)
    training = read_train(config.data).examples
    template = choose_template(config.data.template, config.data.train, training)
    completions, counts = complete(
        loaded.model.to(device),
        loaded.tokenizer,
        prompts.examples,
        template,
        config.generate,
        context=loaded.context,
        generator=generator,
    )
    return completions, counts + prompts.left_out


def _fitting(
    examples: list[Example],
    tokenizer: Any,
    template: str,
    config: GenerateConfig,
    context: int | None,
) -> tuple[list[list[int]], Counter[str]]:
    counts: Counter[str] = Counter()
    prompts = [tokenise_prompt(example, tokenizer, template) for example in examples]
    if context is None:
        return prompts, counts
    room = context - config.max_new_tokens
    if room < 1:
        raise DataError(
            f"generate.max_new_tokens must be smaller than the model's context of {context}, "
            f"but got {config.max_new_tokens}"
        )
    counts["prompts truncated"] = sum(len(prompt) > room for prompt in prompts)
    return [prompt[-room:] for prompt in prompts], +counts


@torch.no_grad()
def _decode(
    prompts: list[list[int]],
    model: nn.Module,
    tokenizer: Any,
    config: GenerateConfig,
    together: bool,
) -> list[str]:
    """Greedy answers to left-padded prompts, without surrounding white space."""
    length = max(len(prompt) for prompt in prompts)
    # A sharded weight may lie elsewhere than where it is gathered.
    device = choose_device() if is_sharded(model) else next(model.parameters()).device
    pad_id = padding_id(tokenizer)
    input_ids = torch.full((len(prompts), length), pad_id)
    mask = torch.zeros_like(input_ids)
    for index, prompt in enumerate(prompts):
        input_ids[index, length - len(prompt) :] = torch.tensor(prompt)
        mask[index, length - len(prompt) :] = 1
    with uncompiled(model):
        tokens = model.generate(  # type: ignore[operator]
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=config.max_new_tokens,
            repetition_penalty=config.repetition_penalty,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad_id,
            eos_token_id=tokenizer.eos_token_id,
            synced_gpus=together,
        )
    texts = tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
    return [text.strip() for text in texts]
