"""A fine-tuned model's answers to prompts, in AlpacaEval's shape.

In: a model, its tokenizer, examples. Out: `Completion`s in the order of the prompts.
Greedy or sampled, sorted by length, spread over the workers; the same model gives the same answers,
since what is drawn depends on the seed and the prompt's number alone. Nothing but the trial's own
settings decodes: of those in the model's folder only the tokens that end an answer are taken.

Shape letters: B prompts of a batch, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn

from symnoise_ray.config import GenerateConfig, ModelConfig, TrialConfig
from symnoise_ray.engine import choose_device, give_memory_back, is_sharded, join_process_group
from symnoise_ray.errors import DataError, OutOfMemoryError, UserError, kind_of, reason_of
from symnoise_ray.inputs import needs_gold
from symnoise_ray.model import load, uncompiled
from symnoise_ray.prompts import Example, choose_template
from symnoise_ray.records import Completion
from symnoise_ray.rows import read_prompts, read_train
from symnoise_ray.tokens import padding_id, tokenise_prompt

PROBE_TOKENS = 64
"""Of the prompt with which it is tried how prompts may be batched."""

Way = Literal["padded", "of one length", "alone"]
"""How prompts share a batch, if they do; the fastest way first."""
_ways: WeakKeyDictionary[nn.Module, dict[int, Way]] = WeakKeyDictionary()
"""What was found out of each model, by the length of the prompt with which it was tried."""


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

    A prompt of several questions is answered turn by turn: the next one is asked on top of the
    model's own answers. Prompts that leave no room for `max_new_tokens` lose their beginning, and
    are counted, once for every turn. Workers that share the weights of one model (ZeRO-3) run
    batch by batch together: one that has no prompt left repeats the shortest for the others' sake.
    Where memory runs out, the rest is answered in batches of half the size. A model that reads
    padding although it is masked (RecurrentGemma) gets batches of one length, and one that mixes up
    the prompts of a batch (RWKV) gets them one by one.

    Raises:
        DataError: the model's context leaves no room for a prompt.
        UserError: memory runs out, and batches cannot be smaller.
    """
    asked = list(examples)
    counts: Counter[str] = Counter()
    for turn in range(max((len(example.turns) for example in examples), default=0)):
        now = [i for i, example in enumerate(examples) if _is_asked(example, turn)]
        if not now:
            continue
        parts = [asked[i] if turn == _last(asked[i]) else _up_to(asked[i], turn) for i in now]
        prompts, cut = _fitting(parts, tokenizer, template, config, context)
        counts += cut
        numbers = [(index, turn) for index in now]
        texts = _answers(model, tokenizer, prompts, numbers, config, between_batches)
        for index, text in zip(now, texts, strict=True):
            asked[index] = _with_answer(asked[index], turn, text)
    return [
        Completion(
            example.instruction,
            answered.gold,
            generator,
            example.dataset,
            example.gold,
            answered.turns[:-1],
        )
        for example, answered in zip(examples, asked, strict=True)
    ], counts


def _last(example: Example) -> int:
    return len(example.turns) - 1


def _is_asked(example: Example, turn: int) -> bool:
    """Whether the model answers this turn: the last one, or an earlier one without an answer."""
    return turn == _last(example) or (turn < _last(example) and not example.turns[turn][1])


def _up_to(example: Example, turn: int) -> Example:
    """The conversation with this turn as its last; an input belongs to the very last request."""
    return replace(example, turns=example.turns[: turn + 1], input="", trained=())


def _with_answer(example: Example, turn: int, answer: str) -> Example:
    turns = list(example.turns)
    turns[turn] = (turns[turn][0], answer)
    return replace(example, turns=tuple(turns))


