"""Numbers and lengths of a trial's rows and prompts, as far as they are known before it runs.

In: a trial, and the shape of its model. Out: `Rows`. Rows are read and tokenised if data and
tokenizer lie on this machine. `Rows.unknown` says what is not known, and why. Rows of unknown
length are taken as long as `data.max_length` allows, so a forecast from them is an upper bound.
Prompts of unknown length are taken to be as long, which is an assumption: nothing cuts them there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from symnoise_ray.config import DataConfig, ModelConfig, TrialConfig
from symnoise_ray.config.data import HELD_BACK, Source
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.data.example import Example
from symnoise_ray.data.prompts import sayable, with_stand_ins
from symnoise_ray.data.rows import read_prompts, read_train
from symnoise_ray.data.sources import locate
from symnoise_ray.data.templates import CHAT, choose_template
from symnoise_ray.data.tokens import row_limit, tokenise, tokenise_prompt
from symnoise_ray.models.shape import ModelShape
from symnoise_ray.models.source import model_source
from symnoise_ray.models.tokenizer import load_encoder, load_tokenizer
from symnoise_ray.preflight.prompts import asked_prompts


@dataclass(frozen=True)
class Rows:
    """The training rows and prompts, as far as known; lengths are in tokens, of rows after cutting.

    `longest_prompt` is the most that the model reads before it answers. An earlier answer that it
    gave itself counts with `generate.max_new_tokens`. `longest_judged` is the most that a judge
    reads about a prompt beside the two answers that it compares.
    """

    num_rows: int | None
    num_tokens: int | None
    num_answer_tokens: int | None
    longest: int
    answer_share: float
    num_prompts: int | None
    longest_prompt: int
    longest_judged: int
    unknown: tuple[str, ...]


def read_rows(
    config: TrialConfig, shape: ModelShape, num_rows: int | None, row_tokens: float | None = None
) -> Rows:
    """Numbers of the training rows and prompts, or why they are not known.

    Args:
        config: The trial.
        shape: Its model, for the longest row that it takes.
        num_rows: The number of training rows, which are then not read.
        row_tokens: Of those rows, the mean number of tokens.

    Raises:
        DataError: the data on this machine is broken.
        UserError: the tokenizer on this machine cannot be read.
    """
    limit = row_limit(config.data, shape.context)
    nothing = Rows(num_rows, None, None, limit, 1.0, None, limit, limit, ())
    answer = config.generate.max_new_tokens
    if num_rows is not None and row_tokens is not None:
        tokens = round(num_rows * min(row_tokens, limit))
        why = f"answers, because the data was not read; all of {row_tokens:g} tokens a row count"
        return replace(nothing, num_tokens=tokens, num_answer_tokens=tokens, unknown=(why,))
    if num_rows is not None:
        why = f"tokens, because the data was not read; every row counts as {limit}"
        return replace(nothing, unknown=(why,))
    if absent := _absent(config.data):
        why = f"rows, because {absent[0]} is not a file or folder here; --rows gives their number"
        return replace(nothing, unknown=(why,))
    if not _has_tokenizer(config.model):
        number, prompts = _counted(_data_alone(config.data))
        longest = _longest(prompts, [limit] * len(prompts), answer)
        source = model_source(config.model)
        why = f"tokens, because {source} has no tokenizer here; every row counts as {limit}"
        return replace(
            nothing, num_rows=number, num_prompts=len(prompts), **longest, unknown=(why,)
        )
    return _tokenised(_data_alone(config.data), config.model, limit, answer)


def count_confirmed(config: TrialConfig, *, download: bool = False) -> tuple[int, int] | None:
    """Number of different prompts of the confirmation, and of their groups; None if not known.

    Those that a chat template cannot say count as well where data or tokenizer are elsewhere.

    Args:
        config: Any trial of the sweep, with its `data.confirm_prompts`.
        download: Whether prompts that do not lie on this machine are fetched, not left unknown.

    Raises:
        DataError: the prompts are broken.
    """
    data = config.data
    own = data.eval_prompts if data.confirm_prompts in (None, HELD_BACK) else data.confirm_prompts
    if own is not None and not Path(Source.of(own).name).exists() and not download:
        return None
    gold = needs_gold(config.judge)
    known = not _absent(data) and _has_tokenizer(config.model)
    asked = asked_prompts(data, config.model, "confirm", gold=gold) if known else None
    found = (asked or read_prompts(data, "confirm", gold=gold)).examples
    prompts = {(example.dataset, example.requests) for example in found}
    return len(prompts), len({group for group, _ in prompts})


def _absent(data: DataConfig) -> list[str]:
    """Sources of rows and prompts that do not lie on this machine."""
    train = [locate(source) for source, _ in data.sources]
    given = [data.eval_prompts, data.confirm_prompts]
    asked = [source for source in given if source is not None and source != HELD_BACK]
    names = [Source.of(source).name for source in (*train, *asked)]
    return [name for name in names if not Path(name).exists()]


def _has_tokenizer(model: ModelConfig) -> bool:
    """Whether the tokenizer lies on this machine."""
    return any(Path(model_source(model)).glob("tokenizer*"))


def _data_alone(data: DataConfig) -> DataConfig:
    """Settings with the same rows, which do not look for overlap that would only be counted."""
    return data if data.drop_overlap else data.model_copy(update={"overlap_ngram": 0})


@functools.lru_cache(maxsize=8)
def _counted(data: DataConfig) -> tuple[int, list[Example]]:
    """The number of training rows, and the prompts."""
    return len(read_train(data).examples), read_prompts(data, data.prompts, gold=False).examples


@functools.lru_cache(maxsize=8)
def _tokenised(data: DataConfig, model: ModelConfig, limit: int, answer: int) -> Rows:
    examples = read_train(data).examples
    template = choose_template(data.template, data.train, examples)
    load = load_tokenizer if template in CHAT else load_encoder
    tokenizer = load(model)
    rows = tokenise(examples, tokenizer, template, limit, data.on_bad_row).rows
    asked = read_prompts(data, data.prompts, gold=False).examples
    prompts = sayable(asked, tokenizer, template, data.on_bad_row).examples
    said = [len(tokenise_prompt(with_stand_ins(one), tokenizer, template)) for one in prompts]
    lengths = [len(row.input_ids) for row in rows]
    answers = [row.num_answer_tokens for row in rows]
    shares = [answer / length for answer, length in zip(answers, lengths, strict=True)]
    return Rows(
        num_rows=len(rows),
        num_tokens=sum(lengths),
        num_answer_tokens=sum(answers),
        longest=max(lengths),
        answer_share=max(shares),
        num_prompts=len(prompts),
        **_longest(prompts, said, answer),
        unknown=(),
    )


def _longest(prompts: list[Example], lengths: list[int], answer: int) -> dict[str, int]:
    """The fields of `Rows` about the longest prompt.

    Of a single request, a judge reads the request. Of a conversation it reads the last request, and
    then both models' whole conversations with all requests in them. Each of the three is at most as
    long as the prompt, unless a chat template drops the thoughts of answers that are given.

    Args:
        prompts: All prompts.
        lengths: Their tokens, without the earlier answers that the model gives itself.
        answer: Most tokens of such an answer.
    """
    asked, judged = [], []
    for prompt, length in zip(prompts, lengths, strict=True):
        earlier = range(len(prompt.turns) - 1)
        own = answer * sum(prompt.is_asked(turn) for turn in earlier)
        asked.append(length + own)
        judged.append(3 * length + 2 * own if earlier else length)
    return {"longest_prompt": max(asked), "longest_judged": max(judged)}
