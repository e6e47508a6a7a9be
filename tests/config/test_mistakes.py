"""Mistakes that people make in spaces and overrides: one line each, and nothing is created."""

import json
import re
from pathlib import Path

import pytest

from symnoise_ray.cli.main import main

SPACE = """\
name: mine
trial:
  model: {name: demo}
  train: {num_epochs: 1, global_batch_size: 8}
parameters:
  noise.type: {type: categorical, choices: [none, symnoise]}
  noise.alpha: {type: float, low: 1, high: 20, log: true, when: {noise.type: [symnoise]}}
  optim.lr: {type: float, low: 1e-4, high: 1e-2, log: true}
baselines:
  - {noise.type: none, optim.lr: 1e-3}
search: {sampler: qmc, num_trials: 3}
confirm: {arms: 1}
"""
MISTAKES: dict[str, tuple[str, str, str]] = {
    "a key of the trial": ("num_epochs: 1", "num_epoch: 1", ":4: 'train.num_epoch' is not a"),
    "a section": (
        "  train:",
        "  training:",
        ":4: 'training.num_epochs' is not a trial setting. Did",
    ),
    "a key of the space": ("baselines:", "baseline:", ":9: 'baseline' is not a setting. Did you"),
    "a key of a parameter": ("low: 1e-4", "lo: 1e-4", ":8: 'parameters.optim.lr.lo' is not a set"),
    "another program's name": (
        "optim.lr: {",
        "optim.learning_rate: {",
        ":8: 'optim.learning_rate' is not a trial setting. Did you mean 'optim.lr'?",
    ),
    "a word for a number": ("num_epochs: 1", "num_epochs: many", ":4: train.num_epochs: must be"),
    "a part of a whole number": (
        "num_trials: 3",
        "num_trials: 3.5",
        ":11: search.num_trials: must",
    ),
    "a word for a list": (
        "[none, symnoise]",
        "none",
        ":6: parameters.noise.type.choices: must be a",
    ),
    "a list for a parameter": (
        "optim.lr: {type: float, low: 1e-4, high: 1e-2, log: true}",
        "optim.lr: [1e-4, 1e-2]",
        ":8: parameters.optim.lr: must be a mapping, such as {type: float, low: 1e-5, high: 1e-3",
    ),
    "a word for a section": (
        "{name: demo}",
        "demo",
        ":3: model: must be a mapping of its settings",
    ),
    "a section without settings": (
        "{name: demo}",
        "",
        ":3: model: must hold settings, but is empty",
    ),
    "a dotted key under trial": (
        "model: {name: demo}",
        "model.name: demo",
        ":3: under `trial` a dotted key has no place, but got 'model.name'; write `model: {name: ",
    ),
    "a tab": ("  model:", "\tmodel:", ":3: must be valid YAML, but "),
    "a wrong indent": ("  train:", "   train:", ":4: must be valid YAML, but "),
    "a key twice": ("search:", "name: other\nsearch:", ":11: must be valid YAML, but "),
    "an unclosed brace": ("high: 1e-2, log: true}", "high: 1e-2", " must be valid YAML, but "),
    "a number that is none": (
        "num_epochs: 1",
        "num_epochs: 1, seed: !!int seven",
        ":4: must be valid YAML, but the value here is no int; put it into quotes",
    ),
    "a day that there is not": (
        "num_epochs: 1",
        "num_epochs: 1, seed: 2024-13-45",
        ":4: must be valid YAML, but the value here is no timestamp; put it into quotes",
    ),
    "a number of thousands of digits": ("num_epochs: 1", "seed: " + "9" * 5000, ":4: must be val"),
    "another document": ("confirm:", "---\nconfirm:", ":12: must be valid YAML, but found another"),
    "brackets without end": ("{name: demo}", "[" * 2000 + "]" * 2000, "is nested too deeply"),
    "an end that is infinite": (
        "optim.lr: {type: float, low: 1e-4, high: 1e-2, log: true}",
        "train.num_clean_rows: {type: int, low: 1, high: .inf}",
        ":8: parameters.train.num_clean_rows.high: must be a finite number, but got inf",
    ),
    "a range the wrong way round": ("low: 1e-4", "low: 1", "low <= high must hold, but got low=1"),
    "the logarithm of zero": ("low: 1e-4", "low: 0", "low > 0 must hold when log is true, but got"),
    "a list for a choice": (
        "[none, symnoise]",
        "[none, [symnoise]]",
        ":6: parameters.noise.type.choices.1: must be a number, text, true, false or null\n",
    ),
    "a list for the reference": (
        "confirm:",
        "question: {reference: [none]}\nconfirm:",
        ":12: question.reference: must be a number, text, true or false\n",
    ),
    "an empty list of choices": ("[none, symnoise]", "[]", "needs a non-empty list of choices"),
    "a choice that there is not": (
        "choices: [none, symnoise]",
        "choices: [none, symnoyse]",
        "'noise.type' never takes the value 'symnoise'",
    ),
    "a condition on itself": (
        "when: {noise.type: [symnoise]}",
        "when: {noise.alpha: [5]}",
        ":7: the condition of 'noise.alpha' names 'noise.alpha' itself",
    ),
    "a condition on what is fixed": (
        "when: {noise.type: [symnoise]}",
        "when: {optim.schedule: [linear]}",
        ":7: the condition of 'noise.alpha' names 'optim.schedule', which is not varied",
    ),
    "a baseline that is no setting": ("optim.lr: 1e-3}", "optim.lrr: 1e-3}", ":10: 'optim.lrr' is"),
    "an unbalanced search": (
        "num_trials: 3",
        "num_trials: 4",
        "every arm must be tuned with the s",
    ),
    "a file that is a folder": (
        "{name: demo}",
        "{name: demo}\n  data: {train: ., eval_prompts: .}",
        "a folder must hold .json, .jsonl",
    ),
}
OVERRIDES = {
    "another program's name": (
        ["optim.learning_rate=1e-3"],
        "override optim.learning_rate=1e-3: 'optim.learning_rate' is not a trial setting. Did you "
        "mean 'optim.lr'?",
    ),
    "a setting without its companion": (
        ["data.train=demo.json"],
        "override data.train=demo.json: data: data.eval_prompts must be given when data.train is",
    ),
    "a value that does not suit another": (
        ["train.offload=all"],
        "override train.offload=all: train: train.offload=all needs train.zero_stage=3, but got 0",
    ),
    "a number out of range": (
        ["train.num_epochs=-1"],
        "override train.num_epochs=-1: train.num_epochs: input should be greater than 0, but got",
    ),
    "a setting that is varied": (["optim.lr=1e-3"], "override optim.lr=1e-3: 'optim.lr' is varied"),
    "a question that is not asked": (
        ["question.reference=neftune"],
        "override question.reference=neftune: question.reference=neftune must be a value of noise",
    ),
    "a budget too small": (
        ["budget.trials=2"],
        "override budget.trials=2: budget.trials must be at least",
    ),
    "a word for a list": (
        ["confirm.looks=3"],
        "override confirm.looks=3: confirm.looks: must be a list, such as [a, b], but got 3",
    ),
    "a layer that is no list": (
        ["lora.rank=4", "lora.target_modules=q_proj"],
        "override lora.target_modules=q_proj: lora.target_modules: must be all-linear",
    ),
    "a section that is replaced": (
        ["train={num_epochs: x}"],
        "override train={num_epochs: x}: train.num_epochs: must be a number, but got 'x'",
    ),
    "a file without a name": (
        ["judge.reference=''"],
        "override judge.reference='': judge.reference: string should have at least 1 character",
    ),
    "no equals sign": (["train.num_epochs"], "an override must be key=value, but got"),
    "a key of another type": (
        ["judge.api_key_env=OPENAI_API_KEY"],
        "override judge.api_key_env=...: judge: judge.api_key_env belongs to judge.type=api",
    ),
}


