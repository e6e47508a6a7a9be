"""The command line: bad input is one line and exit status 2, and every stage runs alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from symnoise_ray.cli.main import _parser, main
from symnoise_ray.demo.content import model_dir
from symnoise_ray.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_SIGINT,
    EXIT_SIGPIPE,
    EXIT_SIGTERM,
    EXIT_USER,
)
from tests.servers.endpoint import Endpoint, serving

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
    "a missing model": (["model.name=./absent"], "/absent: the folder of the model must exist"),
    "a missing reference": (["judge.reference=absent.json"], "absent.json"),
    "a fixed and varied key": (["optim.lr=1e-3"], "varied by `parameters` and held fixed"),
    "no equals sign": (["quickstart", "noise.alpha"], "must be key=value"),
}


def run_module(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symnoise_ray.tune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_nothing_is_created(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD_INPUT[name]
    assert main(["tune", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert message in told.err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_told_before_anything_heavy_is_imported():
    code = (
        "import sys\nfrom symnoise_ray.cli.main import main\n"
        f"for arguments in {[arguments for arguments, _ in BAD_INPUT.values()]}:\n"
        "    assert main(['tune', *arguments]) == 2\n"
        "print(sorted({'torch', 'ray', 'transformers', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_plan_and_an_inspection_of_the_demo_import_nothing_heavy():
    code = (
        "import sys\nfrom symnoise_ray.cli.main import main\n"
        "assert main(['plan', 'quickstart']) == main(['inspect']) == 0\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


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
    assert "3 baselines, 9 searched trials, at most 15 to confirm" in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "verb",
    [
        "tune",
        "train",
        "generate",
        "judge",
        "score",
        "report",
        "validate",
        "plan",
        "inspect",
        "schema",
        "sync",
    ],
)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert f"example: symnoise-ray {verb}" in capsys.readouterr().out


def test_every_word_of_every_verb_is_explained():
    (verbs,) = (each for each in _parser()._actions if isinstance(each.choices, dict))
    unexplained = [
        f"{name} {action.metavar or action.dest}"
        for name, parser in verbs.choices.items()
        for action in parser._actions
        if not action.help
    ]
    assert unexplained == []


def test_the_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    failed = (EXIT_FAILED, EXIT_USER, EXIT_PARTIAL, EXIT_SIGINT, EXIT_SIGTERM, EXIT_SIGPIPE)
    for status in (EXIT_OK, *failed):
        assert f"{status} " in told.split("exit status: ")[1]


def test_inspect_marks_what_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"instruction": "Name a fox.", "output": "the red\\u001b[2J fox"}\n'
        '{"instruction": "Say no.", "output": ""}\n{"instruction": "Say yes.", "output": "yes"}\n'
    )
    given = [f"data.train={rows}", f"data.eval_prompts={rows}", "data.template=short"]
    assert main(["inspect", *given, "--rows", "1"]) == 0
    text = capsys.readouterr().out
    assert "template: short\nrows: 2\ntokens per row: median" in text
    assert "counted: 1 rows with nothing to train on" in text
    assert "counted: 2 rows kept that overlap with the prompts" in text
    assert "### Instruction:\nName a fox.\n\n### Response:\n[[the red\\x1b[2J fox</s>]]\n" in text
    assert "row 2" not in text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["inspect", *given, "--rows", "1"]) == 0
    assert "\x1b[32mthe red\\x1b[2J fox</s>\x1b[0m\n" in capsys.readouterr().out


def test_inspect_needs_no_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Name a fox.", "output": "the red fox"}\n')
    assert main(["inspect", f"data.train={rows}"]) == 0
    text = capsys.readouterr().out
    assert "rows: 1\n" in text
    assert "overlap with prompts: not looked for" in text
    assert main(["inspect", f"data.train={rows}", f"data.eval_prompts={rows}"]) == 0
    assert "counted: 1 rows kept that overlap with the prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "data: {train: ROWS}",
        "data: {train: ROWS, template: alpaca}\ntrain: {max_steps: 1}",
        "name: mine\ntrial: {data: {train: ROWS}}\nbaselines: [{noise.type: none}]\n"
        "search: {num_trials: 0}",
    ],
    ids=["a trial", "more of a trial", "a space"],
)
def test_inspect_needs_no_prompts_of_a_file_either(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows, file = tmp_path / "rows.jsonl", tmp_path / "file.yaml"
    rows.write_text('{"instruction": "Name a fox.", "output": "the red fox"}\n')
    file.write_text(text.replace("ROWS", str(rows)))
    assert main(["inspect", str(file)]) == 0
    assert "overlap with prompts: not looked for" in capsys.readouterr().out
    assert main(["inspect", str(file), f"data.eval_prompts={rows}"]) == 0
    assert "counted: 1 rows kept that overlap with the prompts" in capsys.readouterr().out
    assert main(["inspect", str(file), "data.train=demo"]) == 0
    assert "overlap with prompts: not looked for" not in capsys.readouterr().out


def test_inspect_takes_a_trial_a_space_or_nothing_and_gives_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trial = tmp_path / "trial.yaml"
    trial.write_text("data: {max_train_rows: 2}\n")
    shown = []
    for given in (["quickstart", "data.max_train_rows=2"], [str(trial)], ["data.max_train_rows=2"]):
        assert main(["inspect", *given, "--json"]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0] == shown[1] == shown[2]
    assert shown[0]["num_rows"] == len(shown[0]["rows"]) == 2
    for row in shown[0]["rows"]:
        assert [span["trained"] for span in row["spans"]] == [False, True]
        assert 0 < row["num_trained"] < row["num_tokens"] <= shown[0]["max_length"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "must be a file or one of the shipped names"),
        (["data.trian=x"], "override data.trian=x: 'data.trian' is not a setting. Did you mean"),
        (["--rows", "-1"], "--rows must be 0 or more, but got -1"),
        (["data.train={a.json: -1}", "data.eval_prompts=b"], "a.json must be a number > 0"),
        (["data.template=tokenizer"], "must have a chat template, but it has none"),
    ],
)
def test_inspect_refuses_bad_input(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["inspect", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_schema_prints_the_settings(capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "alpha" in schema["$defs"]["NoiseConfig"]["properties"]


@pytest.mark.slow
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
    assert score["length_controlled_interval_95"][0] <= score["length_controlled_win_rate"]


ANNOTATION = {"instruction": "Name a fox.", "output_1": "a fox", "output_2": "the red fox"}
GAMED = "index,preference,std_delta_len,instruction_difficulty\n"


def annotations(folder: Path) -> str:
    """A file in AlpacaEval's shape: two wins, a loss, a tie of old, and a failure."""
    rows = [{**ANNOTATION, "preference": value} for value in (2, 1.75, 1, 0, None)]
    rows = [{**row, "instruction": f"Question {number}"} for number, row in enumerate(rows)]
    (folder / "annotations.json").write_text(json.dumps(rows))
    return str(folder / "annotations.json")


