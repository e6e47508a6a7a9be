"""A whole sweep whose noise types train for the same seconds."""

from pathlib import Path

import pytest

from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import STEP_COSTS
from tests.sweep.test_run import SPACE, tune

MATCHED = SPACE.replace("max_steps: 8", "max_steps: 12, compute_match: gpu_seconds")


@pytest.mark.slow
@pytest.mark.nightly
def test_a_sweep_measures_its_steps_once_and_all_types_train_as_long(tmp_path: Path):
    (tmp_path / "small.yaml").write_text(MATCHED.replace("looks: [2]", "looks: [2, 3]"))
    first = tune("small.yaml", "confirm.looks=[2]", "--output", "out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "measuring what a step takes with none, symnoise ..." in first.stdout
    measured = (tmp_path / "out" / STEP_COSTS).read_bytes()
    cost = read_json(tmp_path / "out" / STEP_COSTS)["costs"]["symnoise"]
    assert cost > 1.2, "two passes"

    again = tune("small.yaml", "--output", "out", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "measuring" not in again.stdout
    assert (tmp_path / "out" / STEP_COSTS).read_bytes() == measured
    result = read_json(tmp_path / "out" / "results.json")
    steps = {(trial["arm"], trial["num_steps"]) for trial in result["trials"]}
    assert steps == {("none", 12), ("symnoise", int(12 / cost))}
    assert any("same GPU seconds" in note for note in result["notes"])
    assert not (tmp_path / "out" / ".step-costs").exists()
