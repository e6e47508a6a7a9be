"""The oracle of the faults: one undisturbed sweep, whose table and verdict all others must have."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweep.test_run import SPACE, tune

SHORT = SPACE.replace("max_steps: 8", "max_steps: 4").replace("tokens: 12", "tokens: 8")
"""Two trials of the search and four of the confirmation, of four steps each."""


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole sweep: small.yaml, out/ and mlflow.db."""
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "small.yaml").write_text(SHORT)
    run = tune("small.yaml", "--output", "out", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture
def sweep(oracle: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be damaged."""
    folder = tmp_path / "sweep"
    shutil.copytree(oracle, folder)
    return folder


@pytest.fixture
def resume(sweep: Path) -> Callable[..., tuple[int, str]]:
    """Goes on with that copy; gives the exit status and all that was said."""

    def go_on(*words: str) -> tuple[int, str]:
        run = tune("small.yaml", *words, "--output", "out", "--resume", cwd=sweep)
        return run.returncode, run.stdout + run.stderr

    return go_on
