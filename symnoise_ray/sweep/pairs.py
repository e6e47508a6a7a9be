"""Answers of two trials judged against each other, after both have ended.

In: the directory of a trial and the answers of another. Out: preferences, kept in the trial's
directory, so that a sweep that goes on judges no pair twice.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.judging import judge_all, require_coverage
from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.files import read_json, write_json, write_lines
from symnoise_ray.records.layout import COMPLETIONS, TRIALS, preferences_against, usage_against
from symnoise_ray.records.preferences import Preference, read_annotations


def judge_pair(
    trial: Path, answers: Path, judges: JudgeSource, config: JudgeConfig
) -> list[Preference]:
    """Preferences of one trial's answers over another's to the same prompts, every prompt judged.

    Args:
        trial: Directory of the trial whose win rate this is.
        answers: The other's answers: in its directory, or any file of answers.
        judges: Where the judge comes from.
        config: The judge's settings.

    Raises:
        JudgeError: too few verdicts could be had.
    """
    path = _path(trial, answers)
    if path.exists():
        return read_annotations(path)
    judged = judge_all(
        judges.judge(),
        read_completions(trial / COMPLETIONS),
        read_completions(answers),
        min_coverage=config.min_coverage,
        orders=config.orders,
    )
    require_coverage(judged, config.min_coverage)
    if judged.usage.calls:
        write_json(asdict(judged.usage), trial / usage_against(_name(answers)))
    write_lines(judged.preferences, path)
    return judged.preferences


def is_judged(trial: Path, answers: Path) -> bool:
    """Whether a trial was judged against those answers by `judge_pair`."""
    return _path(trial, answers).exists()


def spent_on_pairs(sweep: Path) -> list[dict[str, int]]:
    """What the pairs of a sweep cost: calls and tokens of each that cost something."""
    return [read_json(path) for path in (sweep / TRIALS).glob(f"*/{usage_against('*')}")]


def _path(trial: Path, answers: Path) -> Path:
    return trial / preferences_against(_name(answers))


def _name(answers: Path) -> str:
    return answers.parent.name if answers.name == COMPLETIONS else answers.stem
