"""Training rows that share a run of words, or a whole request, with the judged prompts.

In: the prompts that are judged, and training examples. Out: whether an example overlaps.
A prompt that is shorter than a run is compared as a whole, since a few common words prove nothing.
Case and punctuation do not count. A Chinese or Japanese character is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from symnoise_ray.data.example import Example

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


class Overlap:
    """All runs of `size` words in some prompts; `example in overlap` looks a training row up."""

    def __init__(self, prompts: Iterable[Example], size: int) -> None:
        self.size = size
        self._runs: set[tuple[str, ...]] = set()
        self._whole: set[tuple[str, ...]] = set()
        for prompt in prompts:
            for text in _requests(prompt):
                self._whole.add(tuple(words(text)))
                self._runs.update(self._runs_of(text))
        self._whole.discard(())

    def __contains__(self, example: Example) -> bool:
        """Whether a request is a prompt, or any text shares a run of words with one."""
        if any(tuple(words(text)) in self._whole for text in _requests(example)):
            return True
        return any(not self._runs.isdisjoint(self._runs_of(text)) for text in _texts(example))

    def _runs_of(self, text: str) -> Iterator[tuple[str, ...]]:
        found = words(text)
        return zip(*(found[start:] for start in range(self.size)), strict=False)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _requests(example: Example) -> Iterator[str]:
    """The request of every turn, the last one with its input."""
    yield from (request for request, _ in example.turns[:-1])
    yield example.instruction


def _texts(example: Example) -> Iterator[str]:
    yield from _requests(example)
    yield from (answer for _, answer in example.turns)
