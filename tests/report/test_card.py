"""The card of a sweep: what it found and rests on, fit to be published."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from symnoise_ray.cli.main import main
from symnoise_ray.errors import EXIT_OK, EXIT_USER
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Comparison, Decision, Verdict

TRIAL = {
    "model": {"name": "meta-llama/Llama-2-7b-hf", "revision": "main", "dtype": "bf16"},
    "data": {"train": ["alpaca", "/home/someone/rows.json"], "eval_prompts": "alpaca-eval"},
    "judge": {
        "type": "api", "model": "judge-1", "base_url": "https://inside.example/v1",
        "api_key_env": "MY_KEY_NAME", "api_key_file": None,
    },
}  # fmt: skip
DESIGN = {
    "question": {"treatment": "noise.type", "reference": "none", "effect": 0.03,
                 "population": "these_groups"},
    "trials_by_arm": {"none": 4, "symnoise": 4}, "arms_confirmed": 1,
    "looks": [{"num_seeds": 3}, {"num_seeds": 5}], "power": {"power": 0.67}, "parts": [],
}  # fmt: skip
LOCK = {
    "versions": {"torch": "2.13.0"}, "files": {"/home/someone/rows.json": "ab" * 32},
    "prompts": {"search": ["p1"], "confirm": ["p2", "p3"], "began_with": 2, "rows": ""},
}  # fmt: skip
DECISION = Decision(
    "symnoise", "better",
    (Comparison("symnoise", 0.55, (0.52, 0.58), 0.01, 0.01, 604, 5, "better", confidence=0.97,
                length_controlled_win_rate=0.51, length_controlled_interval_95=(0.48, 0.54),
                opponent="best", against="none, lr=5e-05"),),
    label="symnoise, alpha=5", looks=(3, 5), stopped="decided", num_trained=10,
)  # fmt: skip

CONTRAST = Decision(
    "symnoise", "better",
    (Comparison("symnoise", 0.5435, (0.5104, 0.5766), 0.02, 0.02, 604, 5, "better",
                confidence=0.97, length_controlled_win_rate=0.5435,
                length_controlled_interval_95=(0.5104, 0.5766), over="independent"),),
    over="independent", label="symnoise, alpha=5", looks=(3, 5), num_trained=15,
)  # fmt: skip
"""A difference of 8.7 points; a contrast's rate at equal lengths is its rate once more."""


def write(directory: Path, **changed: Any) -> SweepResult:
    verdict = Verdict("symnoise | is <better>.", decisions=(DECISION,))
    values = {"status": "whole", "finished": "2026-01-02T03:04:05+00:00", "version": "0.1.0"}
    values |= {"departures": ("part 2: more seeds",), "verdict": verdict, **changed}
    result = SweepResult(SweepPaths(directory), "study", **values)
    write_json(result.to_json(), directory / "results.json")
    write_json({"name": "study", "trial": TRIAL}, directory / "sweep.json")
    write_json(DESIGN, directory / "design.json")
    write_json(LOCK, directory / "run.lock.json")
    return result


def test_the_card_tells_question_design_verdict_and_what_they_rest_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path)
    assert main(["card", str(tmp_path)]) == EXIT_OK
    paths = [tmp_path / "card.json", tmp_path / "card.md"]
    assert capsys.readouterr().out.split() == list(map(str, paths))
    told = json.loads(paths[0].read_text())
    assert told["question"] == DESIGN["question"]
    assert told["design"]["looks"] == [3, 5]
    assert told["design"]["departures"] == ["part 2: more seeds"]
    (decision,) = told["verdict"]["decisions"]
    (compared,) = decision["comparisons"]
    assert (decision["verdict"], compared["win_rate"]) == ("better", 0.55)
    assert compared["interval_95"] == [0.52, 0.58]
    assert told["data"]["files"] == [{"name": "rows.json", "sha256": "ab" * 32}]
    assert told["data"]["prompts"]["confirm"]["count"] == 2
    assert told["versions"] == {"torch": "2.13.0"}


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path):
    write(tmp_path)
    assert main(["card", str(tmp_path)]) == EXIT_OK
    _, front, text = (tmp_path / "card.md").read_text().split("---\n", 2)
    assert YAML(typ="safe").load(front) == {
        "library_name": "transformers",
        "tags": ["symnoise-ray"],
        "base_model": "meta-llama/Llama-2-7b-hf",
        "datasets": ["tatsu-lab/alpaca"],
    }
    assert "# study\n\nsymnoise \\| is &lt;better>.\n" in text
    assert (
        "| symnoise, alpha=5 | reference at its own best (none, lr=5e-05) | better | 55.0 | "
        "52.0 to 58.0 (97 %) | 51.0 (48.0 to 54.0) | 5, 604 |"
    ) in text
    assert "- otherwise than declared: part 2: more seeds\n" in text
    assert "- judge: api judge-1, orders: both, " in text


