"""What two machines must have in common before a sweep starts on them."""

import time
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.preflight.cluster import MAX_SKEW_SECONDS, differences
from symnoise_ray.preflight.probe import look


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "written"
    path.write_text("a word")
    return path


def told(seen: dict[str, Any], here: dict[str, Any], began: float) -> list[str]:
    return differences(seen, here, began, time.time())


def test_a_machine_with_the_same_code_storage_and_time_is_fit(written: Path):
    began = time.time()
    answer = written.with_name("answer")
    here = look(str(written), str(answer), [str(written)])
    assert told(here, here, began) == []
    assert answer.read_text() == "a word"


def test_storage_of_its_own_is_named_with_the_path(written: Path):
    began = time.time()
    absent = written.with_name("absent") / "written"
    seen = look(str(absent), str(absent), [])
    (line,) = told(seen, look(str(written), str(written), []), began)
    assert "must lie on storage that all nodes share" in line
    assert str(absent) in line


def test_an_input_that_a_machine_lacks_is_named(written: Path):
    began = time.time()
    seen = look(str(written), str(written), [str(written), "/nowhere/rows.json"])
    (line,) = told(seen, look(str(written), str(written), []), began)
    assert line.endswith("but there is no /nowhere/rows.json")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"code": None}, "must have the package symnoise_ray, but has none"),
        ({"code": "0" * 64}, "its symnoise_ray must be the same code as here, but differs"),
        ({"time": 0.0}, "its clock must be within 30 s of this machine's, but differs by"),
    ],
)
def test_other_code_or_time_is_named(written: Path, changed: dict[str, Any], said: str):
    here = look(str(written), str(written), [])
    (line,) = told({**here, **changed}, here, here["time"])
    assert said in line


def test_other_versions_are_named_with_both(written: Path):
    here = look(str(written), str(written), [])
    seen = {**here, "versions": {**here["versions"], "torch": "1.0", "numpy": None}}
    lines = told(seen, here, here["time"])
    assert f"its torch must be {here['versions']['torch']} as here, but is 1.0" in lines
    assert f"its numpy must be {here['versions']['numpy']} as here, but is absent" in lines
    assert len(lines) == 2


def test_the_time_that_an_answer_takes_is_no_skew(written: Path):
    here = look(str(written), str(written), [])
    assert told(here, here, here["time"] - 10 * MAX_SKEW_SECONDS) == []
