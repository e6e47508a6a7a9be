"""A judge behind an endpoint: nothing lost, counted twice or scored wrongly, whatever it does."""

import gc
import json
import logging
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import JudgeError, UserError
from symnoise_ray.judges.api import ApiJudge
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import Judged, judge_all, require_coverage
from symnoise_ray.judges.limits import Budget, Pace
from symnoise_ray.judges.logprobs import log_sum
from symnoise_ray.judges.protocol import Pair, Usage
from symnoise_ray.judges.replies import Fault, Reply, read_reply, without_key
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.preferences import read_annotations
from tests.conftest import ROOT
from tests.servers import endpoint as endpoints
from tests.servers.endpoint import Endpoint, serving

CANARY = "sk-canary-7f3a9b51c04e"
VARIABLE = "SYMNOISE_TEST_JUDGE_KEY"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as running:
        yield running


@pytest.fixture
def settings(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JudgeConfig]:
    """Makes settings for the endpoint, with quick retries."""
    monkeypatch.setenv(VARIABLE, CANARY)

    def make(**more: Any) -> JudgeConfig:
        quick = {"max_retries": 2, "retry_seconds": 0.01, "timeout_seconds": 5.0}
        base = {"type": "api", "model": "judge", "base_url": endpoint.url, "api_key_env": VARIABLE}
        return JudgeConfig(**{**base, **quick, **more})

    return make


def items(count: int = 12) -> tuple[list[Completion], list[Completion]]:
    """Answers and references of unequal lengths; the trial's are longer at every even number."""
    own = [Completion(f"Prompt {i}?", "x" * (20 + 7 * (-1) ** i), "trial") for i in range(count)]
    return own, [Completion(f"Prompt {i}?", "y" * 20, "plain") for i in range(count)]


def judged(config: JudgeConfig, folder: Path, count: int = 12) -> Judged:
    return judge_all(make_judge(config, folder, "sweep"), *items(count))


def by_item(result: Judged) -> dict[int, list[float | None]]:
    found: dict[int, list[float | None]] = {}
    for preference in result.preferences:
        found.setdefault(preference.item, []).append(preference.preference)
    return found


def right(item: int, preferences: list[float | None]) -> bool:
    """Whether both verdicts on an item are the rule's."""
    wins = item % 2 == 0
    return all(p is not None and (p > 1.5) == wins and p != 1.5 for p in preferences)


# The plain way


