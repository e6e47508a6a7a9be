"""What the figures draw, as columns: one list per field, of one length.

In: a sweep's results, and the curves of its trials. Out: plain values that JSON can hold; a number
that is missing or not finite is None. Rates are fractions, times seconds, lengths characters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import quantiles
from typing import Any

from symnoise_ray.records.metrics import OWN_PHASES
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Choice, Comparison
from symnoise_ray.report import words
from symnoise_ray.report.section import cleaned
from symnoise_ray.report.trial_tables import ranked
from symnoise_ray.space.trials import show

Columns = dict[str, list[Any]]
Curves = Mapping[str, Sequence[Mapping[str, Any]]]

CURVES = {
    "loss": "training loss, with noise",
    "clean_loss": "clean loss",
    "curvature": "curvature",
    "text_loss": "loss on plain texts",
}
"""Field of metrics.jsonl -> what its axis says."""
MOST_LINES = 60
"""More trials than this are drawn as the median and the middle half of each arm."""
MOST_STEPS = 60
"""Points of a line; of more, evenly spread ones are drawn."""
MOST_PARAMETERS = 4


def columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Rows of equal fields as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _finite(value: Any) -> float | None:
    """A number to six digits, which no figure shows more of."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def varied_numbers(results: SweepResult) -> list[str]:
    """Settings above 0 that differ between searched trials: alpha, the learning rate, others."""
    values: dict[str, set[float]] = {}
    for trial in results.part("search"):
        for name, value in trial.params.items():
            if (number := _finite(value)) is not None and number > 0:
                values.setdefault(name, set()).add(number)
    varied = [name for name, found in values.items() if len(found) > 1]
    first = ("noise.alpha", "optim.lr")
    varied.sort(key=lambda name: (name not in first, name != first[0], -len(values[name])))
    return varied[:MOST_PARAMETERS]


def of_trials(results: SweepResult, settings: Sequence[str]) -> Columns:
    """All trials: `rank` counts the searched ones with a win rate, setting n is `setting_n`.

    `chosen_by` and `error` are the win rate that its arm's setting was chosen by, and its standard
    error.
    """
    rated = [trial.trial for trial in ranked(results.part("search")) if trial.win_rate is not None]
    ranks = {name: number for number, name in enumerate(rated, 1)}
    times = sorted(results.trials, key=lambda trial: -_spent(trial))
    longest = {trial.trial: number for number, trial in enumerate(times, 1)}
    candidates = {c.trial: c for choice in results.choices for c in choice.candidates}
    return columns(
        [
            {
                **_trial(trial),
                "rank": ranks.get(trial.trial),
                "time_rank": longest[trial.trial],
                "chosen_by": _finite(getattr(candidates.get(trial.trial), "win_rate", None)),
                "error": _finite(getattr(candidates.get(trial.trial), "standard_error", None)),
                **{
                    f"setting_{number}": _positive(trial.params.get(name))
                    for number, name in enumerate(settings)
                },
            }
            for trial in results.trials
        ]
    )


def _positive(value: Any) -> float | None:
    """A number that a logarithmic axis can hold."""
    found = _finite(value)
    return found if found is not None and found > 0 else None


def _trial(trial: TrialResult) -> dict[str, Any]:
    low, high = trial.interval_95 or (None, None)
    return {
        "trial": cleaned(trial.trial),
        "arm": cleaned(trial.arm),
        "part": trial.part,
        "setting": cleaned(words.setting(trial) + words.role(trial)),
        "baseline": trial.baseline,
        "win_rate": _finite(trial.win_rate),
        "low": _finite(low),
        "high": _finite(high),
        "length": _finite(trial.get("avg_length")),
        **{phase: _finite(trial.seconds.get(phase)) or 0.0 for phase in OWN_PHASES},
    }


def _spent(trial: TrialResult) -> float:
    return sum(_finite(trial.seconds.get(phase)) or 0.0 for phase in OWN_PHASES)


def of_comparisons(comparisons: Iterable[Comparison]) -> Columns:
    """The confirmation's comparisons with the reference; `number` keeps their order."""
    kinds = {"best": "against its best", "shared": "against the same"}
    return columns(
        [
            {
                "number": number,
                "label": cleaned(
                    f"{row.arm} {kinds[row.opponent]}"
                    if row.opponent in kinds
                    else words.setting(row)
                ),
                "arm": cleaned(row.arm),
                "setting": cleaned(words.setting(row)),
                "win_rate": _finite(row.win_rate),
                "low": _finite(row.interval_95[0]),
                "high": _finite(row.interval_95[1]),
            }
            for number, row in enumerate(comparisons)
        ]
    )


def of_choices(choices: Iterable[Choice], settings: Sequence[str]) -> Columns:
    """The chosen setting of every arm with its win rate, as fitted where there is a fit."""
    return columns(
        [
            {
                "arm": cleaned(choice.arm),
                "choice": cleaned(show(dict(choice.params))),
                "win_rate": _finite(choice.win_rate),
                **{f"setting_{n}": _positive(choice.params.get(k)) for n, k in enumerate(settings)},
            }
            for choice in choices
        ]
    )


def of_curves(trials: Sequence[TrialResult], curves: Curves) -> Columns:
    """Measured values by step: a line per trial, or of many trials the quartiles of each arm.

    A trial that diverges would press all others flat, so the clean loss ends at 1.2 times the
    largest one before training; what is above lies on that edge.
    """
    lines = {trial.trial: _line(curves.get(trial.trial, ())) for trial in trials}
    measured = [[row["clean_loss"] for row in rows if row["clean_loss"]] for rows in lines.values()]
    highest = 1.2 * max((losses[0] for losses in measured if losses), default=math.inf)
    rows = [
        {
            "trial": cleaned(trial.trial),
            "arm": cleaned(trial.arm),
            "setting": cleaned(words.setting(trial) + words.role(trial)),
            "baseline": trial.baseline,
            **row,
            "clean_loss": None if row["clean_loss"] is None else min(row["clean_loss"], highest),
        }
        for trial in trials
        for row in lines[trial.trial]
    ]
    with_lines = sum(bool(line) for line in lines.values())
    return columns(rows if with_lines <= MOST_LINES else _quartiles(rows))


def _line(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A trial's values by step; of many steps with the training loss alone, evenly spread ones."""
    every = max(1, -(-len(rows) // MOST_STEPS))
    kept = [
        row
        for number, row in enumerate(rows)
        if number % every == 0 or any(row.get(name) is not None for name in list(CURVES)[1:])
    ]
    return [
        {"step": row["step"], **{name: _finite(row.get(name)) for name in CURVES}} for row in kept
    ]


def _quartiles(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each arm, step and field, the quartiles over its trials."""
    found: dict[tuple[str, int, str], list[float]] = {}
    for row in rows:
        for name in CURVES:
            if row[name] is not None:
                found.setdefault((row["arm"], row["step"], name), []).append(row[name])
    return [
        {
            "arm": arm,
            "step": step,
            "field": name,
            **dict(zip(("low", "median", "high"), map(_finite, _three(values)), strict=True)),
            "count": len(values),
        }
        for (arm, step, name), values in found.items()
    ]


def _three(values: list[float]) -> list[float]:
    return values * 3 if len(values) == 1 else quantiles(values, n=4, method="inclusive")
