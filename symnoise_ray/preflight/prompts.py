"""The prompts that trials will be asked, known before anything starts.

In: settings of data and model. Out: `Rows`, or one line about a prompt that the tokenizer's chat
template cannot say, or about trials that would not be asked the same prompts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

from symnoise_ray.config import DataConfig, ModelConfig, TrialConfig
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.data.prompts import sayable
from symnoise_ray.data.rows import Rows, read_prompts, read_train
from symnoise_ray.data.templates import TOKENIZER, choose_template
from symnoise_ray.errors import DataError
from symnoise_ray.models.tokenizer import load_tokenizer

_WORDS = {"eval": "search", "confirm": "confirmation"}


def asked_prompts(data: DataConfig, model: ModelConfig, part: str, *, gold: bool) -> Rows:
    """The prompts that a trial is asked; `left_out` counts those that its template cannot say.

    Args:
        data: Of the trial.
        model: Of the trial; its tokenizer is loaded where its chat template is used, and only then.
        part: `eval` or `confirm`.
        gold: Whether prompts without a known right answer are left out.

    Raises:
        UserError: the tokenizer cannot be read.
        DataError: the prompts cannot be read, or the template cannot say one of them.
    """
    prompts = read_prompts(data, part, gold=gold).examples
    if data.template != TOKENIZER:
        return Rows(prompts)
    return sayable(prompts, *_template(_of_rows(data), model), data.on_bad_row)


def _of_rows(data: DataConfig) -> DataConfig:
    """Settings with the same training rows, which do not look for overlap that is only counted."""
    return data if data.drop_overlap else data.model_copy(update={"overlap_ngram": 0})


@functools.lru_cache(maxsize=4)
def _template(data: DataConfig, model: ModelConfig) -> tuple[Any, str]:
    """The tokenizer of a model, and how its chat template is used on some training rows."""
    rows = read_train(data).examples
    return load_tokenizer(model), choose_template(data.template, data.train, rows)


def parts(data: DataConfig) -> tuple[str, ...]:
    """The parts of the prompts that a sweep with these settings is asked."""
    confirms = data.confirm_prompts is not None or data.eval_prompts is None
    return ("eval", "confirm") if confirms else ("eval",)


def check_prompts(configs: Iterable[TrialConfig], *, judged: bool = True) -> tuple[str, ...]:
    """Refuse prompts that a chat template cannot say, and trials that would leave out others.

    Args:
        configs: The trials of a sweep, or one.
        judged: Whether their answers are compared with each other.

    Returns:
        What `data.on_bad_row` leaves out, a line for each part of the prompts and each reason.

    Raises:
        UserError: a tokenizer cannot be read.
        DataError: a prompt cannot be said, or can be said in some trials only.
    """
    configs = list(configs)
    if all(config.data.template != TOKENIZER for config in configs):
        return ()
    notes: dict[str, None] = {}
    first: dict[str, _Asked] = {}
    for data, model, gold in dict.fromkeys(
        (each.data, each.model, judged and needs_gold(each.judge)) for each in configs
    ):
        for part in parts(data):
            asked = _Asked(data, model, asked_prompts(data, model, part, gold=gold))
            told = asked.rows.left_out.items()
            notes |= {f"{_WORDS[part]}: {count} {what}": None for what, count in told}
            if judged:
                _require_same(first.setdefault(part, asked), asked)
    return tuple(notes)


class _Asked(NamedTuple):
    """What the trials with some settings are asked."""

    data: DataConfig
    model: ModelConfig
    rows: Rows


def _require_same(one: _Asked, other: _Asked) -> None:
    """Refuse a prompt that some trials alone leave out: their answers could not be compared."""
    if not one.rows.left_out and not other.rows.left_out:
        return
    for more, less in ((one, other), (other, one)):
        known = {example.digest for example in less.rows.examples}
        lacking = next((each for each in more.rows.examples if each.digest not in known), None)
        if lacking is not None:
            raise DataError(
                f"{lacking.place}: all trials must be asked the same prompts, but "
                f"data.template={less.data.template} of model.name={less.model.name} leaves this "
                f"one out and data.template={more.data.template} of model.name={more.model.name} "
                "does not; take it out of the prompts"
            )
