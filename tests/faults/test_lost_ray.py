"""Rows 3 and 6 on one machine: what a sweep's Ray stands on is killed while a trial trains."""

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import SPACE, Run, told, undisturbed
from symnoise_ray.errors import EXIT_FAILED, EXIT_OK

pytestmark = pytest.mark.slow

SEARCH = SPACE.replace("arms: 1", "arms: 0")
END_SECONDS = 120.0
"""Seconds are enough, but for a busy machine."""


SAYS = ("sweep ", "runs are logged ", "starting ", "not everything reached MLflow", "0", "1", "2")
"""How the lines of a sweep begin; the times of the board are numbers."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the sweep finds when nothing happens to it."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "sweep", SEARCH)[0]


@pytest.mark.parametrize("victim", [pytest.param("raylet", marks=pytest.mark.nightly), "gcs"])
def test_a_sweep_that_loses_its_ray_ends_with_one_line_and_goes_on_to_the_same_table(
    victim: str, table: dict[str, Any], tmp_path: Path
):
    (tmp_path / "space.yaml").write_text(SEARCH)
    run = Run(tmp_path)
    metrics = tmp_path / "out" / "trials" / "001-symnoise" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 2):
        assert run.process.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.05)
    assert run.kill(victim, moment=0)
    assert not (metrics.parent / "trial.json").exists(), "it was killed in mid-trial"
    assert run.wait(END_SECONDS) == EXIT_FAILED
    *before, line = (tmp_path / "log.txt").read_text().splitlines()
    assert line.startswith("error: Ray must run to the end, but its process ")
    assert [each for each in before if not each.startswith(SAYS)] == [], "nothing but the sweep's"
    assert run.left() == []
    again = Run(tmp_path)
    assert again.wait() == EXIT_OK, (tmp_path / "log.txt").read_text()
    assert again.left() == []
    assert told(tmp_path) == table
