"""Judging of a trial: its answers are compared with the reference's, prompt by prompt.

In: a trial's completions and the reference's. Out: `Preference`s, one per item and order, with the
number of failed verdicts by reason. Every item is judged in both orders, or in the one order that
AlpacaEval draws from its instruction. Identical answers are ties without a call. A trial with too
many failed verdicts is invalid and has no score. Judging may stop early, once it is decided on
which side of one half the win rate of all items lies (`statistics.early_stopping`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from symnoise_ray.errors import DataError, JudgeError
from symnoise_ray.judges.protocol import NOTHING, Judge, Pair, Usage, Verdict
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.preferences import Preference
from symnoise_ray.statistics.early_stopping import EarlyDecision, judging_order

ORDERS = ("reference first", "trial first")
TIE = Verdict(1.5, cached=True)
"""Of identical answers."""
BATCH_ITEMS = 16
"""Items that are judged between two looks at whether the result is decided."""
ORDER_SEED = 0
"""All trials are judged in the same order of items, whatever they answer."""


class Judged(NamedTuple):
    """All verdicts of a trial, the number of failed ones by reason, and what they cost."""

    preferences: list[Preference]
    failures: Counter[str]
    usage: Usage
    decision: EarlyDecision | None = None
    """With `judge.early`: what was decided, and from which part of the items."""

    @property
    def num_items(self) -> int:
        """Items that were judged, with or without a verdict."""
        return len({preference.item for preference in self.preferences})

    @property
    def coverage(self) -> float:
        """Fraction of the judged items that have a verdict in every order they were judged in."""
        failed = {p.item for p in self.preferences if p.preference is None}
        return 1 - len(failed) / max(1, self.num_items)

    def early_fields(self) -> dict[str, Any]:
        """Further fields of a score with `judge.early`; none without.

        Where judging stopped, the win rate is biased away from one half. `interval_95` is then the
        interval that is valid at every look: it holds the win rate of the whole set.
        """
        if self.decision is None:
            return {}
        stopped = self.num_items < self.decision.num_items
        fields: dict[str, Any] = {"n_judged": self.num_items, "stopped_early": stopped}
        return fields | ({"interval_95": self.decision.interval} if stopped else {})


def judge_all(
    judge: Judge,
    completions: list[Completion],
    reference: list[Completion],
    *,
    early: bool = False,
    min_coverage: float = 0.0,
    orders: str = "both",
) -> Judged:
    """Judge every completion against the reference's answer to the same prompt.

    In both orders of the two answers, or, with `orders` as `published`, in AlpacaEval's.

    With `early`, items are judged in a random order. Judging stops once it is decided on which side
    of one half the win rate of all items lies, and at least `min_coverage` of the judged items have
    verdicts. The other items are in no preference; `num_items` of each preference says how many
    items there are in all. Where no later call can succeed, all other items are judged at once:
    those with stored verdicts get them, the others fail.

    Raises:
        DataError: a prompt has no answer in the reference.
    """
    rivals = list(zip(completions, _align(completions, reference), strict=True))
    asked = [_asked(own, orders) for own in completions]
    num_items = len(rivals)
    decision = EarlyDecision(num_items) if early else None
    order = judging_order(num_items, ORDER_SEED) if early else list(range(num_items))
    size = BATCH_ITEMS if early else max(1, num_items)
    verdicts: dict[int, list[Verdict]] = {}
    for start in range(0, num_items, size):
        items = order[start : start + size]
        verdicts |= _judge_items(judge, rivals, asked, items)
        if decision is None:
            continue
        decided = decision.add(_score(verdicts[item], asked[item]) for item in items)
        if decided and 1 - decision.num_invalid / decision.num_judged >= min_coverage:
            break
        if any(verdict.over for item in items for verdict in verdicts[item]):
            verdicts |= _judge_items(judge, rivals, asked, order[start + size :])
            break
    preferences = [
        _preference(item, rivals[item], judge.name, read, verdict)
        for item in sorted(verdicts)
        for read, verdict in zip(asked[item], verdicts[item], strict=True)
    ]
    if len(verdicts) < num_items:
        preferences = [each._replace(num_items=num_items) for each in preferences]
    every = [verdict for given in verdicts.values() for verdict in given]
    failures = Counter(v.reason for v in every if v.preference is None)
    return Judged(preferences, failures, sum((v.usage for v in every), NOTHING), decision)


def _asked(own: Completion, orders: str) -> tuple[str, ...]:
    """The `ORDERS` in which an item is judged."""
    return ORDERS if orders == "both" else (ORDERS[is_switched(own.instruction)],)


def _judge_items(
    judge: Judge,
    rivals: Sequence[tuple[Completion, Completion]],
    asked: Sequence[Sequence[str]],
    items: Sequence[int],
) -> dict[int, list[Verdict]]:
    """Item -> its verdicts, one per order in which it is judged."""
    pairs = [_pair(*rivals[item], order) for item in items for order in asked[item]]
    verdicts = iter(_verdicts(judge, pairs))
    return {item: [next(verdicts) for _ in asked[item]] for item in items}


def _pair(own: Completion, other: Completion, order: str) -> Pair:
    first, second = (other, own) if order == ORDERS[0] else (own, other)
    return Pair(own.instruction, first.output, second.output, own.gold, first.turns, second.turns)


def _preference(
    item: int, rivals: tuple[Completion, Completion], annotator: str, order: str, verdict: Verdict
) -> Preference:
    own, other = rivals
    return Preference(
        item=item,
        instruction=own.instruction,
        dataset=own.dataset,
        output_1=other.output,
        generator_1=other.generator,
        output_2=own.output,
        generator_2=own.generator,
        annotator=annotator,
        order=order,
        preference=_turned(verdict.preference, order),
        earlier_requests=own.requests[:-1],
    )


def _score(verdicts: Sequence[Verdict], orders: Sequence[str]) -> float | None:
    """An item's score in [0, 1], or None where one of its verdicts failed."""
    turned = [_turned(v.preference, order) for v, order in zip(verdicts, orders, strict=True)]
    given = [value for value in turned if value is not None]
    return sum(given) / len(given) - 1 if len(given) == len(turned) else None


