"""The offline judge: of two answers, the one nearer to the gold answer wins.

Nearer means equal after normalisation, else a higher chrF score (Popovic 2015, by sacrebleu), a
character n-gram F-score that needs no tokenizer and works for any language. The judge is
deterministic and symmetric: each answer gets a score that does not depend on the order.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sacrebleu

from symnoise_ray.errors import DataError
from symnoise_ray.judges.protocol import Pair, Verdict

EXACT = 101.0
"""Score of an answer equal to the gold one: above every chrF score."""


class ReferenceJudge:
    """Prefers the answer that is nearer to the prompt's gold answer."""

    name = "reference-chrf"
    identity: Mapping[str, Any] = {"type": "reference"}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield 1 where the first answer is nearer, 2 where the second is, else 1.5.

        Raises:
            DataError: a prompt has no gold answer.
        """
        for index, pair in enumerate(pairs):
            if not pair.gold.strip():
                raise DataError(
                    f"judge.type=reference needs a gold answer for every prompt, but "
                    f"{pair.instruction[:60]!r} has none"
                )
            first, second = similarity(pair.first, pair.gold), similarity(pair.second, pair.gold)
            yield index, Verdict(1.5 if first == second else 1.0 if first > second else 2.0)


def normalise(text: str) -> str:
    """Compatibility-normalised, lower-cased, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@functools.lru_cache(maxsize=65536)
def similarity(answer: str, gold: str) -> float:
    """chrF in percent, or `EXACT` for an answer that is right to the letter."""
    answer, gold = normalise(answer), normalise(gold)
    if answer == gold:
        return EXACT
    return float(sacrebleu.sentence_chrf(answer, [gold]).score)
