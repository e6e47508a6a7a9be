"""Paths of a space are made absolute, since workers have other working directories."""

from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.space.parameters import resolve
from symnoise_ray.space.paths import anchor_paths, input_files


@pytest.mark.parametrize(
    ("given", "anchored"),
    [
        ("rows.json", "ROOT/rows.json"),
        ("owner/set", "owner/set"),
        (["rows.json", "demo"], ["ROOT/rows.json", "demo"]),
        ({"rows.json": 2.0, "owner/set": 1.0}, {"ROOT/rows.json": 2.0, "owner/set": 1.0}),
        ({"name": "chats", "split": "rows.json"}, {"name": "ROOT/chats", "split": "rows.json"}),
        (
            [{"name": "owner/set", "config": "en"}, {"name": "chats"}],
            [{"name": "owner/set", "config": "en"}, {"name": "ROOT/chats"}],
        ),
    ],
    ids=["file", "hub", "list", "weights", "split", "list of splits"],
)
def test_the_names_of_existing_files_and_folders_become_absolute(
    given: Any, anchored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.json").write_text("[]")
    (tmp_path / "chats").mkdir()
    data = {"train": given, "eval_prompts": "rows.json"}
    sweep = anchor_paths(SweepConfig(name="own", trial={"data": data}))
    assert str(sweep.trial["data"]["train"]).replace(str(tmp_path), "ROOT") == str(anchored)
    read = {str(Path(file).relative_to(tmp_path)) for file in input_files([resolve(sweep, {})])}
    assert read == {"rows.json"} | ({"chats"} if "chats" in str(given) else set())