def test_arms_against_each_other_are_told_in_points_and_without_lengths(tmp_path: Path):
    write(tmp_path, verdict=Verdict("Two.", decisions=(DECISION, CONTRAST)))
    assert main(["card", str(tmp_path)]) == EXIT_OK
    text = (tmp_path / "card.md").read_text()
    assert (
        "| arm | over | verdict | points | interval | seeds, prompts |\n"
        "| --- | --- | --- | ---: | --- | ---: |\n"
        "| symnoise, alpha=5 | independent | better | +8.7 | +2.1 to +15.3 (97 %) | 5, 604 |"
    ) in text
    assert "54.3" not in text
    told = json.loads((tmp_path / "card.json").read_text())
    against, contrast = (each["comparisons"][0] for each in told["verdict"]["decisions"])
    assert against["length_controlled_win_rate"] == 0.51
    assert contrast["win_rate"] == 0.5435
    assert contrast["length_controlled_win_rate"] is None
    assert contrast["length_controlled_interval_95"] is None


def test_a_withheld_verdict_is_marked_beside_the_numbers_that_give_it(tmp_path: Path):
    changed: dict[str, Any] = {
        "verdict": "cannot tell yet",
        "withheld": "2 of its 10 trainings failed",
    }
    decisions = tuple(replace(each, **changed) for each in (DECISION, CONTRAST))
    write(tmp_path, verdict=Verdict("None.", decisions=decisions))
    assert main(["card", str(tmp_path)]) == EXIT_OK
    text = (tmp_path / "card.md").read_text()
    assert "(none, lr=5e-05) | cannot tell yet (withheld) | 55.0 |" in text
    assert "| independent | cannot tell yet (withheld) | +8.7 |" in text


def test_a_card_without_contrasts_has_one_table(tmp_path: Path):
    write(tmp_path)
    assert main(["card", str(tmp_path)]) == EXIT_OK
    assert "| arm | over |" not in (tmp_path / "card.md").read_text()


def test_neither_file_shows_folders_endpoints_or_where_the_key_is(tmp_path: Path):
    write(tmp_path)
    assert main(["card", str(tmp_path)]) == EXIT_OK
    for name in ("card.json", "card.md"):
        text = (tmp_path / name).read_text()
        assert "rows.json" in text
        for hidden in ("/home", "inside.example", "MY_KEY_NAME", str(tmp_path)):
            assert hidden not in text


def test_another_endpoint_or_prompt_is_another_digest(tmp_path: Path):
    def digests(**changed: Any) -> tuple[str, str]:
        write(tmp_path)
        write_json(
            {"name": "study", "trial": TRIAL | {"judge": TRIAL["judge"] | changed}},
            tmp_path / "sweep.json",
        )
        write_json(LOCK | changed, tmp_path / "run.lock.json")
        assert main(["card", str(tmp_path)]) == EXIT_OK
        told = json.loads((tmp_path / "card.json").read_text())
        return told["judge"]["sha256"], told["data"]["prompts"]["confirm"]["sha256"]

    assert digests() == digests(concurrency=2)
    assert digests(base_url="https://other.example/v1")[0] != digests()[0]
    assert digests()[1] == digests(base_url="https://other.example/v1")[1]


@pytest.mark.parametrize(
    ("changed", "missing", "told"),
    [
        ({"status": "interrupted", "finished": ""}, "", "but it is interrupted; go on with it"),
        ({}, "design.json", "must hold design.json, which says what was done"),
    ],
)
def test_a_sweep_that_is_not_whole_has_no_card(
    changed: dict[str, Any],
    missing: str,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    write(tmp_path, **changed)
    if missing:
        (tmp_path / missing).unlink()
    assert main(["card", str(tmp_path)]) == EXIT_USER
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("card.*"))