def test_score_reads_annotations_of_alpaca_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["score", annotations(tmp_path), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    counts = {"n_total": 4, "n_wins": 2, "n_wins_reference": 1, "n_draws": 1, "n_invalid": 1}
    assert score.items() >= counts.items()
    assert score["win_rate"] == (1 + 0.75 + 0 + 0.5) / 4
    assert score["discrete_win_rate"] == (1 + 1 + 0 + 0.5) / 4
    assert score["avg_length"] == len("the red fox")
    for name in ("", "length_controlled_"):
        low, high = score[f"{name}interval_95"]
        assert 0 <= low <= score[f"{name}win_rate"] <= high <= 1
    assert main(["score", annotations(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "of 4 items: 2 won, 1 lost, 1 tied" in text
    assert "1 items without a verdict are left out" in text


def test_score_controls_the_length_as_alpaca_eval_does_when_given_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [f"{n % 5},{0.2 + 0.1 * (n % 7)},{n / 3 - 2},{n % 5 - 2}" for n in range(10)]
    (tmp_path / "gamed.csv").write_text(GAMED + "\n".join(rows))
    rates = []
    given = ["--gamed", str(tmp_path / "gamed.csv")]
    for more in ([], given, [*given, "--strength", "2.7826"]):
        assert main(["score", annotations(tmp_path), "--json", *more]) == 0
        rates.append(json.loads(capsys.readouterr().out)["length_controlled_win_rate"])
    assert len(set(rates)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strength", "3"], "--strength is AlpacaEval's C and needs --gamed"),
        (["--strength", "-1"], "--strength must be more than 0 and at most 10000"),
        (["--strength=1e12"], "--strength must be more than 0 and at most 10000, but is 1e+12"),
        (["--gamed", "absent.csv"], "must be AlpacaEval's df_gamed.csv"),
        (["--gamed", "short.csv"], "known for every item, but 5 items have 1"),
    ],
)
def test_score_refuses_rows_that_do_not_fit(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.csv").write_text(GAMED + "0,0.5,1,0.25\n")
    assert main(["score", annotations(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_file_without_any_verdict_has_no_score(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "failed.json").write_text(json.dumps([{**ANNOTATION, "preference": -1}]))
    for given in (["failed.json"], ["annotations.json", "failed.json"]):
        annotations(tmp_path)
        assert main(["score", *(str(tmp_path / name) for name in given), *more]) == 1
        error = "error: failed.json: at least one item must have a verdict, but none of 1 has\n"
        assert capsys.readouterr().err == error


# What judging reads and writes


@pytest.fixture
def judged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with the answers of a model that is always right, and of one never."""
    monkeypatch.chdir(tmp_path)
    for name, answer in (("own", "right"), ("other", "wrong")):
        rows = [{"instruction": f"{n}?", "output": answer, "gold": "right"} for n in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as server:
        yield server


def judge(output: str, *settings: str) -> int:
    return main(["judge", "own.jsonl", "--reference", "other.jsonl", "--output", output, *settings])


def test_judge_tells_that_it_stopped_and_where_the_whole_sets_rate_lies(
    judged_files: Path, capsys: pytest.CaptureFixture[str]
):
    assert judge("part.jsonl", "judge.early=true") == 0
    told = capsys.readouterr().out
    assert "judging stopped early, after 16 of 200 items" in told
    assert "the win rate of all items lies within 74.0 to 100.0 %" in told
    assert "judge.early=false" in told
    assert main(["score", "part.jsonl"]) == 0
    assert "judging stopped early" in capsys.readouterr().out
    assert judge("whole.jsonl") == 0
    assert "stopped" not in capsys.readouterr().out
    assert main(["score", "whole.jsonl"]) == 0
    assert "whole.jsonl is better" in capsys.readouterr().out


def test_judging_by_reference_leaves_out_prompts_without_a_gold_answer_and_counts_them(
    judged_files: Path, capsys: pytest.CaptureFixture[str]
):
    def without_gold(count: int) -> None:
        for name, answer in (("own", "right"), ("other", "wrong")):
            rows = [
                {"instruction": f"{n}?", "output": answer, "gold": "" if n < count else "right"}
                for n in range(5)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (judged_files / f"{name}.jsonl").write_text(lines)

    without_gold(3)
    assert judge("some.jsonl") == 0
    told = capsys.readouterr()
    assert "4 verdicts on 2 items in some.jsonl" in told.out
    assert told.err == "3 prompts without a gold answer\n"
    without_gold(5)
    assert judge("none.jsonl") == 2
    error = capsys.readouterr().err
    assert "judge.type=reference needs prompts with gold answers, but none of 5 has one" in error
    assert not (judged_files / "none.jsonl").exists()


@pytest.mark.parametrize("output", ["own.jsonl", "other.jsonl", "./x/../own.jsonl", "link.jsonl"])
def test_judge_does_not_overwrite_what_it_reads(
    output: str, judged_files: Path, capsys: pytest.CaptureFixture[str]
):
    (judged_files / "link.jsonl").symlink_to("own.jsonl")
    before = [path.read_text() for path in sorted(judged_files.iterdir())]
    assert judge(output) == 2
    error = capsys.readouterr().err
    assert f"--output must not overwrite what is read, but {Path(output)} is " in error
    assert [path.read_text() for path in sorted(judged_files.iterdir())] == before


@pytest.mark.parametrize(
    ("output", "setting", "message"),
    [
        ("folder", "", "--output folder: must be a file that can be written, but it is a folder"),
        ("own.jsonl/new.jsonl", "", "--output own.jsonl/new.jsonl: must be a file that can be"),
        ("/proc/new.jsonl", "", "--output /proc/new.jsonl: must be a file that can be written"),
        ("new.jsonl", "judge.cache=own.jsonl", "judge.cache own.jsonl: must be a folder"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_first_call(
    output: str,
    setting: str,
    message: str,
    judged_files: Path,
    endpoint: Endpoint,
    capsys: pytest.CaptureFixture[str],
):
    (judged_files / "folder").mkdir()
    settings = ["judge.type=api", "judge.model=m", f"judge.base_url={endpoint.url}"]
    assert judge(output, *settings, *filter(None, [setting])) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert endpoint.requests == []
    assert sorted(path.name for path in judged_files.iterdir()) == [
        "folder",
        "other.jsonl",
        "own.jsonl",
    ]


@pytest.mark.parametrize("output", ["trial.yaml", "prompts.json"])
def test_generate_does_not_overwrite_what_it_reads(
    output: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.json").write_text('[{"instruction": "Why?", "output": "So."}]')
    (tmp_path / "trial.yaml").write_text("data: {train: prompts.json, eval_prompts: prompts.json}")
    before = (tmp_path / output).read_text()
    assert main(["generate", "trial.yaml", "--output", output]) == 2
    error = f"--output must not overwrite what is read, but {output} is "
    assert error in capsys.readouterr().err
    assert (tmp_path / output).read_text() == before


def test_generate_and_train_tell_beforehand_what_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trial.yaml").write_text("{}")
    assert main(["generate", "trial.yaml", "--output", "."]) == 2
    assert "--output .: must be a file that can be written" in capsys.readouterr().err
    assert main(["train", "trial.yaml", "--output", "trial.yaml"]) == 2
    assert "--output trial.yaml: must be a folder that can be written" in capsys.readouterr().err


def test_train_does_not_overwrite_the_model_that_it_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = shutil.copytree(model_dir(), tmp_path / "out" / "model")
    before = sorted((path, path.stat().st_mtime_ns) for path in model.iterdir())
    (tmp_path / "trial.yaml").write_text(f"model: {{name: {model}}}\n")
    given = ["train", str(tmp_path / "trial.yaml"), "--output", str(tmp_path / "out")]
    assert main(given) == 2
    assert f"must not overwrite what is read, but {model} is {model}" in capsys.readouterr().err
    assert sorted((path, path.stat().st_mtime_ns) for path in model.iterdir()) == before


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    shown = subprocess.run(
        f"{sys.executable} -m symnoise_ray schema | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "{\n"
    assert shown.stderr == ""


def unread(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command whose reader has left before its first line."""
    there, gone = os.pipe()
    os.close(there)
    command = [sys.executable, "-u", "-m", "symnoise_ray", *arguments]
    ended = subprocess.run(
        command, stdout=gone, stderr=subprocess.PIPE, text=True, cwd=cwd, check=False
    )
    os.close(gone)
    return ended


def test_work_whose_reader_has_left_is_not_said_to_be_done(tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text("train: {max_steps: 2, num_clean_rows: 8}\n")
    ended = unread("train", "trial.yaml", "--output", "out", cwd=tmp_path)
    assert not (tmp_path / "out" / "model").exists()
    assert ended.returncode == EXIT_SIGPIPE
    assert ended.stderr.startswith("error: the output must be read to its end, but its reader")
    assert len(ended.stderr.splitlines()) == 1


def test_a_verb_that_only_prints_is_done_when_its_reader_leaves(tmp_path: Path) -> None:
    ended = unread("schema", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (EXIT_OK, "")


def test_overrides_may_stand_on_either_side_of_an_option(capsys: pytest.CaptureFixture[str]):
    command = ["tune", "quickstart", "train.max_steps=3", "--dry-run", "search.num_trials=3"]
    assert main(command) == 0
    assert "3 searched trials" in capsys.readouterr().out
    assert main(["tune", "quickstart", "--dry-run", "search.num_trails=2"]) == 2
    assert "num_trails" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["schema", "train.max_steps=3"], ["tune", "--dry-run", "--x=1"]])
def test_words_that_no_verb_knows_are_refused(words: list[str]):
    with pytest.raises(SystemExit, match="2"):
        main(words)
