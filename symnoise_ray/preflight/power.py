"""What a sweep's confirmation can tell, before anything is spent.

In: a sweep, and the folder of earlier ones. Out: a `Confirmation`: its power, the trainings and
verdicts that it takes, and what was assumed; as text, as JSON, and for design.json. Rates are
fractions; they are simulated, and right within two points for the variances assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from symnoise_ray.config import DataConfig, SweepConfig
from symnoise_ray.config.data import HELD_BACK
from symnoise_ray.preflight.row_counts import count_confirmed
from symnoise_ray.preflight.variance import measured
from symnoise_ray.space.counts import confirmed_models
from symnoise_ray.space.trials import SweepPlans, first_point
from symnoise_ray.statistics.looks import declared_looks
from symnoise_ray.statistics.power import MOST_SEEDS, TYPICAL, WANTED, Power, fewest, power
from symnoise_ray.statistics.two_way import Spread
from symnoise_ray.statistics.words import ONE_SEED, points

UNKNOWN_PROMPTS = 805
"""Assumed where the prompts are not known: as many as AlpacaEval has, before any are held back."""
_MOST_PROMPTS = 100_000
_LARGER = (1, 2, 4)
"""Numbers of prompts in the table, as multiples of this sweep's."""
_QUICK = 1000
"""Simulated confirmations where only about 80 % is sought."""


