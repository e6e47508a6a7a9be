"""Sweeps that are killed wherever it hurts, and go on to the end of an undisturbed one."""

import random
import re
import shutil
import time
from pathlib import Path

import pytest

from symnoise_ray.demo import content
from symnoise_ray.records.files import read_json, read_lines, read_rows, write_json
from symnoise_ray.records.results import read_sweep
from tests.sweep.test_run import (
    SPACE,
    kill_and_see_it_gone,
    left_by,
    runs_by_name,
    told_of,
    tune,
)

pytestmark = pytest.mark.slow

WIDER = (
    SPACE.replace("num_trials: 1", "num_trials: 5")
    .replace("[symnoise]", "[symnoise, neftune]")
    .replace("looks: [2]", "looks: [2, 4]")
    .replace("name: small", "name: small\nquestion: {effect: 0.3}")
    .replace("choices: [0.002]", "choices: [0.002, 0.004]")
)
"""Two trials of each of three arms, over two learning rates, and two looks. By an effect of
30 points the second look is worth its seeds."""

LONG = """
name: long
trial:
  data: {max_eval_prompts: 12}
  train: {max_steps: 150, global_batch_size: 8, num_clean_rows: 8, num_evals: 2, STEPS}
  generate: {max_new_tokens: 6}
baselines:
  - {noise.type: none, optim.lr: 0.002}
search: {num_trials: 0}
""".replace("STEPS", "checkpoint_minutes: 0.005")


def finish(folder: Path) -> None:
    run = tune("small.yaml", "--output", "out", "--resume", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    assert left_by(folder) == []


@pytest.mark.nightly
def test_a_sweep_that_is_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path: Path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "whole" / "small.yaml").write_text(WIDER)
    finish(tmp_path / "whole")
    rng = random.Random(0)
    # The last two: in the first look, and between the looks.
    for wanted in ("001-", "confirm-none-seed1000", "on 4 fresh seeds"):
        kill_and_see_it_gone(
            tmp_path / "parts", wanted, space=WIDER, wait=lambda: time.sleep(rng.uniform(0, 6))
        )
    finish(tmp_path / "parts")
    whole, parts = (
        read_json(tmp_path / name / "out" / "results.json") for name in ("whole", "parts")
    )
    assert told_of(parts) == told_of(whole)
    assert parts["choices"] == whole["choices"]
    assert whole["verdict"]["decisions"][0]["looks"] == [2, 4]
    assert parts["parts"] > 1
    runs = runs_by_name(tmp_path / "parts" / "mlflow.db")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    settings = {name for name in runs if name.startswith("confirm-") and "-seed" not in name}
    assert len(runs) == 1 + len(settings) + len(parts["trials"])
    assert len(settings) == 2


