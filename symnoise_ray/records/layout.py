"""The names of the files of a sweep and of its trials: the one place that knows them."""

from __future__ import annotations

SWEEP = "sweep.json"
"""Written first: a directory that has it holds a sweep."""
RESULT = "trial.json"
"""Of a trial, written last: its result, whatever it is."""