@dataclass(frozen=True)
class Confirmation:
    """A confirmation as far as its power and its costs depend on it.

    `num_units` are the groups where a verdict is about other groups, else the prompts; `spread` is
    that of a unit's score, and `source` says in words where it is from. `judge_cost` is that of one
    trial's verdicts, None where it costs nothing or is not known.
    """

    effect: float
    looks: tuple[int, ...]
    num_prompts: int
    num_units: int
    unit: str
    is_known: bool
    num_arms: int
    num_opponents: int
    num_questions: int
    calls_per_prompt: int
    pairs: str
    spread: Spread
    source: str
    judge_cost: float | None = None

    @classmethod
    def of(cls, sweep: SweepConfig, folder: Path, *, download: bool = False) -> Self:
        """The confirmation of a sweep that has one.

        Args:
            sweep: The sweep; paths are absolute.
            folder: Where earlier sweeps lie.
            download: Whether prompts of the hub are fetched to count them.

        Raises:
            DataError: the prompts are broken.
        """
        config = SweepPlans(sweep, Path()).config(first_point(sweep))
        counted = count_confirmed(config, download=download)
        by_groups = sweep.question.population == "other_groups"
        num_prompts, num_groups = counted or _assumed(config.data)
        spread = _of_groups(TYPICAL, num_prompts / num_groups) if by_groups else TYPICAL
        source = f"typical ones, since no sweep like it in {folder.name}/ has measured any"
        if found := measured(folder, config, sweep.question.population):
            spread = found.spread
            source = (
                f"measured by {', '.join(found.sweeps)} in {folder.name}/; by seed it is the upper "
                f"end of what {found.freedom + 1} seeds say"
            )
        num_arms, num_opponents = confirmed_models(sweep)
        return cls(
            effect=sweep.question.effect,
            looks=sweep.confirm.looks,
            num_prompts=num_prompts,
            num_units=num_groups if by_groups else num_prompts,
            unit="groups" if by_groups else "prompts",
            is_known=counted is not None,
            num_arms=num_arms,
            num_opponents=num_opponents,
            num_questions=num_arms + len(sweep.confirm.contrasts),
            calls_per_prompt=2 if config.judge.orders == "both" else 1,
            pairs=sweep.confirm.pairs,
            spread=spread,
            source=source,
        )

    def power(
        self,
        last: int | None = None,
        num_units: int | None = None,
        *,
        gap: float | None = None,
        num_replicates: int = 4000,
    ) -> Power:
        """The power of this design, or with another last look or number of units.

        Looks before the last one stay as declared.
        """
        last = self.looks[-1] if last is None else last
        looks = [*(look for look in self.looks if look < last), last]
        units = self.num_units if num_units is None else num_units
        if units < 2:  # one prompt, or one group, has no interval
            return Power(0.0, 0.0, float(looks[0]))
        return power(
            self.spread,
            units,
            declared_looks(looks),
            self.effect,
            gap=gap,
            num_opponents=self.num_opponents,
            num_questions=self.num_questions,
            num_replicates=num_replicates,
        )

    @cached_property
    def declared(self) -> Power:
        """The power of the design as it is declared, for a true gain of the effect."""
        return self.power()

    @property
    def num_models(self) -> int:
        """Trainings per seed: the reference's best, and per arm itself and its other opponent."""
        return 1 + self.num_arms * self.num_opponents

    @property
    def most_trainings(self) -> int:
        """Trainings if no arm stops before the last look."""
        return self.num_models * self.looks[-1]

    @property
    def most_judged(self) -> int:
        """Pairs of models that are judged if no arm stops before the last look.

        Two opponents are also judged against each other, seed by seed.
        """
        seeds = self.looks[-1]
        over_each = seeds**2 if self.pairs == "all" else seeds
        between = seeds if self.num_opponents == 2 else 0
        return self.num_arms * (self.num_opponents * over_each + between)

    @property
    def most_calls(self) -> int:
        """Verdicts if no arm stops before the last look."""
        return self.most_judged * self.num_prompts * self.calls_per_prompt

    @property
    def most_cost(self) -> float | None:
        """Their cost, if the verdicts on one trial have one."""
        if self.judge_cost is None:
            return None
        return self.judge_cost * self.most_judged

    def seeds_for_80(self) -> int | None:
        """Fewest seeds at the last look that give 80 % power on these prompts."""
        return fewest(
            lambda seeds: self.power(seeds, num_replicates=_QUICK).better >= WANTED, MOST_SEEDS
        )

    def units_for_80(self) -> int | None:
        """Fewest units that give 80 % power with the declared looks, to two digits."""
        found = fewest(
            lambda units: self.power(None, units, num_replicates=_QUICK).better >= WANTED,
            _MOST_PROMPTS,
        )
        if found is None:
            return None
        digit = int(10 ** max(0, len(str(found)) - 2))
        return math.ceil(found / digit) * digit

    def seed_counts(self) -> list[int]:
        """Numbers of seeds in the table: the first, middle and last look, and more."""
        last = self.looks[-1]
        some = {self.looks[0], self.looks[len(self.looks) // 2], last}
        return sorted(some | {math.ceil(1.5 * last), 2 * last} | ({2} if last < 2 else set()))

    def curve(self) -> list[tuple[int, list[tuple[int, float]]]]:
        """Units -> seeds -> power for a true gain of the effect."""
        return [
            (
                times * self.num_units,
                [(n, self.power(n, times * self.num_units).better) for n in self.seed_counts()],
            )
            for times in _LARGER
        ]


def _assumed(data: DataConfig) -> tuple[int, int]:
    """Prompts of the confirmation where they do not lie here, each a group of its own."""
    kept = data.confirm_share if data.confirm_prompts == HELD_BACK else 1.0
    count = round(kept * UNKNOWN_PROMPTS)
    return count, count


def _of_groups(spread: Spread, prompts_per_group: float) -> Spread:
    """The spread of a group's mean from that of a score.

    Half of what a prompt contributes is taken to be its group's: the design effect of six prompts
    on a topic is then 1.4, and 1.4 to 1.8 were measured.
    """
    own = spread.prompts / 2
    return Spread(
        spread.prompts - own + own / prompts_per_group,
        spread.seeds,
        spread.rest / prompts_per_group,
    )


def declaration(found: Confirmation) -> dict[str, Any]:
    """Plain values for design.json: the power of the design, its cost, and what was assumed."""
    return {
        "effect": found.effect,
        f"num_{found.unit}": found.num_units,
        "num_prompts": found.num_prompts,
        "prompts_known": found.is_known,
        "power": found.declared.better,
        "mean_seeds": found.declared.mean_seeds,
        "models_per_seed": found.num_models,
        "trainings_expected": found.declared.mean_seeds * found.num_models,
        "trainings_most": found.most_trainings,
        "assumed": {
            **{f"spread_{name}": value for name, value in found.spread._asdict().items()},
            "from": found.source,
        },
    }


def to_json(found: Confirmation) -> dict[str, Any]:
    """All of it as plain values."""
    return {
        **declaration(found),
        "looks": list(found.looks),
        "curve": [
            {found.unit: units, "seeds": seeds, "power": rate}
            for units, row in found.curve()
            for seeds, rate in row
        ],
        "seeds_for_80": found.seeds_for_80(),
        f"{found.unit}_for_80": found.units_for_80(),
        "judge_calls_most": found.most_calls,
        "judge_cost_most": found.most_cost,
    }


def as_lines(found: Confirmation) -> Iterator[str]:
    """All of it in words, for people."""
    yield f"chance that a true gain of {points(found.effect)} is found, by seeds at the last look:"
    curve = found.curve()
    names = [f"{units:,} {found.unit}" for units, _ in curve]
    wide = max(map(len, names))
    yield f"  {'seeds':>{wide}}{''.join(f'{seeds:8}' for seeds in found.seed_counts())}"
    for name, (_, row) in zip(names, curve, strict=True):
        yield f"  {name:>{wide}}{''.join(f'{_percent(rate):>8}' for _, rate in row)}"
    looks = ", ".join(map(str, found.looks))
    yield f"this design (looks at {looks}): {_percent(found.declared.better)}; {_for_80(found)}"
    mean = found.declared.mean_seeds
    yield (
        f"trainings: about {mean * found.num_models:.0f} expected, {found.most_trainings} at most "
        f"({found.num_models} models, {mean:.1f} seeds on average until it is decided or futile)"
    )
    cost = "" if found.most_cost is None else f", at most about {found.most_cost:.2f} in money"
    yield f"judge: at most {found.most_calls:,} verdicts{cost}"
    by_prompt, by_seed, rest = (f"{100 * math.sqrt(part):.3g}" for part in found.spread)
    yield (
        f"assumed: scores differ by {by_prompt} points by {found.unit[:-1]}, {by_seed} by seed, "
        f"{rest} otherwise ({found.source})"
    )
    if not found.is_known:
        yield f"not known: the prompts, which do not lie here; {found.num_prompts} are assumed"
    if found.pairs == "all":
        yield "note: computed for confirm.pairs=same; judging all pairs finds no less"
    if found.looks[-1] == 1:
        yield f"note: {ONE_SEED}"


def _for_80(found: Confirmation) -> str:
    """What gives 80 % power, in words."""
    seeds, units, last = found.seeds_for_80(), found.units_for_80(), found.looks[-1]
    ways = [
        f"{seeds} seeds on these {found.unit}" if seeds else "",
        f"{units:,} {found.unit} at {last} seed{'' if last == 1 else 's'}" if units else "",
    ]
    if not any(ways):
        return f"80 % takes both more seeds and more {found.unit}"
    return f"80 % takes about {' or '.join(filter(None, ways))}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"
