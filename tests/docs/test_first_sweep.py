"""docs/first-sweep.md, followed word by word in an empty folder."""

import json
import os
import random
import re
import subprocess
import sys
from itertools import groupby, product, takewhile
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


HOME = "/home/me/noise"
"""The reader's folder, as the page calls it."""
EVENT = re.compile(r"\d\d:\d\d:\d\d  (\S+) +(started|done) .*")
ELSEWHERE = re.compile(r"-setting2|-seed1002|on 3 fresh seeds")
"""What another machine may train besides, where its last digits lead to another choice."""
MEASURED = (
    (r"\d\d:\d\d:\d\d", "TIME"),
    (r"[0-9a-f]{32}", "KEY"),
    (r"\S*/bin/python\S*", "PYTHON"),
    (r"\d+(?:\.\d+)?(?= s\b| %| won| lost| tied| characters)", "0.0"),
    (r"(?<=about )\d+(?= (?:seeds|prompts))", "0.0"),
    (r"(?<=alpha=)[\d.]+", "0.0"),
    (r'(?<="output": )"[^"]*"', '"ANSWER"'),
    (r"^starting \d+ worker group.*", "starting worker groups"),
)
"""What a machine or a moment decides, and what stands for it where both sides are compared."""


def settled(lines: list[str]) -> list[str]:
    """Lines without what differs from one machine or moment to another.

    Trials run at once, so their starts and ends, where they follow each other, are put into order.
    """
    kept = [line for line in lines if not ELSEWHERE.search(line)]
    ordered: list[str] = []
    for is_event, group in groupby(kept, key=lambda line: EVENT.fullmatch(line) is not None):
        together = list(group)
        ordered += sorted(together, key=_event) if is_event else together
    for pattern, word in MEASURED:
        ordered = [re.sub(pattern, word, line) for line in ordered]
    return [_verdict(line) if line.startswith("Verdict: ") else line for line in ordered]


def _event(line: str) -> tuple[str, bool]:
    found = EVENT.fullmatch(line)
    assert found is not None
    return found[1], found[2] == "done"


def _verdict(sentence: str) -> str:
    """Of a verdict, what no last digit changes: between what, on what, and which one it is."""
    parts = (r"\(\d+ settings tried\)", "plain fine-tuning", r"\d+ fresh prompts", "This is .*")
    found = [re.search(part, sentence) for part in parts]
    return "Verdict: " + ", ".join(each[0] if each else "nothing" for each in found)


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
        printed = (ran.stdout + ran.stderr).replace(str(folder), HOME).splitlines()
        why = unlike(settled(step.printed), settled(printed))
        assert not why, f"{why}\n{where}"


def test_a_line_that_differs_in_more_than_a_measured_number_is_noticed() -> None:
    """Of what the page shows, times and rates may differ; trials, settings and counts may not."""
    shown = [line for step in steps(PAGE) if isinstance(step, Command) for line in step.printed]
    table = next(line for line in shown if line.startswith("001-symnoise "))
    verdict = next(line for line in shown if line.startswith("Verdict: "))
    for line, same, other in (
        (table, ("1.043", "0.951"), ("001-symnoise", "001-neftune")),
        (table, ("[16.7,", "[25.0,"), (" 100 ", " 99 ")),
        (verdict, ("is worse than", "is better than"), ("28 fresh", "27 fresh")),
        (verdict, ("46.1", "52.0"), ("(2 settings", "(3 settings")),
    ):
        assert same[0] in line
        assert other[0] in line
        assert not unlike(settled([line]), settled([line.replace(*same)]))
        assert unlike(settled([line]), settled([line.replace(*other)]))


def is_sweep(step: Command | File) -> bool:
    return isinstance(step, Command) and step.text.startswith("symnoise-ray tune")


def test_every_command_before_the_sweep_prints_what_the_page_shows(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    followed = list(takewhile(lambda step: not is_sweep(step), steps(PAGE)))
    assert len(followed) > 8
    follow(followed, tmp_path, tiny_model_dir)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_every_command_prints_what_the_page_shows(tmp_path: Path, tiny_model_dir: Path) -> None:
    followed = steps(PAGE)
    assert sum(map(is_sweep, followed)) == 2
    follow(followed, tmp_path, tiny_model_dir)
    assert (tmp_path / "runs" / "first" / "report.html").stat().st_size > 10_000
