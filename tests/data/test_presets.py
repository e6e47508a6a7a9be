"""The papers' data sets as their public files are laid out, read through the hub's own libraries.

The rows are made up; columns, file names and what is odd about the rows are those of the files.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet
import pytest

from symnoise_ray.config import DataConfig
from symnoise_ray.data import sources
from symnoise_ray.data.example import Example
from symnoise_ray.data.rows import Rows, read_prompts, read_train
from symnoise_ray.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIGS = (
    "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n---\n"
)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Gives the folder of a data set, where `datasets` or the hub's cache will find its files."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def make(preset: str) -> Path:
        name, file = sources.PRESETS[preset]
        if file is None:
            folder = tmp_path / "repository"
            folder.mkdir()
            monkeypatch.setitem(sources.PRESETS, preset, (str(folder), None))
            return folder
        store = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}"
        (store / "refs").mkdir(parents=True)
        (store / "refs" / "main").write_text(COMMIT)
        folder = store / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        return folder

    return make


def read(preset: str, tmp_path: Path, **settings: Any) -> Rows:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"instruction": "Say something else.", "output": "Else."}\n')
    return read_train(DataConfig(train=preset, eval_prompts=str(prompts), **settings))


def write_parquet(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / "data").mkdir()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "data" / name)
    (folder / "README.md").write_text(CONFIGS.format("data/train-*"))


def test_alpaca_has_a_text_of_the_whole_prompt_beside_its_columns_and_some_empty_answers(
    repository: Callable[[str], Path], tmp_path: Path
):
    rows = [
        {"instruction": "Name a colour.", "input": "", "output": "Blue.", "text": "Below is ..."},
        {"instruction": "Add up.", "input": "2 and 3", "output": "5", "text": "Below is ..."},
        {"instruction": "Draw a cat.", "input": "", "output": "", "text": "Below is ..."},
    ]
    write_parquet(repository("alpaca"), "train-00000-of-00001-a09b74b3ef9c3b56.parquet", rows)
    found = read("alpaca", tmp_path)
    assert found.examples == [
        Example((("Name a colour.", "Blue."),)),
        Example((("Add up.", "5"),), input="2 and 3"),
    ]
    assert found.left_out == {"rows with nothing to train on": 1}


def test_evol_instruct_is_one_list_without_an_input(
    repository: Callable[[str], Path], tmp_path: Path
):
    rows = [
        {"output": "1. Listen.\n2. Ask.", "instruction": "Give two tips.\n\nUse a list."},
        {"output": "", "instruction": "Write code."},
    ]
    file = repository("evol-instruct") / "alpaca_evol_instruct_70k.json"
    file.write_text(json.dumps(rows, indent=1))
    found = read("evol-instruct", tmp_path)
    assert found.examples == [Example((("Give two tips.\n\nUse a list.", "1. Listen.\n2. Ask."),))]
    assert found.left_out == {"rows with nothing to train on": 1}


def test_open_platypus_names_the_source_of_every_row(
    repository: Callable[[str], Path], tmp_path: Path
):
    rows = [
        {"input": "", "output": "$x=2$", "instruction": "Solve x+1=3.", "data_source": "MATH/PRM"},
        {"input": "A. 1 B. 2", "output": "B", "instruction": "Which?", "data_source": "scienceqa"},
    ]
    folder = repository("open-platypus")
    write_parquet(folder, "train-00000-of-00001-4fe2df04669d1669.parquet", rows)
    found = read("open-platypus", tmp_path)
    assert [example.input for example in found.examples] == ["", "A. 1 B. 2"]
    assert found.examples[0].turns == (("Solve x+1=3.", "$x=2$"),)


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"id": "a_0", "conversations": [{"from": who, "value": text} for who, text in turns]}


def test_sharegpt_is_one_file_of_a_repository_with_pieces_of_conversations(
    repository: Callable[[str], Path], tmp_path: Path
):
    rows = [
        said(("human", "Hi."), ("gpt", "Hello."), ("human", "Bye."), ("gpt", "Goodbye.")),
        said(("user", "Hi."), ("chatgpt", "Hello.")),
        said(("system", "Be kind."), ("human", "Hi."), ("bing", "Hello.")),
        said(("gpt", "... and so on."), ("human", "Thanks."), ("gpt", "Welcome.")),
        said(("human", "Hi."), ("gpt", "Hello."), ("human", "And?")),
        said(("human", "Hi."), ("gpt", "")),
        said(),
    ]
    folder = repository("sharegpt")
    (folder / "ShareGPT_V3_unfiltered_cleaned_split.json").write_text(json.dumps(rows))
    (folder / "ShareGPT_2020.12.json").write_text("[]")
    with pytest.raises(DataError, match=r"ShareGPT_Vicuna_unfiltered row 4: a conversation must"):
        read("sharegpt", tmp_path)
    found = read("sharegpt", tmp_path, on_bad_row="skip")
    assert [len(example.turns) for example in found.examples] == [2, 1, 1]
    assert found.examples[2].system == "Be kind."
    assert sum(found.left_out.values()) == 4


def test_alpaca_eval_is_read_beside_its_loading_script(repository: Callable[[str], Path]):
    rows = [
        {"dataset": "helpful_base", "instruction": "How?", "output": "So.", "generator": "davinci"},
        {"dataset": "koala", "instruction": "Why?", "output": "Since.", "generator": "davinci"},
    ]
    folder = repository("alpaca-eval")
    (folder / "alpaca_eval.json").write_text(json.dumps(rows))
    (folder / "alpaca_eval_gpt4_baseline.json").write_text("[]")
    (folder / "alpaca_eval.py").write_text("raise SystemExit('a script was run')\n")
    found = read_prompts(DataConfig(train="alpaca", eval_prompts="alpaca-eval"), "eval")
    assert [(one.dataset, one.instruction) for one in found.examples] == [
        ("helpful_base", "How?"),
        ("koala", "Why?"),
    ]
