"""Judging may stop once it is decided, and the trial says so; its answers are described."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import JudgeConfig, TrialConfig
from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import JudgeSource, make_judge
from symnoise_ray.judges.judging import BATCH_ITEMS, ORDER_SEED, Judged, judge_all
from symnoise_ray.judges.protocol import Pair, Verdict
from symnoise_ray.judges.reference import ReferenceJudge
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import read_json, write_lines
from symnoise_ray.records.layout import sweep_directory
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import TrialPlan
from symnoise_ray.statistics.answer_statistics import answer_statistics
from symnoise_ray.statistics.early_stopping import judging_order
from symnoise_ray.statistics.win_rate import win_rate
from symnoise_ray.sweep.trial import _judge, run_trial
from symnoise_ray.tracking.names import RESULTS
from symnoise_ray.workers.outcome import Outcome
from tests.judges.test_judging import Scripted
from tests.servers.endpoint import Endpoint, serving

NUM_ITEMS = 200


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as running:
        yield running


def rivals(won_of_ten: int, count: int = NUM_ITEMS) -> tuple[list[Completion], list[Completion]]:
    """A trial's answers, nearer to the gold and longer than the reference's on so many of ten."""
    gold = "the cow says moo"
    good, bad = "the cow says", "miaow"
    own, other = [], []
    for item in range(count):
        wins = item * 7 % 10 < won_of_ten
        own.append(Completion(f"Prompt {item}?", good if wins else bad, "trial", gold=gold))
        other.append(Completion(f"Prompt {item}?", bad if wins else good, "plain"))
    return own, other


def plan(runs: Path, part: str = "search", **judge: Any) -> TrialPlan:
    directory = runs / "sweep" / "trials" / "001-symnoise"
    directory.mkdir(parents=True, exist_ok=True)
    config = TrialConfig.model_validate({"judge": judge})
    return TrialPlan("001-symnoise", config, directory, directory / "other.jsonl", {}, part)


def side(judged: Judged) -> bool:
    """Whether a trial won more than half of what was judged."""
    return win_rate(judged.preferences, num_replicates=20).win_rate > 0.5


# Judging that stops


def source(trial: TrialPlan) -> JudgeSource:
    """Where the trial's judge comes from, as a sweep would say it."""
    return JudgeSource.of_sweep(trial.config.judge, sweep_directory(trial.directory))


def judged(trial: TrialPlan, wins: int) -> dict[str, Any]:
    """The score of a trial that wins so often."""
    return _judge(trial, *rivals(wins), source(trial))


@pytest.mark.parametrize("won_of_ten", [1, 3, 7, 9])
def test_the_offline_judge_stops_early_and_decides_as_on_the_whole_set(won_of_ten: int) -> None:
    whole = judge_all(ReferenceJudge(), *rivals(won_of_ten))
    part = judge_all(ReferenceJudge(), *rivals(won_of_ten), early=True)
    assert side(part) == side(whole) == (won_of_ten > 5)
    assert part.decision is not None
    assert part.decision.verdict == ("better" if won_of_ten > 5 else "worse")
    assert whole.num_items == NUM_ITEMS
    assert part.num_items == part.decision.num_judged < NUM_ITEMS
    assert part.num_items % BATCH_ITEMS == 0
    low, high = part.early_fields()["interval_95"]
    assert low <= won_of_ten / 10 <= high
    assert not low <= 0.5 <= high
    assert whole.early_fields() == {}


def test_the_judged_items_are_the_first_of_the_random_order_and_keep_their_verdicts() -> None:
    whole = judge_all(ReferenceJudge(), *rivals(8))
    part = judge_all(ReferenceJudge(), *rivals(8), early=True)
    items = {p.item for p in part.preferences}
    assert items == set(judging_order(NUM_ITEMS, ORDER_SEED)[: part.num_items])
    kept = [p._replace(num_items=NUM_ITEMS) for p in whole.preferences if p.item in items]
    assert part.preferences == kept
    assert part.coverage == 1, "what was not asked has not failed"


def test_a_balanced_set_is_judged_whole_and_has_the_usual_interval() -> None:
    whole = judge_all(ReferenceJudge(), *rivals(5))
    part = judge_all(ReferenceJudge(), *rivals(5), early=True)
    assert part.preferences == whole.preferences
    assert part.early_fields() == {"n_judged": NUM_ITEMS, "stopped_early": False}


