"""What the confirmation asks: which settings meet which, and when they are looked at.

In: the choices of the search, and the parts of the sweep. Out: `Question`s. The settings that were
chosen are kept in a file, so that a sweep that grew takes no trial for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import CHOICES
from symnoise_ray.records.verdict import Choice
from symnoise_ray.space.design import Arms
from symnoise_ray.space.parameters import Params
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.statistics.looks import Look
from symnoise_ray.sweep.evidence import Evidence
from symnoise_ray.sweep.schedule import Part, looks_of


@dataclass(frozen=True)
class Setting:
    """A point that is confirmed; `number` counts the settings that were chosen for its arm."""

    arm: str
    point: Params
    number: int


@dataclass
class Question:
    """An arm against the reference, or, with `over`, two arms against each other."""

    arm: str
    over: str
    setting: Setting
    opponents: dict[str, Setting]
    """`best` and, where it is another one, `shared`; of a contrast, the other arm alone."""
    looks: list[Look]
    seen: list[Look] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    stopped: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells questions apart."""
        return self.arm, self.over

    def meetings(self, own: Setting) -> list[tuple[Setting, Setting]]:
        """Settings whose answers are judged against each other.

        Both arms of a contrast meet `own`, the reference at its own best.
        """
        if self.over:
            return [(each, own) for each in (self.setting, *self.opponents.values())]
        return [(self.setting, rival) for rival in self.opponents.values()]


class Registry:
    """The settings that were chosen so far, by arm; kept in a file.

    A search that grew may choose another setting, or another opponent. What was trained with an
    earlier one, or judged against an earlier one, must not be taken for it.
    """

    def __init__(self, plans: SweepPlans, num_parts: int) -> None:
        self.path = plans.directory / CHOICES
        known = read_json(self.path) if self.path.exists() else {}
        self.settings: dict[str, list[Any]] = known.get("settings", {})
        self.parts: list[dict[str, Any]] = known.get("parts", [])
        self.parts += [{} for _ in range(num_parts - len(self.parts))]

    def number(self, arm: str, point: Params, against: Params) -> int:
        """The number of a setting of an arm, judged against a setting of the reference, from 1."""
        chosen = {"params": point, "against": against}
        listed = self.settings.setdefault(arm, [])
        if chosen not in listed:
            listed.append(chosen)
        return listed.index(chosen) + 1

    def compared(self, key: tuple[str, str], numbers: list[int]) -> list[Any]:
        """Note what the last part compares; returns what every part compared."""
        name = " over ".join(filter(None, key))
        self.parts[-1][name] = numbers
        write_json({"settings": self.settings, "parts": self.parts}, self.path)
        return [part.get(name) for part in self.parts]


def rivals(arms: Arms, best: Params, point: Params) -> dict[str, Params]:
    """The points of the reference that an arm's point meets: `best`, and `shared` if it differs.

    What the arms share is the arm's; what the reference alone has is its own best.
    """
    own = {name: value for name, value in best.items() if name not in arms.shared(best)}
    shared = {**own, **arms.shared(point)}
    return {"best": best} if shared == best else {"best": best, "shared": shared}


def questions(
    plans: SweepPlans, choices: dict[str, Choice], arms: Sequence[str], parts: Sequence[Part]
) -> tuple[Setting, list[Question]]:
    """The reference's own best, and what is asked: arms against both opponents, and contrasts.

    Args:
        plans: The sweep.
        choices: Arm -> the setting that the search chose.
        arms: The arms to confirm.
        parts: Of the sweep, as design.json holds them.
    """
    reference = plans.arms.name(plans.arms.reference)
    registry = Registry(plans, len(parts))
    best = dict(choices[reference].params)

    def setting(arm: str, point: Params) -> Setting:
        return Setting(arm, point, registry.number(arm, point, best))

    own = setting(reference, best)
    found: list[Question] = []
    for arm in arms:
        point = dict(choices[arm].params)
        opponents = {
            kind: setting(reference, rival)
            for kind, rival in rivals(plans.arms, best, point).items()
        }
        treated = setting(arm, point)
        numbers = [treated.number, *(each.number for each in opponents.values())]
        looks = looks_of(parts, registry.compared((arm, ""), numbers))
        found.append(Question(arm, "", treated, opponents, looks))
    by_arm = {question.arm: question for question in found}
    for one, other in plans.sweep.confirm.contrasts:
        if one in by_arm and other in by_arm:
            pair = [by_arm[one].setting, by_arm[other].setting]
            looks = looks_of(parts, registry.compared((one, other), [each.number for each in pair]))
            found.append(Question(one, other, pair[0], {"": pair[1]}, looks))
    return own, found
