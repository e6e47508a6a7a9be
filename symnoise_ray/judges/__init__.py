"""Pairwise judges behind one protocol: two answers to one prompt in, which is better out.

In: a trial's completions and the reference's. Out: `Preference`s, one per item and order. Every
item is judged in both orders; identical answers are ties without asking.
"""

from __future__ import annotations

from typing import Protocol

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import DataError
from symnoise_ray.judges.reference import ReferenceJudge
from symnoise_ray.records import Completion, Preference

ORDERS = ("reference first", "trial first")


class Judge(Protocol):
    """Says which of two answers is better."""

    name: str

    def prefer(self, prompt: Completion, first: str, second: str) -> float:
        """1 the first answer is better, 2 the second, 1.5 a tie.

        Args:
            prompt: The item; its own output plays no part.
            first: The answer read first.
            second: The answer read second.
        """


def make_judge(config: JudgeConfig) -> Judge:
    """The judge that `judge.type` names."""
    return {"reference": ReferenceJudge}[config.type]()


def judge_all(
    judge: Judge, completions: list[Completion], reference: list[Completion]
) -> list[Preference]:
    """Judge every completion against the reference's answer to the same prompt, in both orders.

    Raises:
        DataError: a prompt has no answer in the reference.
    """
    answers = _align(completions, reference)
    preferences = []
    for item, (completion, answer) in enumerate(zip(completions, answers, strict=True)):
        for order in ORDERS:
            preferences.append(
                Preference(
                    item=item,
                    instruction=completion.instruction,
                    dataset=completion.dataset,
                    output_1=answer.output,
                    generator_1=answer.generator,
                    output_2=completion.output,
                    generator_2=completion.generator,
                    annotator=judge.name,
                    order=order,
                    preference=_ask(judge, completion, answer.output, order),
                )
            )
    return preferences


def _ask(judge: Judge, completion: Completion, reference: str, order: str) -> float:
    """One verdict, turned so that 2 always means that the trial's answer is better."""
    if completion.output == reference:
        return 1.5
    if order == ORDERS[0]:
        return judge.prefer(completion, reference, completion.output)
    return 3 - judge.prefer(completion, completion.output, reference)


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
