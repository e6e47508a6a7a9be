"""A data set is told by a name and a digest of the rows that a trial uses."""

import os
import subprocess
from pathlib import Path

import pytest

from symnoise_ray.config import DataConfig
from symnoise_ray.tracking.inputs import data_inputs
from symnoise_ray.tracking.origin import origin_tags


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of rows; only its bytes matter here."""
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    return path


def digests(parts: tuple[str, ...] = ("eval",), **settings: object) -> list[str]:
    data = DataConfig.model_validate(settings)
    return [each["digest"] for each in data_inputs(data, parts)]


def test_equal_rows_have_equal_digests_and_edited_ones_another(rows: Path) -> None:
    settings = {"train": str(rows), "eval_prompts": str(rows)}
    before = digests(**settings)
    assert digests(**settings) == before
    assert all(len(digest) == 8 for digest in before)
    rows.write_text("{}\n{}\n")
    os.utime(rows, ns=(1, 1))
    assert not set(digests(**settings)) & set(before)


def test_settings_that_leave_rows_out_make_another_data_set(rows: Path) -> None:
    settings = {"train": str(rows), "eval_prompts": str(rows)}
    train, prompts = digests(**settings)
    fewer_rows, same_prompts = digests(**settings, max_train_rows=5)
    assert (fewer_rows != train, same_prompts == prompts) == (True, True)
    same_rows, fewer_prompts = digests(**settings, max_eval_prompts=5)
    assert (same_rows == train, fewer_prompts != prompts) == (True, True)


def test_prompts_that_are_held_back_are_a_part_of_their_file(rows: Path) -> None:
    data = DataConfig(train=str(rows), eval_prompts=str(rows), confirm_prompts="held_back")
    _, search, confirmation = data_inputs(data, ("eval", "confirm"))
    assert search["name"] == "rows.jsonl (search part)"
    assert confirmation["name"] == "rows.jsonl (confirmation part)"
    assert search["source"] == confirmation["source"] == f'{{"uri": "{rows}"}}'
    assert search["digest"] != confirmation["digest"]


def test_every_source_of_a_mixture_is_a_data_set_also_one_on_the_hub(
    rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.json").write_text("[]")
    train = {str(rows): 1.0, str(folder): 2.0, "alpaca": 0.5}
    data = DataConfig(train=train, eval_prompts=str(rows))
    *mixture, prompts = data_inputs(data, ("eval",))
    assert [each["name"] for each in mixture] == ["folder", "rows.jsonl", "alpaca"]
    assert [each["source_type"] for each in mixture] == ["local", "local", "hugging_face"]
    assert {each["context"] for each in mixture} == {"training"}
    assert prompts["context"] == "evaluation"


def test_the_demo_is_the_files_that_come_with_the_package() -> None:
    found = data_inputs(DataConfig(), ("eval", "confirm"))
    assert [each["name"] for each in found] == ["train.jsonl", "eval.jsonl", "confirm.jsonl"]


def test_a_sweep_says_which_commit_its_search_space_lies_at(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("name: a\n")
    tags = origin_tags(space)
    assert tags["mlflow.source.name"] == str(space)
    assert tags["mlflow.source.type"] == "LOCAL"
    assert "mlflow.source.git.commit" not in tags, "it is in no repository"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert origin_tags(space)["mlflow.source.git.commit"] == head


def test_a_split_of_a_data_set_is_another_one_than_its_whole(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}")
    part = {"name": str(folder), "split": "train", "config": "en"}
    hub = {"name": "owner/set", "split": "test"}
    data = DataConfig.model_validate({"train": [str(folder), part, hub], "eval_prompts": part})
    whole, train, far, prompts = data_inputs(data, ("eval",))
    assert [each["name"] for each in (whole, train)] == ["set", "set (split train, config en)"]
    assert (far["name"], far["source"]) == ("owner/set (split test)", '{"path": "owner/set"}')
    assert whole["source"] == train["source"] == prompts["source"]
    assert whole["digest"] != train["digest"]
