"""Which setting of every arm goes into the confirmation.

In: the search's results. Out: a `Choice` per arm. All arms are chosen alike, the reference among
them: from a smooth fit over the settings that were tried. Win rates against one opponent cannot
rank settings that nearly all beat it, or nearly none; those are judged against each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from symnoise_ray.config import ConfirmConfig
from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.layout import COMPLETIONS
from symnoise_ray.records.results import TrialResult
from symnoise_ray.records.verdict import Candidate, Choice
from symnoise_ray.space.parameters import Params
from symnoise_ray.space.spread import settings_near
from symnoise_ray.space.trials import SweepPlans, search_index, show
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.fit import FEWEST, Curves, Fit, coordinates, floored, usable, within
from symnoise_ray.statistics.win_rate import WinRate, win_rate
from symnoise_ray.sweep.pairs import is_judged, judge_pair
from symnoise_ray.sweep.rates import (
    SPENT,
    UNRANKED,
    Allows,
    Measured,
    anything,
    directory_of,
    error,
    measure,
    rate,
    verdicts_each,
)

SATURATED = 0.95
"""A win rate above this, or below the rest, says too little about which setting is the better."""
MOST_CONTENDERS = 5
_SAME = 1e-9
"""A point that was tried is offered again among those between; rounding must not prefer it."""


def choose(
    results: Sequence[TrialResult],
    plans: SweepPlans,
    judges: JudgeSource | None = None,
    allows: Allows = anything,
) -> dict[str, Choice]:
    """The setting of every arm that has a score, by arm.

    Args:
        results: Of the search, in any order.
        plans: The sweep.
        judges: To judge trials in full, against several trials of the reference, and against each
            other; without it nothing is judged.
        allows: Whether so many more verdicts are within the budget.
    """
    by_arm: dict[str, list[TrialResult]] = {}
    tried: dict[str, set[str]] = {}
    for result in sorted(results, key=lambda result: result.trial):
        tried.setdefault(result.arm, set()).add(repr(sorted(result.params.items())))
        if result.is_done:
            by_arm.setdefault(result.arm, []).append(result)
    measured = Measured(by_arm) if judges is None else measure(by_arm, plans, judges, allows)
    return {
        arm: replace(
            _ranked(
                choice, measured.by_arm[arm], plans, judges, allows, measured.notes.get(arm, "")
            ),
            num_settings=len(tried[arm]),
            opponents=measured.opponents,
            remark=measured.remark,
        )
        for arm, choice in fitted_choices(measured.by_arm, plans).items()
    }


def complete_blocks(results: Sequence[TrialResult], plans: SweepPlans) -> list[TrialResult]:
    """Results of the blocks that every arm has ended: a budget may cut the search within one."""
    ended = {search_index(each.trial) for each in results if each.status != "cancelled"}
    cut = {cell.block for index, cell in enumerate(plans.cells) if index not in ended}
    return [result for result in results if plans.block(search_index(result.trial)) not in cut]


def confirmed_arms(choices: dict[str, Choice], confirm: ConfirmConfig, reference: str) -> list[str]:
    """The arms to confirm, best first and contrasted ones with them; empty without a reference."""
    others = sorted(
        (arm for arm in choices if arm != reference), key=lambda arm: -choices[arm].rank_rate
    )
    contrasted = {arm for pair in confirm.contrasts for arm in pair}
    if reference not in choices:
        return []
    return [arm for rank, arm in enumerate(others) if rank < confirm.arms or arm in contrasted]


def _ranked(
    choice: Choice,
    trials: Sequence[TrialResult],
    plans: SweepPlans,
    judges: JudgeSource | None,
    allows: Allows,
    note: str,
) -> Choice:
    contenders = _tied(trials, fitted=choice.method == "fit")
    if len(contenders) > 1 and judges is not None:
        try:
            return _ranked_by_pairs(choice, contenders, plans, judges, allows)
        except JudgeError as failure:
            note = UNRANKED.format(failure)
    return replace(choice, note=note)


def fitted_choices(
    by_arm: Mapping[str, Sequence[TrialResult]], plans: SweepPlans
) -> dict[str, Choice]:
    """Every arm's choice from the fit alone, or its largest win rate where it cannot be fitted."""
    if not by_arm:
        return {}
    parameters = plans.sweep.parameters
    tried = {arm: [_tuned(trial.params, plans) for trial in by_arm[arm]] for arm in by_arm}
    near = {arm: settings_near([dict(t.params) for t in by_arm[arm]], parameters) for arm in by_arm}
    points = [point for arm in by_arm for point in tried[arm]]
    points += [_tuned(point, plans) for arm in by_arm for point in near[arm]]
    arms_N = np.repeat(np.arange(len(by_arm)), [len(each) for each in tried.values()])
    arms_M = np.repeat(np.arange(len(by_arm)), [len(each) for each in near.values()])
    places_ND, places_MD = np.split(coordinates(points, parameters), [len(arms_N)])
    trials = [trial for arm in by_arm for trial in by_arm[arm]]
    rates_N = np.concatenate([floored(_rates(by_arm[arm])) for arm in by_arm])
    curves = Curves(
        arms_N.astype(float), places_ND, rates_N, np.array([error(trial) for trial in trials])
    )
    found = {}
    for number, arm in enumerate(by_arm):
        if len({repr(sorted(point.items())) for point in tried[arm]}) < FEWEST:
            found[arm] = _largest(arm, by_arm[arm])
            continue
        own_ND, new_MD = places_ND[arms_N == number], places_MD[arms_M == number]
        inside_M = within(own_ND[usable(_rates(by_arm[arm]))], new_MD)
        new_M = np.where(inside_M, curves.at(number, new_MD).mean_N, 0.0)
        found[arm] = _best(arm, by_arm[arm], curves.at(number, own_ND), near[arm], new_M)
    return found


