"""The offline judge prefers what is nearer to the gold answer, whichever it reads first."""

import gzip
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from symnoise_ray.config import JudgeConfig, TrialConfig
from symnoise_ray.errors import DataError, JudgeError
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import ORDERS, Judged, judge_all, require_coverage
from symnoise_ray.judges.protocol import Judge, Pair, Verdict
from symnoise_ray.judges.reference import EXACT, ReferenceJudge, normalise, similarity
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.records.completions import Completion
from symnoise_ray.statistics.win_rate import win_rate

GOLD = "The red fox sleeps in the old garden."
NEAR = "The red fox sleeps in a garden."
FAR = "Seven blue birds."


def completion(output: str, gold: str = GOLD, instruction: str = "Who sleeps?") -> Completion:
    return Completion(instruction, output, "trial", "animals", gold)


def reference(output: str, instruction: str = "Who sleeps?") -> Completion:
    return Completion(instruction, output, "plain", "animals")


class Scripted:
    """A judge that says what a function of the pair and its place says."""

    name = "scripted"
    identity: Mapping[str, Any] = {"type": "scripted"}

    def __init__(self, script: Any) -> None:
        self.script = script

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """The last pair first, as a concurrent judge might."""
        for index in reversed(range(len(pairs))):
            yield index, self.script(pairs[index])


def unaskable(pair: Pair) -> Verdict:
    raise AssertionError(f"asked about {pair.first!r} and {pair.second!r}")


def items(count: int) -> tuple[list[Completion], list[Completion]]:
    """Prompts on which the trial's answer is the better one."""
    own = [completion(NEAR, instruction=f"{i}?") for i in range(count)]
    return own, [reference(FAR, instruction=f"{i}?") for i in range(count)]


def prefer(judge: Judge, first: str, second: str, gold: str = GOLD) -> float | None:
    """The one verdict on one pair."""
    ((index, verdict),) = judge.judge([Pair("Who sleeps?", first, second, gold)])
    assert index == 0
    return verdict.preference


# The reference judge


@pytest.mark.parametrize(
    ("first", "second", "preference"),
    [
        (GOLD, NEAR, 1.0),
        (NEAR, FAR, 1.0),
        (GOLD, FAR, 1.0),
        (FAR, "", 1.0),
        (GOLD, GOLD.upper(), 1.5),
        ("zzz", "qqq", 1.5),
        ("", "", 1.5),
    ],
)
def test_the_nearer_answer_wins_in_either_order(
    first: str, second: str, preference: float, tmp_path: Path
) -> None:
    judge = make_judge(JudgeConfig(type="reference"), tmp_path)
    assert prefer(judge, first, second) == preference
    assert prefer(judge, second, first) == 3 - preference
    assert list(tmp_path.iterdir()) == [], "what costs nothing is not stored"


def test_swapping_the_answers_swaps_the_verdict_whatever_they_are() -> None:
    rng = random.Random(0)
    alphabet = "abcde \u00e9\u4e2d\U0001f600.,\n"
    judge = ReferenceJudge()

    def text() -> str:
        return "".join(rng.choices(alphabet, k=rng.randrange(12)))

    verdicts = []
    for _ in range(300):
        gold, first, second = "a" + text(), text(), text()
        verdicts.append(prefer(judge, first, second, gold))
        assert prefer(judge, second, first, gold) == 3 - verdicts[-1]
        assert prefer(judge, first, first, gold) == 1.5
    assert set(verdicts) == {1.0, 1.5, 2.0}


def test_an_exact_answer_beats_every_other() -> None:
    assert similarity(GOLD, GOLD) == EXACT
    for other in (NEAR, FAR, GOLD + "!", GOLD[:-1], ""):
        assert 0 <= similarity(other, GOLD) < EXACT


def test_case_width_and_white_space_make_no_difference() -> None:
    assert normalise("  Stra\u00dfe\n\t\uff21 \ufb01 ") == "strasse a fi"
    assert similarity(" the RED  fox\nsleeps in the old garden. ", GOLD) == EXACT
    assert similarity("cafe\u0301", "caf\u00e9") == EXACT
    assert similarity("the red fox sleeps in the old garden", GOLD) < EXACT


@pytest.mark.parametrize("gold", ["", " \n"])
def test_a_prompt_without_a_gold_answer_is_refused_by_name(gold: str) -> None:
    with pytest.raises(
        DataError, match=r"needs a gold answer for every prompt, but 'Who sleeps\?'"
    ):
        prefer(ReferenceJudge(), "a", "b", gold)


# Judging all


