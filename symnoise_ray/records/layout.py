"""The names of the files of a sweep and of its trials: the one place that knows them.

Every path is relative to the sweep's directory, or to a trial's directory below `TRIALS`.
"""

from __future__ import annotations

from pathlib import Path

SWEEP = "sweep.json"
"""The resolved configuration, written first: a directory that has it holds a sweep."""
LOCK = "run.lock.json"
"""Versions, digests of files, seeds, and what each part of the sweep changed."""
OWNER = "owner.json"
"""The process that writes into the directory now."""
STUDY = "optuna.db"
CHOICES = "confirm.json"
"""The settings that were chosen to be confirmed."""
RESULTS = "results.json"
REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"
JOURNAL = "journal.jsonl"
APPLIED = "journal.applied.json"
"""How many events of the journal the tracker has."""
TOKENS = "tokens"
"""Tokenised rows, made once and mapped by every worker."""
SLOTS = ".slots"
"""What Ray Train writes down of the worker groups."""
TUNE = ".tune"
"""What Ray Tune writes down of the search."""
TRIALS = "trials"

CONFIG = "config.json"
METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
OUTCOME = "outcome.json"
"""How the worker's part of a trial ended."""
PREFERENCES = "preferences.jsonl"
SCORE = "score.json"
RESULT = "trial.json"
"""Written last: the trial's result, whatever it is."""
CHECKPOINTS = "checkpoints"
MODEL = "model"

DATABASE = "mlflow.db"
"""Of all sweeps of a folder, beside their directories."""


def trial_directory(sweep: Path, name: str) -> Path:
    """The directory of one trial of a sweep."""
    return sweep / TRIALS / name


def sweep_directory(trial: Path) -> Path:
    """The directory of the sweep that a trial's directory belongs to."""
    return trial.parents[1]
