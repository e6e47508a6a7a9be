"""Preferences to the score of one trial: win rates as AlpacaEval defines them, with intervals.

In: preferences per item and order. Out: a frozen `WinRate`; rates are fractions in [0, 1]. The two
orders of an item average to one score. A prompt that occurs several times is one cluster of the
bootstrap, since its items are no independent evidence.

Shape letters: P items, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from symnoise_ray.errors import DataError, JudgeError
from symnoise_ray.records.preferences import Preference
from symnoise_ray.statistics.bootstrap import (
    NUM_REPLICATES,
    Floats,
    draws,
    hull,
    interval,
    is_one_sided,
    unseen,
)
from symnoise_ray.statistics.length_control import (
    STRENGTH,
    GamedRows,
    Items,
    LengthModel,
    fit_length,
    replicate,
)

ONE_SIDED = 0.05
"""Share of the shorter (or longer) answers below which the lengths hardly overlap."""


@dataclass(frozen=True)
class WinRate:
    """How often answers beat the reference; a tie counts one half.

    `standard_error` is AlpacaEval's: the items' standard deviation (ddof 1) over sqrt(n). The
    intervals are bootstraps over prompts; the length-controlled one fits its model every time.
    `longer_rate` is the share of items on which the trial's answer is longer (equal: one half);
    near 0 or 1 the length-controlled win rate is an extrapolation. `avg_length` is the mean
    length of the trial's answers in code points, judged or not (AlpacaEval cuts its fraction off).
    `position_bias` is None if no item was judged in both orders.
    """

    win_rate: float
    interval_95: tuple[float, float]
    standard_error: float
    discrete_win_rate: float
    length_controlled_win_rate: float
    length_controlled_interval_95: tuple[float, float]
    n_total: int
    n_wins: int
    n_wins_reference: int
    n_draws: int
    n_invalid: int
    position_bias: float | None
    avg_length: float
    longer_rate: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, as score.json holds them."""
        return asdict(self)


class AlpacaEvalModel(NamedTuple):
    """The data of AlpacaEval's own length control beside the judged rows; they are not shipped.

    `difficulty` (P,) is that of every item, in the items' order. `strength` is C; AlpacaEval
    chooses it per model by cross-validation, mostly 2.78 or 21.54.
    """

    difficulty: Floats
    gamed: GamedRows
    strength: float = STRENGTH


def item_scores(preferences: Iterable[Preference]) -> tuple[dict[int, float], int, float | None]:
    """Score of every item: 1 a win, 0 a loss, 1/2 a tie, averaged over both orders.

    Opposite verdicts in the two orders average to a tie.

    Returns:
        Item -> score; the number of items that lack one of their verdicts; and of those judged in
        both orders the fraction on which these contradict each other, None where there are none.
    """
    by_item: dict[int, list[float | None]] = {}
    for preference in preferences:
        by_item.setdefault(preference.item, []).append(preference.preference)
    scores, num_invalid, num_both, num_contradictions = {}, 0, 0, 0
    for item, verdicts in by_item.items():
        valid = [value - 1 for value in verdicts if value is not None]
        if len(valid) < len(verdicts):
            num_invalid += 1
            continue
        scores[item] = sum(valid) / len(valid)
        num_both += len(valid) > 1
        num_contradictions += min(valid) < 0.5 < max(valid)
    return scores, num_invalid, num_contradictions / num_both if num_both else None


def mean_over(opponents: Sequence[Mapping[int, float] | None]) -> tuple[float, float]:
    """Win rate over several opponents, and its standard error over the items.

    An item's score is its mean over all opponents. Items without a score over one of them are left
    out.

    Args:
        opponents: Item -> score over each opponent; None stands for the trial itself, a tie on
            every item.

    Raises:
        JudgeError: no item has a score over all of them.
    """
    known = [scores for scores in opponents if scores is not None]
    items = set.intersection(*(set(scores) for scores in known)) if known else set()
    if not items:
        raise JudgeError("at least one item must have a verdict over every opponent, but none has")
    ties = 0.5 * (len(opponents) - len(known))
    values = np.array(
        [(sum(scores[item] for scores in known) + ties) / len(opponents) for item in sorted(items)]
    )
    return float(values.mean()), _standard_error(values)


def length_differences(preferences: Iterable[Preference]) -> dict[int, int]:
    """Item -> length of the reference's answer minus the trial's, in code points."""
    return {p.item: len(p.output_1) - len(p.output_2) for p in preferences}


