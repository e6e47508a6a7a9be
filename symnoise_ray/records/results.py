"""What a trial and a sweep found, as their files hold it: frozen, and typed where it travels.

In: trial.json, results.json, or what a running sweep assembles. Out: `TrialResult`, `SweepResult`.
Rates are fractions. A field that an older file lacks has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from symnoise_ray.errors import DataError, UserError, reason_of
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import (
    JOURNAL,
    RESULT,
    RESULTS,
    SWEEP,
    TRIALS,
    SweepPaths,
    default_tracking_uri,
)
from symnoise_ray.records.verdict import Choice, Comparison, Interval, Verdict, as_interval

if TYPE_CHECKING:
    import pandas

INTERRUPTED = "interrupted"
"""Status of a sweep that has not come to its end."""
STOPPED = "stopped"
"""Status of a trial of the search that was stopped: it was behind, or a person ordered it."""
NO_END = "The sweep was interrupted before its end, so it gives no verdict."
SCHEMA_VERSION = 2
"""Of results.json; 1 had comparisons without decisions, and no such number."""


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial; `result["clean_loss"]` gives a measured value by its name.

    `part` is `search` or `confirm`, `arm` the value of the treatment, `label` the noise in words,
    `params` the point of the search space. `status` is `done`, `stopped` (early, at step
    `stopped_at`), `failed` or `cancelled`. A trial that is not done has a `reason`, one that failed
    a `kind`. `counts` says how many rows or prompts were left out or cut, `seconds` where the time
    went. `values` are losses, scores and whatever else was measured.
    """

    trial: str
    part: str = "search"
    baseline: bool = False
    is_reference: bool = False
    arm: str = ""
    label: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    status: str = "done"
    kind: str = ""
    reason: str = ""
    detail: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """A measured value.

        Raises:
            KeyError: it was not measured.
        """
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A measured value, or the default where it was not measured."""
        return self.values.get(name, default)

    @property
    def is_done(self) -> bool:
        """Whether the trial came to its end and has a score."""
        return self.status == "done"

    @property
    def is_stopped(self) -> bool:
        """Whether the search or an order stopped the trial before its end, which is no failure."""
        return self.status == STOPPED

    @property
    def last_step(self) -> int:
        """The step at which it ended; 0 where that is not known."""
        step: int = self.values.get("num_steps", self.values.get("stopped_at", 0))
        return step

    @property
    def win_rate(self) -> float | None:
        """Win rate against the reference; None where there is no score."""
        rate: float | None = self.values.get("win_rate")
        return rate

    @property
    def interval_95(self) -> Interval | None:
        """The win rate's 95 % interval."""
        return as_interval(self.values.get("interval_95"))

    def with_seconds(self, **seconds: float) -> Self:
        """The same result with the time of further phases."""
        return replace(self, seconds={**self.seconds, **seconds})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read one trial of trial.json or results.json."""
        known = {name: row[name] for name in _TRIAL_FIELDS if row.get(name) is not None}
        values = {name: value for name, value in row.items() if name not in _TRIAL_FIELDS}
        return cls(**known, values=values)

    def to_json(self, *, detail: bool = True) -> dict[str, Any]:
        """Plain values, flat; without `detail` the traceback of a failure is left out."""
        row = {name: getattr(self, name) for name in _TRIAL_FIELDS}
        failure = {name: row.pop(name) for name in ("kind", "reason", "detail")}
        seconds = row.pop("seconds")
        if self.is_done:
            return {**row, **self.values, "seconds": seconds}
        del row["counts"]
        if not detail:
            del failure["detail"]
        return {**row, **failure, **self.values, "seconds": seconds}


_TRIAL_FIELDS = tuple(each.name for each in fields(TrialResult) if each.name != "values")


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found: the content of results.json, and where its files lie.

    `status` is `whole`, `partial` (some trials did not come to their end), `failed` (none did) or
    `interrupted`. `seconds` are those of the sweep's parts, `by_phase` those of all trials by
    phase, which overlap. `parts` counts how often the sweep was started. `departures` say what was
    done otherwise than the design that was written down before the first trial, `notes` what else a
    reader of the search must know.
    """

    paths: SweepPaths
    name: str
    status: str
    verdict: Verdict = field(default_factory=Verdict)
    choices: tuple[Choice, ...] = ()
    departures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trials: tuple[TrialResult, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    by_phase: Mapping[str, float] = field(default_factory=dict)
    tracking_uri: str = ""
    experiment: str = ""
    parts: int = 1
    finished: str = ""
    version: str = ""

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons that the verdict rests on."""
        return self.verdict.comparisons

    def part(self, name: str) -> list[TrialResult]:
        """Trials of the search, or of the confirmation (`confirm`)."""
        return [trial for trial in self.trials if trial.part == name]

    def to_pandas(self) -> pandas.DataFrame:
        """One row per trial: what it is, its settings, its measured values, `seconds/<phase>`."""
        import pandas

        return pandas.DataFrame([_flat_row(trial) for trial in self.trials])

    def to_json(self) -> dict[str, Any]:
        """The content of results.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "version": self.version,
            "status": self.status,
            "parts": self.parts,
            "finished": self.finished,
            "verdict": asdict(self.verdict) | {"decided": self.verdict.is_decided},
            "choices": [asdict(each) for each in self.choices],
            "departures": list(self.departures),
            "notes": list(self.notes),
            "trials": [trial.to_json(detail=False) for trial in self.trials],
            "seconds": {**self.seconds, "by_phase": self.by_phase},
            "tracking": {"uri": self.tracking_uri, "experiment": self.experiment},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], directory: Path) -> Self:
        """Read the content of results.json."""
        seconds = dict(content.get("seconds") or {})
        by_phase = seconds.pop("by_phase", None) or {}
        tracking = content.get("tracking") or {}
        return cls(
            paths=SweepPaths(directory),
            name=content["name"],
            status=content["status"],
            verdict=Verdict.from_json(content.get("verdict") or {}),
            choices=tuple(map(Choice.from_json, content.get("choices") or ())),
            departures=tuple(content.get("departures") or ()),
            notes=tuple(content.get("notes") or ()),
            trials=tuple(map(TrialResult.from_json, content.get("trials") or ())),
            seconds=seconds,
            by_phase=by_phase,
            tracking_uri=tracking.get("uri") or "",
            experiment=tracking.get("experiment") or "",
            parts=content.get("parts", 1),
            finished=content.get("finished") or "",
            version=content.get("version") or "",
        )