def _answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: list[list[int]],
    numbers: list[tuple[int, int]],
    config: GenerateConfig,
    between_batches: Callable[[], None],
) -> list[str]:
    """Answers to tokenised prompts; `numbers` are those of their examples and turns."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    together = world_size > 1 and is_sharded(model)
    model.eval()
    size = min(config.batch_size, len(prompts))
    way = _way_to_batch(prompts, model, tokenizer, together) if size > 1 else "alone"
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    each = [_batches(by_length[r::world_size], size, prompts, way) for r in range(world_size)]
    left = each[rank]
    if together:
        left += [by_length[:1]] * (max(map(len, each)) - len(left))
    texts: dict[int, str] = {}
    while left:
        between_batches()
        indices = left[0]
        decoding = Decoding(config, [numbers[i] for i in indices])
        try:
            outputs = _decode([prompts[i] for i in indices], model, tokenizer, decoding, together)
        except Exception as error:
            _require_smaller_batches(error, len(indices), together)
            left = _batches(itertools.chain(*left), len(indices) // 2, prompts, way)
        else:
            texts |= dict(zip(indices, outputs, strict=True))
            left = left[1:]
            continue
        give_memory_back()  # out here, where the exception holds nothing any more
    if world_size > 1:
        shares: list[Any] = [None] * world_size
        dist.all_gather_object(shares, texts)
        texts = {index: text for share in shares for index, text in share.items()}
    return [texts[index] for index in range(len(prompts))]


def _batches(
    indices: Iterable[int], size: int, prompts: list[list[int]], way: Way
) -> list[list[int]]:
    """Prompts, sorted by length, in batches of at most that size."""
    size = 1 if way == "alone" else size
    runs = itertools.groupby(indices, lambda i: len(prompts[i]) if way == "of one length" else 0)
    return [
        run[start : start + size]
        for run in (list(run) for _, run in runs)
        for start in range(0, len(run), size)
    ]


def _way_to_batch(
    prompts: list[list[int]], model: nn.Module, tokenizer: Any, together: bool
) -> Way:
    """The fastest way to batch prompts that reads each as if alone; the same on all workers.

    Two short pieces of the longest prompt are read alone, beside its beginning, and beside a third
    piece. Some models read padding although it is masked, or have a state only for one row.
    """
    long = max(prompts, key=len)[:PROBE_TOKENS]
    known = _ways.setdefault(model, {})
    if len(long) in known:
        return known[len(long)]
    width = max(1, len(long) // 8)
    first, second, third = (long[at : at + width] for at in (0, len(long) // 2, len(long) - width))
    # Of how much logits differ among themselves. Measured on 52 random models, rounding makes 1e-5
    # in fp32 and 0.01 in bf16, padding a third and more.
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.06

    def read(*rows: list[int]) -> Tensor:
        return _logits(list(rows), model, tokenizer, together)[:2]

    try:
        alone_BSV = torch.cat([read(first), read(second)])
        # The other row is the last: RWKV gives all the state of that one.
        padded_BSV, level_BSV = read(first, second, long), read(first, second, third)
    except Exception as error:
        _require_smaller_batches(error, 3, together)
        own: Way = "alone"
    else:
        if _agree(padded_BSV, alone_BSV, tolerance):
            own = "padded"
        else:
            own = "of one length" if _agree(level_BSV, alone_BSV, tolerance) else "alone"
    told: list[Any] = [own]
    if dist.get_world_size() > 1:
        told *= dist.get_world_size()
        dist.all_gather_object(told, own)
    known[len(long)] = max(told, key=get_args(Way).index)
    return known[len(long)]


def _agree(batched_BSV: Tensor, alone_BSV: Tensor, tolerance: float) -> bool:
    """Whether a row at least has the same logits; another may see a token go to another expert."""
    spread_BS = (alone_BSV - alone_BSV.median(-1, keepdim=True).values).abs().median(-1).values
    apart_BS = (batched_BSV - alone_BSV).abs().nanmedian(-1).values  # a logit may be -inf
    differ_BS = apart_BS > tolerance * spread_BS  # not where a diverged model says nan
    return not bool(differ_BS.any(-1).all())


def _require_smaller_batches(error: Exception, size: int, together: bool) -> None:
    """Let answers go on in batches of half the size where memory ran out, and only there.

    Raises:
        UserError: one prompt is too much, or workers that share one model must keep step.
    """
    if kind_of(error) != OutOfMemoryError.kind:
        raise error
    if together or size == 1:
        # Not its own kind: that would train again, with smaller micro-batches.
        raise UserError(
            f"generate.batch_size: {size} prompts must fit into the memory together, but "
            f"{reason_of(error)}; lower it or generate.max_new_tokens"
        ) from None


def answer_alone(
    config: TrialConfig, model: ModelConfig, *, generator: str
) -> tuple[list[Completion], Counter[str]]:
    """Answer a trial's prompts with a model from disk, in this process."""
    device = choose_device()
    join_process_group(device)
    loaded = load(model)
    prompts = read_prompts(config.data, config.data.prompts, gold=needs_gold(config.judge))
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


