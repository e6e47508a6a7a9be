"""From a question's evidence to the decision that is printed, stored and reported.

In: a question of the confirmation, its ruling, and how its trainings ended. Out: a `Decision`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from symnoise_ray.records.verdict import Choice, Comparison, Decision
from symnoise_ray.space.trials import show
from symnoise_ray.statistics.decision import BETTER, OPEN, SAME, WORSE
from symnoise_ray.statistics.looks import DECLARED
from symnoise_ray.statistics.power import seeds_needed
from symnoise_ray.sweep.confirm import Confirmation
from symnoise_ray.sweep.questions import Question

MOST_FAILED = 0.1
"""Share of a setting's trainings that may fail. Above it those that are left may have ended by
luck, so no verdict is given that it would flatter: `better` for the arm, `worse` for an opponent.
"""


def decision(
    confirmation: Confirmation, question: Question, choices: Mapping[str, Choice]
) -> Decision:
    """The decision on one question."""
    ruling = confirmation.rulings.get(question.key)
    failed = {
        show(setting.point): [result is None or not result.is_done for result in results]
        for setting, results in confirmation.results(question)
    }
    label = show(question.setting.point)
    effect = confirmation.effect_on(question)
    comparisons: tuple[Comparison, ...] = ()
    verdict, withheld = OPEN, ""
    if ruling is not None:
        verdict = ruling.verdict
        compared = (question.arm, question.over or confirmation.own.arm)
        withheld = _flattered(verdict, label, failed) or _unranked(verdict, compared, choices)
        comparisons = tuple(
            each.comparison(
                question.arm, label, ruling, effect, over=question.over,
                by_groups=confirmation.by_groups,
            )
            for each in question.evidence
        )  # fmt: skip
    tried, reference = choices.get(question.arm), choices.get(confirmation.own.arm)
    return Decision(
        arm=question.arm,
        over=question.over,
        label=label,
        verdict=OPEN if withheld else verdict,
        comparisons=comparisons,
        num_seeds=question.seen[-1].num_seeds if question.seen else 0,
        looks=tuple(look.num_seeds for look in question.seen),
        stopped=question.stopped,
        num_settings=tried.num_settings if tried else 0,
        num_reference_settings=reference.num_settings if reference else 0,
        num_trained=sum(map(len, failed.values())),
        num_failed=sum(map(sum, failed.values())),
        withheld=withheld,
        seeds_needed=_seeds_needed(confirmation, question) if verdict == OPEN else None,
    )


def _flattered(verdict: str, label: str, failed: Mapping[str, Sequence[bool]]) -> str:
    """Which failed trainings flatter a side that the verdict leans on; empty if none do.

    Args:
        verdict: What the numbers say of the arm.
        label: The arm's setting.
        failed: Of every setting, its own and its opponents', which trainings failed.
    """
    for setting, own in failed.items():
        leans = {BETTER: setting == label, WORSE: setting != label, SAME: True}
        if leans.get(verdict) and sum(own) > MOST_FAILED * len(own):
            return f"{sum(own)} of {len(own)} trainings of {setting} failed"
    return ""


def _unranked(verdict: str, compared: Iterable[str], choices: Mapping[str, Choice]) -> str:
    """Why an arm that was compared gets no verdict; empty if it gets one, or there is none."""
    known = [choices[arm] for arm in compared if arm in choices]
    notes = (f"of {choice.arm}, {choice.note}" for choice in known if choice.note)
    return next(notes, "") if verdict != OPEN else ""


def _seeds_needed(confirmation: Confirmation, question: Question) -> int | None:
    """The most that any opponent needs, of a sweep that declares one look at that many seeds.

    Planned for pairs of equal seeds; where all pairs are judged, no more are needed.
    """
    needed = [
        seeds_needed(
            test.spread,
            test.num_prompts,
            test.num_seeds,
            confirmation.effect_on(question),
            share=DECLARED,
            num_questions=len(confirmation.asked),
            num_opponents=len(question.evidence),
        )
        for each in question.evidence
        for test in [each.of_equal_seeds(by_groups=confirmation.by_groups)]
    ]
    known = [number for number in needed if number is not None]
    return max(known) if known and len(known) == len(needed) else None
