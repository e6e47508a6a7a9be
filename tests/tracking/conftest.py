"""What the tests of tracking share: local MLflow databases, and a tracker that gives up at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest


@pytest.fixture(autouse=True)
def _fast_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent tracker is given up at once; what tracking sets itself does not outlive a test."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, which takes seconds to make."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").get_experiment_by_name("Default")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Callable[[str], str]:
    """Gives the addresses of local MLflow databases by name."""

    def address(name: str) -> str:
        path = tmp_path / f"{name}.db"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(empty_store, path)
        return f"sqlite:///{path}"

    return address
