"""Where in their ranges settings lie: those that the search tries, and those between them.

In: the parameters of a space. Out: shares of their ranges for every block, and values at shares.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from symnoise_ray.config import Parameter, SweepConfig
from symnoise_ray.space.parameters import Params, grid_values
from symnoise_ray.statistics.bootstrap import Floats

REACH = 0.88
"""The part of a range that trials are spread over; its very ends are often of no use."""
QUARTERS = tuple(0.5 + REACH * (place - 0.5) for place in (0.0, 0.25, 0.5, 0.75, 1.0))
"""Shares of a range at which the first five blocks lie."""
_MOST_NUMBERS = 3
"""Continuous parameters beyond which only settings that were tried are chosen from."""


def draws_of(sweep: SweepConfig, num_blocks: int, own: Collection[str]) -> list[dict[str, float]]:
    """Parameter -> a number in [0, 1) for each block; the same for all arms.

    `random` draws independently; the others take a few evenly spread values of every parameter.

    Args:
        sweep: The sweep.
        num_blocks: Number of blocks; with more, the first ones stay the same.
        own: Parameters that only some arms have; those that all share are spread first.
    """
    names = sorted(sweep.parameters, key=lambda name: (name in own, name))
    rng = np.random.default_rng(np.random.SeedSequence([sweep.search.seed, 1]))
    if sweep.search.sampler == "random":
        numbers = rng.random((num_blocks, len(names)))
    else:
        numbers = 0.5 + REACH * _spread(num_blocks, len(names), rng)
    return [dict(zip(names, map(float, row), strict=True)) for row in numbers]


def _spread(num: int, num_columns: int, rng: np.random.Generator) -> Floats:
    """Places around 0, (num, columns): the middle, the ends and the quarters of the range first.

    Then come all halves between, and so on; of each set every value comes once. With as few trials
    as an arm has, an optimum near an end is missed unless the ends are tried: in
    benchmarks/verdict.py that makes more verdicts out of nothing than all else.
    """
    columns = _uncorrelated(num_columns, rng)
    # A stream for each parameter, so that more blocks begin with the same ones.
    for column, own_rng in zip(columns, rng.spawn(num_columns), strict=True):
        column.insert(0, 0.0)
        step = 0.125
        while len(column) < num:
            places = np.arange(-0.5 + step, 0.5, 2 * step)
            column += own_rng.permutation(places).tolist()
            step /= 2
    return np.array([column[:num] for column in columns]).reshape(num_columns, num).T


def _uncorrelated(num_columns: int, rng: np.random.Generator) -> list[list[float]]:
    """The ends and quarters for each parameter, the first one's ends before its quarters.

    The others have them in an order in which they move as little as possible with those before:
    parameters that rise and fall together cannot be told apart.
    """
    ends, quarters = rng.permutation([-0.5, 0.5]), rng.permutation([-0.25, 0.25])
    columns = [[*map(float, ends), *map(float, quarters)]]
    orders = rng.permutation(list(itertools.permutations(columns[0])))

    def together(order: Floats) -> float:
        # Also without the fourth: a baseline opens the first block, and arms often have four.
        return max(abs(float(order[:n] @ np.array(known[:n]))) for known in columns for n in (3, 4))

    while len(columns) < num_columns:
        columns.append(min(orders, key=together).tolist())
    return columns[:num_columns]


def value_at(name: str, parameter: Parameter, share: float) -> Any:
    """The value of a parameter at a share of its range in [0, 1)."""
    if parameter.type == "categorical" or parameter.step is not None:
        values = grid_values(name, parameter)
        return values[int(share * len(values))]
    assert parameter.low is not None
    assert parameter.high is not None
    low, high = parameter.low, parameter.high
    if parameter.type == "int":
        low, high = low - 0.5, high + 0.5
    value = low * (high / low) ** share if parameter.log else low + share * (high - low)
    if parameter.type == "int":
        return min(max(round(value), int(parameter.low)), int(parameter.high))
    return min(max(value, parameter.low), parameter.high)


def settings_near(points: Sequence[Params], parameters: Mapping[str, Parameter]) -> list[Params]:
    """Every tried point with its continuous parameters at quarters of their searched ranges."""
    moved = [
        name
        for name in sorted({name for point in points for name in point})
        if name in parameters
        and parameters[name].type == "float"
        and parameters[name].step is None
        and len({repr(point.get(name)) for point in points}) > 1
    ]
    if not moved or len(moved) > _MOST_NUMBERS:
        return []
    found: dict[str, Params] = {}
    for point in points:
        if not set(moved) <= set(point):
            continue
        for shares in itertools.product(QUARTERS, repeat=len(moved)):
            placed = zip(moved, shares, strict=True)
            new = {**point, **{name: value_at(name, parameters[name], s) for name, s in placed}}
            found.setdefault(repr(sorted(new.items())), new)
    return list(found.values())
