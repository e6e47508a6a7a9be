"""`symnoise-ray pool`: sweeps that asked the same are combined, all others are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.errors import EXIT_OK, EXIT_USER
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import SweepPaths
from symnoise_ray.records.results import SweepResult
from symnoise_ray.records.verdict import Comparison, Decision, Verdict


def compared(rate: float, opponent: str = "best", **more: Any) -> Comparison:
    values = {"num_prompts": 400, "num_seeds": 5, "spread_prompts": 0.02, "spread_seeds": 0.0001}
    return Comparison(
        more.pop("arm", "symnoise"), rate, (rate - 0.03, rate + 0.03), 0.2, 0.2,
        verdict="cannot tell yet", opponent=opponent, **{**values, "spread_rest": 0.1, **more},
    )  # fmt: skip


def decided(best: float, shared: float | None = None, arm: str = "symnoise") -> Decision:
    comparisons = [compared(best, arm=arm)]
    comparisons += [compared(shared, "shared", arm=arm)] if shared is not None else []
    return Decision(arm, "cannot tell yet", tuple(comparisons), looks=(3, 5), stopped="last look")


def contrast(rate: float) -> Decision:
    return Decision("symnoise", "cannot tell yet", (compared(rate, "", over="neftune"),), "neftune")


@pytest.fixture
def sweep(tmp_path: Path) -> Any:
    """Writes the results of a sweep; returns its directory."""

    def write(name: str, *decisions: Decision, prompts: str = "", **verdict: Any) -> str:
        directory = tmp_path / name
        directory.mkdir()
        found = Verdict("So it is.", decisions=decisions, **verdict)
        result = SweepResult(SweepPaths(directory), name, "whole", found)
        write_json(result.to_json(), directory / "results.json")
        if prompts:
            write_json({"prompts": {"confirm": prompts.split()}}, directory / "run.lock.json")
        return str(directory)

    return write


def test_an_arm_is_better_if_all_sweeps_together_say_so_against_both_opponents(
    sweep: Any, capsys: pytest.CaptureFixture[str]
):
    given = [sweep(f"s{i}", decided(0.53 + i / 500, 0.54 + i / 400)) for i in range(4)]
    assert main(["pool", *given]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "4 sweeps, each one piece of evidence:",
        "",
        "symnoise: better",
        "  against plain fine-tuning at its own best: +3.3 points (95 % interval +2.9 to +3.7)",
    ]
    assert "another such sweep: " in lines[4]
    assert lines[5] == (
        "    s0: +3.0 points, standard error 1.1, weight 25 %, alone: cannot tell yet"
    )
    assert "at the same setting: +4.4 points" in lines[9]


def test_programs_get_the_same_as_json(sweep: Any, capsys: pytest.CaptureFixture[str]):
    given = [sweep("a", decided(0.56, 0.51)), sweep("b", decided(0.5)), sweep("c", decided(0.52))]
    assert main(["pool", *given, "--json"]) == EXIT_OK
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["sweeps"]] == ["a", "b", "c"]
    assert (told["treatment"], told["reference"], told["effect"]) == ("noise.type", "none", 0.03)
    (pooled,) = told["pooled"]
    assert (pooled["arm"], pooled["verdict"]) == ("symnoise", "cannot tell yet")
    best, shared = pooled["against"]
    assert [each["gain"] for each in best["effects"]] == pytest.approx([0.06, 0.0, 0.02])
    # Where the reference's best setting is the arm's, it is both opponents.
    assert [each["gain"] for each in shared["effects"]] == pytest.approx([0.01, 0.0, 0.02])
    assert best["tau"] > shared["tau"] == 0
    assert best["interval_95"][0] < best["gain"] < best["interval_95"][1]


def test_contrasts_are_pooled_as_differences_of_win_rates(
    sweep: Any, capsys: pytest.CaptureFixture[str]
):
    given = [sweep(f"s{i}", contrast(0.51 + i / 1000)) for i in range(3)]
    assert main(["pool", *given, "--json"]) == EXIT_OK
    (pooled,) = json.loads(capsys.readouterr().out)["pooled"]
    assert (pooled["arm"], pooled["over"], pooled["verdict"]) == ("symnoise", "neftune", "better")
    assert pooled["against"][0]["gain"] == pytest.approx(0.022)


def test_what_not_every_sweep_confirmed_and_shared_prompts_are_told(
    sweep: Any, capsys: pytest.CaptureFixture[str]
):
    given = [
        sweep("a", decided(0.53), decided(0.51, arm="neftune"), prompts="p1 p2"),
        sweep("b", decided(0.52), prompts="p2 p3"),
        sweep("c", decided(0.51), prompts="p4"),
    ]
    assert main(["pool", *given]) == EXIT_OK
    text = capsys.readouterr().out
    assert "note: 2 sweeps were judged on the same prompts" in text
    assert "note: not pooled, since not every sweep confirmed it: neftune of a\n" in text


def test_what_cannot_be_pooled_is_refused_in_one_line(
    sweep: Any, capsys: pytest.CaptureFixture[str]
):
    good = sweep("good", decided(0.53))
    one_seed = replace(decided(0.51), comparisons=(compared(0.51, num_seeds=1),))
    refused = {
        "question.treatment is lora.rank, not noise.type": sweep(
            "rank", decided(0.52), treatment="lora.rank"
        ),
        "question.reference is neftune, not none": sweep(
            "other", decided(0.52), reference="neftune"
        ),
        "question.population is other_groups, not these_groups": sweep(
            "groups", decided(0.52), population="other_groups"
        ),
        "must hold a sweep with a decision, but it is whole": sweep("none"),
        "confirmed one arm in common, but good confirmed symnoise; n confirmed neftune": sweep(
            "n", decided(0.52, arm="neftune")
        ),
        "must be another sweep than": sweep("copy", decided(0.53)),
        "2 seeds or more, but has 1 seeds": sweep("seed", one_seed),
        "too many of its trainings failed": sweep("failed", replace(decided(0.53), comparisons=())),
    }
    for told, directory in refused.items():
        assert main(["pool", good, directory]) == EXIT_USER
        error = capsys.readouterr()
        assert error.out == ""
        assert told in error.err
        assert error.err.count("\n") == 1
    assert main(["pool", good]) == EXIT_USER
    assert "pool takes at least 2 sweeps" in capsys.readouterr().err
