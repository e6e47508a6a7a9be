"""The note of a sweep in MLflow tells each comparison in its own unit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.tracking.description import describe

AGAINST = Decision(
    "symnoise",
    "better",
    (
        Comparison(
            "symnoise", 0.55, (0.52, 0.58), 0.01, 0.01, 604, 5, "better",
            length_controlled_win_rate=0.51, opponent="best", against="none, lr=5e-05",
        ),
    ),
    label="symnoise, alpha=5",
)  # fmt: skip
CONTRAST = Decision(
    "symnoise",
    "better",
    (
        Comparison(
            "symnoise", 0.5435, (0.5104, 0.5766), 0.02, 0.02, 604, 5, "better",
            length_controlled_win_rate=0.5435, over="independent",
        ),
    ),
    label="symnoise, alpha=5",
    over="independent",
)  # fmt: skip
"""A difference of 8.7 points; a contrast's rate at equal lengths is its rate once more."""


def note(directory: Path, *decisions: Decision) -> str:
    verdict = Verdict("Told.", decisions=decisions)
    return describe(SweepResult(SweepPaths(directory), "s", "whole", verdict=verdict), [], [])


def test_arms_against_the_reference_have_win_rates_and_arms_against_each_other_points(
    tmp_path: Path,
):
    assert note(tmp_path, AGAINST, CONTRAST).startswith(
        "Told.\n\n"
        "| setting | against | wins % | interval | at equal lengths % | seeds | verdict |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| symnoise, alpha=5 | plain fine-tuning: none, lr=5e-05 | 55.0 | 52.0 to 58.0 | 51.0 | 5 "
        "| better |\n\n"
        "| setting | over | points | interval | seeds | verdict |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| symnoise, alpha=5 | independent | +8.7 | +2.1 to +15.3 | 5 | better |\n\n"
        "Look at: "
    )


def test_without_contrasts_there_is_one_table(tmp_path: Path):
    assert "over" not in note(tmp_path, AGAINST)
    assert "|" not in note(tmp_path)


def test_a_withheld_verdict_is_marked(tmp_path: Path):
    changed: dict[str, Any] = {
        "verdict": "cannot tell yet",
        "withheld": "2 of its 10 trainings failed",
    }
    text = note(tmp_path, *(replace(each, **changed) for each in (AGAINST, CONTRAST)))
    assert text.count("| cannot tell yet (withheld) |\n") == 2
