"""The files about the project agree with the project."""

import re
import tomllib
from typing import Any

import yaml

from symnoise_ray import __version__
from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_and_names_both_papers() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "symnoise_ray"
    assert citation["version"] == PROJECT["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    papers = [paper["identifiers"][0]["value"] for paper in citation["references"]]
    assert papers == ["arXiv:2312.01523", "arXiv:2310.05914"]
    for paper, url in zip(papers, [r["url"] for r in citation["references"]], strict=True):
        assert url == f"https://arxiv.org/abs/{paper.removeprefix('arXiv:')}"


def test_the_newest_part_of_the_changelog_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## (\S+),", text, re.MULTILINE)
    assert parts[0] == __version__


def test_the_hooks_before_a_commit_are_those_of_make_check() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = makefile.split("\ncheck:")[1].split("\n\n")[0]
    commands = re.findall(r"^\t\$\(VENV\)/bin/(.+?)(?: \.)?$", check, re.MULTILINE)
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]] == commands


def test_ci_runs_the_checks_on_the_oldest_python() -> None:
    steps = read(".github/workflows/ci.yml")["jobs"]["tests"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]
    (version,) = (step["with"]["python-version"] for step in steps if "with" in step)
    assert PROJECT["requires-python"] == f">={version}"
