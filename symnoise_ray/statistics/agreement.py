"""How far two judges agree on the same answers, and where they differ by the answers' lengths.

In: items that both judged, with both scores and the length difference. Out: raw agreement and
Cohen's kappa, over all items and by which answer is longer. An item is won, tied or lost: a judge's
two orders are averaged before, and opposite verdicts are a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Item(NamedTuple):
    """Both judges' scores of an item (1: the trial's answer won, 1/2: a tie, 0: it lost), and how
    many characters the trial's answer is longer than the other one."""

    first: float
    second: float
    longer_by: int


class Agreement(NamedTuple):
    """Agreement on some items; a rate is None where there are none.

    `kappa` is None where both judges always say the same one thing, so that chance explains all.
    """

    num_items: int
    raw: float | None
    kappa: float | None
    first_win_rate: float | None
    second_win_rate: float | None


LENGTHS = ("the trial's is longer", "equally long", "the trial's is shorter")
"""The groups of `by_length`, in characters."""


def agreement(items: Sequence[Item]) -> Agreement:
    """Agreement on won, tied and lost items.

    Source: J. Cohen, "A coefficient of agreement for nominal scales", 1960: (p_o - p_e) /
        (1 - p_e), p_o the share of equal verdicts and p_e the one to expect by chance from how
        often each judge gives each verdict.
    """
    if not items:
        return Agreement(0, None, None, None, None)
    number = len(items)
    pairs = [(_outcome(item.first), _outcome(item.second)) for item in items]
    raw = sum(one == other for one, other in pairs) / number
    first, second = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    chance = sum(count * second[outcome] for outcome, count in first.items()) / number**2
    return Agreement(
        num_items=number,
        raw=raw,
        kappa=None if chance == 1 else (raw - chance) / (1 - chance),
        first_win_rate=sum(item.first for item in items) / number,
        second_win_rate=sum(item.second for item in items) / number,
    )


def by_length(items: Sequence[Item]) -> dict[str, Agreement]:
    """Agreement by which answer is longer, in the order of `LENGTHS`.

    A judge that likes long answers has the higher win rate in the first group and the lower one in
    the last.
    """
    groups: dict[str, list[Item]] = {name: [] for name in LENGTHS}
    for item in items:
        groups[LENGTHS[1 - (item.longer_by > 0) + (item.longer_by < 0)]].append(item)
    return {name: agreement(found) for name, found in groups.items()}


def _outcome(score: float) -> int:
    return (score > 0.5) - (score < 0.5)
