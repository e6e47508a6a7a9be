"""Every script in `examples/`, run as its first lines say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_first_sweep import questions

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RUN_HERE = {"own_judge", "own_model_and_data", "sweep_to_pandas"}


def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{script}.py"), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_every_example_is_run_here_and_linked() -> None:
    assert {path.stem for path in EXAMPLES} == RUN_HERE
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\.\./examples/(\w+)\.py", page)) == RUN_HERE


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_its_command_and_guards_its_main(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"\n    python examples/{path.name}" in text
    assert 'if __name__ == "__main__":  # a plain script needs this line' in text


@pytest.mark.parametrize("script", ["own_model_and_data", "sweep_to_pandas"])
def test_an_example_without_its_arguments_says_how_it_is_run(script: str, tmp_path: Path) -> None:
    ran = run(script, cwd=tmp_path)
    assert ran.returncode == 1
    assert f"python examples/{script}.py" in ran.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.nightly
def test_own_model_and_data(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(questions(), encoding="utf-8")
    arguments = (str(tiny_model_dir), "rows.jsonl", "frage", "antwort")
    ran = run("own_model_and_data", *arguments, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^000-none +none.* clean loss \d", ran.stdout, re.MULTILINE)
    found = r"symnoise at .+ than plain fine-tuning.*; 2 fresh seeds, \d+ fresh prompts"
    assert re.search(found, ran.stdout)
    assert (tmp_path / "runs" / "own" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_own_judge_and_its_sweep_in_pandas(tmp_path: Path) -> None:
    judged = run("own_judge", cwd=tmp_path)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert re.search(r"^002-symnoise .* wins \d+%$", judged.stdout, re.MULTILINE)
    verdicts = (tmp_path / "runs/own-judge/trials/002-symnoise/preferences.jsonl").read_text()
    assert "whole-sentences" in verdicts

    table = run("sweep_to_pandas", "runs/own-judge", cwd=tmp_path)
    assert table.returncode == 0, table.stdout + table.stderr
    assert re.search(r"^ *trial +label +status +win_rate +clean_loss$", table.stdout, re.M)
    assert len(re.findall(r"^ *(?:\d{3}|confirm)-", table.stdout, re.MULTILINE)) == 7
    assert re.search(
        r"^(?:neftune|symnoise).*: \d\S*% \[\S+%, \S+%\] none", table.stdout, re.MULTILINE
    )