def test_every_item_is_judged_in_both_orders_and_two_means_the_trial() -> None:
    judged = judge_all(
        ReferenceJudge(),
        [completion(NEAR), completion(FAR), completion(NEAR)],
        [reference(FAR), reference(GOLD), reference(NEAR)],
    )
    assert [p.preference for p in judged.preferences] == [2, 2, 1, 1, 1.5, 1.5]
    assert [p.item for p in judged.preferences] == [0, 0, 1, 1, 2, 2]
    assert [p.order for p in judged.preferences] == list(ORDERS) * 3
    first = judged.preferences[0]
    assert (first.output_1, first.generator_1) == (FAR, "plain")
    assert (first.output_2, first.generator_2) == (NEAR, "trial")
    assert (first.instruction, first.dataset) == ("Who sleeps?", "animals")
    assert first.annotator == ReferenceJudge.name


def test_a_judge_that_always_takes_the_first_contradicts_itself() -> None:
    judged = judge_all(Scripted(lambda pair: Verdict(1.0)), [completion(NEAR)], [reference(FAR)])
    assert [p.preference for p in judged.preferences] == [1.0, 2.0]


def test_identical_answers_are_ties_without_asking() -> None:
    texts = ["", GOLD, "\u2028"]
    judged = judge_all(
        Scripted(unaskable),
        [completion(text) for text in texts],
        [reference(text) for text in texts],
    )
    assert {p.preference for p in judged.preferences} == {1.5}
    with pytest.raises(AssertionError, match=r"asked about '[ab]' and '[ab]'"):
        judge_all(Scripted(unaskable), [completion("b")], [reference("a")])


def test_a_reference_that_lacks_a_prompt_is_refused_with_the_prompt() -> None:
    completions = [completion("a", instruction=f"Prompt {i}?") for i in range(3)]
    answers = [reference("a", instruction="Prompt 0?"), reference("a", instruction="Other?")]
    with pytest.raises(
        DataError, match=r"must answer every prompt, but lacks 2 of 3, the first being 'Prompt 1\?'"
    ):
        judge_all(ReferenceJudge(), completions, answers)


def test_prompts_that_repeat_are_aligned_by_position() -> None:
    completions = [completion(NEAR), completion(NEAR)]
    judged = judge_all(ReferenceJudge(), completions, [reference(FAR), reference(GOLD)])
    assert [p.preference for p in judged.preferences] == [2, 2, 1, 1]


def test_a_prompt_that_repeats_meets_the_references_answers_in_their_turn() -> None:
    own = [completion(NEAR, instruction=prompt) for prompt in "aba"]
    other = [reference(f"other {n}", instruction=prompt) for n, prompt in enumerate("baa")]
    answered = judge_all(ReferenceJudge(), own, other).preferences[::2]
    assert [p.output_1 for p in answered] == ["other 1", "other 0", "other 2"]


def test_a_reference_in_another_order_is_aligned_by_prompt() -> None:
    completions = [completion(NEAR, instruction="a"), completion(NEAR, instruction="b")]
    answers = [
        reference("unasked", instruction="c"),
        reference(GOLD, instruction="b"),
        reference(FAR, instruction="a"),
    ]
    judged = judge_all(ReferenceJudge(), completions, answers)
    assert [p.preference for p in judged.preferences] == [2, 2, 1, 1]
    assert [p.output_1 for p in judged.preferences] == [FAR, FAR, GOLD, GOLD]


def test_a_conversation_is_a_tie_only_as_a_whole_and_the_judge_sees_all_of_it() -> None:
    seen = []

    def script(pair: Pair) -> Verdict:
        seen.append(pair)
        return Verdict(1.0 if len(pair.first_turns[0][1]) > len(pair.second_turns[0][1]) else 2.0)

    own = completion(NEAR)._replace(turns=(("Who?", "a red fox"),))
    other = reference(NEAR)._replace(turns=(("Who?", "a fox"),))
    judged = judge_all(Scripted(script), [own], [other])
    assert [p.preference for p in judged.preferences] == [2, 2]
    assert {pair.first_turns for pair in seen} == {own.turns, other.turns}
    same = judge_all(Scripted(unaskable), [own], [other._replace(turns=own.turns)])
    assert [p.preference for p in same.preferences] == [1.5, 1.5]


def test_conversations_are_aligned_by_all_their_requests() -> None:
    own = [completion(NEAR)._replace(turns=((asked, "x"),)) for asked in ("a?", "b?")]
    others = [
        reference(text)._replace(turns=((asked, "y"),))
        for asked, text in (("b?", GOLD), ("a?", FAR))
    ]
    judged = judge_all(ReferenceJudge(), own, others)
    assert [p.preference for p in judged.preferences] == [2, 2, 1, 1]
    with pytest.raises(DataError, match="lacks 1 of 1"):
        judge_all(ReferenceJudge(), own[:1], [reference(FAR)])