def test_verdicts_come_from_the_log_probabilities_of_the_labels(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    result = judged(settings(), tmp_path)
    sure = 1 / (1 + math.exp(-2.0))
    assert by_item(result)[0] == pytest.approx([1 + sure] * 2)
    assert by_item(result)[1] == pytest.approx([2 - sure] * 2)
    assert len(endpoint.requests) == 24
    assert result.usage == Usage(24, 4800, 24)
    assert endpoint.requests[0]["temperature"] == 0
    assert endpoint.keys == {f"Bearer {CANARY}"}


def test_an_endpoint_without_log_probabilities_is_read_as_text(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "nologprobs"
    result = judged(settings(concurrency=4), tmp_path)
    assert all(p in ([2.0, 2.0], [1.0, 1.0]) for p in by_item(result).values())
    assert all(right(*pair) for pair in by_item(result).items())
    num_refused = sum("logprobs" in body for body in endpoint.requests)
    assert 1 <= num_refused <= 4, "only calls that were on their way ask once more"
    strict = judged(settings(verdict="logprobs"), tmp_path / "strict", 1)
    assert strict.coverage == 0


def test_a_model_that_thinks_before_it_answers_judges_without_temperature(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "thinker"
    thinking = {"temperature": None, "verdict": "text", "max_new_tokens": 4000, "concurrency": 4}
    result = judged(settings(**thinking), tmp_path)
    assert all(right(*pair) for pair in by_item(result).items())
    assert 1 <= sum("max_tokens" in body for body in endpoint.requests) <= 4
    assert all(body.get("max_completion_tokens", 4000) == 4000 for body in endpoint.requests)
    short = judged(settings(**thinking | {"max_new_tokens": 8}), tmp_path / "short", 1)
    assert short.failures == {"the reply was cut off before a label (judge.max_new_tokens)": 2}
    warm = judged(settings(verdict="text", max_new_tokens=4000), tmp_path / "warm", 1)
    (reason,) = warm.failures
    assert "only the default temperature" in reason


@pytest.mark.parametrize("message", ["refused", "not allowed: logprobs max_completion_tokens"])
def test_one_refused_request_does_not_change_how_the_others_are_asked(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path, message: str
) -> None:
    """Not when the request is given back with its settings, nor when an answer is quoted."""
    own, other = items(4)
    own[0] = own[0]._replace(output="logprobs max_completion_tokens")
    endpoint.trouble = lambda number, body: (
        f"echo {message}" if "logprobs max" in body["messages"][1]["content"] else ""
    )
    result = judge_all(make_judge(settings(concurrency=1), tmp_path), own, other)
    assert sum(result.failures.values()) == 2
    assert all("logprobs" in body and "max_tokens" in body for body in endpoint.requests)


def test_a_second_run_makes_no_call(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    first = judged(settings(), tmp_path)
    assert len(endpoint.requests) == 24
    second = judged(settings(), tmp_path)
    assert len(endpoint.requests) == 24
    assert second.preferences == first.preferences
    assert second.usage == Usage()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"revision": "2"},
        {"temperature": 0.5},
        {"max_new_tokens": 3},
        {"verdict": "text"},
    ],
)
def test_another_judge_or_decoding_is_asked_anew(
    change: dict[str, Any],
    settings: Callable[..., JudgeConfig],
    endpoint: Endpoint,
    tmp_path: Path,
) -> None:
    judged(settings(), tmp_path, 1)
    judged(settings(**change), tmp_path, 1)
    assert len(endpoint.requests) == 4


def test_what_cannot_change_a_verdict_does_not_ask_anew(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    judged(settings(), tmp_path, 1)
    judged(settings(concurrency=1, max_retries=0, timeout_seconds=9.0), tmp_path, 1)
    assert len(endpoint.requests) == 2


def test_a_question_that_repeats_is_asked_once(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    own, other = items(1)
    result = judge_all(make_judge(settings(), tmp_path), own * 5, other * 5)
    assert len(endpoint.requests) == 2
    assert all(right(0, verdicts) for verdicts in by_item(result).values())
    assert len(by_item(result)) == 5
    assert result.usage.calls == 2


def test_calls_go_out_together(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    active, peak = 0, 0

    def watch(number: int, body: dict[str, Any]) -> str:
        nonlocal active, peak
        with endpoint.lock:
            active += 1
            peak = max(peak, active)
        time.sleep(0.05)
        with endpoint.lock:
            active -= 1
        return ""

    endpoint.trouble = watch
    judged(settings(concurrency=4), tmp_path)
    assert peak == 4


# Faults

PASSING = [
    "status 500",
    "status 429 0",
    "status 503",
    "reset",
    "cut",
    "truncated",
    "say I cannot compare these two.",
    "say ",
    "say A or B",
    "absurd []",
    "absurd null",
    'absurd {"choices": []}',
    'absurd {"choices": [{"message": {"content": 7}}]}',
    'absurd {"choices": [{"message": {"content": "A", "refusal": "no"}}]}',
    'absurd {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"token": "A",'
    ' "top_logprobs": [{"token": "A", "logprob": NaN}]}]}}]}',
    'absurd {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"token": "A",'
    ' "top_logprobs": [{"token": "A", "logprob": 7}]}]}}]}',
    "huge",
]


def of_item(body: dict[str, Any]) -> int:
    return int(endpoints.parts(body)[0].removeprefix("Prompt ").removesuffix("?"))


def test_faults_that_pass_cost_a_retry_and_change_nothing(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    """Every item meets a fault of its own on its first call."""
    met: set[int] = set()

    def first_time(number: int, body: dict[str, Any]) -> str:
        item = of_item(body)
        if item in met:
            return ""
        met.add(item)
        return PASSING[item]

    endpoint.trouble = first_time
    result = judged(settings(), tmp_path, len(PASSING))
    assert [right(*pair) for pair in by_item(result).items()] == [True] * len(PASSING)
    assert result.failures == {}
    assert len(endpoint.requests) == result.usage.calls == 3 * len(PASSING)


def test_faults_that_stay_are_failed_verdicts_and_not_kept(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    """Every other item meets a fault of its own on every call."""
    staying = [*PASSING, "status 400"]

    def always(number: int, body: dict[str, Any]) -> str:
        item = of_item(body)
        return "" if item % 2 else staying[item // 2]

    endpoint.trouble = always
    result = judged(settings(max_retries=1), tmp_path, 2 * len(staying))
    found = by_item(result)
    for item, preferences in found.items():
        assert right(item, preferences) if item % 2 else preferences == [None, None]
    assert sum(result.failures.values()) == 2 * len(staying)
    assert result.coverage == 0.5
    assert len(endpoint.requests) == 2 * len(staying) + 4 * len(PASSING) + 2
    endpoint.trouble = lambda number, body: ""
    before = len(endpoint.requests)
    again = judged(settings(), tmp_path, 2 * len(staying))
    assert len(endpoint.requests) == before + 2 * len(staying), "only what failed is asked again"
    assert all(right(*pair) for pair in by_item(again).items())


@pytest.mark.parametrize("trouble", ["hang 3", "drip 3"])
def test_an_answer_that_does_not_come_in_time_is_given_up(
    trouble: str, settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: trouble if number < 2 else ""
    result = judged(settings(timeout_seconds=0.3), tmp_path, 4)
    assert all(right(*pair) for pair in by_item(result).items())
    assert len(endpoint.requests) == 10


def test_a_reply_that_is_too_long_and_one_that_is_too_late_have_reasons_of_their_own(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "huge"
    assert judged(settings(max_retries=0), tmp_path, 1).failures == {
        "the reply has more than 1 MiB": 2
    }
    endpoint.trouble = lambda number, body: "drip 2"
    late = settings(max_retries=0, timeout_seconds=0.2)
    assert judged(late, tmp_path, 1).failures == {
        "no complete answer within judge.timeout_seconds": 2
    }


def test_everything_wrong_at_once_leaves_every_item_right_or_failed(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    rng = random.Random(0)
    endpoint.trouble = lambda number, body: rng.choice(PASSING) if rng.random() < 0.4 else ""
    result = judged(settings(max_retries=1, concurrency=8), tmp_path, 40)
    found = by_item(result)
    assert sorted(found) == list(range(40))
    for item, preferences in found.items():
        assert len(preferences) == 2
        given = [p for p in preferences if p is not None]
        assert right(item, given)
    num_failed = sum(p is None for preferences in found.values() for p in preferences)
    assert 0 < num_failed == sum(result.failures.values()) < 40
    endpoint.trouble = lambda number, body: ""
    before = len(endpoint.requests)
    assert judged(settings(), tmp_path, 40).coverage == 1
    assert len(endpoint.requests) == before + num_failed
    judged(settings(), tmp_path, 40)
    assert len(endpoint.requests) == before + num_failed


def test_retry_after_is_honoured_and_holds_back_the_others(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 429 0.5" if number == 0 else ""
    judged(settings(concurrency=1), tmp_path, 2)
    assert endpoint.times[1] - endpoint.times[0] >= 0.5


def test_retry_after_holds_back_a_call_that_already_waits_for_its_turn(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 429 2" if number == 0 else ""
    result = judged(settings(concurrency=2, requests_per_minute=60), tmp_path, 1)
    assert result.failures == {}
    first, second, third = endpoint.times
    assert second - first >= 2, "and not 1, when its turn was"
    assert third - first >= 2.9, "a second later"


def test_an_endpoint_that_asks_for_too_long_a_wait_has_failed(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 429 3600" if number == 0 else ""
    result = judged(settings(concurrency=1), tmp_path, 2)
    assert list(result.failures) == ["status 429 (asked to wait 3600 s)"]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("status 401", "status 401"),
        ("status 402", "status 402"),
        ("status 404", "status 404"),
        ("quota", "status 429: no money"),
        ("quota type", "status 429: no money"),
    ],
)
def test_what_no_call_can_pass_ends_all_calls_and_keeps_what_was_judged(
    trouble: str,
    reason: str,
    settings: Callable[..., JudgeConfig],
    endpoint: Endpoint,
    tmp_path: Path,
) -> None:
    endpoint.trouble = lambda number, body: trouble if number >= 6 else ""
    result = judged(settings(concurrency=2), tmp_path)
    assert len(endpoint.requests) <= 8
    assert result.failures == {reason: 18}
    with pytest.raises(JudgeError, match=rf"INVALID: .* but .*% have; .*18x {reason}"):
        require_coverage(result, 0.95)
    endpoint.trouble = lambda number, body: ""
    before = len(endpoint.requests)
    assert judged(settings(), tmp_path).coverage == 1
    assert len(endpoint.requests) == before + 18


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failed_verdict_and_the_texts_go_nowhere_else(
    code: int, settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    with serving() as other:
        elsewhere = f"{other.url}/chat/completions"
        endpoint.trouble = lambda number, body: (
            f"redirect {code}" if of_item(body) % 2 else f"redirect {code} {elsewhere}"
        )
        result = judged(settings(), tmp_path, 6)
        assert other.requests == []
    reason = f"status {code}: a redirect, which is not followed; give its end as judge.base_url"
    assert result.failures == {reason: 12}
    assert len(endpoint.requests) == result.usage.calls == 12


def test_the_connections_are_closed_with_the_judge(settings: Callable[..., JudgeConfig]) -> None:
    judge = ApiJudge(settings())
    assert [verdict.preference for _, verdict in judge.judge([Pair("Why?", "a", "bb")])] != [None]
    client = judge._client
    assert not client.is_closed()
    del judge
    gc.collect()
    assert client.is_closed()


def test_a_judge_that_is_left_early_begins_no_more_calls(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    pairs = [Pair(f"Prompt {i}?", "a", "bb") for i in range(50)]
    verdicts = make_judge(settings(concurrency=2), tmp_path).judge(pairs)
    next(verdicts)
    verdicts.close()  # type: ignore[attr-defined]
    seen = len(endpoint.requests)
    time.sleep(0.3)
    assert len(endpoint.requests) <= seen + 2 < len(pairs)


# Budgets and pace


@pytest.mark.parametrize(
    ("budget", "num_calls"),
    [
        ({"max_calls": 10}, 10),
        ({"max_total_tokens": 2500}, 12),
        ({"max_cost": 0.25, "price_input": 100.0, "price_output": 100.0}, 12),
    ],
)
def test_a_budget_ends_the_calls_and_keeps_what_was_judged(
    budget: dict[str, Any],
    num_calls: int,
    settings: Callable[..., JudgeConfig],
    endpoint: Endpoint,
    tmp_path: Path,
) -> None:
    result = judged(settings(**budget, concurrency=3), tmp_path)
    assert 0 < len(endpoint.requests) <= num_calls
    (reason,) = result.failures
    assert reason.startswith(f"the budget judge.{next(iter(budget))}=")
    assert sum(p is not None for v in by_item(result).values() for p in v) == result.usage.calls
    with pytest.raises(JudgeError, match=r"INVALID: .* is spent"):
        require_coverage(result, 0.95)


def test_a_budget_holds_over_the_trials_of_a_sweep_but_not_for_another(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    config = settings(max_calls=10, concurrency=1)
    for _ in range(3):
        judged(config, tmp_path)
    assert len(endpoint.requests) == 10
    judge_all(make_judge(config, tmp_path, "another sweep"), *items())
    assert len(endpoint.requests) == 20


def test_failed_calls_count_in_the_budget(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 500"
    config = settings(max_calls=5, concurrency=1)
    judged(config, tmp_path)
    judged(config, tmp_path)
    assert len(endpoint.requests) == 5


def test_a_usage_that_no_call_can_have_counts_as_missing(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    absurd = endpoints.completion("A") | {
        "usage": {"prompt_tokens": 10**30, "completion_tokens": 1}
    }
    endpoint.trouble = lambda number, body: f"absurd {json.dumps(absurd)}"
    result = judged(settings(tokens_per_minute=1e6), tmp_path, 2)
    assert result.coverage == 1
    assert result.usage.calls == 4
    assert result.usage.input_tokens < 4000, "as estimated"
    for tokens, answered in ((10**7, Usage(1, 10**7, 1)), (10**7 + 1, None)):
        body = endpoints.completion("A")
        body["usage"]["prompt_tokens"] = tokens
        assert read_reply(json.dumps(body).encode(), ("A", "B"), "text") == Reply(1.0, answered)


NO_VERDICTS = [
    "say I cannot compare these two.",
    f"absurd {json.dumps(endpoints.completion('A', message={'refusal': 'no'}))}",
    f"absurd {json.dumps(endpoints.completion('', finish_reason='length'))}",
    f"absurd {json.dumps(endpoints.completion('A') | {'choices': []})}",
]


@pytest.mark.parametrize("trouble", NO_VERDICTS, ids=["text", "refusal", "cut off", "incomplete"])
def test_a_reply_that_is_no_verdict_costs_what_the_endpoint_counted(
    trouble: str, settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: trouble if number < 2 else ""
    result = judged(settings(concurrency=1, max_new_tokens=4000), tmp_path, 1)
    assert result.failures == {}
    assert result.usage == Usage(4, 800, 4)


def test_replies_that_are_no_verdicts_do_not_end_a_budget_before_it_is_spent(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "" if number % 2 else "say neither"
    budget = {"max_total_tokens": 48 * 201 + 4000, "max_new_tokens": 4000}
    result = judged(settings(concurrency=1, **budget), tmp_path, 12)
    assert result.failures == {}
    assert result.usage == Usage(48, 48 * 200, 48)


def test_log_probabilities_that_decide_nothing_cost_what_the_endpoint_counted() -> None:
    body = endpoints.completion("I", logprobs=endpoints.logprobs(I=-1e-5, B=-12.0))
    reply = read_reply(json.dumps(body).encode(), ("A", "B"), "logprobs")
    assert isinstance(reply, Fault)
    assert reply.usage == Usage(1, 200, 1)


def test_money_is_tokens_times_prices() -> None:
    config = JudgeConfig(type="api", model="m", price_input=2.5, price_output=10.0)
    assert Budget(config).cost(Usage(7, 1_000_000, 200_000)) == 4.5


def test_the_pace_spreads_calls_and_tokens_over_the_minute() -> None:
    now = 0.0
    pace = Pace(60, None, clock=lambda: now)
    assert [pace.turn(10) for _ in range(3)] == [0, 1, 2]
    pace = Pace(None, 6000, clock=lambda: now)
    assert [pace.turn(100) for _ in range(3)] == [0, 1, 2]
    pace.correct(100)
    assert pace.turn(1) == 4
    pace.pause(60)
    assert pace.turn(1) == 60
    now = 100.0
    assert pace.turn(1) == 0


@pytest.mark.parametrize(
    ("taken", "starts"), [(100, [0, 1, 2, 3]), (10_000, [0, 2, 4, 6])], ids=["fewer", "more"]
)
def test_both_limits_hold_where_calls_take_other_numbers_of_tokens_than_estimated(
    taken: int, starts: list[float]
) -> None:
    now = 0.0
    pace = Pace(60, 300_000, clock=lambda: now)
    began = []
    for _ in starts:
        now += pace.turn(4900)
        began.append(now)
        pace.correct(taken - 4900)
    assert began == pytest.approx(starts)


def test_turns_that_fall_into_a_pause_are_taken_behind_it_one_after_the_other() -> None:
    now = 0.0
    pace = Pace(60, 6000, clock=lambda: now)
    assert [pace.turn(10) for _ in range(3)] == [0, 1, 2]
    pace.pause(1.5)
    pace.correct(-10)
    assert pace.turn(10) == 3, "no turn before those that were reserved"
    now = 1.0
    assert pace.is_paused()
    assert pace.turn(10) == 3, "in place of the turn at 1"
    now = 2.0
    assert not pace.is_paused(), "the turn at 2 lies behind the pause"


# Replies


def test_a_label_may_have_brackets_of_its_own() -> None:
    labels = ("[[A]]", "[[B]]")
    for text, wanted in (("[[B]]", 2), ("**[[A]]**", None), (" [[A]]\n", 1)):
        reply = read_reply(json.dumps(endpoints.completion(text)).encode(), labels, "text")
        assert (reply.preference if isinstance(reply, Reply) else None) == wanted


def test_no_top_log_probabilities_leave_the_text() -> None:
    empty = {"content": [{"token": "B", "logprob": -0.1, "top_logprobs": None}]}
    body = json.dumps(endpoints.completion("B", logprobs=empty)).encode()
    reply = read_reply(body, ("A", "B"), "auto")
    assert isinstance(reply, Reply)
    assert reply.preference == 2


@pytest.mark.parametrize("text", ["A", " A\n", "**A**", '"A"', "(A)", "[A].", "`A`"])
def test_a_label_in_quotes_or_bold_is_that_label(text: str) -> None:
    body = json.dumps(endpoints.completion(text)).encode()
    assert read_reply(body, ("A", "B"), "text") == Reply(1.0, Usage(1, 200, 1))


@pytest.mark.parametrize(
    "text", ["", "a", "AB", "A B", "A refusal", "Answer A", "C", "A, not B", "\u0410", None]
)
def test_any_other_text_is_no_verdict(text: str | None) -> None:
    body = json.dumps(endpoints.completion(text)).encode()
    assert isinstance(read_reply(body, ("A", "B"), "text"), Fault)


def said(text: str, *tokens: dict[str, float], verdict: str = "auto") -> float | str:
    """How a reply is read, or why it is none.

    `tokens` are its tokens: each with the probabilities of its alternatives, itself the first.
    """
    logs = [{t: math.log(p) for t, p in token.items()} for token in tokens]
    content = [endpoints.logprobs(**token)["content"][0] for token in logs]
    body = endpoints.completion(text, logprobs={"content": content})
    reply = read_reply(json.dumps(body).encode(), ("A", "B"), verdict)
    return reply.preference if isinstance(reply, Reply) else reply.reason


def test_spellings_of_a_label_are_added_up_and_a_missing_one_counts_nothing() -> None:
    assert said("A", {"A": 0.25, " A": 0.25, "B": 0.5}, verdict="logprobs") == pytest.approx(1.5)
    assert said("A", {"A": 0.9, "C": 0.1}, verdict="logprobs") == 1.0
    assert said("B", {" B": 0.6, "C": 0.4}, verdict="logprobs") == 2.0


def test_probabilities_that_are_too_small_for_a_float_are_added_up_by_their_logarithms() -> None:
    never = -math.inf
    assert log_sum([-1000.0, -1000.0, never]) == pytest.approx(math.log(2) - 1000)
    assert log_sum([never, never]) == log_sum([]) == never


NO_LOGPROBS = "the log-probabilities name neither label (judge.verdict=logprobs)"


@pytest.mark.parametrize(
    ("first", "text", "wanted"),
    [
        ("\n", "\nA", 1.0),
        (" ", " A", 1.0),
        ("**", "**A**", 1.0),
        ('"', '"A"', 1.0),
        ("I", "I prefer the second", "the reply is not one of the two labels"),
        ("<think>", "<think>A", "the reply is not one of the two labels"),
    ],
)
def test_a_label_far_below_the_first_token_is_no_verdict(
    first: str, text: str, wanted: float | str
) -> None:
    unlikely = {first: 0.99, "B": 1e-5}
    assert said(text, unlikely) == wanted
    assert said(text, unlikely, verdict="logprobs") == NO_LOGPROBS


def test_log_probabilities_are_those_of_the_first_token_that_is_not_blank() -> None:
    blank = ({"\n\n": 0.99, "B": 1e-5}, {" ": 0.9, "A": 0.1}, {"": 1.0})
    for verdict in ("auto", "logprobs"):
        assert said("\n\n A", *blank, {"A": 0.6, "B": 0.2}, verdict=verdict) == pytest.approx(1.25)
        answered = said("A, not B", {"A": 0.6, "B": 0.2}, {"B": 1.0}, verdict=verdict)
        assert answered == pytest.approx(1.25), "later tokens count nothing"


def test_log_probabilities_count_where_the_labels_hold_half_of_the_probability() -> None:
    assert said("B", {"C": 0.5, "A": 0.25, "B": 0.25}) == 1.5
    assert said("B", {"C": 0.52, "A": 0.36, "B": 0.12}) == 2.0, "the text's"
    assert said("C", {"C": 0.52, "A": 0.36, "B": 0.12}) == "the reply is not one of the two labels"
    assert said("B", {"A": 0.8, "B": 0.2}) == pytest.approx(1.2), "above the text"
    assert said("B", {"C": 0.52, "A": 0.36, "B": 0.12}, verdict="logprobs") == NO_LOGPROBS
    assert said("B", verdict="logprobs") == NO_LOGPROBS


def test_log_probabilities_that_decide_nothing_are_asked_for_again_and_never_stored(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    body = endpoints.completion("\nA", logprobs=endpoints.logprobs(**{"\n": -1e-5, "B": -12.0}))
    endpoint.trouble = lambda number, _: f"absurd {json.dumps(body)}"
    config = settings(verdict="logprobs", max_retries=2)
    assert judged(config, tmp_path, 1).failures == {NO_LOGPROBS: 2}
    assert len(endpoint.requests) == 6
    assert by_item(judged(settings(), tmp_path, 1))[0] == [1.0, 2.0], "both say A, by the text"
    endpoint.trouble = lambda number, body: ""
    assert right(0, by_item(judged(config, tmp_path, 1))[0])


# The key


def test_a_key_is_read_from_a_variable_or_a_file_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = {"type": "api", "model": "m"}
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"judge\.api_key_env: .* but is not set; export it"):
        ApiJudge(JudgeConfig(**api, api_key_env=VARIABLE))
    file = tmp_path / "key"
    with pytest.raises(UserError, match=r"judge\.api_key_file: .* but got FileNotFoundError"):
        ApiJudge(JudgeConfig(**api, api_key_file=str(file)))
    with pytest.raises(UserError, match=r"judge\.api_key_file: .* but got OSError; give its path"):
        ApiJudge(JudgeConfig(**api, api_key_file=CANARY * 30))
    file.write_text("\n")
    with pytest.raises(UserError, match="must hold the key, but is empty"):
        ApiJudge(JudgeConfig(**api, api_key_file=str(file)))
    file.write_text(CANARY + "\n")
    assert ApiJudge(JudgeConfig(**api, api_key_file=str(file)))._key == CANARY


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("api_key_env", "AKIAIOSFODNN7EXAMPLE"),
        ("api_key_file", CANARY),
        ("api_key_file", f"{CANARY}\0"),
    ],
    ids=["a variable", "a file", "no name of a file"],
)
def test_a_key_in_place_of_where_it_stands_is_neither_shown_nor_written(
    setting: str,
    key: str,
    endpoint: Endpoint,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    own, other = items(2)
    write_lines(own, tmp_path / "own.jsonl")
    write_lines(other, tmp_path / "other.jsonl")
    judge = ["judge.type=api", "judge.model=m", f"judge.base_url={endpoint.url}"]
    judge.append(f"judge.{setting}={json.dumps(key)}")
    files = [str(tmp_path / name) for name in ("own.jsonl", "other.jsonl", "out/new.jsonl")]
    judging = ["judge", files[0], "--reference", files[1], "--output", files[2]]
    for command in (judging, ["validate", "quickstart"], ["tune", "quickstart"]):
        place = ["--output", str(tmp_path / "run")] if command[0] == "tune" else []
        assert main([*command, *judge, *place]) == 2
        answered = capfd.readouterr()
        assert f"error: judge.{setting}: " in answered.err
        assert key[:8] not in answered.out + answered.err
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(key[:8] in text for text in written)
    assert endpoint.requests == []


@pytest.mark.parametrize("value", [CANARY, f"@{CANARY}", f"*{CANARY}", f"[{CANARY}", "9" * 24])
@pytest.mark.parametrize("times", [1, 20])
def test_a_misplaced_key_is_not_shown_whatever_it_looks_like(
    value: str, times: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = value * times
    (tmp_path / "trial.yaml").write_text("data: {max_eval_prompts: 2}\n")
    judge = ["judge.type=api", "judge.model=m", f"judge.api_key_file={key}"]
    train = ["train", str(tmp_path / "trial.yaml"), "--output", str(tmp_path / "trained")]
    again = ["tune", "quickstart", "--resume", "--output", str(tmp_path / "run")]
    for command in (["validate", "quickstart"], again, train):
        assert main([*command, *judge]) == 2
        answered = capfd.readouterr()
        assert answered.err.startswith("error: ")
        assert value[1:9] not in answered.out + answered.err
    assert [path.name for path in tmp_path.iterdir()] == ["trial.yaml"], "nothing was written"


def test_a_text_with_a_part_of_the_key_is_not_shown() -> None:
    assert without_key(f"bad key {CANARY}", CANARY) == ""
    assert without_key(f"bad key ...{CANARY[-8:]}", CANARY) == ""
    assert without_key("bad key sk-...04e", CANARY) == "bad key sk-...04e"
    assert without_key("anything", "") == "anything"


CALLER = """
import json, logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
from pathlib import Path
from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import judge_all, require_coverage
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
own = [Completion(f"Prompt {i}?", "x" * (9 + i), "trial") for i in range(2)]
other = [Completion(f"Prompt {i}?", "y" * 5, "plain") for i in range(2)]
for trouble in json.loads(sys.argv[2]):
    config = JudgeConfig(**{**json.loads(sys.argv[1]), "model": trouble})
    judged = judge_all(make_judge(config, Path("."), "s"), own, other)
    write_lines(judged.preferences, Path(trouble + ".jsonl"))
    print(config, config.model_dump_json(), judged, sep="\\n")
    try:
        require_coverage(judged, 0.95)
    except Exception as error:
        traceback.print_exc()
"""


def test_the_key_is_in_no_file_log_or_exception(
    settings: Callable[..., JudgeConfig], endpoint: Endpoint, tmp_path: Path
) -> None:
    """The server writes the key into its error messages, and every logger is at DEBUG."""
    faults = ["status 401", "status 429 0", "status 500", "status 400", "hang 1", "drip 1"]
    faults += ["truncated", "cut", "reset", "say I refuse", "quota", "redirect 307"]
    endpoint.trouble = lambda number, body: body["model"]
    config = settings(max_retries=1, timeout_seconds=0.4)
    run = subprocess.run(
        [sys.executable, "-c", CALLER, config.model_dump_json(), json.dumps(faults)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=100,
    )
    assert run.stderr.count("JudgeError: INVALID") == len(faults)
    assert "DEBUG:" in run.stderr
    assert endpoint.keys == {f"Bearer {CANARY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > len(faults), "preferences of every fault, and the costs in the store"
    for text in [run.stdout, run.stderr, *(path.read_text() for path in files)]:
        assert not any(CANARY[i : i + 8] in text for i in range(3, len(CANARY) - 7))


def test_the_key_is_in_no_log_of_this_process_either(
    settings: Callable[..., JudgeConfig],
    endpoint: Endpoint,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.trouble = lambda number, body: "status 400" if number % 2 else ""
    result = judged(settings(), tmp_path, 3)
    write_lines(result.preferences, tmp_path / "preferences.jsonl")
    assert read_annotations(tmp_path / "preferences.jsonl") == result.preferences
    assert Counter(result.failures)
    assert "canary" not in caplog.text + str(result)
