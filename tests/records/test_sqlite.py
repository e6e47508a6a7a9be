"""An address of an SQLite file leads back to it, whatever its folder is called."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy

from symnoise_ray.config.redaction import hides_password, without_password
from symnoise_ray.records.sqlite import sqlite_path, sqlite_uri

NAMES = [
    *("plain", "two words", "it's", 'say "it"', "süß-noß", "100 % of it", "100%25", "%41", "50%"),
    *("a?b", "#1", "a#b?c%3Fd", "a&token=secret-word", "?password=x", "***", "{SCHEMA_VERSION}"),
    *("me:word@host", "a;b", "C:\\runs", "+1", "%2F", "~"),
]


@pytest.mark.parametrize("name", NAMES)
def test_sqlalchemy_opens_the_file_that_was_meant_and_makes_no_other(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name / "mlflow.db"
    path.parent.mkdir()
    uri = sqlite_uri(path)
    assert sqlite_path(uri) == path
    with sqlalchemy.create_engine(uri).begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (x INTEGER)"))
    assert sqlite3.connect(path).execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert [each.name for each in path.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("name", NAMES)
def test_the_address_of_a_file_is_shown_whole_since_it_has_no_password(name: str) -> None:
    uri = sqlite_uri(Path("/runs") / name / "mlflow.db")
    assert without_password(uri) == uri
    assert not hides_password(uri)


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_of_an_address_as_it_is_written_is_one_above_the_special_name(name: str) -> None:
    """MLflow makes that folder without unquoting it."""
    written = sqlite_uri(Path("/runs") / name / "sweeps" / "mlflow.db").removeprefix("sqlite:///")
    folder = Path("/runs") / name / "sweeps"
    assert Path(written).parent in (folder, *folder.parents)


def test_a_plain_path_stands_in_its_address_as_it_is() -> None:
    assert sqlite_uri(Path("/my runs/süß/mlflow.db")) == "sqlite:////my runs/süß/mlflow.db"
    assert sqlite_uri(Path("mlflow.db")) == "sqlite:///mlflow.db"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////runs/mlflow.db?timeout=60", Path("/runs/mlflow.db")),
        ("sqlite:///my%20runs/mlflow.db", Path("my runs/mlflow.db")),
        ("sqlite:///file:/runs/mlflow.db?mode=ro&uri=true", None),
        ("postgresql://me@host/mlflow", None),
        ("http://host:5000", None),
    ],
)
def test_an_address_that_a_person_wrote_is_read_as_sqlalchemy_reads_it(
    uri: str, path: Path | None
) -> None:
    assert sqlite_path(uri) == path
