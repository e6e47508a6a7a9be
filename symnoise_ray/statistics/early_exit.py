"""Which trials of a search stop early, and whether that was sound: rules on numbers alone.

In: the clean losses of one arm's trials by their share of the training. Out: for the newest one
whether it goes on, and after a sweep how well the clean loss foretold the win rate.

Source: asynchronous successive halving, Li et al. (2020), "A System for Massively Parallel
Hyperparameter Tuning", algorithm 2, in its stopping form: who reaches a rung is compared with those
that have reached it so far, and nobody waits for the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

CLEAN_LOSS = "clean_loss"
ROUNDING = 1e-9
STRONG = 0.5
"""A rank correlation that is nearer to 0 than this gives a warning."""


class Point(NamedTuple):
    """A clean loss, and the share of the training, from 0 to 1, after which it was measured."""

    share: float
    loss: float


Curve = Sequence[Point]
"""The points of one trial, in order."""


@dataclass(frozen=True)
class Rule:
    """When a trial stops.

    At each of the `rungs`, which are shares of the training, the best `1 / reduction` of the trials
    go on, rounded up, and with them those that are level. Compared is the mean of the last `window`
    losses up to the rung, the one before training left out, so that a single dip decides nothing.
    At least `keep` trials never stop. The figures behind the defaults: `benchmarks/README.md`.
    """

    rungs: tuple[float, ...] = (1 / 16, 3 / 8)
    reduction: float = 3
    window: int = 2
    keep: int = 2


class Decision(NamedTuple):
    """What was decided at a rung: the smoothed loss, and its rank among `num` trials, from 1."""

    goes_on: bool
    rung: float
    loss: float
    rank: int
    num: int


RULE = Rule()


def curve_of(records: Iterable[Mapping[str, Any]], num_evals: int | None = None) -> Curve:
    """The clean losses among a trial's records by share of the training.

    They are measured before the first step and `num_evals` times evenly over the steps, so their
    number tells the share. None stands for the curve of a trial that came to its end.
    """
    losses = {record["step"]: record[CLEAN_LOSS] for record in records if CLEAN_LOSS in record}
    count = max(1, len(losses) - 1) if num_evals is None else num_evals
    return [Point(number / count, losses[step]) for number, step in enumerate(sorted(losses))]


def rung_at(share: float, rule: Rule = RULE) -> float | None:
    """The highest rung that is reached after this share; there is none at the end itself."""
    reached = [rung for rung in rule.rungs if rung <= share + ROUNDING]
    return max(reached) if reached and share < 1 - ROUNDING else None


def loss_at(curve: Curve, rung: float, rule: Rule = RULE) -> float | None:
    """The smoothed loss with which a trial stands on a rung; None if it has not reached it."""
    trained = [point for point in curve if point.share > 0]
    before = [point.loss for point in trained if point.share < rung - ROUNDING]
    if len(before) == len(trained):
        return None
    return float(np.mean([*before, trained[len(before)].loss][-rule.window :]))


def decide(newest: float, others: Sequence[float], rung: float, rule: Rule = RULE) -> Decision:
    """Whether the trial that has just reached a rung goes on.

    Args:
        newest: Its smoothed loss there.
        others: Those of all other trials of its arm that have reached this rung so far, whatever
            became of them since.
        rung: The rung.
        rule: The rule.
    """
    rank, num = 1 + sum(other < newest for other in others), 1 + len(others)
    return Decision(rank <= math.ceil(num / rule.reduction - ROUNDING), rung, newest, rank, num)


class Arm:
    """The trials of one arm as they come, of which never so many stop that fewer than `keep` stay.

    A trial stays if it runs or came to its end. Trials that fail do not stay, and since a failure
    cannot be foreseen, only failures can leave fewer.
    """

    def __init__(self, rule: Rule = RULE) -> None:
        self.rule = rule
        self.curves: dict[str, Curve] = {}
        self.rungs: dict[str, float] = {}
        """Trial -> the highest rung at which it was decided."""
        self.gone: set[str] = set()

    def add(self, name: str, curve: Curve) -> None:
        """A trial that ended in an earlier part of the sweep; `leave` if it has no score."""
        self.curves[name] = curve

    def leave(self, name: str) -> None:
        """A trial was stopped, or failed; at rungs it is still compared with."""
        self.gone.add(name)

    def report(self, name: str, curve: Curve) -> Decision | None:
        """A trial has a new loss; None where there is nothing to decide.

        Args:
            name: The trial.
            curve: All its points so far.
        """
        self.curves[name] = curve
        rung = rung_at(curve[-1].share, self.rule) if curve else None
        if rung is None or rung <= self.rungs.get(name, 0):
            return None
        self.rungs[name] = rung
        own, *others = [
            loss
            for each in [name, *(other for other in self.curves if other != name)]
            if (loss := loss_at(self.curves[each], rung, self.rule)) is not None
        ]
        decision = decide(own, others, rung, self.rule)
        stay = sum(other != name and other not in self.gone for other in self.curves)
        if stay < self.rule.keep:
            return decision._replace(goes_on=True)
        if not decision.goes_on:
            self.leave(name)
        return decision


class StopEvidence(NamedTuple):
    """How well the clean loss foretold the win rate.

    `correlation` is the rank correlation of the two within the arms, near -1 if the lower loss has
    the higher win rate; None if it cannot be computed. `warning` is empty where it is strong.
    """

    correlation: float | None
    num_trials: int
    warning: str


def stop_evidence(
    losses: Sequence[float], win_rates: Sequence[float], arms: Sequence[str]
) -> StopEvidence:
    """How well the loss by which trials are stopped foretold the win rate of those that ended.

    Spearman's rank correlation within the arms: ranks are taken in each arm, since only there
    trials are compared, and centred; with one arm it is Spearman's own. Those that stopped have no
    win rate, and without the worst a correlation is weaker than it would be with them.

    Args:
        losses: Of each trial of the search that ended, baselines left out, at the first rung:
            `loss_at(curve_of(records), RULE.rungs[0])` with the lines of its metrics.jsonl.
        win_rates: Their final win rates.
        arms: Their arms.
    """
    from scipy.stats import rankdata  # most of a second, which a trial's process need not pay

    ranks: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for arm in sorted(set(arms)):
        mine = [index for index, other in enumerate(arms) if other == arm]
        pair = np.array([[values[i] for i in mine] for values in (losses, win_rates)])
        ranks.append(rankdata(pair, axis=1) - (len(mine) + 1) / 2)
    if not ranks:
        return StopEvidence(None, 0, _UNKNOWN)
    by_loss, by_rate = np.concatenate(ranks, axis=1)
    scale = math.sqrt(float(by_loss @ by_loss) * float(by_rate @ by_rate))
    if len(arms) < 3 or scale == 0:
        return StopEvidence(None, len(arms), _UNKNOWN)
    correlation = float(by_loss @ by_rate) / scale
    warning = "" if correlation <= -STRONG else _WEAK.format(correlation, len(arms), STRONG)
    return StopEvidence(correlation, len(arms), warning)


_WEAK = (
    "Warning: the clean loss by which trials were stopped foretold the win rate poorly: their rank "
    "correlation is {:.2f} over {} trials that came to their end, and should be below -{}. A trial "
    "that was stopped may have been the best one; run the search again with search.early_exit=off."
)
_UNKNOWN = (
    "Warning: too few trials came to their end to tell whether the clean loss by which trials were "
    "stopped foretells the win rate."
)
