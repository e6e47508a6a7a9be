"""The end of a sweep on the screen: table, where the time went, verdict, what to open.

In: what a sweep found, and where MLflow shows it. Out: lines on the board.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from symnoise_ray.records.files import short_path
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report.board import Board
from symnoise_ray.tracking.store import Store, opening


def summarise(result: SweepResult, store: Store, page: str, board: Board) -> None:
    """Say it.

    Args:
        result: What was found.
        store: Where the runs are.
        page: Of MLflow, with the sweep; empty where MLflow did not answer.
        board: Where it is said.
    """
    board.summary()
    phases = ", ".join(f"{name} {value:.0f} s" for name, value in result.by_phase.items())
    board.say(f"\n{result.seconds['wall']:.0f} s in all; over all trials: {phases}")
    for line in _left_out(result.trials):
        board.say(line)
    board.say(f"\nVerdict: {result.verdict.sentence}\n")
    python = short_path(Path(sys.executable))
    board.say(f"report:  {python} -m webbrowser {result.paths.report.as_uri()}")
    for line in opening(store, page):
        board.say(line)


def _left_out(trials: Iterable[TrialResult]) -> Iterator[str]:
    """What was left out or cut in a trial, a line of each kind; most trials read the same rows."""
    by_kind: dict[str, list[int]] = {}
    for trial in trials:
        for what, number in trial.counts.items():
            by_kind.setdefault(what, []).append(number)
    for what, numbers in by_kind.items():
        low, high = min(numbers), max(numbers)
        yield f"{low} {what}" if low == high else f"{low} to {high} {what}, by trial"
