"""The win rates that settings are chosen by: of all prompts, and over several trials.

In: the trials of the search that came to their end. Out: the same with other win rates. A trial
whose judging stopped early is judged in full, if it may be the best. Then all are judged against
the best trials of the reference: over one opponent, all win rates share that opponent's luck, and
say little where it is much weaker or stronger. This takes verdicts and no training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.layout import COMPLETIONS, PREFERENCES
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import SweepPlans, TrialPlan, search_index
from symnoise_ray.statistics.win_rate import item_scores, mean_over, win_rate
from symnoise_ray.sweep.pairs import is_judged, judge_pair

UNRANKED = "the best settings could not be ranked: {}"
FEWER = (
    "the win rates are over {} of {} trials of the reference, since the others could not be "
    "judged against: {}"
)
SPENT = "what is left of the budget for the judge does not allow it"

Trials = Mapping[str, Sequence[TrialResult]]
"""Arm -> its trials that are done."""
Scores = Mapping[int, float]
"""Item -> score."""
Allows = Callable[[int], bool]
"""Whether so many more verdicts are within the budget."""


def anything(num_verdicts: int) -> bool:
    """No budget."""
    return num_verdicts >= 0


@dataclass(frozen=True)
class Measured:
    """Trials with the win rates that a setting is chosen by.

    `notes` says of an arm why its trials cannot be compared, `opponents` names the trials of the
    reference that the win rates are over (none: the sweep's own opponent), and `remark` why they
    are fewer than wanted.
    """

    by_arm: Trials
    notes: Mapping[str, str] = field(default_factory=dict)
    opponents: tuple[str, ...] = ()
    remark: str = ""


def measure(by_arm: Trials, plans: SweepPlans, judges: JudgeSource, allows: Allows) -> Measured:
    """Judge trials in full where judging stopped early, then against trials of the reference."""
    found, notes = {}, {}
    for arm, trials in by_arm.items():
        try:
            found[arm] = [_in_full(trial, trials, plans, judges, allows) for trial in trials]
        except JudgeError as failure:
            found[arm], notes[arm] = list(trials), UNRANKED.format(failure)
    wanted = opponents(
        found.get(plans.arms.name(plans.arms.reference), ()), plans.sweep.search.opponents
    )
    if len(wanted) < 2:
        return Measured(found, notes)
    over = _Over(plans, judges, wanted)
    done, why = over.judge([each for trials in found.values() for each in trials], allows)
    remark = FEWER.format(done, len(wanted), why) if done < len(wanted) else ""
    if not done:
        return Measured(found, notes, remark=remark)
    names = tuple(each.trial for each in wanted[:done])
    found = {arm: [over.rated(trial) for trial in trials] for arm, trials in found.items()}
    return Measured(found, notes, names, remark)


def opponents(reference: Sequence[TrialResult], number: int) -> list[TrialResult]:
    """The trials of the reference that all are judged against: its best ones, so many."""
    return sorted(reference, key=lambda trial: (-rate(trial), trial.trial))[:number]


class _Over:
    """Every trial's scores over each opponent, item by item."""

    def __init__(
        self, plans: SweepPlans, judges: JudgeSource, wanted: Sequence[TrialResult]
    ) -> None:
        self.plans, self.judges, self.wanted = plans, judges, wanted
        self.names = [each.trial for each in wanted]
        self.scores: dict[str, list[Scores | None]] = {}

    def judge(self, trials: Sequence[TrialResult], allows: Allows) -> tuple[int, str]:
        """Judge against one opponent after another; how many, and why no more."""
        usable = [trial for trial in trials if not trial.get("stopped_early")]
        each = verdicts_each(trials, self.plans)
        for number, opponent in enumerate(self.wanted):
            pairs = [self._pair(trial, opponent) for trial in usable]
            new = sum(pair is not None and not pair.is_judged for pair in pairs)
            if new and not allows(new * each):
                return number, SPENT
            try:
                found = [None if pair is None else pair.scores(self.judges) for pair in pairs]
            except JudgeError as failure:
                return number, str(failure)
            for trial, scores in zip(usable, found, strict=True):
                self.scores.setdefault(trial.trial, []).append(scores)
        return len(self.wanted), ""

    def rated(self, trial: TrialResult) -> TrialResult:
        """The trial with its mean win rate over the opponents; as it is if it was not judged."""
        known = self.scores.get(trial.trial)
        if not known or all(each is None for each in known):
            return trial
        mean, deviation = mean_over(known)
        values = {**trial.values, "win_rate": mean, "standard_error": deviation}
        return replace(trial, values=values)

    def _pair(self, trial: TrialResult, opponent: TrialResult) -> _Pair | None:
        """None for a trial and itself. Of two opponents the later one's directory has the file."""
        if trial.trial == opponent.trial:
            return None
        swapped = trial.trial in self.names and trial.trial < opponent.trial
        one, other = (opponent, trial) if swapped else (trial, opponent)
        return _Pair(_plan(one, self.plans), _plan(other, self.plans).directory, swapped)


@dataclass(frozen=True)
class _Pair:
    """A trial and the directory of its opponent; `swapped` if the opponent's scores are wanted."""

    plan: TrialPlan
    opponent: Path
    swapped: bool

    @property
    def _answers(self) -> Path:
        return self.opponent / COMPLETIONS

    @property
    def is_judged(self) -> bool:
        """Whether the verdicts are on disk."""
        return self.plan.reference == self._answers or is_judged(self.plan.directory, self._answers)

    def scores(self, judges: JudgeSource) -> Scores:
        """Item -> score of the trial over its opponent.

        Raises:
            JudgeError: too few verdicts could be had.
        """
        own = self.plan.reference == self._answers
        if own and not is_judged(self.plan.directory, self._answers):
            preferences = read_annotations(self.plan.directory / PREFERENCES)
        else:
            preferences = judge_pair(
                self.plan.directory, self._answers, judges, self.plan.config.judge
            )
        scores, *_ = item_scores(preferences)
        return {item: 1 - score for item, score in scores.items()} if self.swapped else scores


def verdicts_each(trials: Sequence[TrialResult], plans: SweepPlans) -> int:
    """How many verdicts a pair of such trials takes, at most."""
    both = _plan(trials[0], plans).config.judge.orders == "both"
    return (2 if both else 1) * max(int(trial.get("n_total") or 0) for trial in trials)


def _in_full(
    trial: TrialResult,
    trials: Sequence[TrialResult],
    plans: SweepPlans,
    judges: JudgeSource,
    allows: Allows,
) -> TrialResult:
    """A contender whose judging stopped early is judged on every prompt: stopping flatters it.

    Raises:
        JudgeError: too few verdicts could be had, or the budget does not allow them.
    """
    best = max(trials, key=rate)
    far = rate(best) - rate(trial) > 2 * (error(best) + error(trial))
    if not trial.get("stopped_early") or far:
        return trial
    plan = _plan(trial, plans)
    if not is_judged(plan.directory, plan.reference) and not allows(verdicts_each(trials, plans)):
        raise JudgeError(SPENT)
    found = judge_pair(plan.directory, plan.reference, judges, plan.config.judge)
    values = {**trial.values, **win_rate(found).to_json(), "stopped_early": False}
    return replace(trial, values=values)


def rate(trial: TrialResult) -> float:
    """The win rate of a trial that is done."""
    assert trial.win_rate is not None, "a trial that is done has a score"
    return trial.win_rate


def error(trial: TrialResult) -> float:
    """Its standard error; 0 without one."""
    return float(trial.get("standard_error") or 0.0)


def directory_of(trial: TrialResult, plans: SweepPlans) -> Path:
    """The directory of a trial of the search."""
    return _plan(trial, plans).directory


def _plan(trial: TrialResult, plans: SweepPlans) -> TrialPlan:
    return plans.search(search_index(trial.trial), dict(trial.params))
