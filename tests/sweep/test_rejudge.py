"""A second judge on the same answers: its own verdict, the agreement, and the first's files whole.

The sweep is played (tests/sweep/played.py), and judged by nearness to the right answer. The second
judge is an endpoint that prefers the longer answer.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import EXIT_FAILED, EXIT_OK, EXIT_USER
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import DESIGN, SWEEP
from symnoise_ray.records.results import read_sweep
from symnoise_ray.space.design import FRESH_SEED
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.decide import decision
from symnoise_ray.sweep.results import assemble
from symnoise_ray.tracking.store import Store
from tests.servers.endpoint import Endpoint, serving
from tests.sweep.played import Played, chosen, played_confirmation, results_of, sweep

PLAIN = {"noise.type": "none", "optim.lr": 1e-4}
NOISY = {"noise.type": "symnoise", "noise.alpha": 5, "optim.lr": 8e-4}
CHOICES = {"none": chosen("none", PLAIN, 4), "symnoise": chosen("symnoise", NOISY, 4)}
CANARY = "sk-canary-51e0c7"


def skill(config: TrialConfig) -> float:
    return 0.9 if config.noise.type == "symnoise" else 0.2


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a sweep that came to a verdict."""
    directory, parts = tmp_path / "played", [{"looks": [2, 3]}]
    plans = SweepPlans(sweep(), directory)
    confirmation = played_confirmation(plans, Played(skill), CHOICES, ["symnoise"], parts)
    decisions = [decision(confirmation, each, CHOICES) for each in confirmation.asked]
    store = Store("sqlite:///mlflow.db", "e")
    trials = results_of(plans)
    result = assemble(
        *(plans.sweep, directory, trials, list(CHOICES.values()), decisions, {}),
        store=store,
        interrupted=False,
    )
    write_json(result.to_json(), result.paths.results)
    write_json(plans.sweep.model_dump(mode="json"), directory / SWEEP)
    write_json({"fresh_seeds_from": FRESH_SEED, "parts": parts}, directory / DESIGN)
    return directory


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as running:
        yield running


@pytest.fixture
def words(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The second judge on the command line."""
    monkeypatch.setenv("SYMNOISE_TEST_JUDGE_KEY", CANARY)
    quick = ["judge.max_retries=0", "judge.self_check=false"]
    key = "judge.api_key_env=SYMNOISE_TEST_JUDGE_KEY"
    return ["judge.type=api", "judge.model=judge", f"judge.base_url={endpoint.url}", key, *quick]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but those of second judges."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "rejudged" not in path.parts
    }


def judged(directory: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    capsys.readouterr()
    assert main(["rejudge", str(directory), *words, "--json"]) == EXIT_OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_both_judges_decide_on_the_same_trainings_and_are_compared(
    finished: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before, first = files(finished), read_sweep(finished).verdict
    found = judged(finished, capsys, *words)
    assert files(finished) == before
    assert found["first"]["sentence"] == first.sentence
    (one,), (other,) = found["first"]["decisions"], found["second"]["decisions"]
    assert one["verdict"] == "better"
    assert (one["num_seeds"], one["looks"]) == (other["num_seeds"], other["looks"])
    assert [c["opponent"] for c in other["comparisons"]] == ["best", "shared"]
    assert {c["num_prompts"] for c in other["comparisons"]} == {60}
    # Two opponents at every seed, 60 prompts each.
    assert found["agreement"]["num_items"] == 2 * one["num_seeds"] * 60
    assert (
        sum(each["num_items"] for each in found["by_length"].values()) == 2 * one["num_seeds"] * 60
    )
    assert found["second"]["judge"]["model"] == "judge"
    written = finished / "rejudged" / "api-judge" / "rejudged.json"
    assert json.loads(written.read_text()) == found


def test_a_judge_with_another_taste_is_seen_by_agreement_and_verdict(
    finished: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Right answers end with `moo`, wrong ones with `baa`, and no answer is longer."""
    found = judged(finished, capsys, *words)
    assert found["by_length"]["equally long"]["num_items"] == found["agreement"]["num_items"]
    assert found["second"]["decisions"][0]["verdict"] != "better"
    assert found["agreement"]["kappa"] < 0.5


def test_once_more_it_asks_nothing_and_says_the_same(
    finished: Path, words: list[str], endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    first = judged(finished, capsys, *words)
    calls = len(endpoint.requests)
    assert calls > 0
    assert judged(finished, capsys, *words) == first
    assert len(endpoint.requests) == calls


def test_the_budget_holds_and_a_larger_one_goes_on(
    finished: Path, words: list[str], endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rejudge", str(finished), *words, "judge.max_calls=7"]) == EXIT_FAILED
    assert "error:" in capsys.readouterr().err
    assert len(endpoint.requests) == 7
    assert not (finished / "rejudged" / "api-judge" / "rejudged.json").exists()
    judged(finished, capsys, *words, "judge.max_calls=100000")


def test_the_key_reaches_no_file_and_no_screen(
    finished: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rejudge", str(finished), *words]) == EXIT_OK
    told = capsys.readouterr()
    assert "first judge, reference: symnoise: better" in told.out
    assert "Cohen's kappa" in told.out
    assert CANARY not in told.out + told.err
    everything = [path for path in finished.parent.rglob("*") if path.is_file()]
    assert len(everything) > 10
    assert not [path for path in everything if CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["judge.type=reference"], "must be another judge than the sweep's own, but is the same"),
        (["judge.reference=x.json"], "judge.reference must be left out"),
        (["--name", "../up"], "--name must be letters, digits"),
        (["optim.lr=1"], "only judge.* has a meaning for this verb"),
    ],
)
def test_what_has_no_meaning_is_refused_and_nothing_is_made(
    finished: Path,
    words: list[str],
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = more if more == ["judge.type=reference"] else [*words, *more]
    assert main(["rejudge", str(finished), *given]) == EXIT_USER
    assert message in capsys.readouterr().err
    assert not (finished / "rejudged").exists()


def test_another_judge_needs_another_name(
    finished: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    judged(finished, capsys, *words, "--name", "mine")
    other = [*words, "judge.revision=second", "--name", "mine"]
    assert main(["rejudge", str(finished), *other]) == EXIT_USER
    assert "another one has judged there; give another --name" in capsys.readouterr().err


def test_a_sweep_without_a_verdict_is_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rejudge", str(tmp_path / "absent"), *words]) == EXIT_USER
    assert "absent" in capsys.readouterr().err
