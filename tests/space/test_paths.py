"""Paths in a space begin at its folder, those of an override at the working directory."""

import json
import re
import shutil
from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.demo.content import model_dir
from symnoise_ray.errors import UserError
from symnoise_ray.preflight.inputs import prepare
from symnoise_ray.space.parameters import resolve
from symnoise_ray.space.paths import input_files, read_judge, read_space, read_trial

ROWS = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(12)]
SPACE = """\
name: mine
trial:
  model: {name: ./tiny}
  data: {train: rows.json, eval_prompts: rows.json, template: own.yaml}
baselines: [{noise.type: none}, {noise.type: none, data.train: [rows.json, more.json]}]
question: {treatment: noise.type, reference: none}
search: {num_trials: 0}
"""
TEMPLATE = "request: 'Q {request}'\nrequest_with_input: 'Q {request} {input}'\n"


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space in a folder of its own, with all that it names beside it."""
    folder = tmp_path / "project" / "spaces"
    folder.mkdir(parents=True)
    shutil.copytree(model_dir(), folder / "tiny")
    for name in ("rows", "more"):
        (folder / f"{name}.json").write_text(json.dumps(ROWS))
    (folder / "own.yaml").write_text(TEMPLATE)
    (folder / "mine.yaml").write_text(SPACE)
    return folder / "mine.yaml"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another working directory."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def data_of(space: Path, *overrides: str) -> dict[str, object]:
    sweep, _ = read_space(str(space), overrides)
    return dict(sweep.trial["data"])


def test_paths_in_a_space_begin_at_its_folder(space: Path, elsewhere: Path):
    sweep, _ = read_space(str(space), [])
    assert sweep.trial["model"] == {"name": str(space.parent / "tiny")}
    data = {name: Path(value).name for name, value in sweep.trial["data"].items()}
    assert data == {"train": "rows.json", "eval_prompts": "rows.json", "template": "own.yaml"}
    assert all(Path(value).parent == space.parent for value in sweep.trial["data"].values())
    both = [str(space.parent / name) for name in ("rows.json", "more.json")]
    assert sweep.baselines[1]["data.train"] == both


@pytest.mark.parametrize(
    ("given", "anchored"),
    [
        (["rows.json", "demo"], ["ROOT/rows.json", "demo"]),
        ({"rows.json": 2.0, "owner/set": 1.0}, {"ROOT/rows.json": 2.0, "owner/set": 1.0}),
        ({"name": "chats", "split": "rows.json"}, {"name": "ROOT/chats", "split": "rows.json"}),
        (
            [{"name": "owner/set", "config": "en"}, {"name": "chats"}],
            [{"name": "owner/set", "config": "en"}, {"name": "ROOT/chats"}],
        ),
    ],
    ids=["list", "weights", "split", "list of splits"],
)
def test_of_several_sources_each_begins_there_and_their_files_are_known(
    given: object, anchored: object, space: Path, elsewhere: Path
):
    (space.parent / "chats").mkdir()
    train = f"data: {{train: {json.dumps(given)}, eval_prompts: rows.json}}"
    text = re.sub(r"data: \{.*\}", train, SPACE, count=1)
    space.write_text(text.replace(", {noise.type: none, data.train: [rows.json, more.json]}", ""))
    sweep, _ = read_space(str(space), [])
    found = sweep.trial["data"]["train"]
    assert str(found).replace(str(space.parent), "ROOT") == str(anchored)
    read = {Path(file).name for file in input_files([resolve(sweep, {"noise.type": "none"})])}
    assert read == {"tiny", "rows.json"} | ({"chats"} if "chats" in str(given) else set())


def test_where_nothing_is_beside_the_space_the_working_directory_is_looked_at(
    space: Path, elsewhere: Path
):
    (space.parent / "rows.json").rename(elsewhere / "rows.json")
    assert data_of(space)["train"] == str(elsewhere / "rows.json")
    (space.parent / "rows.json").write_text(json.dumps(ROWS))
    assert data_of(space)["train"] == str(space.parent / "rows.json"), "the space goes first"


def test_paths_of_overrides_begin_at_the_working_directory(space: Path, elsewhere: Path):
    (elsewhere / "rows.json").write_text(json.dumps(ROWS))
    assert data_of(space, "data.train=rows.json")["train"] == str(elsewhere / "rows.json")
    assert data_of(space)["train"] == str(space.parent / "rows.json")
    given = "data={train: {rows.json: 2}, eval_prompts: rows.json}"
    assert data_of(space, given)["train"] == {str(elsewhere / "rows.json"): 2}


def test_the_home_directory_and_variables_are_those_of_a_shell(
    space: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(space.parent))
    monkeypatch.setenv("MY_DATA", str(space.parent))
    rows = str(space.parent / "rows.json")
    for text in ("~/rows.json", "$MY_DATA/rows.json", "${MY_DATA}/rows.json"):
        assert data_of(space, f"data.train={text}")["train"] == rows
        trial = read_trial(None, [f"data.train={text}", f"data.eval_prompts={text}"])
        assert trial.data.train == rows
    judge = read_judge(["judge.type=api", "judge.model=m", "judge.prompt=~/own.yaml"])
    assert judge.prompt == str(space.parent / "own.yaml")
    with pytest.raises(UserError, match=r"data\.train=\$NOT_SET/rows\.json: .* variable NOT_SET,"):
        data_of(space, "data.train=$NOT_SET/rows.json")


def test_a_trials_file_follows_the_same_rule(space: Path, elsewhere: Path):
    trial = space.parent / "trial.yaml"
    trial.write_text("data: {train: rows.json, eval_prompts: rows.json}\nmodel: {name: ./tiny}\n")
    config = read_trial(trial, ["train.seed=3"])
    assert config.data.train == str(space.parent / "rows.json")
    assert config.model.name == str(space.parent / "tiny")


def test_the_content_of_a_deepspeed_file_is_read_from_beside_the_space(
    space: Path, elsewhere: Path
):
    (space.parent / "ds.json").write_text('{"steps_per_print": 7}')
    space.write_text(SPACE.replace("trial:\n", "trial:\n  train: {deepspeed: ds.json}\n"))
    assert read_space(str(space), [])[0].trial["train"]["deepspeed"] == '{"steps_per_print":7}'
    (space.parent / "ds.json").write_text("{")
    with pytest.raises(UserError, match=rf":3: train\.deepspeed: .*{space.parent}/ds\.json"):
        prepare(str(space), [])


def test_names_of_the_package_and_of_the_hub_stay_as_they_are(space: Path, elsewhere: Path):
    (elsewhere / "alpaca").mkdir()
    (elsewhere / "demo").mkdir()
    for name in ("alpaca", "demo", "org/data"):
        given = [f"data.train={name}", "data.eval_prompts=alpaca-eval", "model.name=org/model-7.1B"]
        sweep, _ = read_space(str(space), given)
        assert sweep.trial["data"]["train"] == name
        assert sweep.trial["model"]["name"] == "org/model-7.1B"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.train=absent.json", "{here}/absent.json: the data file must exist"),
        ("data.train=~/absent.json", "{home}/absent.json: the data file must exist"),
        ("model.name=./absent", "model.name={here}/absent: the folder of the model must exist"),
        (
            "model.name=/nope/model",
            "model.name=/nope/model: the folder of the model must exist, but there is none",
        ),
        ("data.template=absent.yaml", "{here}/absent.yaml"),
        ("judge.reference=absent.jsonl", "{here}/absent.jsonl"),
    ],
)
def test_what_is_not_found_is_told_with_the_place_that_was_looked_at(
    setting: str,
    told: str,
    space: Path,
    elsewhere: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["validate", str(space), setting]) == 2
    shown = capsys.readouterr().err
    assert told.format(here=elsewhere, home=tmp_path) in shown
    assert shown.count("\n") == 1


def test_a_path_of_the_space_that_is_not_there_is_told_with_its_folder(
    space: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
):
    (space.parent / "rows.json").unlink()
    assert main(["validate", str(space)]) == 2
    assert f"error: {space.parent}/rows.json: the data file must exist" in capsys.readouterr().err
    assert main(["validate", "absent.yaml"]) == 2
    assert f"there is no {elsewhere}/absent.yaml" in capsys.readouterr().err