@pytest.mark.nightly
def test_a_trial_goes_on_from_its_checkpoint_and_has_the_same_numbers(tmp_path: Path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "whole" / "small.yaml").write_text(LONG)
    finish(tmp_path / "whole")
    trial = tmp_path / "parts" / "out" / "trials" / "000-none"

    def checkpoint() -> None:
        deadline = time.monotonic() + 600
        while not list((trial / "checkpoints").glob("[0-9]*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    kill_and_see_it_gone(tmp_path / "parts", "000-none", space=LONG, wait=checkpoint)
    assert not (trial / "trial.json").exists()
    finish(tmp_path / "parts")
    assert read_json(trial / "trial.json")["resumed_at"] > 0
    other = tmp_path / "whole" / "out" / "trials" / "000-none"
    assert read_lines(trial / "metrics.jsonl") == read_lines(other / "metrics.jsonl")
    assert (trial / "completions.jsonl").read_bytes() == (other / "completions.jsonl").read_bytes()


@pytest.mark.nightly
def test_a_whole_sweep_can_be_made_larger_and_says_that_it_looked_before(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(SPACE)
    finish(tmp_path)
    first = read_json(tmp_path / "out" / "results.json")
    larger = ("search.num_trials=3", "confirm.looks=[2,3]")
    run = tune("small.yaml", *larger, "--output", "out", "--resume", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    for trial in ("000-none", "001-symnoise"):
        assert re.search(rf"{trial} +done .* before", run.stdout)
        assert not re.search(rf"{trial} +started", run.stdout)
    assert first["verdict"]["looks"] == 1
    second = read_json(tmp_path / "out" / "results.json")
    names = [trial["trial"] for trial in second["trials"]]
    assert [name for name in names if not name.startswith("confirm")] == [
        "000-none", "001-symnoise", "002-none", "003-symnoise",
    ]  # fmt: skip
    # Of so few prompts a third seed could tell nothing, so it is not trained.
    assert len(names) == 4 + 2 * 2
    assert second["verdict"]["decisions"][0]["stopped"] == "futile"
    assert second["verdict"]["looks"] == 2
    assert "This is verdict number 2" in second["verdict"]["sentence"]
    other = (*larger, "train.max_steps=9", "--output", "out", "--resume")
    refused = tune("small.yaml", *other, cwd=tmp_path)
    assert refused.returncode == 2
    assert "trial.train.max_steps is 8 there and 9 here" in refused.stderr
    assert read_json(tmp_path / "out" / "results.json") == second


@pytest.mark.nightly
def test_a_whole_sweep_goes_on_with_more_prompts_to_confirm_on(tmp_path: Path):
    rows, fresh = read_rows(content.confirm_file(), "prompts"), tmp_path / "fresh.json"
    own = f"{{max_eval_prompts: 24, max_confirm_prompts: 99, confirm_prompts: {fresh}}}"
    space = SPACE.replace("{max_eval_prompts: 24}", own)
    (tmp_path / "small.yaml").write_text(
        space.replace("max_steps: 8", "max_steps: 8, save_model: true")
    )
    write_json(rows[:24], fresh)
    finish(tmp_path)
    for model in (tmp_path / "out" / "trials").glob("confirm-symnoise-*/model"):
        shutil.rmtree(model)
    write_json([*rows[24:40], *rows[:24]], fresh)
    run = tune("small.yaml", "--output", "out", "--resume", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "the confirmation has 40 prompts, 24 at first. Models that a verdict" in run.stdout
    result = read_sweep(tmp_path / "out")
    assert result.status == "whole", "what was trained before is among its trials"
    names = {trial.trial for trial in result.part("confirm")}
    before = {f"confirm-{arm}-seed{n}" for arm in ("none", "symnoise") for n in (1000, 1001)}
    assert names == before | {f"{name}-prompts40" for name in before}
    kept = {
        each.trial: each["kept_model_of"] for each in result.trials if each.get("kept_model_of")
    }
    assert kept == {f"{name}-prompts40": name for name in before if "none" in name}
    trained = {each.trial for each in result.trials if "train" in each.seconds}
    assert trained == {trial.trial for trial in result.trials} - set(kept)
    (decision,) = result.verdict.decisions
    assert {(each.num_prompts, each.num_seeds) for each in decision.comparisons} == {(40, 2)}
    assert "This is verdict number 2" in result.verdict.sentence
    assert result.departures == ("part 2, after a verdict: prompts of the confirmation 24 -> 40",)
    for name in before:
        folders = [tmp_path / "out" / "trials" / each for each in (name, f"{name}-prompts40")]
        few, all_of_them = (
            {row["instruction"]: row["output"] for row in read_lines(each / "completions.jsonl")}
            for each in folders
        )
        assert (len(few), len(all_of_them)) == (24, 40)
        assert few.items() <= all_of_them.items(), "the same seed gives the same model"
    write_json(rows[1:60], fresh)
    refused = tune("small.yaml", "--output", "out", "--resume", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "fresh.json: must still hold the 40 prompts of the confirmation" in refused.stderr
    assert read_sweep(tmp_path / "out") == result
