"""The end of a sweep on the screen: table, where the time went, verdict, what to open.

In: what a sweep found, and where MLflow shows it. Out: lines on the board.
"""

from __future__ import annotations

import sys
from pathlib import Path

from symnoise_ray.records.files import short_path
from symnoise_ray.records.results import SweepResult
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
    left_out = {what: number for trial in result.trials for what, number in trial.counts.items()}
    for what, number in left_out.items():
        board.say(f"{number} {what}")
    board.say(f"\nVerdict: {result.verdict.sentence}\n")
    python = short_path(Path(sys.executable))
    board.say(f"report:  {python} -m webbrowser {result.paths.report.as_uri()}")
    for line in opening(store, page):
        board.say(line)
