"""Examples to tokens: the input ids of every row, and which of them are trained on.

In: examples, a tokenizer, a template. Out: `TokenRows`. One function makes the training rows and
the prompts of generation, so a prompt is exactly the beginning of its row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from symnoise_ray.config import DataConfig
from symnoise_ray.data.chat_template import render_chat
from symnoise_ray.data.example import Example
from symnoise_ray.data.formats import RowError
from symnoise_ray.data.templates import CHAT, Segment, render, render_prompt
from symnoise_ray.errors import DataError, UserError

IGNORE_INDEX = -100
"""Label of positions that are not trained on."""


class TokenRow(NamedTuple):
    """One row: its tokens, and its labels, which are the tokens of answers and else
    `IGNORE_INDEX`."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_answer_tokens(self) -> int:
        """Tokens the loss is summed over; the first position is never predicted."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, and how many rows were cut or left out, by reason."""

    rows: list[TokenRow]
    counts: Counter[str]


def tokenise(
    examples: list[Example],
    tokenizer: Any,
    template: str,
    max_length: int,
    on_bad_row: Literal["error", "skip"] = "error",
) -> TokenRows:
    """Tokenise and cut to `max_length`; rows that lose their whole answer by it are left out.

    Raises:
        DataError: no row is left to train on, or a chat template cannot render a row, which is left
            out and counted where `on_bad_row` says so.
    """
    rows = []
    counts: Counter[str] = Counter()
    for example in examples:
        try:
            row = tokenise_row(example, tokenizer, template)
        except RowError as error:
            if on_bad_row == "error":
                raise DataError(error.at(example.place)) from None
            counts[error.counted()] += 1
            continue
        if len(row.input_ids) > max_length:
            counts["rows truncated"] += 1
            row = TokenRow(row.input_ids[:max_length], row.labels[:max_length])
        if row.num_answer_tokens:
            rows.append(row)
        else:
            counts["rows with nothing to train on"] += 1
    if not rows:
        told = "; ".join(f"{count} {what}" for what, count in counts.items())
        raise DataError(
            f"at least one row must keep an answer within data.max_length={max_length} tokens, "
            f"but none of {len(examples)} does{told and f' ({told})'}"
        )
    return TokenRows(rows, counts)


def tokenise_prompt(example: Example, tokenizer: Any, template: str) -> list[int]:
    """The tokens of a prompt: exactly the beginning of the row in training.

    Raises:
        DataError: a chat template cannot render the prompt.
    """
    if template in CHAT:
        try:
            segments = render_chat(example, tokenizer, template, prompt=True)
        except RowError as error:
            where = f"{example.place}: " if example.place else ""  # typed, not read from a file
            raise DataError(f"{where}{error}") from None
        return _join(segments, tokenizer, None).input_ids
    return _join(render_prompt(example, template), tokenizer, tokenizer.bos_token_id).input_ids


def tokenise_row(example: Example, tokenizer: Any, template: str) -> TokenRow:
    """A whole row. A chat template writes the beginning token itself, or has none.

    Raises:
        RowError: a chat template cannot render the row.
    """
    if template in CHAT:
        return _join(render_chat(example, tokenizer, template), tokenizer, None)
    return _join(render(example, template), tokenizer, tokenizer.bos_token_id)


def _join(segments: list[Segment], tokenizer: Any, begin: int | None) -> TokenRow:
    """Tokenise segment by segment, so that an answer never changes its prompt's tokens."""
    input_ids: list[int] = [] if begin is None else [begin]
    labels = [IGNORE_INDEX] * len(input_ids)
    for segment in segments:
        tokens = tokenizer(segment.text, add_special_tokens=False, verbose=False)["input_ids"]
        if segment.ended:
            tokens = [*tokens, tokenizer.eos_token_id]
        input_ids += tokens
        labels += tokens if segment.trained else [IGNORE_INDEX] * len(tokens)
    return TokenRow(input_ids, labels)


def padding_id(tokenizer: Any) -> int:
    """Token that fills short rows. It is masked, so any token will do, and nothing is resized."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


DEFAULT_LENGTH = 512


def row_limit(data: DataConfig, context: int | None) -> int:
    """Most tokens per row.

    Args:
        data: The trial's data.
        context: Most tokens that the model takes, or None where there is no such number.

    Raises:
        UserError: `data.max_length` is more than the model takes.
    """
    if data.max_length is not None and context is not None and data.max_length > context:
        raise UserError(
            f"data.max_length={data.max_length} must not exceed the model's context of {context} "
            "tokens; lower it, or leave it out"
        )
    return data.max_length or min(DEFAULT_LENGTH, context or DEFAULT_LENGTH)
