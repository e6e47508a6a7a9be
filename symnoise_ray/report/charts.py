"""The report's figures: small functions from rows of results.json to inline SVG.

In: trials with rates as fractions, seconds by phase, loss curves. Out: `<svg>` text that takes
its colours from classes, so that it follows a light or a dark page. Colours are Okabe and Ito's
(2008), which differ for any colour vision; every mark has a title, which browsers show on hovering.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from symnoise_ray.noise.types import is_paired
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import TrialResult
from symnoise_ray.records.verdict import Comparison
from symnoise_ray.report.markup import clean, element
from symnoise_ray.report.words import interval, percent, role, setting

Row = TrialResult | Comparison
"""What has a win rate with an interval."""
Line = tuple[TrialResult, list[tuple[float, float]]]
Curves = dict[str, list[dict[str, Any]]]

WIDTH = 940
LABEL_END = 250
HALF = "50 %"
_ROW = 24
ARM_COLOURS = {
    "none": "#7d7d7d",
    "neftune": "#e69f00",
    "gaussian": "#56b4e9",
    "bernoulli": "#009e73",
    "symnoise": "#d55e00",
    "symuniform": "#0072b2",
    "symgaussian": "#cc79a7",
    "independent": "#b3a400",  # Okabe and Ito's yellow, darker: it would vanish on white
    "duplicate": "#8c5a3c",
}
OWN_PHASES = tuple(phase for phase in PHASES if phase != "track")
"""Phases that take a trial's own time; tracking runs beside them."""
_PHASE_HUES = ("#9a9a9a", "#56b4e9", "#0072b2", "#e69f00", "#cc79a7", "#009e73")
PHASE_COLOURS = dict(zip(OWN_PHASES, _PHASE_HUES, strict=True))


class Scale(NamedTuple):
    """A linear map from values to positions in the figure."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def arm_class(arm: str) -> str:
    """The class that colours an arm."""
    return f"arm-{arm}" if arm in ARM_COLOURS else "arm-other"


def style() -> str:
    """The style sheet's part for the figures; `--ink`, `--page` and the like come from the page."""
    arms = "".join(f".arm-{arm} {{ color: {hue}; }}\n" for arm, hue in ARM_COLOURS.items())
    phases = "".join(f".phase-{name} {{ color: {hue}; }}\n" for name, hue in PHASE_COLOURS.items())
    return f"{arms}.arm-other {{ color: var(--ink); }}\n{phases}{_STYLE}"


_STYLE = """\
svg { display: block; width: 100%; min-width: 620px; height: auto; }
svg text { font: 13px var(--sans); fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .half { stroke: var(--soft); stroke-dasharray: 5 4; }
svg .mark, svg .bar { fill: currentColor; stroke: currentColor; }
svg .bar { stroke: var(--page); }
svg .mark { stroke-width: 2; }
svg .interval { stroke: currentColor; stroke-width: 2.5; opacity: .5; }
svg .band { fill: currentColor; opacity: .14; }
svg .hollow { fill: var(--page); }
svg .curve { fill: none; stroke: currentColor; stroke-width: 1.8; opacity: .85; }
svg .curve.hollow { stroke-dasharray: 6 4; fill: none; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .3rem 0 .6rem; padding: 0;
  list-style: none; font-size: .85rem; color: var(--soft); }
.dot { display: inline-block; width: .62em; height: .62em; margin-right: .5em; border-radius: 50%;
  background: currentColor; }
.dot.pair { border-radius: 0; transform: rotate(45deg) scale(.9); }
.dot.block { border-radius: 2px; }
"""


def dot(arm: str) -> str:
    """A noise type's mark for tables and legends: a diamond where rows come in pairs."""
    return element("span", class_=f"dot {arm_class(arm)}{' pair' if is_paired(arm) else ''}")


def legend(trials: Iterable[TrialResult]) -> str:
    """The noise types that occur, in the order of the colour table."""
    present = {trial.arm for trial in trials}
    known = [arm for arm in ARM_COLOURS if arm in present]
    names = [*known, *sorted(present - set(known))]
    items = (element("li", dot(name), clean(name)) for name in names)
    return element("ul", *items, class_="legend")


def _phase_legend(phases: Iterable[str]) -> str:
    items = (
        element("li", element("span", class_=f"dot block phase-{phase}"), phase) for phase in phases
    )
    return element("ul", *items, class_="legend")


def _title(row: Row) -> str:
    name = f"{row.trial}: " if isinstance(row, TrialResult) else ""
    rate = f"{percent(row.win_rate)} % wins, 95 % interval {interval(row.interval_95)}"
    return element("title", clean(f"{name}{setting(row)}, {rate}"))


def figure(title: str, height: int, parts: Iterable[str]) -> str:
    """A figure of the page's width from its parts."""
    box = f"0 0 {WIDTH} {height}"
    drawing = element("svg", element("title", clean(title)), *parts, viewBox=box, role="img")
    return element("div", drawing, class_="figure")