# One order per item, as AlpacaEval publishes


def published(judge: Judge, own: list[Completion], other: list[Completion], **more: Any) -> Judged:
    return judge_all(judge, own, other, orders="published", **more)


def test_the_published_orders_of_the_805_instructions_are_ours(shared_data: Path) -> None:
    file = shared_data / "judge" / "instructions_805.json.gz"
    rows = json.loads(gzip.decompress(file.read_bytes()))["instructions"]
    read_first = {}

    def script(pair: Pair) -> Verdict:
        read_first[pair.instruction] = pair.first
        return Verdict(1.0)

    prompts = [row["instruction"] for row in rows]
    own = [completion(NEAR, instruction=prompt) for prompt in prompts]
    judged = published(Scripted(script), own, [reference(FAR, prompt) for prompt in prompts])
    flags = [row["switched_seed0"] for row in rows]
    assert len(flags) == 805
    assert sum(flags) == 406
    assert [read_first[prompt] == NEAR for prompt in prompts] == flags
    assert [p.order for p in judged.preferences] == [ORDERS[flag] for flag in flags]
    assert [p.preference for p in judged.preferences] == [2.0 if flag else 1.0 for flag in flags]


def test_in_the_published_order_two_still_means_the_trial_whoever_is_read_first() -> None:
    own, other = items(20)
    judged = published(ReferenceJudge(), own, other)
    assert [p.item for p in judged.preferences] == list(range(20))
    assert {p.order for p in judged.preferences} == set(ORDERS), "both come up among 20 prompts"
    assert {p.preference for p in judged.preferences} == {2.0}
    assert judged.coverage == 1
    assert win_rate(judged.preferences).n_total == 20


def test_with_one_order_the_position_bias_is_unknown_and_with_both_it_is_known() -> None:
    first = Scripted(lambda pair: Verdict(1.0))
    assert win_rate(judge_all(first, *items(20)).preferences).position_bias == 1
    rate = win_rate(published(first, *items(20)).preferences)
    assert rate.position_bias is None
    assert rate.to_json()["position_bias"] is None
    assert 0 < rate.win_rate < 1, "a judge of positions is not seen through"


def test_a_prompt_that_repeats_is_judged_in_one_order_every_time() -> None:
    own, other = items(1)
    judged = published(Scripted(lambda pair: Verdict(1.2)), own * 4, other * 4)
    assert len(judged.preferences) == 4
    assert len({p.order for p in judged.preferences}) == 1
    assert win_rate(judged.preferences).interval_95 == (0, 1), "four items, but one prompt"


def test_one_failed_verdict_of_one_order_leaves_its_item_out() -> None:
    judged = published(
        Scripted(lambda pair: Verdict(None if pair.instruction == "1?" else 1.0, "gone")), *items(4)
    )
    assert judged.coverage == 0.75
    assert judged.failures == {"gone": 1}
    assert [p.preference is None for p in judged.preferences] == [False, True, False, False]
    assert win_rate(judged.preferences).n_invalid == 1


def test_judging_of_one_order_stops_when_decided() -> None:
    judged = published(ReferenceJudge(), *items(200), early=True)
    assert judged.decision is not None
    assert judged.decision.verdict == "better"
    assert judged.early_fields()["stopped_early"]
    assert len(judged.preferences) == judged.num_items < 200
    ended = published(Scripted(lambda pair: Verdict(None, "no", over=True)), *items(50), early=True)
    assert [p.preference for p in ended.preferences] == [None] * 50
    assert ended.failures == {"no": 50}


@pytest.mark.parametrize(("orders", "times"), [("both", 2), ("published", 1)])
def test_the_forecast_counts_one_call_per_prompt_and_order(orders: str, times: int) -> None:
    prices = {"price_input": 2.0, "price_output": 8.0}
    settings = {"type": "api", "model": "m", "orders": orders, **prices}
    need = forecast(TrialConfig.model_validate({"judge": settings}), 1, Options())
    assert need.rows.num_prompts is not None
    assert need.judge_calls == times * need.rows.num_prompts
    assert need.judge_cost is not None
    each = need.judge_cost / need.judge_calls
    assert each == pytest.approx((2 * (need.rows.longest_prompt + 2 * 128 + 400) + 8 * 8) / 1e6)


# Failures


def some_fail(pair: Pair) -> Verdict:
    """No verdict on pairs that are read in the order `reference first` about prompt 0."""
    if (pair.instruction, pair.first) == ("0?", FAR):
        return Verdict(None, "status 500")
    return Verdict(2.0 if pair.second == NEAR else 1.0)


