"""The shipped schema of results.json is current, and what a sweep writes is valid by it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.records.results import SCHEMA_VERSION, SweepResult, TrialResult
from symnoise_ray.records.schema import VERDICTS, results_schema, shipped
from symnoise_ray.records.verdict import Candidate, Choice, Comparison, Decision
from symnoise_ray.statistics.decision import BETTER, OPEN, SAME, WORSE
from symnoise_ray.sweep.results import assemble
from symnoise_ray.tracking.store import Store

STORE = Store("sqlite:///mlflow.db", "e")
TRIALS = (
    TrialResult(
        "000-none", baseline=True, is_reference=True, arm="none", label="none",
        params={"noise.type": "none", "optim.lr": 0.002}, counts={"rows truncated": 1},
        seconds={"train": 1.5}, values={"win_rate": 0.5, "interval_95": [0.5, 0.5], "step": 3},
    ),
    TrialResult(
        "001-symnoise", status="failed", kind="diverged", reason="nan", detail="Traceback ..."
    ),
)  # fmt: skip
CHOICE = Choice(
    "none", "000-none", {"optim.lr": 0.002}, "raw", (Candidate("000-none", "none", 0.5, 0.01),)
)
COMPARISON = Comparison(
    "symnoise", 0.5, (0.4, 0.6), 1.0, 1.0, 108, 3, OPEN, opponent="best",
    spread_prompts=0.02, spread_seeds=0.0, spread_rest=0.1,
)  # fmt: skip
DECISION = Decision("symnoise", OPEN, (COMPARISON,), looks=(3,), num_seeds=3, seeds_needed=20)


def validate(content: Any) -> None:
    jsonschema.validate(json.loads(json.dumps(content)), json.loads(shipped()))


def assembled(directory: Path, **changes: Any) -> SweepResult:
    sweep, _ = load_sweep("quickstart", [])
    result = assemble(
        sweep, directory, TRIALS, [CHOICE], [DECISION], {"wall": 9.5, "search": 3.0},
        store=STORE, interrupted=False,
    )  # fmt: skip
    return replace(result, **changes)


def test_the_shipped_schema_is_that_of_the_types():
    command = "python -m symnoise_ray.records.schema > symnoise_ray/records/results.schema.json"
    assert json.loads(shipped()) == results_schema(), f"write it again: {command}"
    jsonschema.Draft202012Validator.check_schema(results_schema())
    assert set(VERDICTS) == {BETTER, WORSE, SAME, OPEN}


def test_what_a_sweep_writes_is_valid(tmp_path: Path):
    validate(assembled(tmp_path).to_json())
    sweep, _ = load_sweep("quickstart", [])
    cut = assemble(sweep, tmp_path, TRIALS[1:], [], [], {}, store=STORE, interrupted=True)
    validate(cut.to_json())


def test_every_field_of_a_file_is_in_the_schema(tmp_path: Path):
    """So a field that is added to the types cannot be forgotten."""
    content, schema = assembled(tmp_path).to_json(), json.loads(shipped())
    assert set(content) == set(schema["properties"])
    assert set(content["verdict"]) == set(schema["$defs"]["Verdict"]["properties"])
    (decision,) = content["verdict"]["decisions"]
    assert set(decision) == set(schema["$defs"]["Decision"]["properties"])
    (comparison,) = decision["comparisons"]
    assert set(comparison) == set(schema["$defs"]["Comparison"]["properties"])


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_file_of_another_version_is_not_valid(version: int, tmp_path: Path):
    content = assembled(tmp_path).to_json() | {"schema_version": version}
    with pytest.raises(jsonschema.ValidationError, match=f"{SCHEMA_VERSION} was expected"):
        validate(content)


def test_a_verdict_that_nobody_knows_is_not_valid(tmp_path: Path):
    content = assembled(tmp_path).to_json()
    content["verdict"]["decisions"][0]["verdict"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError, match="'perhaps' is not one of"):
        validate(content)


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "--results"]) == 0
    assert capsys.readouterr().out == shipped()
