"""The chat template of the tokenizer: which text is the prompt, and which text is an answer.

In: an example and a tokenizer. Out: segments of text. The template renders the whole conversation
at once, so it may write earlier turns in another way than when they were the last ones. Answers lie
where `chat_answers` finds them; where the template marks what is trained on (`{% generation %}`, a
tag of Hugging Face's), answers that it leaves out are not. A prompt is the beginning of its row up
to the last answer, so it has exactly the text that it had in training.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from symnoise_ray.data.chat_answers import (
    Answer,
    Ends,
    Messages,
    Talk,
    cut,
    find_answers,
    with_ends,
)
from symnoise_ray.data.example import Example
from symnoise_ray.data.formats import RowError
from symnoise_ray.data.templates import THINKING, Segment
from symnoise_ray.errors import DataError, one_line

OTHER = "choose another data.template, such as alpaca or a file"
_MARKS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


def render_chat(
    example: Example, tokenizer: Any, template: str, *, prompt: bool = False
) -> list[Segment]:
    """All turns as the chat template renders them; with `prompt`, all but the last answer.

    An answer is trained on up to the token that ends its turn, which is included. Where the
    template sets none, the last answer gets the end-of-text token, because generation would not end
    otherwise. What the template itself sets before an answer, such as an empty block of thoughts,
    belongs to the prompt.

    Args:
        example: The conversation.
        tokenizer: A tokenizer of transformers.
        template: `TOKENIZER`; or `THINKING`, where answers begin with their thoughts: then the
            prompt ends where the template's own generation prompt does.
        prompt: Whether the last answer is left out.

    Raises:
        DataError: there is no template.
        RowError: the template fails, or leaves out or changes what must be in the row.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"data.template=tokenizer: the tokenizer of {tokenizer.name_or_path} must have a chat "
            f"template, but it has none; {OTHER}"
        )
    talk, text, answers = _found(example, tokenizer, template, prompt)
    _require_whole(example, talk, text, answers, prompt)
    *earlier, last = with_ends(text, answers, _ends(tokenizer, talk))
    if last is not None and template == THINKING and not prompt:
        _require_prompt(example, tokenizer, talk.fill(text[: last.begin]))
    marked = _marked(tokenizer, talk)
    trained = [example.is_trained(turn) and marked[turn] for turn in range(len(marked))]
    segments = cut(text, [*earlier, last], trained)
    if last is not None and prompt:
        segments = cut(text[: last.begin], earlier, trained[:-1])
    return [segment._replace(text=talk.fill(segment.text)) for segment in segments]


def _found(
    example: Example, tokenizer: Any, template: str, prompt: bool
) -> tuple[Talk, str, list[Answer | None]]:
    """The conversation, its rendering with words in place of the answers, and where they lie."""
    talk = Talk.of(example, prompt=prompt, thinking=template == THINKING)
    text = _apply(tokenizer, talk.masked)
    if talk.fill(text) != _apply(tokenizer, talk.messages):
        if not prompt:
            raise _broken("keep answers", "it changes one")
        talk = talk.with_last_masked()  # the model's own earlier answers may be anything
        text = _apply(tokenizer, talk.masked)
    asked = _apply(tokenizer, talk.masked[:-1], add_generation_prompt=True)
    if talk.system not in text and talk.system in asked:
        text = _asked_and_answered(asked, text, talk)
    if any(text.count(each.word) > 1 for words in talk.words for each in words):
        raise _broken("write every answer once", "it repeats one")
    return talk, text, find_answers(text, asked, talk.words, thinking=template == THINKING)


def _marked(tokenizer: Any, talk: Talk) -> list[bool]:
    """Whether each answer is in what the template marks for training; without marks, all are."""
    template = tokenizer.get_chat_template()
    if not _MARKS.search(template):
        return [True] * len(talk.words)
    from transformers.utils.chat_template_utils import render_jinja_template  # slow

    (text,), (marks,) = render_jinja_template(
        [talk.masked],
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    inside = "\n".join(text[begin:end] for begin, end in marks)
    return [bool(words) and words[-1].word in inside for words in talk.words]


def _require_prompt(example: Example, tokenizer: Any, begun: str) -> None:
    """Refuse a row with thoughts that does not begin as its prompt does."""
    asked = render_chat(example, tokenizer, THINKING, prompt=True)
    if "".join(segment.text for segment in asked) != begun:
        raise _broken("begin every answer as generation does", "it begins this one otherwise")


def _asked_and_answered(asked: str, text: str, talk: Talk) -> str:
    """The generation prompt and behind it the last answer, as the template writes answers.

    Some templates set the system message before the last request, and only as long as that has no
    answer. Then the prompt of generation has it, and so must the row.
    """
    word = talk.words[-1][0].word if talk.words[-1] else ""
    before, found, after = text.partition(word) if word else (text, "", "")
    opened, request = before.rstrip(), talk.requests[-1]
    if not found or request not in opened or not asked.endswith(opened[opened.rindex(request) :]):
        raise _broken("keep the system message", "it drops it")
    return asked + before[len(opened) :] + found + after


def _require_whole(
    example: Example, talk: Talk, text: str, answers: list[Answer | None], prompt: bool
) -> None:
    """Refuse a rendering without something that the row is about."""
    if talk.system not in text:
        raise _broken("keep the system message", "it drops it")
    last = len(answers) - 1
    for turn, (answer, words) in enumerate(zip(answers, talk.words, strict=True)):
        learned = turn == last if prompt else example.is_trained(turn) and bool(words)
        if learned and answer is None:
            raise _broken("keep answers", "it drops one")
        # The rendering holds words where they were looked for, and the parts where it has marks.
        kept = all(each.word in text or each.part in text for each in words)
        if learned and turn == last and not kept:
            raise _broken("keep the thoughts of the last answer", "it drops them")


def _apply(tokenizer: Any, messages: Messages, *, add_generation_prompt: bool = False) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template is the model's own code and may raise anything
        raise _failed(error) from None
    return str(text)


def _failed(error: Exception) -> RowError:
    return _broken("take the row", one_line(error, 200))


def _broken(rule: str, came: str) -> RowError:
    return RowError(f"data.template=tokenizer: the template must {rule}", f"{came}; {OTHER}")


def _ends(tokenizer: Any, talk: Talk) -> Ends:
    return Ends(_added_tokens(tokenizer), tokenizer.eos_token, talk.requests)


@functools.lru_cache(maxsize=4)
def _added_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts of the tokens that are in no word, such as those that begin and end turns."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values())
