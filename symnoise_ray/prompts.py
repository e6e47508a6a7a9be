"""Rows as text: what a model reads, and which parts of it are trained on.

In: an `Example`. Out: segments of text, each marked as prompt or answer. Training and generation
render through the same function, so a model is asked in exactly the bytes it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Example:
    """One instruction or conversation: turns of (user, assistant), the last answer being gold.

    `gold` is empty for a prompt whose right answer is not known.
    """

    turns: tuple[tuple[str, str], ...]
    input: str = ""
    system: str = ""
    dataset: str = ""

    @property
    def instruction(self) -> str:
        """What the judge is shown: the last request, with its input below it."""
        request = self.turns[-1][0]
        return f"{request}\n\n{self.input}" if self.input else request

    @property
    def gold(self) -> str:
        """The right answer to the last request."""
        return self.turns[-1][1]


class Segment(NamedTuple):
    """A piece of a rendered row; answers end with the end-of-sequence token."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Template:
    """Text before the first turn and around every request; the answer follows it directly."""

    preamble: str
    preamble_with_input: str
    request: str
    request_with_input: str


_ALPACA_TURN = "### Instruction:\n{request}\n\n### Response:\n"
_ALPACA_TURN_WITH_INPUT = "### Instruction:\n{request}\n\n### Input:\n{input}\n\n### Response:\n"

TEMPLATES = {
    # Wording of tatsu-lab/stanford_alpaca train.py, kept to the letter since models know it; one
    # line break is added after "Response:", in training and generation alike.
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
    "short": Template("", "", _ALPACA_TURN, _ALPACA_TURN_WITH_INPUT),
    # Wording of lm-sys/FastChat's Vicuna v1.1 conversation, as NEFTune uses it for ShareGPT.
    "vicuna": Template(
        preamble=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions. "
        ),
        preamble_with_input=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions. "
        ),
        request="USER: {request} ASSISTANT: ",
        request_with_input="USER: {request}\n{input} ASSISTANT: ",
    ),
}


def choose_template(name: str, train: str, examples: list[Example]) -> str:
    """The template that `auto` stands for: by data set, else by the shape of the rows."""
    if name != "auto":
        return name
    if train == "demo":
        return "short"
    conversational = any(len(example.turns) > 1 or example.system for example in examples)
    return "vicuna" if conversational else "alpaca"


def render(example: Example, template: str) -> list[Segment]:
    """All turns of an example; only answers are trained on."""
    segments: list[Segment] = []
    for index, (request, answer) in enumerate(example.turns):
        segments.append(Segment(_prompt(example, template, index, request), trained=False))
        segments.append(Segment(answer, trained=True))
    return segments


def render_prompt(example: Example, template: str) -> list[Segment]:
    """The same segments without the last answer: what the model completes."""
    return render(example, template)[:-1]


def _prompt(example: Example, template: str, index: int, request: str) -> str:
    form = TEMPLATES[template]
    last = index == len(example.turns) - 1
    given = example.input if last else ""
    body = (form.request_with_input if given else form.request).format(request=request, input=given)
    if index > 0:
        return body
    if example.system:
        return f"{example.system}\n\n{body}"
    return (form.preamble_with_input if given else form.preamble) + body
