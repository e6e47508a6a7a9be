"""The fit that settings were chosen by, drawn over one setting at a time.

In: a sweep's choices, and sweep.json for the ranges that were searched. Out: columns of the fitted
win rate (a fraction) and its band of one standard deviation on both sides, by arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from symnoise_ray.config import Parameter
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import SWEEP
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Choice
from symnoise_ray.report.frames import Columns, columns
from symnoise_ray.report.section import cleaned
from symnoise_ray.statistics.fit import Curves, coordinates, floored

_PLACES = 41
"""Points of a line."""
Point = Mapping[str, Any]


def fitted_lines(results: SweepResult, settings: Sequence[str]) -> Columns:
    """Lines through the fit: over each of the settings, all others as in the arm's chosen one.

    `setting` is the number of the setting in `settings`, `at` its value. A line spans what the arm
    tried. There are no rows where no arm was fitted.
    """
    path = results.paths.directory / SWEEP
    shown = [choice for choice in results.choices if choice.method == "fit"]
    if not shown or not path.is_file():
        return {}
    parameters = {
        name: Parameter.model_validate(each) for name, each in read_json(path)["parameters"].items()
    }
    tried = {
        choice.arm: [_tuned(results, each.trial) for each in choice.candidates]
        for choice in results.choices
    }
    lines = [
        (choice, number, at, _line(choice, tried[choice.arm], name, at))
        for choice in shown
        for number, name in enumerate(settings)
        for at in [_places(tried[choice.arm], name)]
        if len(at)
    ]
    return columns(_rows(results.choices, tried, lines, parameters)) if lines else {}


def _tuned(results: SweepResult, trial: str) -> dict[str, Any]:
    """A trial's settings without the treatment, which is what arms differ by."""
    params = next(each.params for each in results.trials if each.trial == trial)
    return {name: at for name, at in params.items() if name != results.verdict.treatment}


def _places(points: Sequence[Point], name: str) -> list[float]:
    """Evenly spread values of a setting, by their logarithm; none where the arm did not vary it."""
    values = [float(point[name]) for point in points if point.get(name)]
    if len(set(values)) < 2:
        return []
    return [float(at) for at in np.geomspace(min(values), max(values), _PLACES)]


def _line(choice: Choice, points: Sequence[Point], name: str, at: Sequence[float]) -> list[Point]:
    held = {key: choice.params.get(key) for key in points[0]}
    return [{**held, name: value} for value in at]


def _rows(
    choices: Sequence[Choice],
    tried: Mapping[str, Sequence[Point]],
    lines: Sequence[tuple[Choice, int, list[float], list[Point]]],
    parameters: Mapping[str, Parameter],
) -> list[dict[str, Any]]:
    """All arms are fitted together, as they were when they were chosen from."""
    points = [point for arm in tried for point in tried[arm]]
    new = [point for line in lines for point in line[3]]
    places_ND, new_MD = np.split(coordinates([*points, *new], parameters), [len(points)])
    arms_N = np.repeat(np.arange(len(choices)), [len(each) for each in tried.values()])
    rates_N = np.concatenate(
        [floored(np.array([c.win_rate for c in e.candidates])) for e in choices]
    )
    errors_N = np.array([each.standard_error for c in choices for each in c.candidates])
    curves = Curves(arms_N.astype(float), places_ND, rates_N, errors_N)
    numbers = {choice.arm: number for number, choice in enumerate(choices)}
    rows, start = [], 0
    for choice, setting, at, line in lines:
        fit = curves.at(numbers[choice.arm], new_MD[start : start + len(line)])
        start += len(line)
        for value, mean, deviation in zip(at, fit.mean_N, fit.deviation_N, strict=True):
            row = {"arm": cleaned(choice.arm), "setting": setting, "at": float(f"{value:.6g}")}
            ends = {"fit": mean, "low": mean - deviation, "high": mean + deviation}
            rows.append(row | {key: round(float(end), 5) for key, end in ends.items()})
    return rows
