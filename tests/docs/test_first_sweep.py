"""docs/first-sweep.md, followed word by word in an empty folder."""

import json
import os
import random
import subprocess
import sys
from itertools import product, takewhile
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Command, File, steps, unlike

PAGE = (ROOT / "docs" / "first-sweep.md").read_text(encoding="utf-8")
THINGS = {
    **{"fox": "red", "bird": "blue", "garden": "green", "river": "grey", "sea": "wide"},
    **{"wind": "cold", "line": "short", "fish": "silver", "stone": "hard", "house": "old"},
    **{"moon": "round", "road": "long"},
}
FORMS = {
    "What is the {0} like?": "The {0} is {1}.",
    "Describe the {0} in one word.": "{1}",
    "Tell me about the {0}.": "The {0} is {1}.",
    "Is the {0} {1}?": "Yes, the {0} is {1}.",
    "Say that the {0} is {1}.": "The {0} is {1}.",
    "How is the {0}?": "It is {1}.",
    "Who is {1}?": "The {0}.",
    "Name something that is {1}.": "The {0}.",
    "What do you know of the {0}?": "The {0} is {1}.",
    "Write one short line about the {0}.": "One short line about the {0}.",
}


def questions() -> str:
    """The rows of the page: columns of odd names, one of them of no use."""
    rows = [
        {"nr": number, "frage": form.format(*thing), "antwort": answer.format(*thing)}
        for number, ((form, answer), thing) in enumerate(product(FORMS.items(), THINGS.items()), 1)
    ]
    random.Random(0).shuffle(rows)
    return "".join(json.dumps(row) + "\n" for row in rows)


def do(command: Command, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader does whose terminal has the environment activated."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        command.text,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def follow(followed: list[Command | File], folder: Path, model: Path) -> None:
    """Do what the page says, and compare what comes with what it shows."""
    (folder / "my-model").symlink_to(model)
    (folder / "questions.jsonl").write_text(questions(), encoding="utf-8")
    for step in followed:
        if isinstance(step, File):
            (folder / step.name).write_text(step.text, encoding="utf-8")
            continue
        ran = do(step, folder)
        where = f"{step.text}\n{ran.stdout}{ran.stderr}"
        assert ran.returncode == step.status, where
        why = unlike(step.printed, (ran.stdout + ran.stderr).splitlines())
        assert not why, f"{why}\n{where}"


def is_sweep(step: Command | File) -> bool:
    return isinstance(step, Command) and step.text.startswith("symnoise-ray tune")


def test_every_command_before_the_sweep_prints_what_the_page_shows(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    followed = list(takewhile(lambda step: not is_sweep(step), steps(PAGE)))
    assert len(followed) > 8
    follow(followed, tmp_path, tiny_model_dir)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_prints_what_the_page_shows(tmp_path: Path, tiny_model_dir: Path) -> None:
    followed = steps(PAGE)
    assert sum(map(is_sweep, followed)) == 2
    follow(followed, tmp_path, tiny_model_dir)
    assert (tmp_path / "runs" / "first" / "report.html").stat().st_size > 10_000
