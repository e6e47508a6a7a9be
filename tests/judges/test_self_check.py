"""A judge that cannot judge is refused before the first trial; a verdict that fails is no score."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import JudgeConfig, TrialConfig
from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.protocol import Pair, Verdict
from symnoise_ray.judges.self_check import GOOD, check, planted, self_check
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.layout import sweep_directory
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.space.trials import TrialPlan
from symnoise_ray.sweep.trial import _judge
from tests.conftest import ROOT
from tests.judges.test_judging import Scripted
from tests.servers.endpoint import Endpoint, parts, serving

CONTRADICTED = r"preferred it in 0, contradicted itself between the two orders in 16"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as running:
        yield running


def knowing(pair: Pair) -> Verdict:
    """A good judge, somewhat in favour of what it reads first."""
    return Verdict(1.2 if pair.first in GOOD.values() else 1.7)


def test_the_planted_pairs_come_in_both_orders() -> None:
    pairs = planted()
    assert len(pairs) == 5 * len(GOOD)
    assert sum(each.good == 1 for each in pairs) == sum(each.good == 2 for each in pairs) == 16
    for each in pairs:
        assert each.pair.instruction in GOOD
        good = {1: each.pair.first, 2: each.pair.second, None: each.pair.first}[each.good]
        assert good == GOOD[each.pair.instruction]
        assert (each.pair.first == each.pair.second) == (each.good is None)


def test_a_judge_that_tells_good_from_bad_passes_in_spite_of_a_leaning() -> None:
    check(Scripted(knowing))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (lambda pair: Verdict(1.0), CONTRADICTED),
        (lambda pair: Verdict(2.0), CONTRADICTED),
        (lambda pair: Verdict(1.5), r"preferred it in 0, .* in 0, and 0 of 40 verdicts failed"),
        (lambda pair: Verdict(3.2 - (knowing(pair).preference or 0)), "preferred it in 0,"),
        (
            lambda pair: Verdict(2.0 if len(pair.second) > len(pair.first) else 1.0),
            r"preferred it in 8, contradicted itself between the two orders in 8",
        ),
        (lambda pair: Verdict(None, "status 500"), r"40 of 40 verdicts failed \(status 500\)"),
        (
            lambda pair: Verdict(None, "mute") if pair.first == pair.second else knowing(pair),
            r"preferred it in 16, .* and 8 of 40 verdicts failed \(mute\)",
        ),
    ],
    ids=["first", "second", "ties", "wrong", "longer", "fails", "mute on equal answers"],
)
def test_a_judge_that_does_not_is_refused_in_one_line(script: Any, message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        check(Scripted(script))
    assert "\n" not in str(caught.value)


def test_the_check_asks_once_and_not_at_all_for_the_offline_judge(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    def good_wins(number: int, body: dict[str, Any]) -> str:
        return "say A" if parts(body)[1] in GOOD.values() else "say B"

    endpoint.trouble = good_wins
    config = JudgeConfig(type="api", model="m", base_url=endpoint.url)
    self_check(config, tmp_path)
    assert len(endpoint.requests) == 40
    self_check(config, tmp_path)
    assert len(endpoint.requests) == 40
    self_check(
        JudgeConfig(type="api", model="n", base_url=endpoint.url, self_check=False), tmp_path
    )
    self_check(JudgeConfig(), tmp_path)
    assert len(endpoint.requests) == 40


IMPORTS = """
import sys
from pathlib import Path
from symnoise_ray.config import JudgeConfig
import symnoise_ray.judges.protocol
assert "sacrebleu" not in sys.modules
from symnoise_ray.judges.self_check import check_settings, self_check
check_settings(JudgeConfig(type="local", model="m"))
check_settings(JudgeConfig(type="api", model="m", base_url="http://127.0.0.1:9/v1"))
self_check(JudgeConfig(), Path("nowhere"))
print(sorted({"sacrebleu", "openai", "torch", "transformers", "ray"} & set(sys.modules)))
"""


def test_the_check_imports_no_library_that_its_judge_does_not_need() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


# In a trial


def answers(count: int, text: str, generator: str) -> list[Completion]:
    return [Completion(f"Prompt {i}?", text * (i + 1), generator) for i in range(count)]


def plan(endpoint: Endpoint, runs: Path, **settings: Any) -> TrialPlan:
    judge = {"type": "api", "model": "m", "base_url": endpoint.url, "max_retries": 0, **settings}
    directory = runs / "sweep" / "trials" / "001-symnoise"
    directory.mkdir(parents=True, exist_ok=True)
    config = TrialConfig.model_validate({"judge": judge})
    return TrialPlan("001-symnoise", config, directory, directory / "reference.jsonl", {})


def judged(trial: TrialPlan, own: list[Completion], other: list[Completion]) -> dict[str, Any]:
    """The score of a trial's answers, by the judge that its sweep has."""
    source = JudgeSource.of_sweep(trial.config.judge, sweep_directory(trial.directory))
    return _judge(trial, own, other, source)


