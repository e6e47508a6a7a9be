"""What a model's answers look like, beside how often they win: length, repetition, refusals.

In: completions. Out: numbers by name, as score.json and MLflow take them. The repetition and
diversity are those of the NEFTune paper (arXiv 2310.05914, section 5.2), which the SymNoise paper
takes over, once by their formula and once as the code behind the published tables computes them.
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

    `length_mean` and `length_median` are in code points, `words_mean` in words; `empty_rate`
    counts answers of nothing but white space, `refusal_rate` those that begin with one of
    `REFUSALS`, `distinct_rate` different answers among all (a constant answer has nearly none);
    `compression_ratio` is the UTF-8 bytes of all answers over their zlib bytes (higher: more
    repetitive). `repetition_2` (a fraction) and `log_diversity` are means over the
    `num_diversity` answers of at least `num_words` words, of which the first `num_words` count.
    Both are left out where no answer is that long, and everything but `num_answers` where
    there is no answer.

    Args:
        completions: The answers.
        num_words: C. The NEFTune paper takes 50 for Alpaca, 100 for Evol-Instruct, and 150 for
            ShareGPT and OpenPlatypus.
        formula: As `diversity` takes it.
    """
    texts = [completion.output for completion in completions]
    told: dict[str, float] = {"num_answers": len(texts)}
    if not texts:
        return told
    lengths = [len(text) for text in texts]
    words = [text.split() for text in texts]
    raw = "\n".join(texts).encode("utf-8", errors="surrogatepass")
    told |= {
        "length_mean": statistics.fmean(lengths),
        "length_median": float(statistics.median(lengths)),
        "words_mean": statistics.fmean(map(len, words)),
        "empty_rate": sum(not listed for listed in words) / len(texts),
        "refusal_rate": sum(map(is_refusal, texts)) / len(texts),
        "distinct_rate": len(set(texts)) / len(texts),
        "compression_ratio": len(raw) / len(zlib.compress(raw, 9)),
    }
    kept = [diversity(listed[:num_words], formula) for listed in words if len(listed) >= num_words]
    told["num_diversity"] = len(kept)
    if kept:
        told["repetition_2"] = statistics.fmean(each.repetition_2 for each in kept)
        told["log_diversity"] = statistics.fmean(each.log_diversity for each in kept)
    return told


def diversity(words: Sequence[str], formula: Formula = "exact") -> Diversity:
    """Repetition and log-diversity of one answer, given as words.

    rep_n = 1 - distinct n-grams / n-grams; log-diversity = -ln(1 - prod(1 - rep_n)) over
    n = 2, 3, 4, at most 20. `published` follows the code that the papers used (lm-watermarking,
    watermark_reliability_release/metrics/repetition_diversity.py): it leaves out the last n-gram,
    and takes rep_n / 100 in the product, as if the fraction were a percentage. That adds up to
    ln 100 = 4.6 to the log-diversity; compare with published tables by it, with nothing else.

    Fewer than 5 words have no 4-grams for one of the formulas; what has no n-grams repeats none.
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
    """Whether an answer begins with a refusal: a phrase of `REFUSALS`, no judgement of meaning."""
    plain = re.sub(r"\s+", " ", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return plain.strip().lower().startswith(REFUSALS)
