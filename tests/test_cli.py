"""The command line: bad input is one line and exit status 2, and every stage runs alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from symnoise_ray.cli import main

BAD_INPUT = {
    "an unknown key": (["noise.alhpa=3"], "'noise.alhpa' is not a trial setting. Did you mean"),
    "an unknown section": (["nois.type=none"], "'nois' is not a section. Did you mean 'noise'"),
    "a wrong type": (["train.num_epochs=many"], "train.num_epochs"),
    "an inverted range": (["parameters.noise.alpha.low=30"], "low <= high must hold"),
    "a value out of range": (["parameters.optim.lr.low=-1"], "low > 0 must hold"),
    "a missing data file": (
        ["data.train=absent.json", "data.eval_prompts=absent.json"],
        "absent.json: the data file must exist",
    ),
    "a missing space": (["absent.yaml"], "must be a file or one of the shipped names"),
    "a missing model": (["model.name=./absent"], "model.name=./absent"),
    "a missing reference": (["judge.reference=absent.json"], "absent.json"),
    "a fixed and varied key": (["optim.lr=1e-3"], "varied by `parameters` and held fixed"),
    "no equals sign": (["quickstart", "noise.alpha"], "must be key=value"),
}


def run_module(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray.tune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_nothing_is_created(name: str, tmp_path: Path):
    arguments, message = BAD_INPUT[name]
    run = run_module(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert message in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_told_before_anything_heavy_is_imported():
    code = (
        "import sys\nfrom symnoise_ray.cli import main\n"
        f"for arguments in {[arguments for arguments, _ in BAD_INPUT.values()]}:\n"
        "    assert main(['tune', *arguments]) == 2\n"
        "print(sorted({'torch', 'ray', 'transformers', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("content", ["", "[]", '[{"instruction": "a", "output": ""}]'])
def test_an_empty_data_set_is_refused(content: str, tmp_path: Path):
    data = tmp_path / "empty.json"
    data.write_text(content)
    run = run_module(f"data.train={data}", f"data.eval_prompts={data}", cwd=tmp_path)
    assert run.returncode == 2
    assert "must hold at least one row with an answer" in run.stderr
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({}, "config.json"),
        ({"config.json": "{"}, "must be readable"),
        ({"config.json": '{"model_type": "llama"}'}, "no \\*.safetensors"),
        (
            {"config.json": '{"model_type": "llama"}', "model.safetensors": "junk"},
            "must be readable",
        ),
    ],
)
def test_an_unreadable_model_is_refused(
    broken: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in broken.items():
        (folder / name).write_text(text)
    assert main(["validate", "quickstart", f"model.name={folder}"]) == 2
    error = capsys.readouterr().err
    assert f"model.name={folder}" in error
    assert message.replace("\\", "") in error


def test_an_output_directory_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert main(["tune", "--output", str(tmp_path)]) == 2
    assert "must be a new or empty directory" in capsys.readouterr().err


def test_a_dry_run_checks_and_creates_nothing(tmp_path: Path):
    run = run_module("--dry-run", cwd=tmp_path)
    assert run.returncode == 0
    assert "5 baselines, 6 searched trials, at most 9 to confirm" in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "verb",
    ["tune", "train", "generate", "judge", "score", "report", "validate", "schema", "sync"],
)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert f"example: symnoise-ray {verb}" in capsys.readouterr().out


def test_schema_prints_the_settings(capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "alpha" in schema["$defs"]["NoiseConfig"]["properties"]


def test_every_stage_runs_alone(tmp_path: Path):
    """Train, generate, judge and score, each in a process of its own, by files alone."""
    trial = tmp_path / "trial.yaml"
    trial.write_text(
        "noise: {type: symnoise, alpha: 5}\noptim: {lr: 2e-3}\n"
        "data: {max_eval_prompts: 12}\n"
        "train: {max_steps: 40, global_batch_size: 16, num_clean_rows: 8}\n"
        "generate: {max_new_tokens: 16}\n"
    )

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "symnoise_ray", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run("train", "trial.yaml", "--output", "tuned")
    assert len((tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()) == 41
    run("generate", "trial.yaml", "--model", "tuned/model", "--output", "tuned.jsonl")
    run("generate", "trial.yaml", "--output", "untuned.jsonl")
    run("judge", "tuned.jsonl", "--reference", "untuned.jsonl", "--output", "preferences.jsonl")
    score = json.loads(run("score", "preferences.jsonl", "--json"))
    assert score["n_total"] == 12
    assert 0 <= score["interval_95"][0] <= score["win_rate"] <= score["interval_95"][1] <= 1
    assert score["win_rate"] > 0.5, "a little training must help against none"
