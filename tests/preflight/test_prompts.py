"""Prompts that a chat template cannot say are told before anything starts, alike for all trials."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import EXIT_OK, EXIT_USER, DataError
from symnoise_ray.models.shape import read_shape
from symnoise_ray.preflight.inputs import check_inputs
from symnoise_ray.preflight.row_counts import count_confirmed, read_rows
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from tests.data.test_prompts import MARKS, NO_SYSTEM, RULE

ROWS = [
    {"instruction": f"Say {word}.", "output": word, "system": system}
    for word, system in (("one", ""), ("two", "Be brief."), ("three", ""), ("four", ""))
]
"""Prompts, of which the second has a system message."""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def chatty(tiny_model_dir: Path, tmp_path: Path) -> Callable[[str], str]:
    """Makes a folder with the tiny model and a chat template."""

    def make(template: str) -> str:
        folder = tmp_path / f"model{len(template)}"
        shutil.copytree(tiny_model_dir, folder)
        (folder / "chat_template.jinja").write_text(template + MARKS)
        return str(folder)

    return make


@pytest.fixture
def asked(
    trial: Callable[..., TrialConfig], prompts: Path, chatty: Callable[[str], str]
) -> Callable[..., TrialConfig]:
    """Makes trials with those prompts and a chat template that takes no system message."""

    def make(**more: str) -> TrialConfig:
        given = {"data.template": "tokenizer", "data.eval_prompts": str(prompts)}
        if "model__name" not in more:
            given["model.name"] = chatty(NO_SYSTEM)
        return trial(**given, **more)

    return make


def test_such_a_prompt_is_refused_with_its_place(asked: Callable[..., TrialConfig]) -> None:
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: .*no system here.*data\.on_bad_row="):
        check_inputs([asked()])


def test_with_skip_it_is_told_and_not_counted_as_a_prompt(
    asked: Callable[..., TrialConfig],
) -> None:
    config = asked(data__on_bad_row="skip")
    assert check_inputs([config]) == (f"search: 1 {RULE}",)
    assert read_rows(config, read_shape(config.model), None).num_prompts == len(ROWS) - 1
    confirmed = config.model_copy(
        update={
            "data": config.data.model_copy(update={"confirm_prompts": config.data.eval_prompts})
        }
    )
    assert check_inputs([confirmed]) == (f"search: 1 {RULE}", f"confirmation: 1 {RULE}")
    assert count_confirmed(confirmed) == (len(ROWS) - 1, 1)


def test_a_reference_file_need_not_answer_what_is_left_out(
    asked: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    known = [Completion(row["instruction"], "x", "file") for row in ROWS if not row["system"]]
    write_lines(known, tmp_path / "reference.jsonl")
    reference = str(tmp_path / "reference.jsonl")
    check_inputs([asked(data__on_bad_row="skip", judge__reference=reference)])


def test_trials_that_would_leave_out_other_prompts_are_refused(
    asked: Callable[..., TrialConfig], chatty: Callable[[str], str]
) -> None:
    one = asked(data__on_bad_row="skip")
    other = asked(data__on_bad_row="skip", model__name=chatty(""))
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: all trials must be asked the same"):
        check_inputs([one, other])
    check_inputs([other])
    check_inputs([one, other], judged=False)


def space(folder: Path, model: str, prompts: Path, on_bad_row: str) -> list[str]:
    """The words of a small sweep with such prompts."""
    (folder / "space.yaml").write_text(
        "name: chat\n"
        f"trial:\n  model: {{name: {model}}}\n"
        f"  data: {{train: {prompts}, eval_prompts: {prompts}, template: tokenizer,\n"
        f"         overlap_ngram: 0, on_bad_row: {on_bad_row}}}\n"
        "  generate: {max_new_tokens: 8}\n"
        "parameters:\n  noise.type: {type: categorical, choices: [none, neftune]}\n"
        "  noise.alpha: {type: categorical, choices: [5], when: {noise.type: [neftune]}}\n"
        "baselines:\n  - {noise.type: none}\n"
        "search: {num_trials: 1}\nconfirm: {arms: 0}\n"
    )
    return [str(folder / "space.yaml")]


def test_validate_and_inspect_refuse_it_in_one_line(
    chatty: Callable[[str], str],
    prompts: Path,
    tmp_path: Path,
    alpaca_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, rows = chatty(NO_SYSTEM), alpaca_file()
    settings = [f"data.train={rows}", f"data.eval_prompts={prompts}", "data.template=tokenizer"]
    for command in (
        ["validate", *space(tmp_path, model, prompts, "error"), f"data.train={rows}"],
        ["inspect", f"model.name={model}", *settings],
    ):
        assert main(command) == EXIT_USER
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {prompts}:2: data.template=tokenizer: the template must")
        assert line.endswith("(data.on_bad_row=skip leaves such rows out and counts them)")


def test_validate_and_inspect_count_what_is_skipped(
    chatty: Callable[[str], str],
    prompts: Path,
    tmp_path: Path,
    alpaca_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, rows = chatty(NO_SYSTEM), alpaca_file()
    words = space(tmp_path, model, prompts, "skip")
    assert main(["validate", *words, f"data.train={rows}"]) == EXIT_OK
    assert capsys.readouterr().err == f"search: 1 {RULE}\n"
    settings = [f"data.train={rows}", f"data.eval_prompts={prompts}", "data.template=tokenizer"]
    assert main(["inspect", f"model.name={model}", *settings, "data.on_bad_row=skip"]) == EXIT_OK
    assert f"counted: 1 {RULE}" in capsys.readouterr().out.splitlines()