def write(x: float, y: float, text: object, anchor: str = "start", class_: str = "label") -> str:
    """A text at a place."""
    return element("text", clean(text), x=x, y=y, text_anchor=anchor, class_=class_)


def stroke(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _mark(x: float, y: float, row: Row, size: float = 5.0) -> str:
    """A circle, or a diamond for pairs; hollow for a baseline."""
    class_ = "mark hollow" if isinstance(row, TrialResult) and row.baseline else "mark"
    if is_paired(row.arm):
        d = f"M{x:.2f} {y - size - 1:.2f} l{size + 1} {size + 1} l{-size - 1} {size + 1} "
        return element("path", d=f"{d}l{-size - 1} {-size - 1} z", class_=class_)
    return element("circle", cx=x, cy=y, r=size, class_=class_)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round values between two ends, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _rate_range(rows: Iterable[Row]) -> tuple[float, float]:
    """Whole tens of percent around all rates, intervals and one half."""
    rates = [0.45, 0.55]
    for row in rows:
        rates += [_rate(row), *(row.interval_95 or ())]
    return math.floor(10 * min(rates) + 1e-6) / 10, math.ceil(10 * max(rates) - 1e-6) / 10


def _columns(x: Scale, bottom: float, labels: dict[float, str]) -> Iterable[str]:
    """The grid of a figure with rows: a line and its label below for each value."""
    for value, label in labels.items():
        yield stroke(x(value), 4, x(value), bottom, "half" if label == HALF else "grid")
        yield write(x(value), bottom + 18, label, "middle", "tick")


def levels(x: Scale, y: Scale, labels: dict[float, str], names: tuple[str, str]) -> Iterable[str]:
    """The horizontal grid of a figure with two axes, and the names of both."""
    yield write(x.end, y.start + 38, names[0], "end", "tick")
    yield write(x.start - 44, y.end - 12, names[1], "start", "tick")
    for value, label in labels.items():
        yield stroke(x.start, y(value), x.end, y(value), "half" if label == HALF else "grid")
        yield write(x.start - 8, y(value) + 4, label, "end", "tick")


def rate_labels(scale: Scale) -> dict[float, str]:
    """Round rates within a scale, in percent."""
    return {rate: f"{100 * rate:.0f} %" for rate in ticks(scale.low, scale.high)}


def _rate(row: Row) -> float:
    assert row.win_rate is not None, "rows without a win rate are not drawn"
    return row.win_rate


def win_rates(trials: Sequence[Row], title: str) -> str:
    """One row per trial or comparison, in the given order: win rate and 95 % interval.

    Returns:
        An SVG figure, empty where no row has a win rate.
    """
    rows = [row for row in trials if row.win_rate is not None]
    if not rows:
        return ""
    scale = Scale(*_rate_range(rows), LABEL_END + 20, WIDTH - 60)
    bottom = 8 + _ROW * len(rows)
    parts = [*_columns(scale, bottom, rate_labels(scale))]
    for number, row in enumerate(rows):
        parts.append(_rate_row(row, 8 + _ROW * (number + 0.5), scale))
    return figure(title, bottom + 26, parts)


def _against(row: Comparison) -> str:
    """A compared arm, and which of its opponents is meant where there are several."""
    kinds = {"best": "opponent at its best", "shared": "opponent at the same"}
    kind = kinds.get(row.opponent)
    return f"{row.arm}: {kind}" if kind else setting(row)


def _rate_row(row: Row, y: float, scale: Scale) -> str:
    label = setting(row) + role(row) if isinstance(row, TrialResult) else _against(row)
    if len(label) > 38:
        label = label[:37] + "\u2026"
    low, high = row.interval_95 or (_rate(row), _rate(row))
    name, rate = write(LABEL_END, y + 4, label, "end"), percent(row.win_rate)
    line = stroke(scale(low), y, scale(high), y, "interval")
    mark = _mark(scale(_rate(row)), y, row) + write(WIDTH - 8, y + 4, rate, "end")
    return element("g", _title(row), name, line, mark, class_=arm_class(row.arm))


def _alpha(trial: TrialResult) -> float:
    return float(trial.params.get("noise.alpha") or 0)


def by_alpha(trials: Sequence[TrialResult], title: str) -> str:
    """Win rate against alpha on a logarithmic axis; empty where no trial varied alpha."""
    rows = [trial for trial in trials if trial.win_rate is not None and _alpha(trial) > 0]
    if not rows:
        return ""
    alphas = [_alpha(trial) for trial in rows]
    ends = math.log10(min(alphas) / 1.25), math.log10(max(alphas) * 1.25)
    x, y = Scale(*ends, 60, WIDTH - 20), Scale(*_rate_range(rows), 300, 28)
    parts = [*levels(x, y, rate_labels(y), ("alpha (logarithmic)", "win rate"))]
    for alpha in log_ticks(*ends):
        place = x(math.log10(alpha))
        parts.append(stroke(place, y.start, place, y.end, "grid"))
        parts.append(write(place, y.start + 18, f"{alpha:g}", "middle", "tick"))
    for trial, alpha in zip(rows, alphas, strict=True):
        parts.append(_rate_point(trial, x(math.log10(alpha)), y))
    return legend(rows) + figure(title, 346, parts)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two exponents; powers alone over a wide range."""
    factors = (1, 2, 5) if high - low < 3 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low <= math.log10(value) <= high]


def _rate_point(trial: TrialResult, x: float, y: Scale) -> str:
    low, high = trial.interval_95 or (_rate(trial), _rate(trial))
    line, mark = stroke(x, y(low), x, y(high), "interval"), _mark(x, y(_rate(trial)), trial)
    return element("g", _title(trial), line, mark, class_=arm_class(trial.arm))


def clean_loss(trials: Sequence[TrialResult], curves: Curves, title: str) -> str:
    """Clean loss by step, a line per trial; empty where nothing was measured.

    A trial that diverges would press all others flat, so the axis ends at 1.2 times the largest
    loss before training, and what is above lies on its upper edge.
    """
    lines = _lines(trials, curves, "clean_loss")
    highest = 1.2 * max((points[0][1] for _, points in lines), default=0)
    held = [
        (trial, [(step, min(loss, highest)) for step, loss in points]) for trial, points in lines
    ]
    return _by_step(held, "clean loss", title)


def curvature(trials: Sequence[TrialResult], curves: Curves, title: str) -> str:
    """Curvature of the loss by step, a line per trial; empty where nothing was measured."""
    return _by_step(_lines(trials, curves, "curvature"), "curvature", title)


def _lines(trials: Sequence[TrialResult], curves: Curves, field: str) -> list[Line]:
    """The finite values of a field by step, for the trials that have any."""
    lines = []
    for trial in trials:
        rows = curves.get(trial.trial, [])
        values = [(float(row["step"]), row[field]) for row in rows if row.get(field) is not None]
        points = [(step, float(value)) for step, value in values if math.isfinite(value)]
        if points:
            lines.append((trial, points))
    return lines


def _by_step(lines: list[Line], axis: str, title: str) -> str:
    if not lines:
        return ""
    values = [value for _, points in lines for _, value in points]
    last_step = max(step for _, points in lines for step, _ in points)
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.5
    x = Scale(0, last_step or 1, 60, WIDTH - 20)
    y = Scale(max(0, low - pad) if low >= 0 else low - pad, high + pad, 300, 28)
    labels = {value: f"{value:.4g}" for value in ticks(y.low, y.high, 7)}
    parts = [*levels(x, y, labels, ("step", axis))]
    for step in ticks(0, x.high):
        parts.append(write(x(step), y.start + 18, f"{step:.4g}", "middle", "tick"))
    for trial, points in lines:
        parts.append(_curve(trial, [(x(step), y(value)) for step, value in points]))
    return legend(trial for trial, _ in lines) + figure(title, 346, parts)


def _curve(trial: TrialResult, places: list[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
    class_ = "curve hollow" if trial.baseline else "curve"
    marks = [_mark(x, y, trial, 2.5) for x, y in places]
    line = element("polyline", points=path, class_=class_)
    return element("g", _title(trial), line, *marks, class_=arm_class(trial.arm))


def time_spent(trials: Sequence[TrialResult], title: str) -> str:
    """One stacked bar of seconds by phase per trial; empty where no time was taken."""
    rows = {}
    for trial in trials:
        rows[trial.trial] = [float(trial.seconds.get(phase) or 0) for phase in OWN_PHASES]
    rows = {name: values for name, values in rows.items() if sum(values) > 0}
    if not rows:
        return ""
    x = Scale(0, max(sum(values) for values in rows.values()), LABEL_END + 20, WIDTH - 60)
    bottom = 8 + _ROW * len(rows)
    parts = [*_columns(x, bottom, {value: f"{value:.4g} s" for value in ticks(0, x.high)})]
    for number, (name, values) in enumerate(rows.items()):
        parts.append(_time_row(name, values, 8 + _ROW * number, x))
    spent = zip(OWN_PHASES, zip(*rows.values(), strict=True), strict=True)
    legend = _phase_legend(phase for phase, values in spent if sum(values) > 0)
    return legend + figure(title, bottom + 26, parts)


def _time_row(name: str, values: Iterable[float], top: float, x: Scale) -> str:
    spent, parts = 0.0, [write(LABEL_END, top + 16, name[:38], "end")]
    for phase, value in zip(OWN_PHASES, values, strict=True):
        title = element("title", clean(f"{name}: {phase} {value:.2f} s"))
        place = {"x": x(spent), "y": top + 4, "width": x(value) - x(0), "height": _ROW - 8}
        parts.append(element("rect", title, **place, class_=f"bar phase-{phase}"))
        spent += value
    parts.append(write(WIDTH - 8, top + 16, f"{spent:.1f}", "end"))
    return element("g", *parts)
