"""Judged models compared with their reference and with each other, over prompts alone.

In: per model, its item scores. Out: frozen comparisons with interval, p-value (Holm-corrected over
the models), verdict, and how many prompts would tell a gap of so many points. All this is about the
trained models themselves, not about another training; `decision` is about arms of a sweep.

Shape letters: P prompts, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from symnoise_ray.records.verdict import Comparison
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.decision import BETTER, OPEN, WORSE, holm
from symnoise_ray.statistics.looks import SIGNIFICANCE
from symnoise_ray.statistics.two_way import TwoWay

EFFECT = 0.03
"""Gap in win rate that is planned for where the user names none."""
_POWER_Z = 0.8416  # 80 % power
_LEVEL_Z = 1.9600  # two-sided 5 %


def compare(
    scores: Mapping[str, Floats],
    contrasts: Mapping[tuple[str, str], Floats] | None = None,
) -> list[Comparison]:
    """Test every model's win rate against one half, Holm-corrected.

    Args:
        scores: Model -> item scores of shape (P, S); one seed for models as they are.
        contrasts: Two models -> differences of their item scores, (P, S), in [-1, 1].
    """
    asked: dict[tuple[str, str], Floats] = {(arm, ""): values for arm, values in scores.items()}
    asked |= {pair: 0.5 + delta_PS / 2 for pair, delta_PS in (contrasts or {}).items()}
    tested = {pair: TwoWay(values) for pair, values in asked.items()}
    corrected = holm({pair: test.p_value() for pair, test in tested.items()})
    return [_judged(*pair, tested[pair], corrected[pair]) for pair in asked]


def _judged(arm: str, over: str, test: TwoWay, p_holm: float) -> Comparison:
    decided = BETTER if test.mean > 0.5 else WORSE
    verdict = decided if p_holm < SIGNIFICANCE else OPEN
    gap = EFFECT / 2 if over else EFFECT  # a contrast's scores hold half the difference
    return Comparison(
        arm=arm,
        win_rate=test.mean,
        interval_95=test.interval(),
        p_value=test.p_value(),
        p_holm=p_holm,
        num_prompts=test.num_prompts,
        num_seeds=test.num_seeds,
        verdict=verdict,
        prompts_needed=_prompts_needed(test, gap) if verdict == OPEN else None,
        over=over,
    )


def _prompts_needed(test: TwoWay, gap: float) -> int | None:
    """Prompts in all that tell a gap between fixed models with 80 % power.

    (z_level + z_power)^2 variance / gap^2, for the variance of a prompt's score. None where the
    scores do not show it: one prompt, or none won, or none lost, or several trainings.
    """
    if test.num_prompts < 2 or test.num_seeds > 1 or test.is_one_sided:
        return None
    variance = test.spread.prompts + test.spread.rest
    return math.ceil((_LEVEL_Z + _POWER_Z) ** 2 * variance / gap**2)
