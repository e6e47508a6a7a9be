"""What is generated from the code is what stands in the repository."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from symnoise_ray.config.loading import read_yaml, schema, shipped_spaces
from symnoise_ray.config.reference import COMMAND, page
from symnoise_ray.space.parameters import leaf_paths
from tests.docs.pages import ROOT

SETTINGS = ROOT / "docs" / "settings.md"
SCHEMA = ROOT / "search_spaces" / "schema.json"
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


def test_the_page_of_settings_is_current() -> None:
    current = SETTINGS.read_text(encoding="utf-8") == page(schema())
    assert current, f"docs/settings.md differs from the settings; write it again: {COMMAND}"


def test_the_command_writes_the_page() -> None:
    python, _, module = COMMAND.partition(" > ")[0].partition(" ")
    command = [sys.executable, *module.split()]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert python == "python"
    assert COMMAND.endswith(f" > {SETTINGS.relative_to(ROOT)}")
    assert ran.stdout == page(schema())


def test_the_page_of_settings_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", SETTINGS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows)) > 100
    assert set(leaf_paths()) <= set(rows)
    assert {"name", "search.num_trials", "confirm.contrasts", "parameters.KEY.when"} <= set(rows)


def test_a_row_says_type_default_and_meaning() -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    assert "| `optim.lr` | number > 0 | `5e-05` | Peak learning rate, above 0. |" in text
    assert "| `name` | text | required | Name of the sweep and of its directory: at most 80" in text
    kinds = "text, source (mapping), list (text or source (mapping)) or mapping to number"
    assert f'| `data.train` | {kinds} | `"demo"` |' in text
    assert not re.search(r"\|\s*\|$", text, re.MULTILINE), "a setting has no meaning"


def test_the_schema_for_editors_is_current() -> None:
    current = json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()
    command = "symnoise-ray schema > search_spaces/schema.json"
    assert current, (
        f"search_spaces/schema.json differs from the settings; write it again: {command}"
    )


def test_only_spaces_are_shipped_spaces() -> None:
    assert set(shipped_spaces().values()) == set(SCHEMA.parent.rglob("*.yaml"))
    assert "schema" not in shipped_spaces()


SPACES = [*sorted(SCHEMA.parent.rglob("*.yaml")), ROOT / "examples" / "own_question.yaml"]


@pytest.mark.sampled(8)
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_names_the_schema_and_is_valid_by_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = MODELINE.match(text)
    assert named, "the first line must name the schema"
    assert (path.parent / named[1]).resolve() == SCHEMA
    jsonschema.validate(read_yaml(text, path.name).values, schema())


def test_the_schema_refuses_a_key_that_is_no_setting() -> None:
    space = {"name": "x", "trial": {"optim": {"rl": 1}}}
    with pytest.raises(jsonschema.ValidationError, match="'rl' was unexpected"):
        jsonschema.validate(space, schema())
