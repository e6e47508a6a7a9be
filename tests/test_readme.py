"""The README tells the truth: its commands, keys, files and rooms are those of the code."""

import re
import tomllib
from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import SweepConfig
from symnoise_ray.config.loading import build, read_yaml, shipped_spaces
from symnoise_ray.space.parameters import check_sweep, leaf_paths
from tests.test_house import FLOORS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for target in re.findall(r"(?:^    |`)make ([a-z-]+)", document.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (document.name, target)
    assert "make sweep" in README
    assert "make test" in README


def test_ci_runs_the_readmes_test_command_and_the_checks():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test\n" in script
    assert "make check" in script


def test_the_example_space_is_valid():
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    document = read_yaml(block, "README.md")
    check_sweep(build(SweepConfig, document), document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(document: Path):
    known = set(leaf_paths()) | {
        f"{section}.{name}"
        for section in ("search", "confirm", "workers", "tracking")
        for name in SweepConfig.model_fields[section].annotation.model_fields
    }
    sections = {key.split(".")[0] for key in known}
    named = re.findall(r"(?<![\w./-])([a-z]+\.[a-z_]+)(?=[=`: ])", document.read_text())
    wrong = {
        name
        for name in named
        if name.split(".")[0] in sections
        and name not in known
        and not name.endswith((".json", ".jsonl", ".py", ".yaml"))
    }
    assert wrong == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_that_is_named_exists(document: Path, capsys: pytest.CaptureFixture[str]):
    for verb in set(re.findall(r"symnoise-ray ([a-z]+)", document.read_text())):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
    capsys.readouterr()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path):
    for link in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link


def test_the_tree_names_every_wing():
    tree = README.split("    symnoise_ray/\n")[1].split("\n\n")[0]
    named = set(re.findall(r"([a-z_]+)(?:/|\.py)", tree))
    assert set().union(*FLOORS) <= named


def test_the_pins_satisfy_what_the_package_asks_for():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("==")
        for file in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / file).read_text().splitlines()
        if "==" in line
    )
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert len(wanted) > 15
    for text in wanted:
        requirement = Requirement(text)
        pin = pins[requirement.name.lower().replace("_", "-").replace(".", "-")]
        assert requirement.specifier.contains(pin), (text, pin)


def test_the_shipped_spaces_say_what_they_ask():
    assert shipped_spaces()
    for path in shipped_spaces().values():
        assert path.read_text().startswith("# ")
