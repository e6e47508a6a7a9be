"""Where the answers of a conversation lie in what a chat template made of it.

In: a conversation as messages, and its rendering with words of our own in place of the answers.
Out: the places of the answers, and the rendering cut into segments. Since only the words are looked
for, a template may trim texts, leave out thoughts, and rewrite earlier turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from symnoise_ray.data.example import THOUGHTS, Example
from symnoise_ray.data.templates import Segment

Messages = list[dict[str, str]]


class Answer(NamedTuple):
    """The place of an answer: its first character, and the one behind its last.

    `ended` says that the end-of-text token must be added, because the template sets no end.
    """

    begin: int
    end: int
    ended: bool = False


class Word(NamedTuple):
    """A word, the part of an answer that it stands for, and what the answer has around the part.

    That is white space, and the tag before thoughts. A template may keep it or leave it out.
    """

    word: str
    part: str
    before: str = ""
    behind: str = ""


@dataclass(frozen=True)
class Talk:
    """A conversation as messages, once with its answers and once with words in their place.

    `words` lists the words of each answer: one, or two where it has thoughts, or none where it is
    blank. The last answer of a prompt is a word in both, since nobody knows it.
    """

    messages: Messages
    masked: Messages
    words: list[list[Word]]

    @classmethod
    def of(cls, example: Example, *, prompt: bool, thinking: bool) -> Talk:
        """The messages of an example; with `prompt`, words stand for its last answer, and for its
        thoughts where answers begin with such."""
        texts = [example.system, *example.requests, *(answer for _, answer in example.turns)]
        stem = "qanswer"
        while any(stem in text for text in texts):
            stem += "q"
        system = [{"role": "system", "content": example.system}] if example.system else []
        messages, masked, words = list(system), list(system), []
        for turn, (request, (_, answer)) in enumerate(
            zip(example.requests, example.turns, strict=True)
        ):
            word, thoughts = f"{stem}z{turn}z", f"{stem}z{turn}thoughtsz"
            if prompt and turn == len(example.turns) - 1:
                answer = f"<think>\n{thoughts}\n</think>\n\n{word}" if thinking else word
            content, found = _masked(answer, word, thoughts)
            words.append(found)
            for talk, text in ((messages, answer), (masked, content)):
                talk.append({"role": "user", "content": request})
                talk.append({"role": "assistant", "content": text})
        return cls(messages, masked, words)

    def with_last_masked(self) -> Talk:
        """The same conversation with words in place of the last answer alone."""
        masked = [*self.messages[:-1], self.masked[-1]]
        return Talk(self.messages, masked, [*([] for _ in self.words[:-1]), self.words[-1]])

    @property
    def system(self) -> str:
        """The text of the system message, trimmed; empty without one."""
        first = self.messages[0]
        return first["content"].strip() if first["role"] == "system" else ""

    @property
    def requests(self) -> list[str]:
        """The texts of the requests, trimmed."""
        return [each["content"].strip() for each in self.messages if each["role"] == "user"]

    def fill(self, text: str) -> str:
        """A text with the answers in place of their words."""
        for words in self.words:
            for each in words:
                text = text.replace(each.word, each.part)
        return text


def _masked(answer: str, word: str, thoughts: str) -> tuple[str, list[Word]]:
    """An answer with words in place of its parts; white space and tags of thoughts stay."""
    match = THOUGHTS.fullmatch(answer)
    if match is None or not match[4].strip():
        return _put(answer, word)
    thought, first = _put(match[2], thoughts)
    rest, second = _put(match[4], word)
    first = [each._replace(before=match[1] + each.before) for each in first]
    return f"{match[1]}{thought}{match[3]}{rest}", [*first, *second]


def _put(text: str, word: str) -> tuple[str, list[Word]]:
    """A text with a word in place of all but the white space around it."""
    part = text.strip()
    if not part:
        return text, []
    before, _, behind = text.partition(part)
    return f"{before}{word}{behind}", [Word(word, part, before, behind)]


def find_answers(
    text: str, asked: str, words: Sequence[Sequence[Word]], *, thinking: bool
) -> list[Answer | None]:
    """The places of the answers, or None where one is not there.

    White space that stands between the generation prompt and the last answer belongs to the answer,
    as the model has to write it; so it does before the earlier ones. Other text there belongs to
    the prompt, unless the answers begin with their thoughts.

    Args:
        text: The rendering, with the words of the answers.
        asked: The generation prompt of the last answer.
        words: The words of each answer.
        thinking: Whether the answers of the data set begin with their thoughts.
    """
    found = [_place(text, each) for each in words]
    *earlier, last = found
    if last is None or not text.startswith(asked):
        return found
    opening = text[len(asked) : last.begin]
    if opening.strip() and not thinking:
        return found
    moved = [each and each._replace(begin=_before(text, each.begin, opening)) for each in earlier]
    return [*moved, last._replace(begin=len(asked))]


def _place(text: str, words: Sequence[Word]) -> Answer | None:
    """From the first word of an answer that is there to its last, which must be there.

    What the answer has before its thoughts and behind its end is its own too. White space before
    its beginning is not, since it cannot be told from that of the template.
    """
    there = [each for each in words if each.word in text]
    if not there or there[-1] is not words[-1]:
        return None
    begin = _before(text, text.index(there[0].word), there[0].before.lstrip())
    end = text.index(there[-1].word) + len(there[-1].word)
    return Answer(begin, end + len(there[-1].behind) * text.startswith(there[-1].behind, end))


def _before(text: str, begin: int, opening: str) -> int:
    """Where an opening begins that ends at a place, or the place if it is not there."""
    return begin - len(opening) if text.endswith(opening, 0, begin) else begin


class Ends(NamedTuple):
    """What may end a turn: the added tokens of the tokenizer, and its end-of-text token.

    `requests` are those of the conversation: a token that also ends a request is the end of a turn,
    and not the beginning of the next one.
    """

    tokens: tuple[str, ...]
    end_of_text: str | None
    requests: list[str]


def with_ends(text: str, answers: Sequence[Answer | None], ends: Ends) -> list[Answer | None]:
    """The answers with the tokens behind them that end their turns."""
    *earlier, last = answers
    if last is None:
        return list(answers)
    rest = text[last.end :]
    if ends.end_of_text and ends.end_of_text in rest:
        closing = rest[: rest.index(ends.end_of_text) + len(ends.end_of_text)]
    else:
        closing = _through_token(rest, ends.tokens)
    found = [
        each and each._replace(end=each.end + len(_closing(text, each, closing, rest, ends)))
        for each in earlier
    ]
    if closing:
        return [*found, last._replace(end=last.end + len(closing))]
    return [*found, Answer(last.begin, len(text), ended=True)]


def _closing(text: str, answer: Answer, last: str, rest: str, ends: Ends) -> str:
    """What ends an earlier answer; `last` is what ends the last one, `rest` all that follows it."""
    after = text[answer.end :]
    if not last:
        pairs = zip(after, rest, strict=False)
        return "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    if after.startswith(last):
        return last
    closing = _through_token(after, ends.tokens)
    known = any(request + closing.strip() in text for request in ends.requests)
    return closing if closing and known else ""


def _through_token(text: str, tokens: Sequence[str]) -> str:
    """The text up to the end of the token that it begins with, after white space; else nothing."""
    begun = text.lstrip()
    found = max((token for token in tokens if begun.startswith(token)), key=len, default="")
    return text[: len(text) - len(begun) + len(found)] if found else ""


def cut(text: str, answers: Sequence[Answer | None], trained: Sequence[bool]) -> list[Segment]:
    """The text in segments: every answer is one, and so is every piece between two of them."""
    segments: list[Segment] = []
    done = 0
    for answer, learned in zip(answers, trained, strict=True):
        if answer is None:
            continue
        segments.append(Segment(text[done : answer.begin], trained=False))
        segments.append(Segment(text[answer.begin : answer.end], learned, ended=answer.ended))
        done = answer.end
    return [*segments, *([Segment(text[done:], trained=False)] if text[done:] else [])]
