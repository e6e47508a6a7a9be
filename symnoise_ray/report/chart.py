"""What the report's figures share: Vega-Altair charts over columns that the page gives by name.

In: layers of a chart. Out: a `Figure`. Every chart reads two parameters that the page sets:
`shown_arms` (arms that the legend shows, or false for all) and `chosen` (trials that a brush or the
search field chose, or false for all). Colours of text and grid are the page's, so that a figure
follows a light or a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from symnoise_ray.report.colours import Arm

MOST_ROWS = 40
"""Rows of a figure with a row per trial."""
IN = "(!chosen || chosen[datum.trial])"
"""Whether a mark is of a chosen trial."""
SHOWN = "(!shown_arms || shown_arms[datum.arm])"
"""Whether a mark is of an arm that the legend shows."""
_FAINT = 0.12
ROW = 20
"""Height of a row, in pixels."""
Layers = alt.LayerChart | alt.FacetChart


class Figure(NamedTuple):
    """A figure of the page: its title, its text in place of the picture, and its chart.

    `sources` are the columns that it reads. `brush` says of a field of its axes, which field of a
    trial it is.
    """

    title: str
    description: str
    chart: dict[str, Any]
    sources: tuple[str, ...]
    brush: dict[str, str]


def figure(
    chart: Layers,
    title: str,
    description: str,
    sources: tuple[str, ...] = ("trials",),
    brush: dict[str, str] | None = None,
) -> Figure:
    """Make a figure of layers; the first of its `sources` is the one that layers read."""
    params = [alt.param(name=name, value=False) for name in ("shown_arms", "chosen")]
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    data = alt.NamedData(sources[0])
    whole = chart.properties(width="container", data=data, autosize=fit).add_params(*params)
    return Figure(title, description, whole.to_dict(validate=False), sources, brush or {})


def colour(arms: Sequence[Arm]) -> alt.Color:
    """The colour of an arm; the page has the legend."""
    names, hues = [arm.name for arm in arms], [arm.colour for arm in arms]
    return alt.Color("arm:N", scale=alt.Scale(domain=names, range=hues), legend=None)


def shape(arms: Sequence[Arm]) -> alt.Shape:
    """The mark of an arm."""
    names, marks = [arm.name for arm in arms], [arm.mark for arm in arms]
    return alt.Shape("arm:N", scale=alt.Scale(domain=names, range=marks), legend=None)


def points(arms: Sequence[Arm], tooltip: Sequence[alt.Tooltip]) -> alt.Chart:
    """Marks that are hollow for baselines, and faint where something else was chosen."""
    hollow = alt.condition("datum.baseline", alt.value(0), alt.value(1))
    marks: alt.Chart = (
        alt.Chart()
        .mark_point(filled=True, size=70, strokeWidth=2)
        .encode(
            color=colour(arms), stroke=colour(arms), shape=shape(arms), fillOpacity=hollow,
            opacity=faint(1), tooltip=list(tooltip),
        )
    )  # fmt: skip
    return marks


def faint(usual: float) -> Any:
    """An opacity, fainter for trials that are not chosen."""
    return alt.condition(IN, alt.value(usual), alt.value(_FAINT))


def half() -> alt.Chart:
    """The line of no difference."""
    one = alt.Chart(alt.InlineData(values=[{}]))
    rule: alt.Chart = one.mark_rule(strokeDash=[5, 4], color="#888")
    return rule


def rate(field: str, title: str = "win rate") -> dict[str, Any]:
    """An axis of win rates, not from zero."""
    return {
        "shorthand": f"{field}:Q",
        "title": title,
        "scale": alt.Scale(zero=False),
        "axis": alt.Axis(format="%"),
    }


NAMES = (alt.Tooltip("trial:N"), alt.Tooltip("setting:N"))
RATE_TIPS = (
    alt.Tooltip("win_rate:Q", format=".1%", title="win rate"),
    alt.Tooltip("low:Q", format=".1%", title="95 % from"),
    alt.Tooltip("high:Q", format=".1%", title="to"),
)
