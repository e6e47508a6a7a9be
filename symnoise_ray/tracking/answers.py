"""A trial's answers and the verdicts on them, prompt by prompt, as the tracker shows them.

In: completions.jsonl and preferences.jsonl of a trial. Out: one `Judged` per prompt.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.layout import COMPLETIONS, PREFERENCES
from symnoise_ray.records.preferences import Preference, read_annotations
from symnoise_ray.statistics.win_rate import item_scores


class Judged(NamedTuple):
    """One prompt: the trial's answer, and how it compares with the reference's.

    `score` is 1 for a win, 0 for a loss, the mean over both orders; None where the judge gave no
    number. `reasons` has the verdict of each order and the reference's answer, in words.
    """

    item: int
    requests: tuple[str, ...]
    answer: str
    gold: str
    judge: str
    score: float | None
    reasons: str

    @property
    def verdict(self) -> str:
        """`win`, `loss`, `tie`, or `none` without a number."""
        if self.score is None:
            return "none"
        return "tie" if self.score == 0.5 else "win" if self.score > 0.5 else "loss"


def judged_answers(directory: Path) -> list[Judged]:
    """The answers of a trial that were judged, in the order of the prompts.

    Those of the last trial are kept, since its answers are asked for a hundred at a time.

    Raises:
        DataError: a file of the trial cannot be read.
    """
    files = [directory / COMPLETIONS, directory / PREFERENCES]
    stamps = tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
    return list(_judged(directory, stamps))


@lru_cache(maxsize=1)
def _judged(directory: Path, _stamps: tuple[int, ...]) -> tuple[Judged, ...]:
    answers = read_completions(directory / COMPLETIONS)
    verdicts: dict[int, list[Preference]] = {}
    for each in read_annotations(directory / PREFERENCES):
        verdicts.setdefault(each.item, []).append(each)
    scores = item_scores([each for rows in verdicts.values() for each in rows])[0]
    return tuple(
        Judged(
            item,
            answers[item].requests,
            answers[item].output,
            answers[item].gold,
            rows[0].annotator,
            scores.get(item),
            _reasons(rows),
        )
        for item, rows in sorted(verdicts.items())
    )


def _reasons(rows: list[Preference]) -> str:
    lines = [f"{each.order}: {_word(each.preference)}" for each in rows]
    return "\n".join([*lines, f"The reference ({rows[0].generator_1}) answered:", rows[0].output_1])


def _word(preference: float | None) -> str:
    if preference is None:
        return "no verdict"
    return f"{preference - 1:.3g} of 1 for the trial"
