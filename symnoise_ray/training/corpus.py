"""A trial's training rows as one token table: read, tokenised once, mapped by every worker.

In: a `TrialConfig` and the model's context. Out: a `TokenTable`, from the memory of this process,
from the caches on disk, or newly made. It counts the rows that were left out or cut. Beside it, the
tables of what is measured and not trained on.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from symnoise_ray import __version__
from symnoise_ray.config import DataConfig, ModelConfig, TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.data.rows import read_heldout, read_prompts, read_texts, read_train
from symnoise_ray.data.sources import locate
from symnoise_ray.data.templates import choose_template
from symnoise_ray.data.token_table import TokenTable, cached
from symnoise_ray.data.tokens import TokenRow, TokenRows, row_limit, tokenise
from symnoise_ray.errors import DataError
from symnoise_ray.models.source import model_source
from symnoise_ray.models.tokenizer import load_tokenizer
from symnoise_ray.records.files import contents

_DRAW_SEED = 29
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


def further_tables(
    config: TrialConfig, template: str, context: int | None
) -> dict[str, TokenTable]:
    """What is measured beside the clean loss and not trained on, by the name of its loss.

    `text_loss`: the plain texts. `heldout_loss`: rows that `data.heldout_share` keeps out.
    `gold_loss`: with such rows, prompts of the search with their right answers, if they have some.

    Args:
        config: The trial.
        template: That of the training rows.
        context: Most tokens that the model takes, or None.

    Raises:
        DataError: texts or rows cannot be read, or none keeps a token to predict.
    """
    data, most = config.data, config.train.num_clean_rows
    texts = text_table(config, context)
    tables = {} if texts is None else {"text_loss": texts}
    if not data.heldout_share:
        return tables
    asked = read_prompts(data, "eval", gold=False).examples
    parts = {
        "heldout_loss": read_heldout(data),
        "gold_loss": [_last_answer(prompt) for prompt in asked if prompt.gold.strip()],
    }
    tokenizer, limit = load_tokenizer(config.model), row_limit(data, context)
    for name, rows in parts.items():
        if rows:
            drawn = random.Random(_DRAW_SEED).sample(rows, min(most, len(rows)))
            tables[name] = TokenTable.of(
                tokenise(drawn, tokenizer, template, limit, data.on_bad_row)
            )
    return tables


def _last_answer(prompt: Example) -> Example:
    """A prompt whose last answer alone counts: earlier ones may be empty."""
    earlier = (False,) * (len(prompt.turns) - 1)
    return replace(prompt, trained=(*earlier, True))


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
