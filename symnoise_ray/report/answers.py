"""The confirmation's answers side by side with the reference's, for the page to search.

In: the preferences and completions of the confirmed trials. Out: plain values: each text once, and
entries that name texts by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.records.files import read_lines
from symnoise_ray.records.layout import COMPLETIONS, PREFERENCES
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report import words
from symnoise_ray.report.section import cleaned, shortened
from symnoise_ray.statistics.words import arm_words

MOST_CHARACTERS = 4_000_000
"""Characters of different texts, after which no further seed is added."""


class Entry(NamedTuple):
    """An answer of a trial beside the reference's; texts by their numbers.

    `outcome` is `won`, `lost`, `tie`, or `none` where there is no valid verdict.
    """

    instruction: int
    gold: int
    reference: int
    answer: int
    outcome: str
    arm: str
    topic: str
    seed: int
    trial: str
    opponent: str


class Answers(NamedTuple):
    """What the page shows: different texts, entries over them, and what they are of, in words."""

    texts: tuple[str, ...]
    entries: tuple[Entry, ...]
    note: str


def confirmed_answers(results: SweepResult) -> Answers | None:
    """The answers to all confirmed prompts, of as many seeds as a page can hold, one at least.

    Without a confirmation, those of the searched trial that won most, the reference left out; None
    if there is none.
    """
    trials, note = _confirmed(results), CONFIRMED
    if not trials and (best := _best_searched(results)):
        trials, note = [best], SEARCHED.format(cleaned(arm_words(results.verdict, best.arm)))
    texts: dict[str, int] = {}
    entries: list[Entry] = []
    seeds = sorted({trial.seed for trial in trials})
    shown = []
    for seed in seeds:
        if sum(map(len, texts)) > MOST_CHARACTERS:
            break
        shown.append(seed)
        for trial in trials:
            if trial.seed == seed:
                entries += _entries(results.paths.trial(trial.trial), trial, texts)
    if not entries:
        return None
    if len(shown) < len(seeds):
        note += FEWER.format(len(shown), len(seeds))
    return Answers(tuple(texts), tuple(entries), note)


CONFIRMED = (
    "Every confirmed prompt, with the trial's answer beside the reference's of the same seed."
)
SEARCHED = (
    "Nothing was confirmed, so these are the answers of the search's best trial, the reference's "
    "left out. Its arm is {}, and its win rate is flattered."
)
FEWER = (
    " These are the first {} of {} seeds; the others lie in the trials' folders, as "
    f"{PREFERENCES}."
)


def _confirmed(results: SweepResult) -> list[TrialResult]:
    """Confirmed trials of the arms, without those of the reference."""
    reference = results.verdict.reference
    return [trial for trial in results.part("confirm") if trial.is_done and trial.arm != reference]


def _best_searched(results: SweepResult) -> TrialResult | None:
    """The searched trial of an arm that won most; a baseline where nothing was searched.

    The reference is no arm. Its own trial is known even where the sweep was killed and left no
    verdict that names it.
    """
    reference = results.verdict.reference
    rated = [
        trial
        for trial in results.part("search")
        if trial.win_rate is not None and trial.arm != reference and not trial.is_reference
    ]
    return max(rated, key=lambda trial: (not trial.baseline, trial["win_rate"]), default=None)


def _entries(directory: Path, trial: TrialResult, texts: dict[str, int]) -> Iterator[Entry]:
    golds = [row.get("gold") or "" for row in read_lines(directory / COMPLETIONS)]
    by_item: dict[int, list[dict[str, Any]]] = {}
    for row in read_lines(directory / PREFERENCES):
        by_item.setdefault(row["item"], []).append(row)

    def number(text: object) -> int:
        return texts.setdefault(shortened(text), len(texts))

    for item, (first, *others) in sorted(by_item.items()):
        asked = [*(first.get("earlier_requests") or ()), first["instruction"]]
        yield Entry(
            number("\n\n".join(map(str, asked))),
            number(golds[item] if item < len(golds) else ""),
            number(first["output_1"]),
            number(first["output_2"]),
            outcome([row["preference"] for row in (first, *others)]),
            cleaned(trial.arm),
            cleaned(first.get("dataset") or ""),
            trial.seed,
            cleaned(f"{trial.trial}: {words.setting(trial)}"),
            cleaned(first["generator_1"]),
        )


def outcome(preferences: Sequence[float | None]) -> str:
    """How an item ended for the trial over both orders."""
    valid = [preference for preference in preferences if preference is not None]
    if not valid or len(valid) < len(preferences):
        return "none"
    mean = sum(valid) / len(valid)
    return "tie" if mean == 1.5 else "won" if mean > 1.5 else "lost"
