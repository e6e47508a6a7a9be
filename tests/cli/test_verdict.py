"""`symnoise-ray verdict`: a sweep's verdict for people and programs, and its exit status."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.errors import EXIT_OK, EXIT_UNDECIDED, EXIT_USER
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Comparison, Decision, Verdict


def compared(low: float, high: float, opponent: str, **more: Any) -> Comparison:
    return Comparison(
        more.pop("arm", "symnoise"), (low + high) / 2, (low, high), 0.2, 0.2, 108, 5,
        "cannot tell yet", confidence=0.98, opponent=opponent, against="none, lr=0.002", **more,
    )  # fmt: skip


def write(directory: Path, *decisions: Decision, **more: Any) -> None:
    found = SweepResult(
        SweepPaths(directory), "small", "whole", Verdict("So it is.", decisions=decisions), **more
    )
    write_json(found.to_json(), directory / "results.json")


BETTER = Decision(
    "symnoise", "better", (compared(0.51, 0.55, "best"), compared(0.52, 0.6, "shared")),
    label="symnoise, alpha=5, lr=0.002", num_seeds=5, looks=(3, 5), stopped="decided",
    num_trained=15, num_failed=1,
)  # fmt: skip
OPEN = Decision(
    "neftune", "cannot tell yet",
    (compared(0.46, 0.52, "best", arm="neftune"), compared(0.47, 0.52, "shared", arm="neftune")),
    label="neftune, alpha=5", num_seeds=5, looks=(3, 5), stopped="futile", num_trained=15,
    seeds_needed=20,
)  # fmt: skip
CONTRAST = Decision(
    "symnoise", "cannot tell yet", (compared(0.49, 0.52, "", over="neftune"),), over="neftune",
    looks=(3, 5), stopped="last look", seeds_needed=30,
)  # fmt: skip


def test_a_verdict_is_told_with_what_it_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path, BETTER)
    assert main(["verdict", str(tmp_path)]) == EXIT_OK
    assert capsys.readouterr().out.splitlines() == [
        "small: decided",
        "So it is.",
        "",
        "symnoise, alpha=5, lr=0.002: better",
        "  against plain fine-tuning at its own best (none, lr=0.002): 53.0 % wins (98 % interval "
        "51.0 to 55.0), 5 seeds, 108 prompts",
        "  against plain fine-tuning at the same setting (none, lr=0.002): 56.0 % wins (98 % "
        "interval 52.0 to 60.0), 5 seeds, 108 prompts",
        "  looks: 3, 5 seeds; stopped: decided",
        "  trainings: 15, of them failed 1",
        "  excluded: a loss of 3 points or more",
    ]


def test_what_is_open_is_told_with_its_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, BETTER, OPEN, CONTRAST, departures=("part 2: more",))
    assert main(["verdict", str(tmp_path)]) == EXIT_UNDECIDED
    text = capsys.readouterr().out
    assert text.startswith("small: cannot tell yet\n")
    assert "neftune, alpha=5: cannot tell yet\n" in text
    assert "excluded: a gain of 3 points or more\n" in text
    gap = "open: a gap of 3 points takes about"
    assert f"{gap} 20 seeds on these prompts, 60 trainings\n" in text
    assert "symnoise over neftune: cannot tell yet\n" in text
    assert "against neftune: +1.0 points (98 % interval -2.0 to +4.0), 5 seeds" in text
    assert f"{gap} 30 seeds on these prompts, 90 trainings\n" in text
    assert text.endswith("not as designed: part 2: more\n")


def test_programs_get_the_verdict_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, BETTER, OPEN)
    assert main(["verdict", str(tmp_path), "--json"]) == EXIT_UNDECIDED
    told = json.loads(capsys.readouterr().out)
    assert told["schema_version"] == 2
    assert (told["decided"], told["exit_status"], told["level"]) == (False, EXIT_UNDECIDED, 0.05)
    assert (told["sentence"], told["effect"], told["reference"]) == ("So it is.", 0.03, "none")
    better, is_open = told["decisions"]
    assert (better["decided"], better["excludes_gain"], better["excludes_loss"]) == (
        *(True, False, True),
    )
    assert better["trainings_needed"] is None
    assert (is_open["seeds_needed"], is_open["trainings_needed"]) == (20, 60)
    assert [each["opponent"] for each in is_open["comparisons"]] == ["best", "shared"]
    assert is_open["comparisons"][0]["interval_95"] == [0.46, 0.52]
    assert is_open["comparisons"][0]["confidence"] == 0.98


def test_where_there_were_seeds_enough_none_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path, replace(OPEN, seeds_needed=5))
    assert main(["verdict", str(tmp_path)]) == EXIT_UNDECIDED
    gap = "open: a gap of 3 points would probably have been seen with so many seeds\n"
    assert gap in capsys.readouterr().out


@pytest.mark.parametrize(
    ("num_seeds", "told"),
    [(5, "; even 200 seeds on these prompts would not be enough"), (1, " takes several seeds")],
)
def test_where_no_number_of_seeds_is_known_it_says_so(
    num_seeds: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    known = replace(OPEN.comparisons[0], num_seeds=num_seeds)
    write(tmp_path, replace(OPEN, comparisons=(known,), seeds_needed=None))
    assert main(["verdict", str(tmp_path)]) == EXIT_UNDECIDED
    assert f"open: a gap of 3 points{told}\n" in capsys.readouterr().out


def test_a_withheld_verdict_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    why = "2 of its 6 trainings failed"
    write(tmp_path, Decision("a", "cannot tell yet", BETTER.comparisons, looks=(2,), withheld=why))
    assert main(["verdict", str(tmp_path)]) == EXIT_UNDECIDED
    text = capsys.readouterr().out
    assert f"  withheld: {why}\n" in text
    assert "open:" not in text


def test_a_sweep_without_a_confirmation_and_an_interrupted_one_are_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path / "searched")
    assert main(["verdict", str(tmp_path / "searched")]) == EXIT_UNDECIDED
    begun = {"name": "small", "tracking": {"uri": None, "experiment": "e"}}
    write_json(begun, tmp_path / "cut" / "sweep.json")
    assert main(["verdict", str(tmp_path / "cut")]) == EXIT_UNDECIDED
    assert "was interrupted before its end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be the directory of a sweep"),
        ("[", "results.json"),
        ("{}", "results.json: must be a sweep's results, but cannot be read: KeyError: 'name'"),
        ("[1]", "results.json: must be a sweep's results"),
    ],
)
def test_bad_input_is_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main(["verdict", str(tmp_path)]) == EXIT_USER
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert told.err.count("\n") == 1


def test_it_answers_without_anything_heavy(tmp_path: Path):
    write(tmp_path, BETTER)
    code = (
        "import sys\nfrom symnoise_ray.cli.main import main\n"
        f"assert main(['verdict', {str(tmp_path)!r}]) == 0\n"
        "print(sorted({'torch', 'ray', 'transformers', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_verdict_has_help_with_an_example(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["verdict", "--help"])
    assert "example: symnoise-ray verdict" in capsys.readouterr().out
