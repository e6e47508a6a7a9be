"""Figures of what trials went through: losses by step, time by phase, the importance of settings.

In: the arms, and what there is to draw. Out: `Figure`s.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from symnoise_ray.report.chart import MOST_ROWS, NAMES, ROW, SHOWN, Figure, colour, faint, figure
from symnoise_ray.report.colours import PHASE_COLOURS, Arm
from symnoise_ray.report.frames import CURVES, Columns


def by_step(arms: Sequence[Arm], columns: Columns, field: str) -> Figure | None:
    """A measured value by step, a line per trial or the quartiles of each arm; None without any."""
    title = f"{CURVES[field][0].upper()}{CURVES[field][1:]} by step"
    if "trial" not in columns:
        known = "field" in columns and field in columns["field"]
        return _bands(arms, field, title) if known else None
    if not any(value is not None for value in columns[field]):
        return None
    count = len({t for t, v in zip(columns["trial"], columns[field], strict=True) if v is not None})
    tips = [*NAMES, alt.Tooltip("step:Q"), alt.Tooltip(f"{field}:Q", format=".4~g")]
    dash = alt.condition("datum.baseline", alt.value([6, 4]), alt.value([1, 0]))
    lines = (
        alt.Chart()
        .transform_filter(f"isValid(datum.{field}) && {SHOWN}")
        .mark_line(strokeWidth=1.6, point=field != "loss")
        .encode(
            x=alt.X("step:Q", scale=alt.Scale(nice=False)),
            y=alt.Y(f"{field}:Q", title=CURVES[field], scale=alt.Scale(zero=False)),
            color=colour(arms), detail="trial:N", strokeDash=dash, opacity=faint(0.85),
            tooltip=tips,
        )
    )  # fmt: skip
    chart = alt.layer(lines).properties(height=260)
    return figure(chart, title, f"{title}: {count} trials, a line each.", ("curves",))


def _bands(arms: Sequence[Arm], field: str, title: str) -> Figure:
    data = alt.Chart().transform_filter(f"datum.field == '{field}' && {SHOWN}")
    x = alt.X("step:Q", scale=alt.Scale(nice=False))
    y = alt.Y("low:Q", title=CURVES[field], scale=alt.Scale(zero=False))
    band = data.mark_area(opacity=0.18).encode(x=x, y=y, y2="high:Q", color=colour(arms))
    tips = ["arm:N", "step:Q", "median:Q", alt.Tooltip("count:Q", title="trials")]
    middle = data.mark_line().encode(x=x, y="median:Q", color=colour(arms), tooltip=tips)
    chart = alt.layer(band, middle).properties(height=260)
    text = f"{title}: median and quartiles of each arm."
    return figure(chart, title, text, ("curves",))


def time_spent(count: int) -> Figure:
    """Seconds of each trial by phase, of many trials the longest ones."""
    order = {phase: number for number, phase in enumerate(PHASE_COLOURS)}
    scale = alt.Scale(domain=list(PHASE_COLOURS), range=list(PHASE_COLOURS.values()))
    kept = f"datum.time_rank <= {MOST_ROWS} && {SHOWN}"
    sort = None if count <= MOST_ROWS else alt.EncodingSortField("time_rank", op="min")
    bars = (
        alt.Chart()
        .transform_filter(kept)
        .transform_fold(list(PHASE_COLOURS), as_=["phase", "seconds"])
        .transform_calculate(order=f"({order!r})[datum.phase]".replace("'", '"'))
        .mark_bar()
        .encode(
            x=alt.X("seconds:Q", title="seconds"),
            y=alt.Y("trial:N", title=None, sort=sort),
            color=alt.Color("phase:N", scale=scale, legend=alt.Legend(orient="top", title=None)),
            order="order:Q",
            opacity=faint(1),
            tooltip=[*NAMES, "phase:N", alt.Tooltip("seconds:Q", format=".2f")],
        )
    )
    some = f"the {MOST_ROWS} longest of {count:,}" if count > MOST_ROWS else f"{count:,}"
    chart = alt.layer(bars).properties(height=ROW * min(count, MOST_ROWS))
    title = "Seconds of each trial by phase"
    return figure(chart, title, f"{title}: {some} trials.")


def importances(arms: Sequence[Arm], count: int) -> Figure:
    """Optuna's importance of each setting, by arm."""
    bars = (
        alt.Chart()
        .transform_filter(SHOWN)
        .mark_bar()
        .encode(
            x=alt.X("importance:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("setting:N", title=None, sort="-x"),
            yOffset="arm:N",
            color=colour(arms),
            tooltip=["arm:N", "setting:N", alt.Tooltip("importance:Q", format=".1%")],
        )
    )
    chart = alt.layer(bars).properties(height=ROW * count)
    text = "The share of each setting in what changes the win rate, by arm."
    return figure(chart, "Importance of settings", text, ("importances",))