class Decoding(transformers.LogitsProcessor):  # type: ignore[misc]
    """Turns logits so that the largest one is the next token, sampled or greedy.

    Sampling adds Gumbel noise (the Gumbel-max trick: the largest of log p + g is a draw from p).
    Every prompt has a stream of its own, a function of the seed and the prompt's number, drawn on
    the CPU; so an answer depends neither on the batch, nor on the device, nor on other workers.
    The repetition penalty is that of CTRL (arXiv 1909.05858) over the prompt and the answer, but
    not over padding: where padding is the end token, short prompts would be kept from ending.
    """

    def __init__(self, config: GenerateConfig, numbers: list[tuple[int, int]]) -> None:
        self.config = config
        self.mask_BT = torch.zeros(0)
        self._streams = [
            torch.Generator().manual_seed(_seed(config.seed, *number)) for number in numbers
        ]

    @property
    def processors(self) -> transformers.LogitsProcessorList:
        """What `generate` takes; nothing where the logits stay as they are."""
        plain = self.config.temperature == 0 and self.config.repetition_penalty == 1
        return transformers.LogitsProcessorList([] if plain else [self])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits (B, V) after the tokens (B, T) to what is compared."""
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


def _seed(*numbers: int) -> int:
    """One seed from several numbers, mixed so that neighbours have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _nucleus(logprobs_BV: Tensor, top_p: float) -> Tensor:
    """Minus infinity for tokens outside the smallest set of likeliest ones with mass `top_p`."""
    sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.exp().cumsum(-1) - sorted_BV.exp()
    outside_BV = torch.zeros_like(before_BV, dtype=torch.bool)
    outside_BV.scatter_(1, order_BV, before_BV >= top_p)
    return logprobs_BV.masked_fill(outside_BV, -math.inf)


def _decode(
    prompts: list[list[int]],
    model: nn.Module,
    tokenizer: Any,
    decoding: Decoding,
    together: bool,
) -> list[str]:
    """Answers to prompts, up to the first token that ends one, without surrounding white space."""
    ends = _ends(model, tokenizer)
    input_ids, decoding.mask_BT = _padded(prompts, padding_id(tokenizer))
    output = _generate(
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
        synced_gpus=together,
    )
    answers = [
        list(itertools.takewhile(lambda token: token not in ends, row))
        for row in output[:, input_ids.shape[1] :].tolist()
    ]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those that come with the model.

    Chat models name several, such as the end of a text and that of a turn, in their generation
    settings, which go before the configuration.
    """
    named = model.generation_config.eos_token_id
    if named is None:
        named = getattr(model.config.get_text_config(decoder=True), "eos_token_id", None)
    if not isinstance(named, list):
        named = [] if named is None else [named]
    return sorted({tokenizer.eos_token_id, *named})


def _logits(rows: list[list[int]], model: nn.Module, tokenizer: Any, together: bool) -> Tensor:
    """Logits (B, 2, V) after each row, and after its last token once more, read as answers are."""

    def repeat(ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
        return nn.functional.one_hot(ids_BT[:, -1], logits_BV.shape[1]).float()

    ids_BT, mask_BT = _padded(rows, padding_id(tokenizer))
    settings = transformers.GenerationConfig(
        max_new_tokens=2,
        do_sample=False,
        num_beams=1,
        pad_token_id=padding_id(tokenizer),
        return_dict_in_generate=True,
        output_logits=True,
    )
    output = _generate(
        model,
        ids_BT,
        mask_BT,
        settings,
        logits_processor=transformers.LogitsProcessorList([repeat]),
        synced_gpus=together,
    )
    return torch.stack(output.logits, dim=1)


def _padded(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) padded on the left, and 1 where there is no padding."""
    length = max(map(len, rows))
    ids_BT = torch.full((len(rows), length), pad_id)
    mask_BT = torch.zeros_like(ids_BT)
    for index, row in enumerate(rows):
        ids_BT[index, length - len(row) :] = torch.tensor(row)
        mask_BT[index, length - len(row) :] = 1
    return ids_BT, mask_BT


@torch.no_grad()
def _generate(
    model: Any,
    ids_BT: Tensor,
    mask_BT: Tensor,
    settings: transformers.GenerationConfig,
    **arguments: Any,
) -> Any:
    """What transformers generates by these settings alone.

    It would fill up what they leave open from those that the model came with, which therefore
    stand aside meanwhile; an export writes them.
    """
    # A sharded weight may lie elsewhere than where it is gathered.
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
