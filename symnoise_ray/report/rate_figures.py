"""Figures of win rates: of the confirmation, of the search, over settings and lengths, and the fit.

In: the arms, and how many trials there are to draw. Out: `Figure`s.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from symnoise_ray.report.chart import (
    IN,
    MOST_ROWS,
    NAMES,
    RATE_TIPS,
    ROW,
    SHOWN,
    Figure,
    Layers,
    colour,
    faint,
    figure,
    half,
    points,
    rate,
    shape,
)
from symnoise_ray.report.colours import Arm

MANY = 500
"""More trials than this are drawn as the median and the middle 80 % of each arm, not as points."""
_BINS = 24
Axes = tuple[str, str]


def confirmed(arms: Sequence[Arm], effect: float, count: int) -> Figure:
    """Win rates and intervals of the confirmation, over the differences that do not matter."""
    y = alt.Y("label:N", sort=alt.EncodingSortField("number", op="min"), title=None)
    zone = alt.Chart(alt.InlineData(values=[{}])).mark_rect(color="#888", opacity=0.13)
    zone = zone.encode(x=alt.datum(0.5 - effect), x2=alt.datum(0.5 + effect))
    data = alt.Chart().transform_filter(SHOWN)
    intervals = data.mark_rule(strokeWidth=3, opacity=0.6).encode(
        y=y, x=alt.X(**rate("low")), x2="high:Q", color=colour(arms)
    )
    marks = data.mark_point(filled=True, size=90).encode(
        y=y, x="win_rate:Q", color=colour(arms), shape=shape(arms),
        tooltip=[alt.Tooltip("setting:N"), alt.Tooltip("label:N"), *RATE_TIPS],
    )  # fmt: skip
    middle = half().encode(x=alt.datum(0.5))
    chart = alt.layer(zone, middle, intervals, marks).properties(height=2 * ROW * count)
    text = (
        f"{count} comparisons with the reference: win rates with their intervals. The shaded zone "
        "holds the differences that do not matter."
    )
    return figure(chart, "Win rates in the confirmation", text, ("comparisons",))


def searched(arms: Sequence[Arm], count: int) -> Figure:
    """A row per searched trial, best first: win rate and 95 % interval."""
    kept = f"datum.rank && datum.rank <= {MOST_ROWS} && {SHOWN}"
    y = alt.Y("trial:N", sort=alt.EncodingSortField("rank", op="min"), title=None)
    intervals = alt.Chart().mark_rule(strokeWidth=2.5)
    intervals = intervals.encode(
        y=y, x=alt.X(**rate("low")), x2="high:Q", color=colour(arms), opacity=faint(0.5)
    )
    marks = points(arms, (*NAMES, *RATE_TIPS)).encode(y=y, x="win_rate:Q")
    marks = marks.add_params(alt.selection_interval(name="brush", encodings=["y"]))
    middle = half().encode(x=alt.datum(0.5))
    rows = [each.transform_filter(kept) for each in (intervals, marks)]
    chart = alt.layer(middle, *rows).properties(height=ROW * min(count, MOST_ROWS))
    some = f"The best {MOST_ROWS} of {count:,}" if count > MOST_ROWS else f"All {count:,}"
    text = f"{some} searched trials with a win rate, best first, each with its 95 % interval."
    return figure(chart, "Win rates in the search", text, brush={"trial": "trial"})


def by_setting(arms: Sequence[Arm], number: int, name: str, count: int) -> Figure:
    """Win rate over the reference against one setting, on a logarithmic axis."""
    axes = (f"setting_{number}", "win_rate")
    tips = (alt.Tooltip(f"{axes[0]}:Q", format=".3~g", title=name), *RATE_TIPS)
    whiskers = ("low", "high")
    title = f"Win rate over the reference against {name}"
    return _scatter(arms, axes, tips, title, f"{name} (logarithmic)", count, whiskers, log=True)


def by_length(arms: Sequence[Arm], count: int) -> Figure:
    """Win rate against the mean length of the answers."""
    tips = (
        alt.Tooltip("length:Q", format=".1f", title="mean length"),
        *RATE_TIPS,
        alt.Tooltip("part:N"),
    )
    title = "Win rate against the length of answers"
    axis = "mean length of an answer, characters"
    return _scatter(arms, ("length", "win_rate"), tips, title, axis, count, None, log=False)


def _scatter(
    arms: Sequence[Arm],
    axes: Axes,
    tips: Sequence[alt.Tooltip],
    title: str,
    axis: str,
    count: int,
    whiskers: Axes | None,
    *,
    log: bool,
) -> Figure:
    """Trials as points, or of many trials the spread of each arm over bins."""
    part = "datum.part == 'search' && " if whiskers else ""
    known = f"{part}isValid(datum.{axes[0]}) && isValid(datum.{axes[1]}) && {SHOWN}"
    scale = alt.Scale(type="log", nice=False, padding=12) if log else alt.Scale(zero=False)
    if count > MANY:
        bands = _spread(arms, axes, axis, known, scale, log=log)
        text = f"{title}: median and middle 80 % of {count:,} trials by arm."
        return figure(bands, title, text, brush={"place": axes[0]})
    x = alt.X(f"{axes[0]}:Q", title=axis, scale=scale)
    marks = points(arms, (*NAMES, *tips)).encode(x=x, y=alt.Y(**rate(axes[1])))
    marks = marks.add_params(alt.selection_interval(name="brush"))
    layers = [half().encode(y=alt.datum(0.5)), marks.transform_filter(known)]
    if whiskers:
        rule = alt.Chart().transform_filter(known).mark_rule(strokeWidth=2)
        ends = {"y": alt.Y(**rate(whiskers[0])), "y2": f"{whiskers[1]}:Q"}
        layers.insert(1, rule.encode(x=x, **ends, color=colour(arms), opacity=faint(0.4)))
    text = f"{title}: {count:,} trials, which the tables list."
    chart = alt.layer(*layers).properties(height=300)
    return figure(chart, title, text, brush={axes[0]: axes[0], axes[1]: axes[1]})


def _spread(
    arms: Sequence[Arm], axes: Axes, axis: str, known: str, scale: alt.Scale, *, log: bool
) -> Layers:
    """The median and the middle 80 % of each arm over bins; a choice of trials is made anew."""
    place, back = (f"log(datum.{axes[0]})", "exp") if log else (f"datum.{axes[0]}", "")
    data = (
        alt.Chart()
        .transform_filter(f"{known} && {IN}")
        .transform_calculate(scaled=place)
        .transform_bin(["bin_start", "bin_end"], "scaled", bin=alt.Bin(maxbins=_BINS))
        .transform_calculate(place=f"{back}((datum.bin_start + datum.bin_end) / 2)")
        .transform_quantile(axes[1], probs=[0.1, 0.5, 0.9], groupby=["arm", "place"])
        .transform_pivot("prob", "value", groupby=["arm", "place"])
        .transform_calculate(low="datum['0.1']", median="datum['0.5']", high="datum['0.9']")
    )
    x = alt.X("place:Q", title=axis, scale=scale)
    band = data.mark_area(opacity=0.18).encode(
        x=x, y=alt.Y(**rate("low")), y2="high:Q", color=colour(arms)
    )
    tips = [
        alt.Tooltip("arm:N"),
        *(alt.Tooltip(f"{n}:Q", format=".1%") for n in ("low", "median", "high")),
    ]
    middle = data.mark_line(point=True).encode(x=x, y="median:Q", color=colour(arms), tooltip=tips)
    middle = middle.add_params(alt.selection_interval(name="brush", encodings=["x"]))
    return alt.layer(half().encode(y=alt.datum(0.5)), band, middle).properties(height=300)


def fitted(arms: Sequence[Arm], number: int, name: str, count: int) -> Figure:
    """The win rates that settings were chosen by, and the fit's line and band, by one setting."""
    scale = alt.Scale(type="log", nice=False, padding=12)
    lines = alt.Chart(alt.NamedData("fit")).transform_filter(
        f"datum.setting == {number} && {SHOWN}"
    )
    at, hue = alt.X("at:Q", title=f"{name} (logarithmic)", scale=scale), colour(arms)
    band = lines.mark_area(opacity=0.14).encode(
        x=at, y=alt.Y(**rate("low")), y2="high:Q", color=hue
    )
    line = lines.mark_line().encode(x=at, y="fit:Q", color=hue)
    field = f"setting_{number}"
    known = f"isValid(datum.{field}) && isValid(datum.chosen_by) && {SHOWN}"
    tips = (
        *NAMES,
        alt.Tooltip(f"{field}:Q", format=".3~g", title=name),
        alt.Tooltip("chosen_by:Q", format=".1%", title="win rate"),
        alt.Tooltip("error:Q", format=".1%", title="standard error"),
    )
    marks = points(arms, tips).encode(x=f"{field}:Q", y=alt.Y("chosen_by:Q"))
    errors = (
        alt.Chart()
        .transform_filter(known)
        .transform_calculate(
            below="datum.chosen_by - datum.error", above="datum.chosen_by + datum.error"
        )
        .mark_rule(strokeWidth=2)
        .encode(x=f"{field}:Q", y="below:Q", y2="above:Q", color=hue, opacity=faint(0.4))
    )
    marks = marks.transform_filter(known).add_params(alt.selection_interval(name="brush"))
    chart = alt.layer(band, line, errors, marks, _chosen(arms, field)).properties(height=300)
    title = f"The fit over {name}"
    text = (
        f"{title}: win rates of {count:,} trials with their standard errors, and each arm's fit "
        "with a band of one standard deviation, other settings as chosen. A cross is a choice."
    )
    sources = ("trials", "fit", "choices")
    return figure(chart, title, text, sources, {field: field, "chosen_by": "chosen_by"})


def _chosen(arms: Sequence[Arm], field: str) -> alt.Chart:
    """Crosses where the settings of the confirmation lie."""
    chosen = alt.Chart(alt.NamedData("choices")).transform_filter(
        f"isValid(datum.{field}) && {SHOWN}"
    )
    crosses: alt.Chart = chosen.mark_point(shape="cross", size=160, strokeWidth=2).encode(
        x=f"{field}:Q",
        y="win_rate:Q",
        color=colour(arms),
        tooltip=[
            alt.Tooltip("choice:N", title="chosen"),
            alt.Tooltip("win_rate:Q", format=".1%", title="win rate"),
        ],
    )
    return crosses
