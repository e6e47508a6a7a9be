"""The table of faults in README.md has every row, and names tests that there are."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (TESTS / "faults" / "README.md").read_text().splitlines()
    if re.match(r"\| (\d+|hub|judge|start) ", line)
]


def test_every_fault_has_a_row():
    assert [row[0] for row in ROWS] == [*map(str, range(1, 38)), "hub", "judge", "start"]


def test_every_row_names_tests_that_there_are_or_says_why_there_is_none():
    for number, _, tests, verdict in ROWS:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named or tests.startswith("none"), f"row {number} names nothing"
        assert verdict, f"row {number} does not say how it stands"
        for file, name in named:
            tree = ast.parse((TESTS / file).read_text())
            found = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
            assert name in found, f"row {number}: {file} has no {name}"
