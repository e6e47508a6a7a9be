"""The shipped sweep, whole, as `make sweep` runs it, and the same sweep on real data."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from symnoise_ray.records.files import read_json

pytestmark = pytest.mark.slow

ARMS = ("none", "neftune", "symnoise")


def tune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray.tune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_quickstart_ends_with_a_verdict_from_equal_tuning(tmp_path: Path):
    run = tune(cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    results = read_json(tmp_path / "runs" / "quickstart" / "results.json")
    search = [trial for trial in results["trials"] if trial["part"] == "search"]
    assert Counter(t["arm"] for t in search) == {"none": 4, "neftune": 4, "symnoise": 4}
    rates = {
        arm: sorted(t["params"]["optim.lr"] for t in search if t["arm"] == arm) for arm in ARMS
    }
    assert rates["none"] == rates["neftune"] == rates["symnoise"]
    assert all(trial["win_rate"] is not None for trial in search)
    assert all(trial["clean_loss"] < trial["first_clean_loss"] for trial in search)
    (decision,) = results["verdict"]["decisions"]
    assert decision["arm"] in ("neftune", "symnoise")
    assert {c["opponent"] for c in decision["comparisons"]} <= {"best", "shared"}
    assert f"Verdict: {results['verdict']['sentence']}" in run.stdout


@pytest.mark.nightly
def test_a_real_model_on_real_alpaca_rows(tmp_path: Path, shared_data: Path):
    """A model without a pad token, long rows, empty answers; the loss falls in every trial."""
    run = tune(
        f"model.name={shared_data / 'models' / 'stories260K'}",
        f"data.train={shared_data / 'instructions' / 'alpaca_5000.json'}",
        f"data.eval_prompts={shared_data / 'instructions' / 'alpaca_200.json'}",
        "data.max_train_rows=64",
        "data.max_eval_prompts=16",
        "train.max_steps=6",
        "train.num_clean_rows=16",
        "baselines=[{noise.type: none, optim.lr: 0.002}, {noise.type: symnoise, noise.alpha: 5, "
        "optim.lr: 0.002}]",
        "parameters.noise.type.choices=[none, symnoise]",
        "parameters.noise.alpha.when={noise.type: [symnoise]}",
        "search.num_trials=2",
        "confirm.looks=[1]",
        "--output",
        "real",
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    results = read_json(tmp_path / "real" / "results.json")
    assert all(t["clean_loss"] < t["first_clean_loss"] for t in results["trials"])
    counts = results["trials"][0]["counts"]
    assert counts["prompts without a gold answer"] == 4
    assert counts["rows truncated"] > 0
    assert "rows truncated" in run.stdout