def _flat_row(trial: TrialResult) -> dict[str, Any]:
    row = trial.to_json(detail=False)
    for name in ("params", "seconds", "counts"):
        row.pop(name, None)
    for name in [name for name in row if name.endswith("interval_95")]:
        low, high = row.pop(name) or (None, None)
        row |= {f"{name}_low": low, f"{name}_high": high}
    row |= trial.params
    return row | {f"seconds/{phase}": value for phase, value in trial.seconds.items()}


def read_result(directory: Path) -> TrialResult | None:
    """A trial's result, once it has one.

    Raises:
        DataError: its file is broken.
    """
    path = directory / RESULT
    return TrialResult.from_json(read_json(path)) if path.exists() else None


def _require_never_written(paths: SweepPaths) -> None:
    """Refuse to take a sweep for an interrupted one because its results were lost.

    Raises:
        DataError: the journal says that they were written.
    """
    journal = paths.directory / JOURNAL
    if journal.is_file() and f'"path": "{RESULTS}"' in journal.read_text("utf-8", "replace"):
        raise DataError(
            f"{paths.results}: must be there, since the sweep has come to its end, but is gone; "
            "the command that ran the sweep writes it again with --resume"
        )


def _whole(path: Path) -> SweepResult:
    """What results.json holds.

    Raises:
        DataError: it is broken.
    """
    content = read_json(path)
    try:
        return SweepResult.from_json(content, path.parent)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: must be a sweep's results, but cannot be read: {reason_of(error)}"
        ) from None


def read_sweep(directory: Path) -> SweepResult:
    """What a sweep found, whether it came to its end or not.

    Of one that was interrupted, also by a signal that left it no time, and of one that runs now,
    the trials that have ended are there, and no verdict.

    Raises:
        UserError: the directory holds no sweep.
        DataError: a file of it is broken, or its results were written and are gone.
    """
    directory = directory.absolute()
    paths = SweepPaths(directory)
    if not (directory / SWEEP).is_file() and not paths.results.is_file():
        raise UserError(
            f"{directory}: must be the directory of a sweep, but holds neither {SWEEP} nor "
            f"{RESULTS}"
        )
    if paths.results.is_file():
        found = _with_own_store(_whole(paths.results))
    else:
        _require_never_written(paths)
        config = read_json(directory / SWEEP)
        found = SweepResult(
            paths,
            config["name"],
            INTERRUPTED,
            verdict=_asked(config.get("question", {})),
            tracking_uri=config["tracking"]["uri"] or default_tracking_uri(directory),
            experiment=config["tracking"]["experiment"],
        )
    known = {trial.trial for trial in found.trials}
    ended = [
        result
        for folder in sorted((directory / TRIALS).glob("*"))
        if folder.name not in known and (result := read_result(folder)) is not None
    ]
    if not ended and paths.results.is_file():
        return found
    trials = sorted((*found.trials, *ended), key=lambda each: (each.part != "search", each.trial))
    verdict = replace(found.verdict, sentence=NO_END, decisions=())
    if not paths.results.is_file():
        own = (trial.arm for trial in trials if trial.is_reference)
        verdict = replace(verdict, reference=next(own, verdict.reference))
    return replace(found, status=INTERRUPTED, verdict=verdict, trials=tuple(trials), finished="")


def _asked(question: Mapping[str, Any]) -> Verdict:
    """A verdict that is still to be given on a sweep's question."""
    names = ("treatment", "effect", "population")
    return Verdict(**{name: question[name] for name in names if name in question})


def _with_own_store(found: SweepResult) -> SweepResult:
    """The result with the default store at the place where the runs folder lies now."""
    directory = found.paths.directory
    with suppress(DataError, LookupError, TypeError):  # without its settings, what was written
        if read_json(directory / SWEEP)["tracking"]["uri"] is None:
            return replace(found, tracking_uri=default_tracking_uri(directory))
    return found
