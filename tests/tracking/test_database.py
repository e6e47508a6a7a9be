"""MLflow's own database comes whole or not at all, on any storage."""

import errno
import os
import shutil
from pathlib import Path

import mlflow
import pytest

from symnoise_ray.tracking.database import make_database


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT, on some network shares, and in object stores that are mounted."""

    def link(_source: Path, path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "link", link)


@pytest.fixture
def mlflow_makes(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> list[Path]:
    """Where MLflow was asked for a database; it takes seconds to make one."""
    asked: list[Path] = []

    class Client:
        def __init__(self, uri: str) -> None:
            asked.append(Path(uri.removeprefix("sqlite:///")))

        def get_experiment_by_name(self, _name: str) -> None:
            shutil.copy(empty_store, asked[-1])

    monkeypatch.setattr(mlflow, "MlflowClient", Client)
    return asked


@pytest.mark.usefixtures("no_hard_links", "mlflow_makes")
def test_storage_without_hard_links_gets_a_database(tmp_path: Path, empty_store: Path) -> None:
    path = tmp_path / "runs" / "mlflow.db"
    make_database(f"sqlite:///{path}")
    assert path.read_bytes() == empty_store.read_bytes()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("no_hard_links")
def test_what_another_process_made_meanwhile_is_kept_without_hard_links(
    tmp_path: Path, mlflow_makes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    refuse = os.link

    def link(source: Path, target: Path) -> None:
        path.write_text("theirs")
        refuse(source, target)

    monkeypatch.setattr(os, "link", link)
    make_database(f"sqlite:///{path}")
    assert mlflow_makes
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]
