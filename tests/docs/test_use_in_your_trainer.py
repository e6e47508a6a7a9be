"""docs/use-in-your-trainer.md: its script runs, and its lists are those of the code."""

import ast
import re
from pathlib import Path

import pytest

from symnoise_ray.config import NoiseConfig
from symnoise_ray.noise.types import NOISES, only_adds
from tests.docs.pages import ROOT, File, steps
from tests.docs.test_first_sweep import follow

PAGE = (ROOT / "docs" / "use-in-your-trainer.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_script_trains_as_the_page_shows(tmp_path: Path, tiny_model_dir: Path) -> None:
    followed = steps(PAGE)
    assert [type(step).__name__ for step in followed] == ["File", "Command"]
    follow(followed, tmp_path, tiny_model_dir)


def test_the_one_line_stands_in_the_script() -> None:
    (script,) = (step.text for step in steps(PAGE) if isinstance(step, File))
    (line,) = (block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
               if block not in script)  # fmt: skip
    given = [
        [(each.arg, ast.literal_eval(each.value)) for each in node.keywords]
        for text in (line, script)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "with_noise"
    ]
    assert given == [[("type", "symnoise"), ("alpha", 5)]] * 2


def test_every_setting_and_type_of_the_noise_is_listed() -> None:
    table = PAGE.split("## What you can set")[1].split("\n\n")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert set(rows) == set(NoiseConfig.model_fields) - {"execution", "kl_weight"}
    assert set(re.findall(r"`(\w+)`", rows["type"])) == set(filter(only_adds, NOISES))
