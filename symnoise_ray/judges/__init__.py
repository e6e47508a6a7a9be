"""Pairwise judges behind one protocol: two answers to one prompt in, which is better out.

In: a trial's completions and the reference's. Out: `Preference`s, one per item and order, and how
many could not be had and why. Every item is judged in both orders; identical answers are ties
without asking. Too many failures make the trial invalid: there is no score then.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import DataError, JudgeError
from symnoise_ray.judges.cache import CachedJudge, VerdictStore
from symnoise_ray.judges.protocol import NOTHING, Judge, Pair, Usage, Verdict
from symnoise_ray.judges.reference import ReferenceJudge
from symnoise_ray.records import Completion, Preference

ORDERS = ("reference first", "trial first")
TIE = Verdict(1.5, cached=True)
"""Of identical answers."""


class Judged(NamedTuple):
    """All verdicts of a trial; how many failed, by reason; and what they took."""

    preferences: list[Preference]
    failures: Counter[str]
    usage: Usage

    @property
    def coverage(self) -> float:
        """Fraction of the items that have a verdict in both orders."""
        items = {preference.item for preference in self.preferences}
        failed = {p.item for p in self.preferences if p.preference is None}
        return 1 - len(failed) / max(1, len(items))


def make_judge(config: JudgeConfig, folder: Path, scope: str = "") -> Judge:
    """The judge that `judge.type` names; verdicts that cost something are stored.

    Args:
        config: The judge's settings.
        folder: Where a relative `judge.cache` starts.
        scope: What shares one budget, such as the sweep.

    Raises:
        UserError: the key, the prompt or the local model cannot be read.
    """
    if config.type == "reference":
        return ReferenceJudge()
    store = VerdictStore(folder / config.cache, scope)
    if config.type == "local":
        from symnoise_ray.judges.local import local_judge  # torch: only for those who use it

        return CachedJudge(local_judge(config), store)
    from symnoise_ray.judges.api import ApiJudge  # openai takes half a second

    return CachedJudge(ApiJudge(config, store.spent_elsewhere), store)


def judge_all(judge: Judge, completions: list[Completion], reference: list[Completion]) -> Judged:
    """Judge every completion against the reference's answer to the same prompt, in both orders.

    Raises:
        DataError: a prompt has no answer in the reference.
    """
    answers = _align(completions, reference)
    pairs = [
        Pair(own.instruction, *texts, own.gold)
        for own, other in zip(completions, answers, strict=True)
        for texts in ((other.output, own.output), (own.output, other.output))
    ]
    verdicts = _verdicts(judge, pairs)
    preferences = [
        Preference(
            item=item,
            instruction=own.instruction,
            dataset=own.dataset,
            output_1=other.output,
            generator_1=other.generator,
            output_2=own.output,
            generator_2=own.generator,
            annotator=judge.name,
            order=order,
            preference=_turned(verdicts[2 * item + number].preference, order),
        )
        for item, (own, other) in enumerate(zip(completions, answers, strict=True))
        for number, order in enumerate(ORDERS)
    ]
    failures = Counter(v.reason for v in verdicts if v.preference is None)
    return Judged(preferences, failures, sum((v.usage for v in verdicts), NOTHING))


def _verdicts(judge: Judge, pairs: list[Pair]) -> list[Verdict]:
    """One verdict per pair, in their order.

    Raises:
        JudgeError: the judge gave none, two, or one that is no preference.
    """
    verdicts = {i: TIE for i, pair in enumerate(pairs) if pair.first == pair.second}
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
    """Refuse a trial of which too little could be judged.

    Raises:
        JudgeError: the fraction, the least that is allowed, and the most frequent reasons.
    """
    if judged.coverage >= min_coverage:
        return
    reasons = "; ".join(f"{count}x {why}" for why, count in judged.failures.most_common(2))
    raise JudgeError(
        f"INVALID: at least {min_coverage:.0%} of the items must have verdicts in both orders "
        f"(judge.min_coverage), but {judged.coverage:.1%} have; failed verdicts: {reasons}"
    )


def _align(completions: list[Completion], reference: list[Completion]) -> list[Completion]:
    """The reference's answer to each prompt: by position where both list the same prompts."""
    if [c.instruction for c in completions] == [r.instruction for r in reference]:
        return reference
    by_instruction = {answer.instruction: answer for answer in reference}
    missing = [c.instruction for c in completions if c.instruction not in by_instruction]
    if missing:
        raise DataError(
            f"the reference must answer every prompt, but lacks {len(missing)} of "
            f"{len(completions)}, the first being {missing[0][:60]!r}"
        )
    return [by_instruction[completion.instruction] for completion in completions]
