"""The end of a sweep on the screen says what was left out, in all its trials."""

from pathlib import Path
from typing import Any, cast

from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report.board import Board
from symnoise_ray.sweep.summary import summarise
from symnoise_ray.tracking.store import Store


class Screen:
    """Stands for the board: keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """One more line."""
        self.lines.append(text)

    def summary(self) -> None:
        """The table, which is not asked about here."""


def said(tmp_path: Path, *counts: dict[str, int]) -> list[str]:
    """The lines of a sweep whose trials counted so."""
    trials = tuple(TrialResult(f"{n:03}-none", counts=each) for n, each in enumerate(counts))
    result = SweepResult(SweepPaths(tmp_path), "s", "whole", trials=trials, seconds={"wall": 1.0})
    screen: Any = Screen()
    summarise(result, Store("http://a", "e"), "", cast(Board, screen))
    return list(screen.lines)


def test_what_every_trial_leaves_out_is_said_once(tmp_path: Path) -> None:
    lines = said(tmp_path, {"rows cut": 3}, {"rows cut": 3})
    assert [line for line in lines if "rows cut" in line] == ["3 rows cut"]


def test_trials_that_leave_out_different_numbers_are_all_told_of(tmp_path: Path) -> None:
    lines = said(tmp_path, {"rows cut": 5, "prompts cut": 1}, {"rows cut": 2}, {})
    assert "2 to 5 rows cut, by trial" in lines
    assert "1 prompts cut" in lines
