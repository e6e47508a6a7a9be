"""Which setting of every arm goes into the confirmation.

In: the search's results. Out: a `Choice` per arm. All arms are chosen alike, the reference among
them: from a smooth fit over the settings that were tried. Win rates against one opponent cannot
rank settings that nearly all beat it, or nearly none; those are judged against each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from symnoise_ray.config import ConfirmConfig
from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.layout import COMPLETIONS
from symnoise_ray.records.results import TrialResult
from symnoise_ray.records.verdict import Candidate, Choice
from symnoise_ray.space.trials import SweepPlans, show
from symnoise_ray.statistics.fit import coordinates, fit, pick
from symnoise_ray.statistics.win_rate import WinRate, win_rate
from symnoise_ray.sweep.pairs import judge_pair

SATURATED = 0.95
"""A win rate above this, or below the rest, says too little about which setting is the better."""
MOST_CONTENDERS = 5
UNRANKED = "the best settings could not be ranked: {}"


def choose(
    results: Sequence[TrialResult], plans: SweepPlans, judges: JudgeSource | None = None
) -> dict[str, Choice]:
    """The setting of every arm that has a score, by arm.

    Args:
        results: Of the search, in any order.
        plans: The sweep.
        judges: To judge contenders in full and against each other; without it nothing is judged.
    """
    by_arm: dict[str, list[TrialResult]] = {}
    tried: dict[str, set[str]] = {}
    for result in sorted(results, key=lambda result: result.trial):
        tried.setdefault(result.arm, set()).add(repr(sorted(result.params.items())))
        if result.is_done:
            by_arm.setdefault(result.arm, []).append(result)
    return {
        arm: replace(_chosen(arm, trials, plans, judges), num_settings=len(tried[arm]))
        for arm, trials in by_arm.items()
    }


def complete_blocks(results: Sequence[TrialResult], plans: SweepPlans) -> list[TrialResult]:
    """Results of the blocks that every arm has ended: a budget may cut the search within one."""
    ended = {int(result.trial.split("-")[0]) for result in results if result.status != "cancelled"}
    cut = {cell.block for index, cell in enumerate(plans.cells) if index not in ended}
    return [
        result
        for result in results
        if plans.cells[int(result.trial.split("-")[0])].block not in cut
    ]


def confirmed_arms(choices: dict[str, Choice], confirm: ConfirmConfig, reference: str) -> list[str]:
    """The arms to confirm, best first and contrasted ones with them; empty without a reference."""
    others = sorted(
        (arm for arm in choices if arm != reference), key=lambda arm: -choices[arm].rank_rate
    )
    contrasted = {arm for pair in confirm.contrasts for arm in pair}
    if reference not in choices:
        return []
    return [arm for rank, arm in enumerate(others) if rank < confirm.arms or arm in contrasted]


def _chosen(
    arm: str, trials: list[TrialResult], plans: SweepPlans, judges: JudgeSource | None
) -> Choice:
    note = ""
    if judges is not None:
        try:
            trials = [_in_full(trial, trials, plans, judges) for trial in trials]
        except JudgeError as error:
            note = UNRANKED.format(error)
    choice = fitted_choice(arm, trials, plans)
    contenders = _tied(trials, fitted=choice.method == "fit")
    if len(contenders) > 1 and judges is not None:
        try:
            return _ranked_by_pairs(choice, contenders, plans, judges)
        except JudgeError as error:
            note = UNRANKED.format(error)
    return replace(choice, note=note)


def fitted_choice(arm: str, trials: Sequence[TrialResult], plans: SweepPlans) -> Choice:
    """The choice from the fit alone, or from the largest win rate where nothing can be fitted."""
    points = [_tuned(trial.params, plans) for trial in trials]
    rates_N = np.array([_rate(trial) for trial in trials])
    errors_N = np.array([_error(trial) for trial in trials])
    fitted = fit(coordinates(points, plans.sweep.parameters), rates_N, errors_N)
    index, raw = pick(rates_N, fitted), int(np.argmax(rates_N))
    candidates = tuple(
        Candidate(
            trial.trial,
            show(dict(trial.params)),
            _rate(trial),
            _error(trial),
            None if fitted is None else float(np.clip(fitted.mean_N[n], 0.0, 1.0)),
            None if fitted is None else float(fitted.deviation_N[n]),
        )
        for n, trial in enumerate(trials)
    )
    return Choice(
        arm,
        trials[index].trial,
        dict(trials[index].params),
        "raw" if fitted is None else "fit",
        candidates,
        None if fitted is None else float(rates_N[raw] - fitted.mean_N[raw]),
    )


def _tuned(params: Any, plans: SweepPlans) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != plans.arms.treatment}


def _rate(trial: TrialResult) -> float:
    assert trial.win_rate is not None, "a trial that is done has a score"
    return trial.win_rate


def _error(trial: TrialResult) -> float:
    return float(trial.get("standard_error") or 0.0)


def _in_full(
    trial: TrialResult, trials: Sequence[TrialResult], plans: SweepPlans, judges: JudgeSource
) -> TrialResult:
    """A contender whose judging stopped early is judged on every prompt: stopping flatters it."""
    best = max(trials, key=_rate)
    far = _rate(best) - _rate(trial) > 2 * (_error(best) + _error(trial))
    if not trial.get("stopped_early") or far:
        return trial
    plan = plans.search(int(trial.trial.split("-")[0]), dict(trial.params))
    found = judge_pair(plan.directory, plan.reference, judges, plan.config.judge)
    score = win_rate(found)
    values = {**trial.values, **score.to_json(), "stopped_early": False}
    return replace(trial, values=values)


def _tied(trials: Sequence[TrialResult], *, fitted: bool) -> list[TrialResult]:
    """Trials that the win rate cannot rank: near 0 or 1, or equal, at the top of their arm."""
    best = max(map(_rate, trials))
    if best >= SATURATED:
        found = [trial for trial in trials if _rate(trial) >= SATURATED]
    elif best <= 1 - SATURATED:
        found = list(trials)
    else:
        found = [trial for trial in trials if _rate(trial) == best and not fitted]
    distinct = {repr(sorted(trial.params.items())): trial for trial in reversed(found)}
    found = sorted(distinct.values(), key=lambda trial: trial.get("clean_loss") or 0.0)
    return found[:MOST_CONTENDERS]


def _ranked_by_pairs(
    choice: Choice, contenders: Sequence[TrialResult], plans: SweepPlans, judges: JudgeSource
) -> Choice:
    """The contender with the largest mean win rate over the others.

    Where all pairs are judged on the same prompts, the Bradley-Terry model (1952) ranks by the
    number of wins (Ford, 1957).
    """
    directories = {
        trial.trial: plans.search(int(trial.trial.split("-")[0]), dict(trial.params)).directory
        for trial in contenders
    }
    config = plans.search(0, dict(contenders[0].params)).config.judge
    wins = dict.fromkeys(directories, 0.0)
    for one, other in itertools.combinations(directories, 2):
        answers = directories[other] / COMPLETIONS
        score: WinRate = win_rate(judge_pair(directories[one], answers, judges, config))
        wins[one] += score.win_rate
        wins[other] += 1 - score.win_rate
    best = max(contenders, key=lambda trial: wins[trial.trial])
    return replace(choice, trial=best.trial, params=dict(best.params), method="pairs")