def win_rate(
    preferences: Sequence[Preference],
    alpaca_eval: AlpacaEvalModel | None = None,
    num_replicates: int = NUM_REPLICATES,
) -> WinRate:
    """Win rate of one trial against its reference.

    Args:
        preferences: One or two (both orders) per item.
        alpaca_eval: Data to control the length as AlpacaEval does; None for our own design.
        num_replicates: Number of replicates of the bootstraps.

    Raises:
        JudgeError: no item has a verdict; there is no default score.
        DataError: AlpacaEval's difficulty is not that of these items.
    """
    scores, num_invalid, contradictions = item_scores(preferences)
    if not scores:
        raise JudgeError(f"at least one item must have a verdict, but none of {num_invalid} has")
    values = np.array(list(scores.values()))
    prompts = {p.item: p.prompt for p in preferences}
    deltas = length_differences(preferences)
    items, strength = _length_items(scores, deltas, alpaca_eval)
    model = fit_length(items, strength)
    judged = [prompts[item] for item in (deltas if alpaca_eval else scores)]
    avg_length, longer_rate = _lengths(preferences)
    raw = bootstrap_interval(values, [prompts[i] for i in scores], num_replicates)
    equal = _length_interval(items, judged, model, strength, num_replicates)
    if _is_against_itself(preferences):
        raw = equal = (0.5, 0.5)
    return WinRate(
        win_rate=float(values.mean()),
        interval_95=raw,
        standard_error=_standard_error(values),
        discrete_win_rate=float(np.where(values == 0.5, 0.5, values > 0.5).mean()),
        length_controlled_win_rate=model.win_rate,
        length_controlled_interval_95=equal,
        n_total=len(values),
        n_wins=int((values > 0.5).sum()),
        n_wins_reference=int((values < 0.5).sum()),
        n_draws=int((values == 0.5).sum()),
        n_invalid=num_invalid,
        position_bias=contradictions,
        avg_length=avg_length,
        longer_rate=longer_rate,
    )


def _is_against_itself(preferences: Sequence[Preference]) -> bool:
    """Whether the model is the reference itself, which would tie on all other prompts too."""
    return all(p.generator_1 == p.generator_2 and p.output_1 == p.output_2 for p in preferences)


def _lengths(preferences: Sequence[Preference]) -> tuple[float, float]:
    """Mean length of the trial's answers, and how often they are the longer ones."""
    lengths = {p.item: (len(p.output_1), len(p.output_2)) for p in preferences}
    longer = [0.5 if first == second else first < second for first, second in lengths.values()]
    return float(np.mean([second for _, second in lengths.values()])), float(np.mean(longer))


def bootstrap_interval(
    scores: Floats,
    clusters: Sequence[Hashable] | None = None,
    num_replicates: int = NUM_REPLICATES,
) -> tuple[float, float]:
    """95 % bootstrap interval of the items' mean.

    Args:
        scores: (P,), one per item.
        clusters: The prompt of every item; None if all differ.
        num_replicates: Number of replicates of the bootstrap.
    """
    clusters = range(len(scores)) if clusters is None else clusters
    num_clusters = len(set(clusters))
    drawn_RP = draws(clusters, num_replicates)
    ends = interval(drawn_RP @ scores / drawn_RP.sum(axis=1), num_clusters)
    return _with_unseen(ends, scores, float(scores.mean()), num_clusters)


def _length_interval(
    items: Items,
    clusters: Sequence[Hashable],
    model: LengthModel,
    strength: float,
    num_replicates: int,
) -> tuple[float, float]:
    num_clusters = len(set(clusters))
    known = items.scores[~np.isnan(items.scores)]
    drawn_RP = draws(clusters, num_replicates)
    ends = interval(replicate(items, drawn_RP, model, strength), num_clusters)
    return _with_unseen(ends, known, model.win_rate, num_clusters)


def _with_unseen(
    ends: tuple[float, float], scores: Floats, rate: float, num_clusters: int
) -> tuple[float, float]:
    """Widen an interval of one-sided scores, since resampling cannot show the other side."""
    return hull(ends, unseen(rate, num_clusters)) if is_one_sided(scores) else ends


def _length_items(
    scores: dict[int, float], deltas: dict[int, int], alpaca_eval: AlpacaEvalModel | None
) -> tuple[Items, float]:
    """The items that the length model is fitted on, and C.

    AlpacaEval keeps items without a verdict in its mean (as NaN); our own design leaves them out.
    """
    if alpaca_eval is None:
        differences = np.array([deltas[item] for item in scores], dtype=float)
        return Items(np.array(list(scores.values())), differences), STRENGTH
    if len(alpaca_eval.difficulty) != len(deltas):
        raise DataError(
            f"AlpacaEval's difficulty must be known for every item, but {len(deltas)} items have "
            f"{len(alpaca_eval.difficulty)}; it belongs to the whole set in its own order"
        )
    values = np.array([scores.get(item, math.nan) for item in deltas])
    differences = np.array(list(deltas.values()), dtype=float)
    known = Items(values, differences, alpaca_eval.difficulty, alpaca_eval.gamed)
    return known, alpaca_eval.strength


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
