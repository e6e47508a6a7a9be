"""The prompts that a template can say, which are those that a model is asked.

In: prompts, a tokenizer and a template. Out: `Rows`. A chat template may refuse a prompt, such as
one with a system message. `data.on_bad_row` decides on it, as on any row that cannot be used. It
depends on the prompt, the tokenizer and the template alone, never on a model's answers, so all
trials of a sweep leave out the same prompts.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from symnoise_ray.config import DataConfig
from symnoise_ray.data.chat_template import render_chat
from symnoise_ray.data.example import Example
from symnoise_ray.data.formats import RowError
from symnoise_ray.data.rows import Rows, read_prompts
from symnoise_ray.data.templates import CHAT
from symnoise_ray.errors import DataError

_STAND_IN = "Yes."
"""Where a model gives an earlier answer of a conversation itself, which nobody knows yet."""


def read_sayable(
    data: DataConfig, part: str, tokenizer: Any, template: str, *, gold: bool = True
) -> Rows:
    """The prompts of `read_prompts` that a template can say; all others are counted.

    Args:
        data: The settings that name the sources of the prompts.
        part: `eval` or `confirm`.
        tokenizer: That of the model that is asked.
        template: The template's name, as training chose it.
        gold: Whether prompts without a known right answer are left out and counted.

    Raises:
        DataError: as for `read_prompts` and `sayable`.
    """
    rows = read_prompts(data, part, gold=gold)
    said = sayable(rows.examples, tokenizer, template, data.on_bad_row)
    return Rows(said.examples, rows.left_out + said.left_out)


def sayable(
    prompts: list[Example],
    tokenizer: Any,
    template: str,
    on_bad_row: Literal["error", "skip"] = "error",
) -> Rows:
    """The prompts that a template can say, in their order.

    Raises:
        DataError: the template cannot say a prompt, which is left out and counted where
            `on_bad_row` says so; or it can say none.
    """
    if template not in CHAT:
        return Rows(prompts)
    said: list[Example] = []
    left_out: Counter[str] = Counter()
    for prompt in prompts:
        try:
            _require_sayable(prompt, tokenizer, template)
        except RowError as error:
            if on_bad_row == "error":
                raise DataError(error.at(prompt.place)) from None
            left_out[error.counted("prompts")] += 1
        else:
            said.append(prompt)
    if prompts and not said:
        told = "; ".join(f"{count} {what}" for what, count in left_out.items())
        raise DataError(
            "data.template=tokenizer: the template must take at least one prompt, but takes none "
            f"of {len(prompts)} ({told})"
        )
    return Rows(said, left_out)


def with_stand_ins(prompt: Example) -> Example:
    """The prompt of the last request, with a stand-in for every answer that a model gives before.

    A chat template may leave out an answer that is empty, together with what ends its turn.
    """
    for turn in range(len(prompt.turns) - 1):
        if prompt.is_asked(turn):
            prompt = prompt.with_answer(turn, _STAND_IN)
    return prompt


def _require_sayable(prompt: Example, tokenizer: Any, template: str) -> None:
    """Render all that a model would be asked, turn by turn.

    Raises:
        RowError: the template cannot say it.
    """
    for turn in range(len(prompt.turns)):
        if prompt.is_asked(turn):
            render_chat(prompt.up_to(turn), tokenizer, template, prompt=True)
            prompt = prompt.with_answer(turn, _STAND_IN)
