"""The chat template of the tokenizer: which text is the prompt, and which text is an answer.

In: an example and a tokenizer. Out: segments of text. The template renders the conversation up to
each turn, and every rendering must begin with the one before. So a prompt is exactly the beginning
of the row that was trained on. A template that rewrites earlier turns is refused.
"""

from __future__ import annotations

from typing import Any

from symnoise_ray.data.example import Example
from symnoise_ray.data.templates import Segment
from symnoise_ray.errors import DataError, one_line

OTHER = "choose another data.template, such as alpaca or a file"


def render_chat(example: Example, tokenizer: Any, *, prompt: bool = False) -> list[Segment]:
    """All turns as the chat template renders them; with `prompt`, all but the last answer.

    An answer is trained on up to its end-of-text token, which is included. Where the template sets
    none, the last answer gets one, because generation would not end otherwise.

    Raises:
        DataError: there is no template, it fails, or it changes what it rendered before.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"data.template=tokenizer: the tokenizer of {tokenizer.name_or_path} must have a chat "
            f"template, but it has none; {OTHER}"
        )
    messages = [{"role": "system", "content": example.system}] if example.system else []
    segments: list[Segment] = []
    done = ""
    last = len(example.turns) - 1
    for index, (request, answer) in enumerate(example.turns):
        asked = example.instruction if index == last else request
        messages.append({"role": "user", "content": asked})
        question = _apply(tokenizer, messages, add_generation_prompt=True)
        segments.append(Segment(_added(question, done), trained=False))
        if prompt and index == last:
            break
        messages.append({"role": "assistant", "content": answer})
        done = _apply(tokenizer, messages, add_generation_prompt=False)
        span = _added(done, question)
        if answer.strip() not in span:
            raise DataError(
                f"data.template=tokenizer: the template must keep answers, but changes one; {OTHER}"
            )
        end, trained = tokenizer.eos_token, example.is_trained(index)
        segments += _answer(span, answer.strip(), end, trained, index == last)
    return segments


def _answer(span: str, answer: str, end: str, trained: bool, last: bool) -> list[Segment]:
    """The answer with its end token, and the text that the template sets after it."""
    found = span.find(end, span.index(answer) + len(answer))
    if found < 0:
        return [Segment(span, trained, ended=last)]
    cut = found + len(end)
    rest = [Segment(span[cut:], trained=False)] if span[cut:] else []
    return [Segment(span[:cut], trained), *rest]


def _apply(tokenizer: Any, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template is the model's own code and may raise anything
        raise DataError(
            f"data.template=tokenizer: the template must take the row, but {one_line(error, 200)}; "
            f"{OTHER}"
        ) from None
    return str(text)


def _added(longer: str, shorter: str) -> str:
    """The text that the longer rendering adds at the end."""
    if not longer.startswith(shorter):
        raise DataError(
            "data.template=tokenizer: the template must only add to a conversation as it goes on, "
            f"but it rewrites earlier text; {OTHER}"
        )
    return longer[len(shorter) :]
