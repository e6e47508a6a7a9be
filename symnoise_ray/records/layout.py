"""The names of the files of a sweep and of its trials: the one place that knows them.

Every path is relative to the sweep's directory, or to a trial's directory below `TRIALS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from symnoise_ray.records.sqlite import sqlite_uri

SWEEP = "sweep.json"
"""The resolved configuration, written first: a directory that has it holds a sweep."""
LOCK = "run.lock.json"
"""Versions, digests of files and prompts, seeds, and what each part of the sweep changed."""
OWNER = "owner.json"
"""The process that writes into the directory now."""
PREFLIGHT = ".preflight"
"""Begins the names of files by which the nodes of a cluster see whether they share storage."""
STUDY = "optuna.db"
CHOICES = "confirm.json"
"""The settings that were chosen to be confirmed, in every part of the sweep."""
DESIGN = "design.json"
"""What was asked, and how it would be decided: written before the first trial."""
STEP_COSTS = "step_costs.json"
"""What an optimizer step of each kind of noise takes, where all are to train as long."""
RESULTS = "results.json"
REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"
CARD_JSON = "card.json"
CARD_MARKDOWN = "card.md"
"""The summary of a finished sweep that goes with its models."""
JOURNAL = "journal.jsonl"
APPLIED = "journal.applied.json"
"""How many events of the journal the tracker has."""
TOKENS = "tokens"
"""Tokenised rows, made once and mapped by every worker."""
SLOTS = ".slots"
"""What Ray Train writes down of the worker groups."""
TUNE = ".tune"
"""What Ray Tune writes down of the search."""
ORDERS = ".ctl"
"""Orders to a sweep that runs, and its answers; it is there while the sweep takes orders."""
TRIALS = "trials"
REJUDGED = "rejudged"
"""Of every second judge a folder with its preferences and its verdict."""

CONFIG = "config.json"
METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
OUTCOME = "outcome.json"
"""How the worker's part of a trial ended."""
PREFERENCES = "preferences.jsonl"
SCORE = "score.json"
RESULT = "trial.json"
"""Written last: the trial's result, whatever it is."""
DIGESTS = "digests.json"
"""Of the files of a trial that has ended, written just before its result."""
KEPT = "kept.json"
"""The directory of the same training with fewer answers, whose model answers in this trial."""
STOP = "stop.json"
"""The order by which a trial of the search was stopped."""
CHECKPOINTS = "checkpoints"
MODEL = "model"

DATABASE = "mlflow.db"
"""Of all sweeps of a folder, beside their directories."""


def trial_directory(sweep: Path, name: str) -> Path:
    """The directory of one trial of a sweep."""
    return sweep / TRIALS / name


def damaged_name(name: str) -> str:
    """What a file is called once it was found damaged and set aside."""
    return f"{name}.damaged"


def preferences_against(opponent: str) -> str:
    """File in a trial's directory with its preferences over another trial of the sweep."""
    return f"preferences-against-{opponent}.jsonl"


def usage_against(opponent: str) -> str:
    """File beside those preferences with what they cost; there is none if they cost nothing."""
    return f"usage-against-{opponent}.json"


def sweep_directory(trial: Path) -> Path:
    """The directory of the sweep that a trial's directory belongs to."""
    return trial.parents[1]


def default_tracking_uri(sweep: Path) -> str:
    """The tracker of a sweep that names none: one database for all sweeps of a folder."""
    return sqlite_uri(sweep.parent / DATABASE)


@dataclass(frozen=True)
class SweepPaths:
    """Where the files of one sweep lie that people and programs read."""

    directory: Path

    @property
    def report(self) -> Path:
        """The report, which opens in a browser."""
        return self.directory / REPORT_HTML

    @property
    def results(self) -> Path:
        """What the sweep found, machine-readable."""
        return self.directory / RESULTS

    @property
    def study(self) -> Path:
        """Optuna's study."""
        return self.directory / STUDY

    @property
    def journal(self) -> Path:
        """The tracking events."""
        return self.directory / JOURNAL

    def trial(self, name: str) -> Path:
        """The directory of a trial."""
        return trial_directory(self.directory, name)