def refused(words: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What `tune` says: one line, with status 2, and nothing is created."""
    before = sorted(folder.rglob("*"))
    status = main(["tune", *words])
    told = capfd.readouterr()
    assert status == 2, told.out
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
    assert not re.search(r"\b(tuple|dict|dictionary|instance|pydantic|NoneType)\b", told.err)
    return told.err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_space_is_told_in_one_line(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    right, wrong, told = MISTAKES[mistake]
    assert SPACE.count(right) == 1
    Path("mine.yaml").write_text(SPACE.replace(right, wrong))
    message = refused(["mine.yaml"], tmp_path, capfd)
    assert told in message
    if told.startswith(":"):
        assert message.startswith(f"error: mine.yaml{told}")


@pytest.mark.parametrize("mistake", OVERRIDES)
def test_a_mistake_in_an_override_is_told_of_the_override(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(SPACE)
    words, told = OVERRIDES[mistake]
    assert refused(["mine.yaml", *words], tmp_path, capfd).startswith(f"error: {told}")


def test_the_space_without_a_mistake_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(SPACE)
    assert main(["validate", "mine.yaml"]) == 0
    text = SPACE.replace("\n", "\r\n")
    Path("mine.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert main(["validate", "mine.yaml"]) == 0, "a mark of byte order and other line ends"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "rows.json: must hold at least one row with an answer"),
        ('[{"instruction": "a", "output": "caf\xe9"}]'.encode("latin-1"), "must be readable UTF-8"),
        (json.dumps([{"question": "a", "answer": "b"}]).encode(), "question"),
        (b'{"instruction": "a"\n', "rows.json:1: "),
    ],
)
def test_rows_that_cannot_be_used_are_told_in_one_line(
    content: bytes,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(SPACE)
    Path("rows.json").write_bytes(content)
    words = ["mine.yaml", "data.train=rows.json", "data.eval_prompts=rows.json"]
    assert told in refused(words, tmp_path, capfd)