def _verdicts(judge: Judge, pairs: list[Pair]) -> list[Verdict]:
    """One verdict per pair, in their order.

    Raises:
        JudgeError: a pair has no verdict or two, or a preference lies outside [1, 2].
    """
    verdicts = {i: TIE for i, pair in enumerate(pairs) if pair.is_same}
    asked = [i for i in range(len(pairs)) if i not in verdicts]
    for number, verdict in judge.judge([pairs[i] for i in asked]) if asked else ():
        value = verdict.preference
        if asked[number] in verdicts or not (value is None or 1 <= value <= 2):
            raise JudgeError(f"{judge.name} must give one verdict in [1, 2] a pair, got {verdict}")
        verdicts[asked[number]] = verdict
    if len(verdicts) < len(pairs):
        raise JudgeError(f"{judge.name} gave {len(verdicts)} verdicts on {len(pairs)} pairs")
    return [verdicts[i] for i in range(len(pairs))]


def _turned(preference: float | None, order: str) -> float | None:
    """Turned so that 2 always means that the trial's answer is better."""
    return preference if preference is None or order == ORDERS[0] else 3 - preference


def require_coverage(judged: Judged, min_coverage: float) -> None:
    """Refuse a trial with too many failed verdicts.

    Raises:
        JudgeError: with the fraction, the least that is allowed, and the most frequent reasons.
    """
    if judged.coverage >= min_coverage:
        return
    reasons = "; ".join(f"{count}x {why}" for why, count in judged.failures.most_common(2))
    raise JudgeError(
        f"INVALID: at least {min_coverage:.0%} of the items must have all their verdicts "
        f"(judge.min_coverage), but {judged.coverage:.1%} have; failed verdicts: {reasons}"
    )


def _align(completions: list[Completion], reference: list[Completion]) -> list[Completion]:
    """The reference's answer to each prompt; by position where all prompts agree."""
    asked = [completion.requests for completion in completions]
    if asked == [answer.requests for answer in reference]:
        return reference
    by_requests: dict[tuple[str, ...], list[Completion]] = {}
    for answer in reference:
        by_requests.setdefault(answer.requests, []).append(answer)
    missing = [requests[-1] for requests in asked if requests not in by_requests]
    if missing:
        raise DataError(
            f"the reference must answer every prompt, but lacks {len(missing)} of "
            f"{len(completions)}, the first being {missing[0][:60]!r}"
        )
    # The first copy of a repeated prompt gets the first answer to it, and so on.
    answers = {requests: iter(known) for requests, known in by_requests.items()}
    return [next(answers[requests], by_requests[requests][-1]) for requests in asked]


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether AlpacaEval shows the trial's answer first: a function of the prompt's text alone."""
    generator = random.Random(f"is_switched_outputs{instruction}{seed}")
    return generator.choices([False, True], k=1)[0]
