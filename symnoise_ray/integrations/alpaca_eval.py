"""A finished sweep's answers and verdicts as the files that AlpacaEval's own tools read and write.

In: the directory of a sweep. Out: a folder. A leaderboard of AlpacaEval has one reference, and the
trials of a confirmation have several, so each reference has a folder of its own:

    FOLDER/REFERENCE/reference_outputs.json
    FOLDER/REFERENCE/results/TRIAL/model_outputs.json
    FOLDER/REFERENCE/results/TRIAL/ANNOTATOR/annotations.json

An item is one row, as in AlpacaEval. Judged in both orders, its preference is the mean of both, so
the win rate is that of the trial. Where a verdict failed, it is null, as AlpacaEval writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symnoise_ray.errors import DataError, UserError
from symnoise_ray.records.completions import Completion, read_completions
from symnoise_ray.records.files import file_name, require_folder, write_json
from symnoise_ray.records.layout import (
    COMPLETIONS,
    PREFERENCES,
    preferences_against,
    trial_directory,
)
from symnoise_ray.records.preferences import Preference, read_annotations
from symnoise_ray.records.results import INTERRUPTED, SweepResult, TrialResult, read_sweep
from symnoise_ray.statistics.win_rate import item_scores

OUTPUT = ("dataset", "instruction", "output", "generator")
"""AlpacaEval's columns of an answer."""
ANNOTATION = (
    *("instruction", "output_1", "generator_1", "dataset"),
    *("output_2", "generator_2", "annotator", "preference"),
)
"""AlpacaEval's columns of a verdict; those about the price and the raw reply are not known here."""


@dataclass(frozen=True)
class Judged:
    """A trial's answers, and its verdicts against one reference."""

    trial: str
    answers: list[Completion]
    preferences: list[Preference]

    @property
    def reference(self) -> str:
        """The name of what it was judged against."""
        return self.preferences[0].generator_1


def export_answers(
    directory: Path, folder: Path, arm: str | None = None, *, searched: bool = False
) -> list[Judged]:
    """Write the judged trials of a sweep into a new folder.

    Args:
        directory: Of the sweep.
        folder: That is written; it must be empty or not there.
        arm: Of the trials; by default those of every arm.
        searched: Whether the trials of the search are written beside those of the confirmation.

    Returns:
        What was written: one for each trial and reference.

    Raises:
        UserError: there is no finished sweep or no such trial, the folder holds something, or a
            prompt has no form in AlpacaEval; nothing was created.
        DataError: a file of the sweep is broken.
    """
    _require_empty(folder)
    result = read_sweep(directory)
    trials = _chosen(result, arm, searched)
    judged = [each for trial in trials for each in _judged(directory, trial.trial)]
    for each in judged:
        _require_sayable(each)
    folders = _folders(judged)
    require_folder(folder, "--output")
    for name, place in folders.items():
        own = [each for each in judged if each.reference == name]
        _write(own, folder / place)
    return judged


def _require_empty(folder: Path) -> None:
    if not folder.exists():
        return
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held or not folder.is_dir():
        came = f"holds {held[0]}" if held else "is a file"
        raise UserError(
            f"--output {folder}: must be a new or an empty folder, but {came}; name another one"
        )


def _chosen(result: SweepResult, arm: str | None, searched: bool) -> list[TrialResult]:
    """The trials to write."""
    directory = result.paths.directory
    if result.status == INTERRUPTED:
        raise UserError(
            f"{directory}: must be a sweep that has come to its end, but it was interrupted or "
            "runs now; finish it with --resume"
        )
    ended = [each for each in result.trials if each.is_done]
    found = [each for each in ended if searched or each.part == "confirm"]
    if not found:
        rest = "; give --all for those of the search" if ended else ""
        raise UserError(
            f"{directory}: must have finished trials of the confirmation, but has none{rest}"
        )
    arms = dict.fromkeys(each.arm for each in found)
    if arm is not None and arm not in arms:
        raise UserError(f"{directory}: --arm must be one of {', '.join(arms)}, but got {arm!r}")
    return [each for each in found if arm in (None, each.arm)]


def _judged(directory: Path, trial: str) -> Iterator[Judged]:
    """A trial's verdicts, reference by reference."""
    place = trial_directory(directory, trial)
    answers = read_completions(place / COMPLETIONS)
    by_reference: dict[str, Judged] = {}
    # Where judging stopped early against an opponent that was met in full later, the latter counts.
    for path in (place / PREFERENCES, *sorted(place.glob(preferences_against("*")))):
        each = Judged(trial, answers, read_annotations(path))
        by_reference[each.reference] = each
    yield from by_reference.values()


def _require_sayable(judged: Judged) -> None:
    """Refuse prompts that AlpacaEval's files cannot hold.

    Raises:
        UserError: with the prompt.
    """
    for answer in judged.answers:
        if answer.turns:
            raise UserError(
                "--to alpaca_eval: every prompt must be a single request, as in AlpacaEval, but "
                f"{answer.instruction[:60]!r} of {judged.trial} is the end of a conversation"
            )
    asked = Counter(answer.instruction for answer in judged.answers)
    twice, count = asked.most_common(1)[0]
    if count > 1:
        raise UserError(
            "--to alpaca_eval: every instruction must come once, since AlpacaEval joins answers "
            f"by it, but {twice[:60]!r} comes {count} times in {judged.trial}"
        )


def _folders(judged: Iterable[Judged]) -> dict[str, str]:
    """Reference -> its folder.

    Raises:
        DataError: two would share one.
    """
    names = dict.fromkeys(each.reference for each in judged)
    folders = {name: file_name(name) for name in names}
    shared, count = Counter(folders.values()).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"--to alpaca_eval: references must differ in name, but {count} are {shared}"
        )
    return folders


def _write(judged: list[Judged], folder: Path) -> None:
    """The files of one reference and of all that was judged against it."""
    met = {p.instruction: p for each in judged for p in each.preferences}
    reference = [
        Completion(p.instruction, p.output_1, p.generator_1, p.dataset) for p in met.values()
    ]
    write_json(_outputs(reference), folder / "reference_outputs.json")
    for each in judged:
        place = folder / "results" / each.trial
        annotator = file_name(each.preferences[0].annotator)
        write_json(_outputs(each.answers), place / "model_outputs.json")
        write_json(annotation_rows(each.preferences), place / annotator / "annotations.json")


def _outputs(answers: Iterable[Completion]) -> list[dict[str, str]]:
    return [{name: getattr(answer, name) for name in OUTPUT} for answer in answers]


def annotation_rows(preferences: Iterable[Preference]) -> list[dict[str, Any]]:
    """AlpacaEval's rows of some verdicts: one an item, with the mean of its preferences.

    `num_items` is a further column where judging stopped early, so that it is not taken for a whole
    set.
    """
    preferences = list(preferences)
    scores = item_scores(preferences)[0]
    firsts: dict[int, Preference] = {}
    for each in preferences:
        firsts.setdefault(each.item, each)
    rows = []
    for item, first in firsts.items():
        mean = 1 + scores[item] if item in scores else None
        row = {name: getattr(first, name) for name in ANNOTATION} | {"preference": mean}
        rows.append(row | ({"num_items": first.num_items} if first.num_items else {}))
    return rows
