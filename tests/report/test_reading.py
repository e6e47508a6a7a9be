"""How a report is to be read depends on who judged and on what was trained."""

from pathlib import Path
from typing import Any, get_args

import pytest

from symnoise_ray.config.judge import JudgeType
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import SWEEP
from symnoise_ray.report.write import markdown
from tests.report.made import content, read, trial

WINS = {
    "reference": "a trial's answer is nearer to the gold answer than the reference's answer. A tie",
    "api": "the judging model prefers a trial's answer to the reference's answer. A tie",
    "local": "the judging model prefers a trial's answer to the reference's answer. A tie",
    "alpaca_eval": "AlpacaEval's annotator prefers a trial's answer to the reference's answer. A",
}
TINY = "One tiny model says nothing about a large one."


def told(directory: Path, fixed: dict[str, Any] | None, **values: Any) -> str:
    """How to read the report of a sweep with these settings of all its trials."""
    if fixed is not None:
        write_json({"name": "quickstart", "trial": fixed}, directory / SWEEP)
    text = markdown(read(content(**values), directory))
    return text[text.index("## How to read this") :]


@pytest.mark.parametrize("judge", get_args(JudgeType))
def test_a_win_is_what_the_judge_takes_for_one(judge: str, tmp_path: Path):
    text = told(tmp_path, {"judge": {"type": judge, "model": "judge-1"}})
    assert f"share of prompts on which {WINS[judge]}" in text
    assert ("gold answer" in text) == (judge == "reference")


def test_a_sweep_that_names_no_judge_has_the_default_one(tmp_path: Path):
    assert WINS["reference"] in told(tmp_path, {})


def test_without_the_sweeps_settings_nothing_is_said_of_one_judge_or_model(tmp_path: Path):
    text = told(tmp_path, None)
    assert "on which the judge prefers a trial's answer to the reference's answer." in text
    assert "gold answer" not in text
    assert TINY not in text


@pytest.mark.parametrize(
    ("fixed", "is_demo"),
    [
        ({}, True),
        ({"model": {"name": "demo"}}, True),
        ({"model": {"name": "meta-llama/Llama-2-7b-hf"}}, False),
    ],
)
def test_the_demos_model_alone_is_called_tiny(fixed: dict[str, Any], is_demo: bool, tmp_path: Path):
    assert (TINY in told(tmp_path, fixed)) == is_demo


def test_a_model_that_the_search_varies_is_not_taken_for_the_demos(tmp_path: Path):
    trials = [
        trial(number, "none", 0.5, params={"model.name": name})
        for number, name in enumerate(("demo", "meta-llama/Llama-2-7b-hf"))
    ]
    assert TINY not in told(tmp_path, {}, trials=trials)


def test_an_open_question_may_have_intervals_that_leave_one_half(tmp_path: Path):
    """Opponents may disagree, and a verdict may be withheld: then no interval need hold 50 %."""
    text = told(tmp_path, {})
    assert "the intervals hold both 50 %" not in text
    assert (
        "the intervals neither all lie on one side of 50 % nor all exclude a difference that "
        "matters. It is also said where a verdict is withheld, and where nothing could be compared."
    ) in text
