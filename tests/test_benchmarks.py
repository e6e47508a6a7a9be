"""The benchmarks run and give what they promise; what they measure is never a test."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

RATIOS = {
    "forward_vs_copy",
    "forward_vs_naive",
    "forward_vs_hook",
    "step_ratio",
    "step_ratio_concat",
    "step_ratio_answer_head",
    "memory_ratio",
    "noise_share",
}
TRAINING_RATIOS = {
    "step_vs_bare",
    "step_vs_bare_answer_head",
    "bare_vs_itself",
    "packed_rate_vs_padded",
    "symnoise_rate_vs_clean",
    "utilization_clean",
    "utilization_symnoise",
    "sorted_rate_vs_unsorted",
    "packed_rate_vs_sorted",
    "packed_rate_vs_unsorted",
}
PEER_RATIOS = {
    "accelerate": {"hf_vs_bare", "rate_vs_hf"},
    "trl": {"trl_vs_bare", "rate_vs_trl", "packed_rate_vs_trl_packed"},
}
"""Ratios that need another trainer's packages."""


@pytest.mark.slow
def test_the_noise_benchmark_gives_every_ratio_with_its_spread() -> None:
    script = str(ROOT / "benchmarks" / "noise.py")
    command = [sys.executable, script, "--tiny", "--rounds", "2", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures.keys() > RATIOS
    assert figures["spread"].keys() >= RATIOS
    for name, (low, high) in figures["spread"].items():
        assert all(math.isfinite(value) and value > 0 for value in (figures[name], low, high)), name
        assert low <= high, name
    rows = [row for table in figures["forward"].values() for row in table.values()]
    assert all(value > 0 for row in rows for value in row.values())
    assert len(rows) >= 12
    assert figures["bars"].keys() < figures.keys()
    assert figures["settings"]["torch_threads"] == 1


def test_early_exit_halves_the_steps_and_keeps_the_winner_on_recorded_trainings() -> None:
    script = str(ROOT / "benchmarks" / "early_exit.py")
    command = [sys.executable, script, "--draws", "200", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["all"]["steps"] <= figures["bars"]["steps"] == 0.5
    assert figures["all"]["same_winner"] >= figures["bars"]["same_winner"] == 0.9
    arms = [row for name, row in figures.items() if "/" in name]
    assert len(arms) == 5
    assert all(row["correlation"] < 0 for row in arms)
    for file in (ROOT / "benchmarks" / "curves").glob("*.json"):
        assert file.stat().st_size < 100_000


def test_curves_are_recorded_in_the_form_in_which_they_are_shipped() -> None:
    file = ROOT / "benchmarks" / "curves" / "demo.json"
    for row in json.loads(file.read_text())["trials"]:
        assert list(row) == [
            "noise", "lr", "alpha", "steps", "clean_loss", "win_rate", "standard_error",
            "num_prompts",
        ]  # fmt: skip
        assert len(row["steps"]) == len(row["clean_loss"]) == 17


@pytest.mark.slow
@pytest.mark.nightly
def test_the_training_benchmark_gives_every_ratio_and_names_the_trainers_that_are_not_there() -> (
    None
):
    script = str(ROOT / "benchmarks" / "training.py")
    command = [sys.executable, script, "--tiny", "--rounds", "2", "--json"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    missing = [name for name in PEER_RATIOS if importlib.util.find_spec(name) is None]
    told = [line.split()[0] for line in figures["left_out"]]
    assert told == missing
    present = [ratios for name, ratios in PEER_RATIOS.items() if name not in missing]
    assert figures["spread"].keys() == TRAINING_RATIOS.union(*present)
    for name, (low, high) in figures["spread"].items():
        assert all(math.isfinite(value) and value > 0 for value in (figures[name], low, high)), name
        assert low <= high, name
    parts = (figures, figures["several_micro_batches"])
    rows = [row for part in parts for row in part["steps"].values()]
    assert all(value > 0 for row in rows for value in row.values())
    assert all(0 <= part["largest_difference"] < 1e-4 for part in parts)
    assert figures["bars"].keys() < figures["spread"].keys()
    assert figures["settings"]["torch_threads"] == 1


@pytest.mark.slow
def test_the_judging_benchmark_finds_equal_answers_and_gives_every_ratio() -> None:
    script = str(ROOT / "benchmarks" / "judging.py")
    command = [sys.executable, script, "--tiny", "--rounds", "2", "--items", "2", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    ratios = [figures["judging"], *figures["answering"].values()]
    assert list(figures["answering"]) == ["1", "4", "16", "64"]
    assert all(0 < told["low"] <= told["ratio"] <= told["high"] for told in ratios)
    assert 0 < figures["judging"]["tokens_computed_share"] < 1
    assert len(figures["bars"]) == 5


def figures_of(name: str, *arguments: str) -> dict[str, Any]:
    """What a benchmark prints with --json."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.slow
@pytest.mark.nightly
def test_a_sweep_is_timed_beside_other_ways_once_all_losses_are_equal() -> None:
    figures = figures_of("sweep", "--rounds", "1", "--trials", "3", "--steps", "4")
    ratios = {"vs_limit", "vs_limit_after_start", "vs_own", "vs_own_after_start"}
    ratios |= {"vs_trainer_per_trial"}
    ratios |= {"vs_shell_loop", "vs_fresh_processes"} if importlib.util.find_spec("trl") else set()
    times = {"start_s", "warm_start_s", "sweep_s", "bare_s"}
    assert figures["spread"].keys() >= ratios | times
    for name in ratios | times:
        low, high = figures["spread"][name]
        assert 0 < low <= figures[name] <= high, name


@pytest.mark.slow
@pytest.mark.nightly
def test_growth_is_told_of_trials_and_of_slots() -> None:
    figures = figures_of("scale", "--trials", "4,8", "--slots", "1,5")
    assert [row["slots"] for row in figures["slots"]] == [1, 5]
    assert [row["trials"] for row in figures["trials"]] == [4, 8]
    one_waits = 2 + 1  # beside the two that have slots
    assert [row["trial_processes"] for row in figures["trials"]] == [one_waits, one_waits]
    assert math.isfinite(figures["exponent_search"])


@pytest.mark.slow
def test_logging_is_timed_by_its_processor_time() -> None:
    figures = figures_of("tracking", "--tiny")
    assert figures["share_of_a_step"] > 0
    assert figures["cpu_seconds_for_traces"] > 0
    assert figures["prompts"] == 5


@pytest.mark.slow
@pytest.mark.nightly
def test_the_memory_benchmark_finds_equal_work_and_gives_every_ratio() -> None:
    figures = figures_of("memory", "--tiny")
    assert figures.pop("bar") == 0.6
    assert list(figures) == [
        f"{kind}, file in {dtype}" for dtype in ("fp32", "bf16") for kind in ("full", "lora")
    ]
    for told in figures.values():
        assert list(told) == ["one_alone", "four_on_slots", "ratio", "mb_of_one_copy"]
        assert all(math.isfinite(value) for value in told.values())
