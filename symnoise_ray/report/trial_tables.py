"""Tables of trials: their scores, their answers, their upstream check, and why some have none.

In: results of trials. Out: `Table`s, best trial first. A number that is missing is shown as
missing, never as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from symnoise_ray.records.metrics import OWN_PHASES, UPSTREAM
from symnoise_ray.records.results import TrialResult
from symnoise_ray.records.verdict import Comparison
from symnoise_ray.report import words
from symnoise_ray.report.section import Table
from symnoise_ray.report.words import DASH, interval, percent
from symnoise_ray.statistics.win_rate import ONE_SIDED

Row = TypeVar("Row", TrialResult, Comparison)


def ranked(trials: Iterable[Row]) -> list[Row]:
    """By win rate, best first; those without one last."""
    return sorted(trials, key=lambda row: (row.win_rate is None, -(row.win_rate or 0)))


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits, a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}g}"


def _fixed(value: float | None, decimals: int) -> str:
    return DASH if value is None else f"{value:.{decimals}f}"


def at_equal_lengths(
    rate: float | None, ends: Sequence[float] | None, longer: float | None = None
) -> str:
    """The length-controlled win rate with its interval, and a warning where it reaches too far."""
    if rate is None:
        return DASH
    text = f"{percent(rate)} ({interval(ends)})" if ends else percent(rate)
    if longer is None or ONE_SIDED <= longer <= 1 - ONE_SIDED:
        return text
    return f"{text}, longer on {percent(longer)} %"


ANSWER_COLUMNS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "length_median": ("median length", lambda value: _fixed(value, 0)),
    "words_mean": ("words", lambda value: _fixed(value, 1)),
    "repetition_2": ("repeated 2-grams %", percent),
    "log_diversity": ("log-diversity", lambda value: _fixed(value, 2)),
    "compression_ratio": ("compression", lambda value: _fixed(value, 2)),
    "distinct_rate": ("different %", percent),
    "refusal_rate": ("refusals %", percent),
    "empty_rate": ("empty %", percent),
}
"""Statistic of the answers -> its heading and how it is shown."""


def answer_tables(trials: Sequence[TrialResult]) -> tuple[Table, ...]:
    """What the answers of each trial look like; lengths are in characters."""
    answered = [trial for trial in ranked(trials) if trial.get("num_answers")]
    if not answered:
        return ()
    rows = [
        (
            trial.trial,
            *(show(trial.get(name)) for name, (_, show) in ANSWER_COLUMNS.items()),
        )
        for trial in answered
    ]
    header = ("trial", *(heading for heading, _ in ANSWER_COLUMNS.values()))
    arms = tuple(trial.arm for trial in answered)
    align = "l" + "r" * len(ANSWER_COLUMNS)
    names = tuple(trial.trial for trial in answered)
    return (Table(align, header, rows, arms, "What the answers look like", names),)


def upstream_tables(trials: Sequence[TrialResult]) -> tuple[Table, ...]:
    """Scores in the tasks of lm-evaluation-harness, plain fine-tuning first."""
    scored = sorted(ranked(trials), key=lambda trial: trial.arm != "none")
    scored = [trial for trial in scored if _upstream(trial)]
    names = list(dict.fromkeys(name for trial in scored for name in _upstream(trial)))
    if not names:
        return ()
    rows = [(trial.trial, *(_with_error(trial, name) for name in names)) for trial in scored]
    header = ("trial", *(name.removeprefix(UPSTREAM).replace("/", " ") for name in names))
    arms = tuple(trial.arm for trial in scored)
    heading = "Scores in lm-evaluation-harness, \u00b1 their standard errors"
    trial_names = tuple(trial.trial for trial in scored)
    return (Table("l" + "r" * len(names), header, rows, arms, heading, trial_names),)


def _upstream(trial: TrialResult) -> list[str]:
    """Names of a trial's scores, without those of their standard errors."""
    errors = {_error_of(name) for name in trial.values if name.startswith(UPSTREAM)}
    return [name for name in trial.values if name.startswith(UPSTREAM) and name not in errors]


def _error_of(name: str) -> str:
    """`harness/task/metric.filter` -> `harness/task/metric_stderr.filter`."""
    task, _, metric = name.rpartition("/")
    first, dot, rest = metric.partition(".")
    return f"{task}/{first}_stderr{dot}{rest}"


def _with_error(trial: TrialResult, name: str) -> str:
    value, error = trial.get(name), trial.get(_error_of(name))
    return _fixed(value, 3) + (f" \u00b1 {_fixed(error, 3)}" if error is not None else "")


COLUMNS = (
    "trial", "noise", "learning rate", "wins %", "95 % interval", "at equal lengths %",
    "clean loss", "curvature", "first difference", "rows passed", "answer length", "seconds",
)  # fmt: skip


def trial_tables(trials: Sequence[TrialResult], summary: str = "") -> tuple[Table, ...]:
    """Trials with a win rate, best first, and those without one with their reasons."""
    unrated = [trial for trial in trials if trial.win_rate is None]
    return rated_tables(trials, summary) + reason_tables(unrated, "trial without a result")


def rated_tables(trials: Sequence[TrialResult], summary: str = "") -> tuple[Table, ...]:
    """Trials with a win rate, best first."""
    rated = [trial for trial in ranked(trials) if trial.win_rate is not None]
    more = {key for trial in trials for key in trial.params}
    more -= {"noise.type", "noise.alpha", "optim.lr"}
    others = tuple(sorted(more))
    if not rated:
        return ()
    return (
        Table(
            "ll" + "r" * (len(COLUMNS) - 2 + len(others)),
            (*COLUMNS, *others),
            [_trial_row(trial, others) for trial in rated],
            tuple(trial.arm for trial in rated),
            summary,
            tuple(trial.trial for trial in rated),
        ),
    )


def reason_tables(trials: Sequence[TrialResult], first: str) -> tuple[Table, ...]:
    """How trials ended and why, in their order; `first` heads the column of their names."""
    if not trials:
        return ()
    return (
        Table(
            "lllll",
            (first, "setting", "status", "kind", "reason"),
            [_reason_row(trial) for trial in trials],
            tuple(trial.arm for trial in trials),
            trials=tuple(trial.trial for trial in trials),
        ),
    )


def _trial_row(trial: TrialResult, others: Iterable[str]) -> tuple[str, ...]:
    before, after = trial.get("first_clean_loss"), trial.get("clean_loss")
    spent = [trial.seconds.get(phase) for phase in OWN_PHASES]
    seconds = [value for value in spent if value is not None]
    return (
        f"{trial.trial}{words.role(trial)}",
        trial.label or trial.arm,
        number(trial.params.get("optim.lr"), 2),
        percent(trial.win_rate),
        interval(trial.interval_95),
        at_equal_lengths(
            trial.get("length_controlled_win_rate"),
            trial.get("length_controlled_interval_95"),
            trial.get("longer_rate"),
        ),
        DASH if after is None else f"{_fixed(before, 2)} \u2192 {_fixed(after, 2)}",
        number(trial.get("curvature"), 2),
        number(trial.get("first_difference"), 2),
        _fixed(trial.get("num_passed_rows"), 0),
        _fixed(trial.get("avg_length"), 0),
        _fixed(sum(seconds), 1) if seconds else DASH,
        *(str(trial.params.get(key, DASH)) for key in others),
    )


def _reason_row(trial: TrialResult) -> tuple[str, ...]:
    kind, reason = trial.kind or DASH, trial.reason or DASH
    return (trial.trial, words.setting(trial), words.status(trial), kind, reason)
