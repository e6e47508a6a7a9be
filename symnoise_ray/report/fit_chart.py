"""The figure of the choice: every arm's win rates, the fit through them, and what was chosen.

In: the choices of a sweep and its trials. Out: `<svg>` text, a panel per arm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from symnoise_ray.records.results import TrialResult
from symnoise_ray.records.verdict import Candidate, Choice
from symnoise_ray.report.charts import (
    WIDTH,
    Scale,
    arm_class,
    figure,
    levels,
    log_ticks,
    rate_labels,
    stroke,
    ticks,
    write,
)
from symnoise_ray.report.markup import clean, element
from symnoise_ray.report.words import percent

_PANEL = 210
Points = list[tuple[float, Candidate]]


def fitted(choices: Sequence[Choice], trials: Sequence[TrialResult]) -> str:
    """Win rate against the setting that varies most, with the fit's band of one deviation.

    Empty where no arm was fitted, or no number varies.
    """
    shown = [choice for choice in choices if choice.method != "raw"]
    params = {trial.trial: trial.params for trial in trials}
    name = _most_varied([params.get(c.trial, {}) for choice in shown for c in choice.candidates])
    if not shown or name is None:
        return ""
    return "".join(_panel(choice, params, name) for choice in shown)


def _most_varied(points: Sequence[Mapping[str, Any]]) -> str | None:
    """The number with the most values, the learning rate before others."""
    values: dict[str, set[float]] = {}
    for point in points:
        for name, value in point.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                values.setdefault(name, set()).add(float(value))
    varied = [name for name, found in values.items() if len(found) > 1]
    return max(varied, key=lambda name: (len(values[name]), name == "optim.lr"), default=None)


def _panel(choice: Choice, params: Mapping[str, Mapping[str, Any]], name: str) -> str:
    points: Points = sorted(
        ((float(params[each.trial][name]), each) for each in choice.candidates),
        key=lambda point: point[0],
    )
    rates = [each.win_rate + sign * each.standard_error for _, each in points for sign in (-1, 1)]
    rates += [choice.fitted] if choice.fitted is not None else []
    low, high = min(rates) - 0.02, max(rates) + 0.02
    ends = math.log10(points[0][0] / 1.1), math.log10(points[-1][0] * 1.1)
    x, y = Scale(*ends, 60, WIDTH - 20), Scale(low, high, _PANEL, 28)
    parts = [*levels(x, y, rate_labels(y), (f"{name} (logarithmic)", f"{choice.arm}: win rate"))]
    for value in log_ticks(*ends) or ticks(10 ** ends[0], 10 ** ends[1], 4):
        parts.append(stroke(x(math.log10(value)), y.start, x(math.log10(value)), y.end, "grid"))
        parts.append(write(x(math.log10(value)), y.start + 18, f"{value:g}", "middle", "tick"))
    drawn = [
        *_band(points, x, y),
        *_between(choice, name, x, y),
        *(_point(value, each, choice, x, y) for value, each in points),
    ]
    parts.append(element("g", *drawn, class_=arm_class(choice.arm)))
    return figure(f"Choice of the setting of {choice.arm}", _PANEL + 46, parts)


def _band(points: Points, x: Scale, y: Scale) -> list[str]:
    """The fit with its band at the settings that were tried, joined by straight lines."""
    known = [
        (x(math.log10(value)), each.fitted, each.band)
        for value, each in points
        if each.fitted is not None and each.band is not None
    ]
    if not known:
        return []
    upper = [f"{place:.1f},{y(mean + band):.1f}" for place, mean, band in known]
    lower = [f"{place:.1f},{y(mean - band):.1f}" for place, mean, band in reversed(known)]
    middle = " ".join(f"{place:.1f},{y(mean):.1f}" for place, mean, _ in known)
    return [
        element("polygon", points=" ".join([*upper, *lower]), class_="band"),
        element("polyline", points=middle, class_="curve"),
    ]


def _between(choice: Choice, name: str, x: Scale, y: Scale) -> list[str]:
    """The mark of a chosen setting that lies between those that were tried."""
    if choice.fitted is None:
        return []
    place, height = x(math.log10(float(choice.params[name]))), y(choice.fitted)
    mark = element("circle", cx=place, cy=height, r=6, class_="mark")
    return [mark, write(place + 9, height - 8, "chosen, by the fit")]


def _point(value: float, each: Candidate, choice: Choice, x: Scale, y: Scale) -> str:
    """A trial with its standard error; the chosen one is filled."""
    place, chosen = x(math.log10(value)), each.trial == choice.trial
    ends = (y(each.win_rate - each.standard_error), y(each.win_rate + each.standard_error))
    rates = f"{percent(each.win_rate)} % wins, fit {percent(each.fitted)} %"
    title = element("title", clean(f"{each.trial}: {each.label}, {rates}"))
    mark = element(
        "circle", cx=place, cy=y(each.win_rate), r=6 if chosen else 4.5,
        class_="mark" if chosen else "mark hollow",
    )  # fmt: skip
    name = write(place + 9, y(each.win_rate) - 8, "chosen") if chosen else ""
    return element("g", title, stroke(place, ends[0], place, ends[1], "interval"), mark, name)
