"""The page tells what was declared beside what came out, and why trials have no result."""

from pathlib import Path
from typing import Any

from symnoise_ray.records.files import write_json
from symnoise_ray.records.results import SweepResult
from symnoise_ray.report import design_sections
from tests.report.made import FAILED, content, read, results, trial

DESIGN: dict[str, Any] = {
    "trials_by_arm": {"none": 2, "symnoise": 3},
    "looks": [
        {"num_seeds": 3, "share": 0.2, "part": 1},
        {"num_seeds": 5, "share": 0.7, "part": 1},
    ],
    "power": {
        "effect": 0.03,
        "num_prompts": 108,
        "prompts_known": True,
        "power": 0.177,
        "mean_seeds": 3.6,
        "trainings_expected": 10.8,
        "trainings_most": 15,
        "assumed": {"spread_prompts": 0.02, "spread_seeds": 0.0001, "from": "typical ones"},
    },
}
SWEEP = {
    "trial": {"judge": {"price_input": 2.0, "price_output": 8.0}},
    "budget": {"judge_calls": 500, "judge_cost": None},
}
STOPPED = FAILED | {"trial": "005-symnoise", "arm": "symnoise", "status": "stopped"}


def _sweep(folder: Path) -> SweepResult:
    write_json(DESIGN, folder / "design.json")
    write_json(SWEEP, folder / "sweep.json")
    usage = {"calls": 100, "input_tokens": 500_000, "output_tokens": 1000}
    write_json(usage, folder / "trials" / "002-symnoise" / "usage-against-000-none.json")
    judged = trial(2, "symnoise", 0.6, judge_usage=usage)
    stopped = STOPPED | {"stopped_at": 12, "reason": "behind", "kind": ""}
    trials = [trial(0, "none", 0.5), judged, FAILED, stopped]
    return read(content(trials=trials), folder)


def test_the_question_the_looks_and_the_power_are_told(tmp_path: Path) -> None:
    section = design_sections.design(_sweep(tmp_path))
    text = " ".join(section.paragraphs)
    assert "noise.type against none; a difference of 3 points would matter" in text
    assert "would be found with a chance of 17.7 %, on 108 prompts" in text
    assert "typical ones" in text
    arms, looks = section.tables
    assert arms.rows == [
        ("none", "2", "1", "1", "0", "0", "\u2013"),
        ("symnoise", "3", "2", "1", "1", "0", "\u2013"),
        ("gaussian", "\u2013", "1", "0", "0", "1", "\u2013"),
    ]
    assert looks.rows == [("1", "3", "1.0", "1"), ("2", "5", "3.5", "1")]


def test_what_was_expected_stands_beside_what_came_out(tmp_path: Path) -> None:
    (table,) = design_sections.cost(_sweep(tmp_path)).tables
    found = {what: (expected, truth) for what, expected, truth in table.rows}
    assert found["trials of the search"] == ("5", "4")
    assert found["trainings of the confirmation"] == ("10.8, at most 15", "0")
    assert found["seeds"] == ("3.6", "2")
    assert found["variance of a score: prompts"] == ("0.02", "\u2013")
    assert found["judge calls"] == ("at most 500", "200")
    assert found["judge tokens, read and written"] == ("\u2013", "1,000,000, 2,000")
    assert found["judge cost"] == ("\u2013", "2.02")


def test_early_exits_and_failures_have_their_reasons(tmp_path: Path) -> None:
    found = _sweep(tmp_path)
    (exits,) = design_sections.early_exits(found).tables
    assert [(row[0], row[2], row[4]) for row in exits.rows] == [
        ("005-symnoise", "stopped early at step 12", "behind")
    ]
    (failed,) = design_sections.failures(found).tables
    assert [row[0] for row in failed.rows] == ["003-gaussian"]
    assert failed.rows[0][3:] == ("diverged", "the loss is nan at step 31")


def test_what_a_sweep_did_not_write_down_is_left_out() -> None:
    whole = results(trials=[trial(0, "none", 0.5)])
    assert design_sections.cost(whole).paragraphs == ("No expectation was written down.",)
    assert len(design_sections.design(whole).tables) == 1
    assert design_sections.early_exits(whole).paragraphs == ("No trial was stopped early.",)
    assert design_sections.failures(whole).paragraphs == ("No trial failed.",)
