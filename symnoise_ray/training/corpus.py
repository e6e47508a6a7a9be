"""A trial's training rows as one token table: read, tokenised once, mapped by every worker.

In: a `TrialConfig` and the model's context. Out: a `TokenTable`, from the memory of this process,
from the caches on disk, or newly made. It counts the rows that were left out or cut.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from symnoise_ray import __version__
from symnoise_ray.config import DataConfig, ModelConfig, TrialConfig
from symnoise_ray.data.rows import read_texts, read_train
from symnoise_ray.data.sources import locate
from symnoise_ray.data.templates import choose_template
from symnoise_ray.data.token_table import TokenTable, cached
from symnoise_ray.data.tokens import TokenRow, TokenRows, row_limit, tokenise
from symnoise_ray.errors import DataError
from symnoise_ray.models.source import model_source
from symnoise_ray.models.tokenizer import load_tokenizer
from symnoise_ray.records.files import contents

_ANSWERED = {"prompts", "max_eval_prompts", "max_confirm_prompts"}
"""Settings of the prompts that no training row depends on."""


def token_table(config: TrialConfig, context: int | None, caches: Path | None) -> TokenTable:
    """The tokenised training rows of a trial.

    Args:
        config: The trial.
        context: Most tokens that the model takes, or None.
        caches: Folder for tokenised rows on storage that all workers share; None caches nothing.

    Raises:
        DataError: the rows cannot be read, or none is left to train on.
    """
    return _table(config.data, config.model, context, caches)


def text_table(config: TrialConfig, context: int | None) -> TokenTable | None:
    """The plain texts whose loss is measured, with every token as an answer; None without any.

    Raises:
        DataError: the texts cannot be read.
    """
    data = config.data
    if data.texts is None:
        return None
    tokenizer, limit = load_tokenizer(config.model), row_limit(data, context)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = []
    for text in read_texts(data.texts, data.num_texts):
        tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        input_ids = [*begin, *tokens][:limit]
        if len(input_ids) > 1:  # a first token is never predicted
            rows.append(TokenRow(input_ids, list(input_ids)))
    if not rows:
        raise DataError(f"{data.texts}: at least one text must have two tokens, but none has")
    return TokenTable.of(TokenRows(rows, Counter()))


@functools.lru_cache(maxsize=4)
def _table(
    data: DataConfig, model: ModelConfig, context: int | None, caches: Path | None
) -> TokenTable:
    make = functools.partial(_make, data, model, context)
    if caches is None:
        return make()
    origin = {
        "version": __version__,
        "data": data.model_dump(mode="json", exclude=_ANSWERED),
        "model": model.model_dump(mode="json", exclude={"dtype"}),
        "context": context,
        "contents": contents([*_texts(data.model_dump()), model_source(model)]),
    }
    with _rank_zero_first():
        return cached(caches, origin, make)


def _make(data: DataConfig, model: ModelConfig, context: int | None) -> TokenTable:
    rows = read_train(data)
    template = choose_template(data.template, data.train, rows.examples)
    limit = row_limit(data, context)
    tokens = tokenise(rows.examples, load_tokenizer(model), template, limit, data.on_bad_row)
    table = TokenTable.of(tokens, template)
    table.counts.update(rows.left_out)
    return table


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested settings; some of them are names of files."""
    if isinstance(value, str):
        yield str(locate(value))
    elif isinstance(value, dict | list | tuple):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        for part in parts:
            yield from _texts(part)


@contextmanager
def _rank_zero_first() -> Iterator[None]:
    """Run a block on rank 0, and after that on the other ranks."""
    alone = dist.get_world_size() == 1
    if not alone and dist.get_rank() > 0:
        dist.barrier()
    try:
        yield
    finally:
        if not alone and dist.get_rank() == 0:
            dist.barrier()
