"""What a sweep can tell stands in design.json before its first trial."""

import json
from pathlib import Path

import pytest

from symnoise_ray.config.loading import load_sweep
from symnoise_ray.statistics.power import TYPICAL
from symnoise_ray.sweep.registration import register


def test_the_design_says_what_it_can_tell_and_what_was_assumed(tmp_path: Path):
    settings = ["confirm.looks=[3,5,8]", "question.effect=0.03"]
    register(load_sweep("quickstart", settings)[0], tmp_path / "small", 0)
    told = json.loads((tmp_path / "small" / "design.json").read_text())["power"]
    assert (told["effect"], told["num_prompts"], told["prompts_known"]) == (0.03, 108, True)
    assert 0 < told["power"] < 0.2, "the demo has few prompts"
    assert told["trainings_expected"] == pytest.approx(3 * told["mean_seeds"])
    assert told["trainings_expected"] < told["trainings_most"] == 24
    assert told["assumed"]["spread_seeds"] == TYPICAL.seeds
    assert "typical" in told["assumed"]["from"]


def test_a_sweep_that_confirms_nothing_declares_no_power(tmp_path: Path):
    sweep, _ = load_sweep("quickstart", ["confirm.arms=0"])
    assert register(sweep, tmp_path / "small", 0)["power"] is None