def three_items() -> tuple[list[Completion], list[Completion]]:
    return items(3)


def test_a_failed_verdict_has_no_number_and_is_counted_with_its_reason() -> None:
    judged = judge_all(Scripted(some_fail), *three_items())
    assert [p.preference for p in judged.preferences] == [None, 2, 2, 2, 2, 2]
    assert judged.failures == {"status 500": 1}
    assert judged.coverage == pytest.approx(2 / 3)


def test_below_the_least_coverage_a_trial_is_invalid_with_the_reason() -> None:
    judged = judge_all(Scripted(some_fail), *three_items())
    require_coverage(judged, 0.66)
    with pytest.raises(
        JudgeError, match=r"INVALID: at least 95% .* but 66\.7% have; .*: 1x status 500"
    ):
        require_coverage(judged, 0.95)


@pytest.mark.parametrize("value", [0.0, 2.001, float("nan"), -1.0])
def test_a_preference_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(JudgeError, match=r"must give one verdict in \[1, 2\] a pair"):
        judge_all(Scripted(lambda pair: Verdict(value)), *three_items())


def test_a_judge_that_leaves_pairs_out_is_refused() -> None:
    class Lazy(Scripted):
        def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
            yield 0, Verdict(1.0)

    with pytest.raises(JudgeError, match="gave 1 verdicts on 6 pairs"):
        judge_all(Lazy(None), *three_items())


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "api"}, r"judge\.model must be given for judge\.type=api"),
        ({"temperature": 1.0}, r"judge\.temperature belongs to judge\.type=api"),
        ({"orders": "one"}, r"orders\s+Input should be 'both' or 'published'"),
        ({"type": "alpaca_eval"}, r"judge\.model must be given for judge\.type=alpaca_eval"),
        ({"type": "alpaca_eval", "model": "m", "prompt": "p"}, r"judge\.prompt belongs to"),
        ({"type": "local", "model": "m", "max_calls": 3}, r"judge\.max_calls belongs to"),
        ({"type": "api", "model": "m", "batch_size": 3}, r"batch_size belongs to .*=local"),
        ({"type": "api", "model": "m", "max_cost": 3.0}, r"max_cost needs judge\.price_input"),
        ({"type": "api", "model": "m", "base_url": "http://u:p@h/v1"}, "without user, password"),
        ({"type": "api", "model": "m", "base_url": "http://h/v1?api_key=x"}, "password or query"),
        ({"type": "api", "model": "m", "base_url": "host/v1"}, r"must be http\(s\)://host"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeConfig(**settings)


def test_a_key_in_place_of_its_name_is_refused_without_showing_it() -> None:
    with pytest.raises(ValidationError, match="NAME of an environment variable") as caught:
        JudgeConfig(type="api", model="m", api_key_env="sk-canary-0123456789")
    assert "canary" not in caught.value.errors()[0]["msg"]


def test_a_coverage_just_as_high_as_it_must_be_is_enough() -> None:
    own, other = items(10)
    mute = Scripted(lambda pair: Verdict(None if pair.instruction == "0?" else 1.5, "no answer"))
    require_coverage(judge_all(mute, own, other), 0.9)
    with pytest.raises(JudgeError, match=r"at least 91% of the items .* but 90\.0% have"):
        require_coverage(judge_all(mute, own, other), 0.91)


def test_two_verdicts_on_one_pair_are_refused() -> None:
    class Twice(Scripted):
        def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
            """Every verdict two times."""
            for index in range(len(pairs)):
                yield from [(index, Verdict(1.5))] * 2

    with pytest.raises(JudgeError, match="must give one verdict in"):
        judge_all(Twice(None), *items(2))


def test_a_prompt_asked_more_often_than_it_was_answered_meets_the_last_answer() -> None:
    own = [completion(f"own {i}", instruction="again") for i in range(3)]
    other = [reference(f"answer {i}", instruction="again") for i in range(2)]
    judged = judge_all(Scripted(lambda pair: Verdict(1.5)), own, other, orders="published")
    assert [p.output_1 for p in judged.preferences] == ["answer 0", "answer 1", "answer 1"]


def test_an_item_that_lacks_one_of_its_verdicts_decides_nothing_early() -> None:
    own, other = items(40)
    half = Scripted(lambda pair: Verdict(None if pair.first == NEAR else 1.0, "no answer"))
    judged = judge_all(half, own, other, early=True)
    assert judged.decision is not None
    assert judged.decision.num_invalid == judged.decision.num_judged == 40
