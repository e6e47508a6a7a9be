"""Numbers and lengths of a trial's rows and prompts, as far as they are known before it runs.

In: a trial, and the shape of its model. Out: `Rows`. Rows are read and tokenised if data and
tokenizer lie on this machine. `Rows.unknown` says what is not known, and why. Rows of unknown
length are taken as long as `data.max_length` allows, so a forecast from them is an upper bound.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from symnoise_ray.config import DataConfig, ModelConfig, TrialConfig
from symnoise_ray.config.data import HELD_BACK, Source
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.data.prompts import sayable
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
    """The training rows and prompts, as far as known; lengths are in tokens, after cutting."""

    num_rows: int | None
    num_tokens: int | None
    num_answer_tokens: int | None
    longest: int
    answer_share: float
    num_prompts: int | None
    longest_prompt: int
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
    nothing = Rows(num_rows, None, None, limit, 1.0, None, limit, ())
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
        counted = _counted(_data_alone(config.data))
        source = model_source(config.model)
        why = f"tokens, because {source} has no tokenizer here; every row counts as {limit}"
        return replace(nothing, num_rows=counted[0], num_prompts=counted[1], unknown=(why,))
    return _tokenised(_data_alone(config.data), config.model, limit)


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
def _counted(data: DataConfig) -> tuple[int, int]:
    return len(read_train(data).examples), len(
        read_prompts(data, data.prompts, gold=False).examples
    )


@functools.lru_cache(maxsize=8)
def _tokenised(data: DataConfig, model: ModelConfig, limit: int) -> Rows:
    examples = read_train(data).examples
    template = choose_template(data.template, data.train, examples)
    load = load_tokenizer if template in CHAT else load_encoder
    tokenizer = load(model)
    rows = tokenise(examples, tokenizer, template, limit, data.on_bad_row).rows
    asked = read_prompts(data, data.prompts, gold=False).examples
    prompts = sayable(asked, tokenizer, template, data.on_bad_row).examples
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
        longest_prompt=max(len(tokenise_prompt(one, tokenizer, template)) for one in prompts),
        unknown=(),
    )
