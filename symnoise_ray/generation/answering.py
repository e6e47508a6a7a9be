"""A fine-tuned model's answers to prompts, in AlpacaEval's shape.

In: a model, its tokenizer, examples. Out: `Completion`s in the order of the prompts. The prompts
are sorted by length and split over the workers. The same model gives the same answers, greedy or
sampled, since the tokens that are drawn depend on the seed and the prompt's number alone. Only the
trial's own settings decide; of those in the model's folder, only the tokens that end an answer are
used.

Shape letters: B prompts of a batch, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from symnoise_ray.config import GenerateConfig, ModelConfig, TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.data.prompts import read_sayable
from symnoise_ray.data.rows import read_train
from symnoise_ray.data.templates import choose_template
from symnoise_ray.data.tokens import tokenise_prompt
from symnoise_ray.errors import CancelledError
from symnoise_ray.generation.batching import batches, require_smaller_batches, way_to_batch
from symnoise_ray.generation.decoding import Decoding, decode
from symnoise_ray.generation.room import prompt_room
from symnoise_ray.models.deepspeed_engine import is_sharded
from symnoise_ray.models.process import choose_device, give_memory_back, join_process_group
from symnoise_ray.models.weights import load, may_share
from symnoise_ray.records.completions import Completion


def complete(
    model: nn.Module,
    tokenizer: Any,
    examples: list[Example],
    template: str,
    config: GenerateConfig,
    *,
    context: int | None,
    generator: str,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[list[Completion], Counter[str]]:
    """Answer every prompt; each worker answers a share, and all workers get all answers.

    A prompt of several questions is answered turn by turn: the next question follows the model's
    own answers. Prompts that leave no room for `max_new_tokens` lose their beginning, and are
    counted, once for every turn. Workers that share the weights of one model (ZeRO-3) run every
    batch together; a worker without a prompt repeats the shortest one, because the others need it
    in every pass. If memory runs out, the rest is answered in batches of half the size. A model
    that reads padding in spite of the mask (RecurrentGemma) gets batches of one length, and a model
    that mixes up the prompts of a batch (RWKV) gets them one by one.

    Args:
        template: The template's name, as training chose it.
        context: Most tokens that the model takes, if known.
        generator: The name of the model in its completions.
        cancelled: Called on every worker for every token. If it returns true anywhere, all workers
            stop.

    Returns:
        The completions, and the number of prompts that were cut.

    Raises:
        CancelledError: `cancelled` returned true.
        UserError: the model's context leaves no room for a prompt, or memory runs out, and the
            batches cannot be smaller.
    """
    asked = list(examples)
    counts: Counter[str] = Counter()
    for turn in range(max((len(example.turns) for example in examples), default=0)):
        now = [i for i, example in enumerate(examples) if example.is_asked(turn)]
        if not now:
            continue
        parts = [asked[i].up_to(turn) for i in now]
        prompts, cut = _fitting(parts, tokenizer, template, config, context)
        counts += cut
        numbers = [(index, turn) for index in now]
        texts = _answers(model, tokenizer, prompts, numbers, config, cancelled)
        for index, text in zip(now, texts, strict=True):
            asked[index] = asked[index].with_answer(turn, text)
    found = zip(examples, asked, strict=True)
    return [_completion(example, answered, generator) for example, answered in found], counts


def _completion(example: Example, answered: Example, generator: str) -> Completion:
    """The record of a prompt and of the same prompt with the model's answers."""
    return Completion(
        example.instruction,
        answered.gold,
        generator,
        example.dataset,
        example.gold,
        answered.turns[:-1],
    )


def _answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: list[list[int]],
    numbers: list[tuple[int, int]],
    config: GenerateConfig,
    cancelled: Callable[[], bool],
) -> list[str]:
    """Answers to tokenised prompts; `numbers` holds the example and the turn of each prompt.

    Workers that decode on their own stop on their own, and meet the others where the answers are
    gathered. Workers that run every batch together agree before each whether there is another.
    """
    model.eval()
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    asked = _Asked(prompts, numbers, by_length)
    answer = _by_vllm if config.engine == "vllm" else _by_transformers
    wish = _Wish(cancelled)
    texts = answer(model, tokenizer, asked, config, wish)
    world_size = dist.get_world_size()
    shares: list[Any] = [(wish.seen, texts)]
    if world_size > 1:
        shares *= world_size
        dist.all_gather_object(shares, (wish.seen, texts))
    if any(stopped for stopped, _ in shares):
        raise CancelledError("cancelled while answering the prompts")
    texts = {index: text for _, share in shares for index, text in share.items()}
    return [texts[index] for index in range(len(prompts))]