def _largest(arm: str, trials: Sequence[TrialResult]) -> Choice:
    best = max(trials, key=rate)
    candidates = tuple(_candidate(trial) for trial in trials)
    return Choice(arm, best.trial, dict(best.params), "raw", candidates)


def _best(
    arm: str, trials: Sequence[TrialResult], own: Fit, points: Sequence[Params], new_M: Floats
) -> Choice:
    """The setting with the largest fitted win rate, tried or between those that were."""
    best, raw = int(np.argmax(own.mean_N)), int(np.argmax(_rates(trials)))
    choice = Choice(
        arm,
        trials[best].trial,
        dict(trials[best].params),
        "fit",
        tuple(
            replace(
                _candidate(trial),
                fitted=float(np.clip(own.mean_N[n], 0.0, 1.0)),
                band=float(own.deviation_N[n]),
            )
            for n, trial in enumerate(trials)
        ),
        float(rate(trials[raw]) - own.mean_N[raw]),
    )
    place = int(np.argmax(new_M)) if len(new_M) else -1
    if place < 0 or new_M[place] <= own.mean_N[best] + _SAME:
        return choice
    fitted = min(1.0, float(new_M[place]))
    return replace(choice, trial="", params=dict(points[place]), fitted=fitted)


def _candidate(trial: TrialResult) -> Candidate:
    return Candidate(trial.trial, show(dict(trial.params)), rate(trial), error(trial))


def _tuned(params: Any, plans: SweepPlans) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != plans.arms.treatment}


def _rates(trials: Sequence[TrialResult]) -> Floats:
    return np.array([rate(trial) for trial in trials])


def _tied(trials: Sequence[TrialResult], *, fitted: bool) -> list[TrialResult]:
    """Trials that the win rate cannot rank: near 0 or 1, or equal, at the top of their arm."""
    best = max(map(rate, trials))
    if best >= SATURATED:
        found = [trial for trial in trials if rate(trial) >= SATURATED]
    elif best <= 1 - SATURATED:
        found = list(trials)
    else:
        found = [trial for trial in trials if rate(trial) == best and not fitted]
    distinct = {repr(sorted(trial.params.items())): trial for trial in reversed(found)}
    found = sorted(distinct.values(), key=lambda trial: trial.get("clean_loss") or 0.0)
    return found[:MOST_CONTENDERS]


def _ranked_by_pairs(
    choice: Choice,
    contenders: Sequence[TrialResult],
    plans: SweepPlans,
    judges: JudgeSource,
    allows: Allows,
) -> Choice:
    """The contender with the largest mean win rate over the others.

    Where all pairs are judged on the same prompts, the Bradley-Terry model (1952) ranks by the
    number of wins (Ford, 1957).

    Raises:
        JudgeError: too few verdicts could be had, or the budget does not allow them.
    """
    directories = {trial.trial: directory_of(trial, plans) for trial in contenders}
    config = plans.search(0, dict(contenders[0].params)).config.judge
    wins = dict.fromkeys(directories, 0.0)
    pairs = [
        (one, other, directories[other] / COMPLETIONS)
        for one, other in itertools.combinations(directories, 2)
    ]
    new = sum(not is_judged(directories[one], answers) for one, _, answers in pairs)
    if new and not allows(new * verdicts_each(contenders, plans)):
        raise JudgeError(SPENT)
    for one, other, answers in pairs:
        score: WinRate = win_rate(judge_pair(directories[one], answers, judges, config))
        wins[one] += score.win_rate
        wins[other] += 1 - score.win_rate
    best = max(contenders, key=lambda trial: wins[trial.trial])
    return replace(choice, trial=best.trial, params=dict(best.params), method="pairs", fitted=None)
