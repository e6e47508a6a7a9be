"""The numbers of docs/results.md are those of the results beside it."""

import json
from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "results.md"
FOLDER = ROOT / "docs" / "results"
SWEEPS = ("tiny-llama", "quickstart")


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def search_rows(found: dict[str, Any]) -> list[str]:
    """A row for each arm of the search: means over its trials, and the range of its win rates."""
    trials = [each for each in found["trials"] if each["part"] == "search"]
    rows = []
    for arm in dict.fromkeys(each["arm"] for each in trials):
        own = [each for each in trials if each["arm"] == arm and each["status"] == "done"]
        rates = [100 * each["win_rate"] for each in own if not each["is_reference"]]

        def over(name: str, own: list[dict[str, Any]] = own) -> float:
            return mean(each[name] for each in own)

        gap = over("heldout_loss") - over("clean_loss")
        rows.append(
            row(
                *(arm, str(len(own)), f"{min(rates):.1f} to {max(rates):.1f}"),
                *(f"{over('clean_loss'):.3f}", f"{over('heldout_loss'):.3f}", f"{gap:.3f}"),
                *(f"{over('text_loss'):.3f}", f"{over('curvature'):.4f}"),
                *(f"{over('distinct_rate'):.2f}", f"{over('length_mean'):.0f}"),
            )
        )
    return rows


def confirmed_rows(found: dict[str, Any]) -> list[str]:
    """A row for each comparison of the confirmation."""
    rows = []
    for decision in found["verdict"]["decisions"]:
        for each in decision["comparisons"]:
            low, high = each["interval_95"]
            rows.append(
                row(
                    *(each["label"], each["against"], str(each["num_seeds"])),
                    *(str(each["num_prompts"]), f"{100 * each['win_rate']:.1f}"),
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    f"{100 * each['length_controlled_win_rate']:.1f}",
                    f"{each['p_value']:.2g}",
                    decision["verdict"],
                )
            )
    return rows


@pytest.mark.parametrize("name", SWEEPS)
def test_the_page_quotes_the_verdict_of_each_sweep(name: str) -> None:
    quoted = " ".join(PAGE.read_text(encoding="utf-8").replace("\n> ", " ").split())
    assert " ".join(results(name)["verdict"]["sentence"].split()) in quoted


@pytest.mark.parametrize(
    ("name", "rows"),
    [("tiny-llama", search_rows), ("tiny-llama", confirmed_rows), ("quickstart", confirmed_rows)],
)
def test_the_tables_of_the_page_are_those_of_the_results(
    name: str, rows: Callable[[dict[str, Any]], list[str]]
) -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    expected = rows(results(name))
    assert expected
    missing = [each for each in expected if each not in lines]
    assert not missing, "\n".join(missing)
