"""The confirmation: the best of the search again, on fresh seeds and prompts it never met.

In: the search's results. Out: trials of the best noise types and of plain fine-tuning, and from
their preferences the comparisons that the verdict rests on. The search's own best number is
flattered by choosing the best of many; these numbers are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from symnoise_ray.config import ConfirmConfig
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.completions import Prompt
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import CHOICES, PREFERENCES
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.records.results import Comparison, TrialResult, read_result
from symnoise_ray.space.parameters import Params
from symnoise_ray.space.trials import SweepPlans, TrialPlan, show
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.comparison import compare
from symnoise_ray.statistics.length_control import Items, fit_length, shares
from symnoise_ray.statistics.win_rate import item_scores, length_differences
from symnoise_ray.sweep.trial import run_trial
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.workers.client import Workers
from symnoise_ray.workers.session import THREAD_PREFIX


def choose(results: Sequence[TrialResult], confirm: ConfirmConfig) -> dict[str, Params]:
    """The best configuration of plain fine-tuning, of the best noise types, and of the contrasted.

    Arm -> its point; plain fine-tuning is tuned like the others, so that it is a fair opponent.
    Empty when plain fine-tuning or every noise type failed.
    """
    best: dict[str, TrialResult] = {}
    for result in sorted(results, key=lambda result: result.trial):
        first = best.setdefault(result.arm, result) if result.is_done else result
        if result.is_done and _rate(result) > _rate(first):
            best[result.arm] = result
    noisy = sorted((arm for arm in best if arm != "none"), key=lambda arm: -_rate(best[arm]))
    contrasted = {arm for pair in confirm.contrasts for arm in pair}
    noisy = [arm for rank, arm in enumerate(noisy) if rank < confirm.top_k or arm in contrasted]
    if "none" not in best or not noisy:
        return {}
    return {arm: dict(best[arm].params) for arm in ["none", *noisy]}


def _rate(result: TrialResult) -> float:
    assert result.win_rate is not None, "a trial that is done has a score"
    return result.win_rate


def number_choices(arms: dict[str, Params], path: Path) -> dict[str, int]:
    """How many settings were chosen for each arm so far, this one included; kept in a file.

    A search that grew may choose another setting. What was trained with an earlier one, or judged
    against plain fine-tuning with an earlier one, must not be taken for it.
    """
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    for arm, point in arms.items():
        chosen = {"params": point, "against": arms["none"]}
        before = known.get(arm, {"number": 0})
        if {name: before.get(name) for name in chosen} != chosen:
            known[arm] = {**chosen, "number": before["number"] + 1}
    write_json(known, path)
    return {arm: known[arm]["number"] for arm in arms}


def run_confirmation(
    plans: SweepPlans,
    arms: dict[str, Params],
    workers: Workers,
    judges: JudgeSource,
    watch: Watch,
    num_slots: int,
) -> dict[str, list[TrialPlan]]:
    """Train and judge every arm on every fresh seed; returns the plans by arm."""
    seeds = range(plans.sweep.confirm.num_seeds)
    choices = number_choices(arms, plans.directory / CHOICES)
    by_arm = {
        arm: [plans.confirm(arm, point, n, choices[arm], choices["none"]) for n in seeds]
        for arm, point in arms.items()
    }
    # Plain fine-tuning first: the others are judged against its answers.
    queue = [plan for arm in arms for plan in by_arm[arm]]
    executor = ThreadPoolExecutor(num_slots + 1, thread_name_prefix=THREAD_PREFIX)
    try:
        for future in [executor.submit(_run, plan, workers, judges, watch) for plan in queue]:
            future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
    return by_arm


def _run(plan: TrialPlan, workers: Workers, judges: JudgeSource, watch: Watch) -> None:
    """Run one trial to its end, if it did not end before; its result is in its directory."""
    if watch.take_up(plan) is not None:
        return
    watch.add(plan)
    try:
        for _record in run_trial(plan, workers, judges):
            pass
    except Exception:
        if read_result(plan.directory) is None:
            raise


def comparisons(
    by_arm: dict[str, list[TrialPlan]], contrasts: Sequence[tuple[str, str]] = ()
) -> list[Comparison]:
    """Every noise type against plain fine-tuning, and the contrasts between them.

    Each is made on the prompts that all its seeds answered.
    """
    judged = {
        arm: [_judged(plan) for plan in plans] for arm, plans in by_arm.items() if arm != "none"
    }
    scores: dict[str, Floats] = {}
    at_equal_lengths: dict[str, Floats] = {}
    for arm, by_seed in judged.items():
        found = _common([by_seed])
        if found is not None:
            scores[arm] = found[0][..., 0]
            at_equal_lengths[arm] = np.stack(
                [_at_equal_lengths(judged_PV) for judged_PV in found[0].swapaxes(0, 1)], axis=1
            )
    differences: dict[tuple[str, str], Floats] = {}
    for one, other in contrasts:
        found = _common([judged.get(one, []), judged.get(other, [])])
        if found is not None:
            differences[one, other] = found[0][..., 0] - found[1][..., 0]
    return compare(scores, at_equal_lengths, differences)


def _common(arms: list[list[dict[Prompt, tuple[float, float]]]]) -> list[Floats] | None:
    """Per arm (prompts, seeds, 2), over the seeds and prompts that all arms have; None without."""
    seeds = [each for each in zip(*arms, strict=False) if all(each)]
    answered = [known for each in seeds for known in each]
    common = (
        [prompt for prompt in answered[0] if all(prompt in known for known in answered)]
        if answered
        else []
    )
    if not common:
        return None
    return [
        np.array([[each[arm][prompt] for each in seeds] for prompt in common])
        for arm in range(len(arms))
    ]


def _at_equal_lengths(judged_PV: Floats) -> Floats:
    """Scores at equal lengths of one seed's (score, length difference) pairs."""
    items = Items(judged_PV[:, 0], judged_PV[:, 1])
    return shares(items, fit_length(items))


def _judged(plan: TrialPlan) -> dict[Prompt, tuple[float, float]]:
    """Prompt -> mean score and length difference of a confirmed trial; empty when it failed."""
    result = read_result(plan.directory)
    if result is None or not result.is_done:
        return {}
    preferences = read_annotations(plan.directory / PREFERENCES)
    deltas = length_differences(preferences)
    prompts = {preference.item: preference.prompt for preference in preferences}
    by_prompt: dict[Prompt, list[tuple[float, int]]] = {}
    for item, score in item_scores(preferences)[0].items():
        by_prompt.setdefault(prompts[item], []).append((score, deltas[item]))
    return {
        prompt: (fmean(score for score, _ in found), fmean(delta for _, delta in found))
        for prompt, found in by_prompt.items()
    }


def labels(arms: dict[str, Params]) -> dict[str, str]:
    """Each arm's setting in words."""
    return {arm: show(point) for arm, point in arms.items()}