class _Asked(NamedTuple):
    """The prompts of all workers."""

    prompts: list[list[int]]
    numbers: list[tuple[int, int]]
    """The example and the turn of each."""
    by_length: list[int]
    """Their indices, the shortest prompt first."""


def _by_transformers(
    model: nn.Module,
    tokenizer: Any,
    asked: _Asked,
    config: GenerateConfig,
    wish: _Wish,
) -> dict[int, str]:
    """This worker's share of the answers, batch by batch."""
    prompts, numbers, by_length = asked
    rank, world_size = dist.get_rank(), dist.get_world_size()
    together = world_size > 1 and is_sharded(model)
    size = min(config.batch_size, len(prompts))
    way = way_to_batch(prompts, model, tokenizer, together) if size > 1 else "alone"
    each = [batches(by_length[r::world_size], size, prompts, way) for r in range(world_size)]
    left = each[rank]
    if together:
        left += [by_length[:1]] * (max(map(len, each)) - len(left))
    texts: dict[int, str] = {}
    while left and not (_anywhere(wish()) if together else wish()):
        indices = left[0]
        decoding = Decoding(config, [numbers[i] for i in indices])
        try:
            outputs = decode(
                [prompts[i] for i in indices], model, tokenizer, decoding, together, wish
            )
        except Exception as error:
            require_smaller_batches(error, len(indices), together)
            left = batches(itertools.chain(*left), len(indices) // 2, prompts, way)
        else:
            texts |= dict(zip(indices, outputs, strict=True))
            left = left[1:]
            continue
        give_memory_back()  # here, where the exception no longer holds any memory
    return texts


def _by_vllm(
    model: nn.Module,
    tokenizer: Any,
    asked: _Asked,
    config: GenerateConfig,
    wish: _Wish,
) -> dict[int, str]:
    """This worker's share of the answers; vLLM makes its own batches."""
    from symnoise_ray.generation.vllm_engine import answers

    prompts, numbers, by_length = asked
    mine = by_length[dist.get_rank() :: dist.get_world_size()]
    own, named = [prompts[index] for index in mine], [numbers[index] for index in mine]
    # All workers' engines take prompts of the same length at most.
    longest = len(prompts[by_length[-1]])
    texts = answers(model, tokenizer, own, named, config, longest=longest, cancelled=wish)
    return dict(zip(mine, texts, strict=False))


class _Wish:
    """Whether somebody wants the answers to stop; it stays true once it was true."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked, self.seen = asked, False

    def __call__(self) -> bool:
        self.seen = self.seen or self.asked()
        return self.seen


def _anywhere(wanted: bool) -> bool:
    """Whether any worker wants something; all must ask."""
    flag = torch.tensor(int(wanted), device=choose_device())
    dist.all_reduce(flag)
    return bool(flag.item())


def answer_from_disk(
    config: TrialConfig,
    model: ModelConfig,
    *,
    generator: str,
    gold: bool,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[list[Completion], Counter[str]]:
    """Answer a trial's prompts with a model from disk, which every worker loads whole.

    Args:
        config: The trial that trained the model; the model that it began with is not looked at.
        model: The model that answers.
        generator: The name of the model in its completions.
        gold: Whether prompts without a gold answer are left out.
        cancelled: As for `complete`.

    Returns:
        As `complete`; prompts that were left out are counted too.
    """
    device = choose_device()
    join_process_group(device)
    # Where training has its weights, since the last bit of an answer may depend on it.
    loaded = load(model, shared=may_share(config, device))
    training = read_train(config.data).examples
    template = choose_template(config.data.template, config.data.train, training)
    part = config.data.prompts
    prompts = read_sayable(config.data, part, loaded.tokenizer, template, gold=gold)
    completions, counts = complete(
        loaded.model.to(device),
        loaded.tokenizer,
        prompts.examples,
        template,
        config.generate,
        context=loaded.context,
        generator=generator,
        cancelled=cancelled,
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
    room = prompt_room(config, context)
    if room is None:
        return prompts, counts
    counts["prompts truncated"] = sum(len(prompt) > room for prompt in prompts)
    return [prompt[-room:] for prompt in prompts], +counts
