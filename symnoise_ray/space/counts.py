"""How many trials, pairs and judgings a sweep's design has at most.

In: a `SweepConfig`. Out: numbers, which the plan, the budget and the slots rest on.
"""

from __future__ import annotations

from symnoise_ray.config import SweepConfig
from symnoise_ray.space.design import Arms, design
from symnoise_ray.space.parameters import resolve
from symnoise_ray.space.trials import first_point, known_points


def size_text(sweep: SweepConfig) -> str:
    """How many trials a sweep has, in words."""
    searched = len(design(sweep)) - len(sweep.baselines)
    return (
        f"{len(sweep.baselines)} baselines, {searched} searched trials, at most "
        f"{most_confirmed(sweep)} to confirm"
    )


def most_confirmed(sweep: SweepConfig) -> int:
    """Trials of the confirmation at most: all its models at every seed of the last look."""
    num_arms, num_opponents = confirmed_models(sweep)
    return (1 + num_arms * num_opponents) * sweep.confirm.looks[-1] if num_arms else 0


def most_pairs(sweep: SweepConfig) -> int:
    """Pairs of trials at most that are judged before the settings are chosen.

    Each trial meets each opponent once, and none itself. Where all trials of the reference are
    opponents, those against the first baseline were judged when the trials ended.
    """
    cells, reference = design(sweep), Arms.of(sweep).reference
    plain = [cell.arm for cell in cells].count(reference)
    number = min(sweep.search.opponents, plain)
    if number < 2 or not sweep.confirm.arms:
        return 0
    pairs = (len(cells) - number) * number + number * (number - 1) // 2
    against_first = resolve(sweep, first_point(sweep)).judge.reference == "baseline"
    return pairs - (len(cells) - 1 if against_first and number == plain else 0)


def confirmed_models(sweep: SweepConfig) -> tuple[int, int]:
    """Number of arms that are confirmed at most, and of opponents of each.

    The opponents are the reference at its own best setting and, if anything is shared, at the
    arm's. So one seed takes the reference's best, and as many models per arm as it has opponents.
    """
    confirm, arms = sweep.confirm, Arms.of(sweep)
    contrasted = {arm for pair in confirm.contrasts for arm in pair}
    num_arms = min(len(arms.values) - 1, confirm.arms + len(contrasted))
    shares = {repr(arms.shared(point)) for point in known_points(sweep)}
    return (num_arms if confirm.arms else 0), (2 if len(shares) > 1 else 1)


def most_judged(sweep: SweepConfig) -> tuple[int, int]:
    """Sets of answers that are judged at most: before the settings are chosen, and after.

    A trial is judged once when it ends. In the confirmation that is against the reference's best on
    the same seed; the pairs with its other opponent, and under `confirm.pairs: all` those of
    different seeds, come on top.
    """
    num_arms, num_opponents = confirmed_models(sweep)
    seeds = sweep.confirm.looks[-1]
    pairs = seeds**2 if sweep.confirm.pairs == "all" else seeds
    judged_at_end = most_confirmed(sweep)
    further = num_arms * (num_opponents * pairs - seeds)
    return len(design(sweep)) + most_pairs(sweep), judged_at_end + further
