"""Statistics of a model's answers: length, repetition, diversity, refusals.

In: completions. Out: numbers by name, as score.json and MLflow take them. Repetition and diversity
are those of the NEFTune paper (arXiv 2310.05914, section 5.2), which the SymNoise paper uses too.
They follow either the formula or the code behind the published tables.
"""

from __future__ import annotations

import math
import re
import statistics
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from symnoise_ray.records.completions import Completion

Formula = Literal["exact", "published"]

LARGEST_LOG_DIVERSITY = 20.0
REFUSALS = (
    "i'm sorry, but",
    "i am sorry, but",
    "i cannot",
    "i can't",
    "i can not",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i won't",
    "i apologize, but",
    "i must decline",
    "as an ai",
    "sorry, i can",
    "unfortunately, i can",
)
"""An answer that begins with one of these, whatever the case and the apostrophe, is a refusal."""

_SMALLEST = math.exp(-LARGEST_LOG_DIVERSITY)


class Diversity(NamedTuple):
    """Repeated n-grams of one answer, as fractions for n = 2, 3, 4, and its log-diversity."""

    repetition_2: float
    repetition_3: float
    repetition_4: float
    log_diversity: float


def answer_statistics(
    completions: Sequence[Completion], num_words: int = 50, formula: Formula = "exact"
) -> dict[str, float]:
    """Statistics of all answers to a set of prompts.

    `length_mean` and `length_median` are in code points, `words_mean` in words. `empty_rate` is the
    share of answers that are only white space, `refusal_rate` of those that begin with one of
    `REFUSALS`, and `distinct_rate` of different answers (near 0 if all are the same).
    `compression_ratio` is the UTF-8 bytes of all answers over their zlib bytes (higher: more
    repetitive). `repetition_2` (a fraction) and `log_diversity` are means over the `num_diversity`
    answers of at least `num_words` words, of which the first `num_words` count. Both are left out
    if no answer is that long. Without any answer only `num_answers` is given.

    Args:
        completions: The answers. num_words: C in the paper. The NEFTune paper takes 50 for Alpaca,
        100 for Evol-Instruct, and 150 for ShareGPT and OpenPlatypus. formula: `exact` or
        `published`; see `diversity`.
    """
    texts = [completion.output for completion in completions]
    found: dict[str, float] = {"num_answers": len(texts)}
    if not texts:
        return found
    lengths = [len(text) for text in texts]
    words = [text.split() for text in texts]
    raw = "\n".join(texts).encode("utf-8", errors="surrogatepass")
    found |= {
        "length_mean": statistics.fmean(lengths),
        "length_median": float(statistics.median(lengths)),
        "words_mean": statistics.fmean(map(len, words)),
        "empty_rate": sum(not listed for listed in words) / len(texts),
        "refusal_rate": sum(map(is_refusal, texts)) / len(texts),
        "distinct_rate": len(set(texts)) / len(texts),
        "compression_ratio": len(raw) / len(zlib.compress(raw, 9)),
    }
    kept = [diversity(listed[:num_words], formula) for listed in words if len(listed) >= num_words]
    found["num_diversity"] = len(kept)
    if kept:
        found["repetition_2"] = statistics.fmean(each.repetition_2 for each in kept)
        found["log_diversity"] = statistics.fmean(each.log_diversity for each in kept)
    return found


def diversity(words: Sequence[str], formula: Formula = "exact") -> Diversity:
    """Repetition and log-diversity of one answer, given as words.

    rep_n = 1 - distinct n-grams / n-grams; log-diversity = -ln(1 - prod(1 - rep_n)) over
    n = 2, 3, 4, at most 20. `published` follows the code that the papers used (lm-watermarking,
    watermark_reliability_release/metrics/repetition_diversity.py): it leaves out the last n-gram,
    and takes rep_n / 100 in the product, as if the fraction were a percentage. That adds up to
    ln 100 = 4.6 to the log-diversity; use it only to compare with the published tables.

    An answer without n-grams (fewer than 5 words have no 4-grams in one formula) has rep_n = 0.
    """
    last = 1 if formula == "published" else 0
    two, three, four = (_repetition(words, n, last) for n in (2, 3, 4))
    divisor = 100 if formula == "published" else 1
    kept = math.prod(1 - rate / divisor for rate in (two, three, four))
    return Diversity(two, three, four, -math.log(max(1 - kept, _SMALLEST)))


def _repetition(words: Sequence[str], n: int, num_left_out: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1 - num_left_out)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def is_refusal(text: str) -> bool:
    """Whether an answer begins with a phrase of `REFUSALS`; its meaning is not judged."""
    plain = re.sub(r"\s+", " ", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return plain.strip().lower().startswith(REFUSALS)