def test_a_trial_below_the_least_coverage_has_no_score(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.trouble = lambda number, body: "status 400" if "Prompt 1?" in str(body) else ""
    trial, own, other = plan(endpoint, tmp_path), answers(10, "xx", "own"), answers(10, "y", "ref")
    with pytest.raises(JudgeError, match=r"INVALID: at least 95% .* but 90\.0% have; .*2x status"):
        judged(trial, own, other)
    kept = read_annotations(trial.directory / "preferences.jsonl")
    assert sum(p.preference is None for p in kept) == 2
    assert not (trial.directory / "score.json").exists()
    score = judged(plan(endpoint, tmp_path, min_coverage=0.9), own, other)
    assert (score["n_total"], score["n_invalid"]) == (9, 1)
    assert score["win_rate"] > 0.8
    assert score["judge_usage"]["calls"] == 2, "only what failed was asked again"
    assert sum(score["judge_failures"].values()) == 2


def test_verdicts_lie_beside_the_sweeps_and_not_in_one(endpoint: Endpoint, tmp_path: Path) -> None:
    judged(plan(endpoint, tmp_path), answers(2, "xx", "own"), answers(2, "y", "ref"))
    assert list((tmp_path / "verdicts").glob("*.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "verdicts"]
    judged(plan(endpoint, tmp_path, cache=str(tmp_path / "mine")), *[answers(2, "xx", "own")] * 2)


# As a command


def command(endpoint: Endpoint, folder: Path, *more: str) -> int:
    write_lines(answers(4, "xx", "own"), folder / "own.jsonl")
    write_lines(answers(4, "y", "ref"), folder / "ref.jsonl")
    judge = ["judge.type=api", "judge.model=m", f"judge.base_url={endpoint.url}", *more]
    files = ["--reference", str(folder / "ref.jsonl"), "--output", str(folder / "out.jsonl")]
    return main(["judge", str(folder / "own.jsonl"), *judge, *files])


def test_the_command_judges_by_an_endpoint_and_stores_its_verdicts(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(endpoint, tmp_path, "judge.self_check=false") == 0
    assert "8 verdicts on 4 items" in capsys.readouterr().out
    assert command(endpoint, tmp_path, "judge.self_check=false") == 0
    assert "0 failed, 0 calls were made" in capsys.readouterr().out
    assert len(endpoint.requests) == 8
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(row["preference"] > 1.5 for row in rows)


def test_the_command_refuses_a_judge_that_fails_its_check(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(endpoint, tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the judge m must prefer the good answer in 80% of 16 planted")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_takes_only_settings_of_the_judge(
    endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(endpoint, tmp_path, "train.seed=3") == 2
    assert "only judge.* has a meaning for this verb" in capsys.readouterr().err
    assert command(endpoint, tmp_path, "judge.api_key=sk-canary") == 2
    shown = capsys.readouterr().err
    assert "'judge.api_key' is not a setting" in shown
    assert "canary" not in shown
