"""README and docs/ tell the truth: commands, settings, files and wings are those of the code."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import SweepConfig, TrialConfig
from symnoise_ray.config.loading import build, parse_override, read_yaml, schema, shipped_spaces
from symnoise_ray.errors import UserError
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.parameters import leaf_paths
from tests.test_house import FLOORS, HEAVY, LONGEST_FUNCTION, LONGEST_MODULE, OWNERS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        ROOT / "benchmarks" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
)
MOST_WORDS = 1200
"""Of the README: a front door, not a house."""
OF_SWEEPS = ("question", "search", "confirm", "workers", "tracking")
"""Sections of a sweep beside those of its trials."""
VERB = re.compile(r"symnoise-ray ([a-z]+)")
SETTING = re.compile(
    r"""(?<![\w./-])(?P<quoted>')?(?P<key>[a-z]+\.[a-z_]+)="""
    r"""(?:'(?P<in_quotes>[^']*)'|(?P<value>(?(quoted)[^'\n]*|[^\s`'",;)]*)))"""
)
"""`key=value`, with quotes around the value, around both, or around nothing."""


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


def test_the_readme_is_short_and_links_every_page():
    assert len(README.split()) <= MOST_WORDS
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_readme_has_both_pictures():
    pictures = {path.name for path in (ROOT / "docs" / "images").glob("*.png")}
    assert set(re.findall(r"!\[[^]]+\]\(docs/images/(\w+\.png)\)", README)) == pictures
    assert len(pictures) == 2


def yaml_blocks() -> list[Any]:
    """Every YAML block of every page."""
    return [
        pytest.param(block, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(
            re.findall(r"^```yaml\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
        )
    ]


@pytest.mark.parametrize("block", yaml_blocks())
def test_every_example_of_yaml_is_a_space_or_a_trial(block: str):
    document = read_yaml(block, "the page")
    if "name" not in document.values:
        build(TrialConfig, document)
        return
    check_sweep(build(SweepConfig, document), document)
    jsonschema.validate(document.values, schema())


def test_the_readme_has_one_example_space():
    assert len(re.findall("^```yaml\n", README, re.MULTILINE)) == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(document: Path):
    known = set(leaf_paths()) | {
        f"{section}.{name}"
        for section in OF_SWEEPS
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


@cache
def values_of(name: str) -> jsonschema.Draft202012Validator:
    """Checks a value of a setting of a trial or a sweep."""
    tree = schema()
    section, _, key = name.partition(".")
    places = {**tree["properties"], **tree["properties"]["trial"]["properties"]}
    definition = tree["$defs"][places[section]["$ref"].rpartition("/")[2]]
    values = {**definition["properties"][key], "$defs": tree["$defs"]}
    return jsonschema.Draft202012Validator(values)


def settings_with_values(text: str) -> Iterator[tuple[str, str]]:
    """Every `key=value` of a page; a word in capitals stands for a value of the reader's."""
    sections = {key.split(".")[0] for key in leaf_paths()} | set(OF_SWEEPS)
    for found in SETTING.finditer(text):
        value = found["in_quotes"] if found["in_quotes"] is not None else found["value"]
        value = value.removesuffix(".")
        if found["key"].split(".")[0] in sections and value and not value.isupper():
            yield found["key"], value


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_value_that_is_named_can_be_set(document: Path):
    for key, value in settings_with_values(document.read_text()):
        _, given = parse_override(f"{key}={value}")
        values_of(key).validate(given)


def test_what_reads_settings_and_values_finds_them():
    text = (
        "`data.fields='{output: a}'` and 'harness.tasks=[a, b]' with optim.lr=1e-3, model.name=X."
    )
    assert list(settings_with_values(text)) == [
        ("data.fields", "{output: a}"),
        ("harness.tasks", "[a, b]"),
        ("optim.lr", "1e-3"),
    ]
    with pytest.raises(jsonschema.ValidationError, match="is not one of"):
        values_of("noise.type").validate("symnoize")
    with pytest.raises(UserError, match="must be valid YAML"):
        parse_override("data.fields={output: a")
    named = [pair for each in DOCUMENTS for pair in settings_with_values(each.read_text())]
    assert len(set(named)) > 40


def verbs() -> dict[str, set[str]]:
    """Every verb with its own options, from the parser."""
    from symnoise_ray.cli.main import _parser

    (choices,) = (
        action.choices for action in _parser()._actions if isinstance(action.choices, dict)
    )
    return {
        verb: {
            option
            for action in parser._actions
            for option in action.option_strings
            if option not in ("-h", "--help", "--debug")
        }
        for verb, parser in choices.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_that_is_named_exists(document: Path, capsys: pytest.CaptureFixture[str]):
    for verb in set(VERB.findall(document.read_text())):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
    capsys.readouterr()


def test_the_page_of_commands_has_every_verb_with_its_options():
    text = (ROOT / "docs" / "commands.md").read_text()
    rows = re.findall(r"^\| `symnoise-ray ([a-z]+)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    shown = {verb: set(re.findall(r"`(--[a-z-]+)`", options)) for verb, options in rows}
    assert shown == verbs()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path):
    for link in re.findall(r"\]\(([^)\s]+)", document.read_text()):
        file, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = document.parent / file if file else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tree_names_every_wing():
    tree = README.split("    symnoise_ray/\n")[1].split("\n\n")[0]
    named = set(re.findall(r"([a-z_]+)(?:/|\.py)", tree))
    assert set().union(*FLOORS) <= named


def test_contributing_has_the_owners_and_the_limits_of_the_house():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    owners: dict[str, set[str]] = {}
    table = text.split("| wing | owns |\n")[1].split("\n\n")[0]
    for wings, packages in re.findall(r"^\| (`.+`) \| (.+) \|$", table, re.MULTILINE):
        for package in packages.split(", "):
            owners[package] = set(re.findall(r"`(\w+)`", wings))
    assert owners == OWNERS
    assert f"has at most {LONGEST_FUNCTION} lines" in text
    assert f"A module has at most {LONGEST_MODULE}" in text
    (named,) = re.findall(r"import neither ([^.]+)\.", text)
    assert set(re.findall(r"\w+", named)) - {"nor"} == HEAVY


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
        _, question = path.read_text().split("\n", 1)  # the first line is for editors
        assert re.match(r"# [A-Z][^?]*\?", question), path.name
