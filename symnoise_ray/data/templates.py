"""Rows as text: what the model reads, and which parts of it are trained on.

In: an `Example`. Out: segments of text, each marked as prompt or answer. Training and generation
use the same function, so a prompt has exactly the text that it had in training.
"""

from __future__ import annotations

import functools
import string
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationInfo, field_validator

from symnoise_ray.config import Section
from symnoise_ray.config.loading import build, read_yaml
from symnoise_ray.data.example import Example
from symnoise_ray.errors import UserError, one_line

TOKENIZER = "tokenizer"
"""Value of `data.template`: the chat template of the tokenizer, which `chat_template` renders."""
THINKING = "tokenizer, with thoughts"
"""The same, where most answers of the training rows begin with thoughts in `<think>` tags."""
CHAT = (TOKENIZER, THINKING)
"""Both ways to use the tokenizer's chat template."""


class Segment(NamedTuple):
    """A piece of a rendered row; `ended` adds the end-of-sequence token, as answers need it."""

    text: str
    trained: bool
    ended: bool = False


class Template(Section):
    """Text before the first turn and around every request; the answer follows it directly."""

    preamble: str = ""
    """Text before the first turn, where the row has no system message of its own."""
    preamble_with_input: str | None = None
    """The same for rows with an input; `preamble` by default."""
    request: str
    """A request without an input; `{request}` stands for it."""
    request_with_input: str
    """A request with an input; `{request}` and `{input}` stand for them."""

    @field_validator("request", "request_with_input")
    @classmethod
    def _placeholders_are_known(cls, text: str, info: ValidationInfo) -> str:
        wanted = ["request"] if info.field_name == "request" else ["input", "request"]
        found = _placeholders(text)
        if sorted(found) != wanted:
            raise ValueError(
                f"must hold {' and '.join(f'{{{word}}}' for word in wanted)} once each, with all "
                f"other braces doubled, but got {', '.join(found) or 'none'}"
            )
        return text

    @field_validator("preamble", "preamble_with_input")
    @classmethod
    def _no_placeholders(cls, text: str | None) -> str | None:
        if text is not None and ("{request}" in text or "{input}" in text):
            raise ValueError(f"must hold no placeholder, but got {text!r}")
        return text


def _placeholders(text: str) -> list[str]:
    """The names in braces, with the format or conversion behind them."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"must have its braces in pairs, but got {text!r}") from error
    return [
        field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, field, form, conversion in parts
        if field is not None
    ]


_ALPACA_TURN = "### Instruction:\n{request}\n\n### Response:\n"
_ALPACA_TURN_WITH_INPUT = "### Instruction:\n{request}\n\n### Input:\n{input}\n\n### Response:\n"

TEMPLATES = {
    # Wording of tatsu-lab/stanford_alpaca train.py, kept to the letter since models know it; one
    # line break is added after "Response:", both in training and in generation.
    "alpaca": Template(
        preamble=(
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n"
        ),
        preamble_with_input=(
            "Below is an instruction that describes a task, paired with an input that provides "
            "further context. Write a response that appropriately completes the request.\n\n"
        ),
        request=_ALPACA_TURN,
        request_with_input=_ALPACA_TURN_WITH_INPUT,
    ),
    # The same headers without the preamble: for models with a short context.
    "short": Template(request=_ALPACA_TURN, request_with_input=_ALPACA_TURN_WITH_INPUT),
    # Wording of lm-sys/FastChat's Vicuna v1.1 conversation, as NEFTune uses it for ShareGPT.
    "vicuna": Template(
        preamble=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions. "
        ),
        request="USER: {request} ASSISTANT: ",
        request_with_input="USER: {request}\n{input} ASSISTANT: ",
    ),
}


def choose_template(name: str, train: object, examples: list[Example]) -> str:
    """The template's name; `auto` is chosen by the data set, else by the shape of the rows, and
    `tokenizer` becomes `THINKING` where most answers begin with thoughts."""
    if name == TOKENIZER and 2 * sum(example.thinks for example in examples) > len(examples):
        return THINKING
    if name != "auto":
        return name
    if train == "demo":
        return "short"
    conversational = any(len(example.turns) > 1 or example.system for example in examples)
    return "vicuna" if conversational else "alpaca"


@functools.lru_cache(maxsize=8)
def find_template(name: str) -> Template:
    """A template by name, or from a YAML file with the fields of `Template`.

    Raises:
        UserError: the file is missing, or a field or placeholder is wrong; the message has the
        line.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.template={name}: must be a readable file, but {one_line(error)}"
        ) from None
    return build(Template, read_yaml(text, name))


def render(example: Example, template: str) -> list[Segment]:
    """All turns of an example as segments; only answers are trained on."""
    form = find_template(template)
    segments: list[Segment] = []
    for index, (request, answer) in enumerate(example.turns):
        segments.append(Segment(_prompt(example, form, index, request), trained=False))
        segments.append(Segment(answer, trained=example.is_trained(index), ended=True))
    return segments


def render_prompt(example: Example, template: str) -> list[Segment]:
    """The segments without the last answer, which the model has to write."""
    return render(example, template)[:-1]


def _prompt(example: Example, form: Template, index: int, request: str) -> str:
    last = index == len(example.turns) - 1
    given = example.input if last else ""
    body = (form.request_with_input if given else form.request).format(request=request, input=given)
    if index > 0:
        return body
    if example.system:
        return f"{example.system}\n\n{body}"
    if given and form.preamble_with_input is not None:
        return form.preamble_with_input + body
    return form.preamble + body
