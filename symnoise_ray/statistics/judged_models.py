"""Judged models against their reference and against each other, from their preferences alone.

In: the preferences of one or several models that were judged against the same answers. Out:
comparisons, paired by prompt and Holm-corrected over all of them, and the verdict in words. The
verdict is about these models; the confirmation of a sweep covers another training as well.

Shape letters: P prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from symnoise_ray.errors import DataError, JudgeError, UserError
from symnoise_ray.records.completions import Prompt
from symnoise_ray.records.preferences import Preference
from symnoise_ray.records.verdict import Comparison
from symnoise_ray.statistics.comparison import compare
from symnoise_ray.statistics.win_rate import item_scores
from symnoise_ray.statistics.words import ONE_SEED, in_points, verdict_text


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, all of the same number of parts, that all differ.

    Raises:
        UserError: a file comes twice.
    """
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise UserError(f"each file must be given once, but {path} comes twice")
    parts = [path.absolute().parts for path in paths]
    tails = ([str(Path(*each[-size:])) for each in parts] for size in itertools.count(1))
    return next(ends for ends in tails if len(set(ends)) == len(ends))


def stopped_early(preferences: Sequence[Preference]) -> str:
    """The sentence about judging that stopped early; empty if it did not stop early.

    It stopped because of the scores so far, so the usual intervals and tests do not hold.
    """
    num_judged = len({p.item for p in preferences})
    num_items = max((p.num_items for p in preferences), default=0)
    if num_judged >= num_items:
        return ""
    return (
        f"judging stopped early, after {num_judged} of {num_items} items, so the win rate is "
        "flattered and there is no verdict; judge the rest with judge.early=false"
    )


def standings(judged: Mapping[str, Sequence[Preference]]) -> list[Comparison]:
    """Every model against the reference, then the others against the first, on common prompts.

    Args:
        judged: Name of the model -> its preferences.

    Raises:
        JudgeError: a model has no verdict at all.
        DataError: the models share no prompt with a verdict, or were judged against different
            answers, or their judging stopped early.
    """
    for name, preferences in judged.items():
        if stopped := stopped_early(preferences):
            raise DataError(f"{name}: {stopped}")
    _require_one_reference(judged)
    by_model = {name: _prompt_scores(name, preferences) for name, preferences in judged.items()}
    common = sorted(set.intersection(*map(set, by_model.values())))
    if not common:
        raise DataError(f"{', '.join(judged)}: must share a prompt that has verdicts, but do not")
    scores = {
        name: np.array([[known[prompt]] for prompt in common]) for name, known in by_model.items()
    }
    first, *others = scores
    return compare(
        scores, contrasts={(name, first): scores[name] - scores[first] for name in others}
    )


def _prompt_scores(name: str, preferences: Sequence[Preference]) -> dict[Prompt, float]:
    """Prompt -> mean score of its items."""
    prompts = {p.item: p.prompt for p in preferences}
    by_prompt: dict[Prompt, list[float]] = {}
    scores_by_item, num_invalid, _ = item_scores(preferences)
    if not scores_by_item:
        raise JudgeError(
            f"{name}: at least one item must have a verdict, but none of {num_invalid} has"
        )
    for item, score in scores_by_item.items():
        by_prompt.setdefault(prompts[item], []).append(score)
    return {prompt: sum(scores) / len(scores) for prompt, scores in by_prompt.items()}


def _require_one_reference(judged: Mapping[str, Sequence[Preference]]) -> None:
    (first, known), *others = (
        (name, {(p.prompt, p.output_1) for p in preferences})
        for name, preferences in judged.items()
    )
    for name, answers in others:
        prompts = {prompt for prompt, _ in known} & {prompt for prompt, _ in answers}
        differing = sorted({prompt for prompt, _ in known ^ answers} & prompts)
        if differing:
            raise DataError(
                f"{name}: must be judged against the same answers as {first}, but the reference's "
                f"answers to {len(differing)} of {len(prompts)} common prompts differ, the first "
                f"being {differing[0][1][-1][:60]!r}"
            )


def standings_text(comparisons: Sequence[Comparison]) -> str:
    """The verdicts, and how many prompts would decide what is not decided."""
    alone = [each for each in comparisons if not each.over]
    names = {each.arm: each.arm for each in alone}
    lines = [
        f"Against the reference, on {alone[0].num_prompts} prompts: "
        f"{'; '.join(verdict_text(each, names) for each in alone)}."
    ]
    if len(alone) < len(comparisons):
        between = "; ".join(verdict_text(each, names) for each in comparisons if each.over)
        lines.append(f"Against each other, by their win rates: {between}.")
    return "\n".join([*lines, ONE_SEED])


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Plain values; between two models the difference of their win rates, a fraction."""
    values = asdict(comparison)
    kept = ("p_value", "p_holm", "num_prompts", "verdict", "prompts_needed")
    rate, interval = comparison.win_rate, comparison.interval_95
    if comparison.over:
        rate, interval = (
            in_points(rate) / 100,
            (in_points(interval[0]) / 100, in_points(interval[1]) / 100),
        )
    name = "difference" if comparison.over else "win_rate"
    return {
        "model": comparison.arm,
        "over": comparison.over or "reference",
        name: rate,
        "interval_95": interval,
        **{key: values[key] for key in kept},
    }
