"""The report tells the gap between rows that were trained on and rows that were not, by arm."""

from pathlib import Path
from typing import Any

from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Verdict
from symnoise_ray.report.overfitting import overfitting


def trial(number: int, arm: str, part: str = "search", **values: Any) -> TrialResult:
    return TrialResult(
        f"{number:03}-{arm}", arm=arm, label=arm, part=part, status="done", values=values
    )


def results(*trials: TrialResult) -> SweepResult:
    return SweepResult(
        paths=SweepPaths(Path()), name="s", status="whole", verdict=Verdict(), trials=trials
    )


def test_gaps_are_means_over_the_trials_of_an_arm() -> None:
    section = overfitting(
        results(
            trial(0, "none", clean_loss=0.25, heldout_loss=0.75, gold_loss=1.0),
            trial(1, "none", clean_loss=0.75, heldout_loss=1.75, gold_loss=2.0),
            trial(2, "symnoise", clean_loss=0.5, heldout_loss=0.75),
            trial(3, "symnoise", "confirm", clean_loss=0.5, heldout_loss=0.25),
        )
    )
    assert section is not None
    searched, confirmed = section.tables
    assert searched.rows == [
        ("none", "2", "0.5", "1.25", "+0.750", "1.5", "+1.000"),
        ("symnoise", "1", "0.5", "0.75", "+0.250", "\u2013", "\u2013"),
    ]
    assert confirmed.rows == [("symnoise", "1", "0.5", "0.25", "-0.250", "\u2013", "\u2013")]


def test_without_rows_kept_out_there_is_no_section() -> None:
    assert overfitting(results(trial(0, "none", clean_loss=0.25))) is None