def test_judging_goes_on_until_enough_of_what_was_asked_has_verdicts() -> None:
    own, other = rivals(9)
    mute = own[judging_order(NUM_ITEMS, ORDER_SEED)[0]].instruction

    def script(pair: Pair) -> Verdict:
        failed = pair.instruction == mute
        return Verdict(None, "status 500") if failed else next(ReferenceJudge().judge([pair]))[1]

    hasty = judge_all(Scripted(script), own, other, early=True)
    assert hasty.failures == {"status 500": 2}
    assert hasty.coverage < 0.98
    patient = judge_all(Scripted(script), own, other, early=True, min_coverage=0.98)
    assert hasty.num_items < patient.num_items < NUM_ITEMS
    assert patient.coverage >= 0.98


# Behind an endpoint


def test_an_endpoint_is_asked_less_and_decides_the_same(endpoint: Endpoint, tmp_path: Path) -> None:
    config = {"type": "api", "model": "m", "base_url": endpoint.url}
    early = judged(plan(tmp_path / "a", early=True, **config), 8)
    calls = len(endpoint.requests)
    whole = judged(plan(tmp_path / "b", **config), 8)
    assert len(endpoint.requests) - calls == 2 * NUM_ITEMS
    assert calls == early["judge_usage"]["calls"] == 2 * early["n_judged"] < NUM_ITEMS
    assert (early["win_rate"] > 0.5) == (whole["win_rate"] > 0.5)
    assert early["stopped_early"] is True
    assert "stopped_early" not in whole
    assert early["n_total"] == early["n_judged"]
    low, high = early["interval_95"]
    assert 0.5 < low < whole["win_rate"] < high
    folder = tmp_path / "a" / "sweep" / "trials" / "001-symnoise"
    assert read_json(folder / "score.json")["interval_95"] == [low, high]
    assert len(read_annotations(folder / "preferences.jsonl")) == calls


def test_what_was_judged_early_is_not_asked_for_again(endpoint: Endpoint, tmp_path: Path) -> None:
    config = JudgeConfig(type="api", model="m", base_url=endpoint.url)
    first = judge_all(make_judge(config, tmp_path, "s"), *rivals(8), early=True)
    calls = len(endpoint.requests)
    again = judge_all(make_judge(config, tmp_path, "s"), *rivals(8), early=True)
    assert len(endpoint.requests) == calls
    assert again.preferences == first.preferences
    judge_all(make_judge(config, tmp_path, "s"), *rivals(8))
    assert len(endpoint.requests) == 2 * NUM_ITEMS, "the whole set costs only the rest"


def test_the_confirmation_judges_every_prompt(endpoint: Endpoint, tmp_path: Path) -> None:
    config = {"type": "api", "model": "m", "base_url": endpoint.url, "early": True}
    result = judged(plan(tmp_path, "confirm", **config), 9)
    assert result["n_total"] == NUM_ITEMS
    assert "stopped_early" not in result


def test_an_endpoint_that_ended_all_calls_is_not_asked_about_the_next_items(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 401" if number >= 8 else ""
    config = {"type": "api", "model": "m", "base_url": endpoint.url, "concurrency": 1}
    with pytest.raises(JudgeError, match=rf"but 2\.0% have; .*{2 * NUM_ITEMS - 8}x status 401"):
        judged(plan(tmp_path, early=True, **config), 9)
    assert len(endpoint.requests) == 9


# Its result


class Answered:
    """Stands for the workers: whatever is asked of them, these answers are ready."""

    def __init__(self, completions: list[Completion]) -> None:
        self.completions = completions

    def run(self, name: str, config: TrialConfig, directory: Path) -> Iterator[Outcome]:
        """Write the answers and finish."""
        write_lines(self.completions, directory / "completions.jsonl")
        yield Outcome("done", seconds={"train": 1.0}, summary={"num_steps": 3})


def test_a_trial_tells_what_its_answers_look_like(tmp_path: Path) -> None:
    own, other = rivals(8, 20)
    own[0] = own[0]._replace(output="I'm sorry, but " + "the very same words " * 20)
    trial = plan(tmp_path)
    write_lines(other, trial.reference)
    *_, result = run_trial(trial, Answered(own), source(trial))  # type: ignore[arg-type]
    assert isinstance(result, TrialResult)
    told = answer_statistics(own)
    assert told["refusal_rate"] == 1 / 20
    assert told["num_diversity"] == 1
    assert {name: result[name] for name in told} == told
    assert set(told) <= set(RESULTS["answers"]), "all of them reach the tracker"
    assert json.loads((trial.directory / "trial.json").read_text()) == json.loads(
        json.dumps(result.to_json())
    )
    assert not set(told) & set(read_json(trial.directory / "score.json"))
