"""What a sweep decided, as results.json holds it: choices, comparisons, decisions, verdict.

In: the statistics of a confirmation, or results.json. Out: frozen types. Rates are fractions. A
field that an older file lacks has its default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any, Self

BETTER, WORSE = "better", "worse"
Interval = tuple[float, float]


def as_interval(ends: Any) -> Interval | None:
    """Both ends as JSON holds them."""
    return (ends[0], ends[1]) if ends else None


@dataclass(frozen=True)
class Candidate:
    """A trial of the search as its arm's choice sees it.

    `win_rate` and its `standard_error` are measured, `fitted` and `band` (one standard deviation)
    are the fit's; both are None where there was no fit.
    """

    trial: str
    label: str
    win_rate: float
    standard_error: float
    fitted: float | None = None
    band: float | None = None

    @property
    def rate(self) -> float:
        """The win rate, as fitted where there is a fit."""
        return self.win_rate if self.fitted is None else self.fitted


@dataclass(frozen=True)
class Choice:
    """How an arm's setting was chosen: by a smooth fit (`fit`) or by the largest win rate (`raw`).

    `flattered` is by how much the largest measured win rate exceeds the fit there. Of the
    `num_settings` that were tried, those that stopped early or failed are no candidates. A setting
    between those that were tried has no `trial`, and its `fitted` win rate. `opponents` are the
    trials of the reference that the win rates are over (none: the sweep's own opponent), `remark`
    says why they are fewer than wanted. `note` says why the arm gets no verdict.
    """

    arm: str
    trial: str
    params: Mapping[str, Any]
    method: str
    candidates: tuple[Candidate, ...]
    flattered: float | None = None
    num_settings: int = 0
    note: str = ""
    fitted: float | None = None
    opponents: tuple[str, ...] = ()
    remark: str = ""

    @property
    def win_rate(self) -> float:
        """The chosen setting's win rate, as fitted where there is a fit."""
        if self.fitted is not None:
            return self.fitted
        chosen = next(each for each in self.candidates if each.trial == self.trial)
        return chosen.rate

    @property
    def rank_rate(self) -> float:
        """The mean over the better three quarters of its trials, by which arms are ranked.

        All arms meet the same shared values, so their means differ by the arms alone, and are far
        surer than the win rate at any one setting; the worst quarter says little of the best. In
        benchmarks/verdict.py this finds the best of four arms in 8 of 10 sweeps.
        """
        rates = sorted((each.rate for each in self.candidates), reverse=True)
        return fmean(rates[: math.ceil(0.75 * len(rates))])

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read one choice of results.json."""
        known = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        known["candidates"] = tuple(Candidate(**each) for each in known["candidates"])
        known["opponents"] = tuple(known.get("opponents") or ())
        return cls(**known)


@dataclass(frozen=True)
class Comparison:
    """An arm against one opponent, over fresh prompts and seeds, or two models over prompts.

    `opponent` is `best` (the reference at its own best setting), `shared` (the reference at the
    arm's shared settings) or empty, `against` that setting in words. The interval has the
    confidence `confidence`, which is above 95 % where looks and further comparisons share the
    level of 5 %; it leaves one half exactly where there is a difference. The length-controlled win
    rate is None if no lengths were given, or if there are too few wins for it.

    With `over`, another arm, this is a contrast: the win rates of both over the reference are
    compared with each other, and `win_rate` is one half plus half their difference. `label` is the
    arm's setting in words. `prompts_needed` is given for fixed models only. `spread_prompts`,
    `spread_seeds` and `spread_rest` are the estimated variance components of one score, of a group
    where groups are the units: by prompt, by seed, and the rest. Of the `num_seeds` trainings of
    either side, `num_pairs` pairs were judged: those of equal seeds, or all.
    """

    arm: str
    win_rate: float
    interval_95: Interval
    p_value: float
    p_holm: float
    num_prompts: int
    num_seeds: int
    verdict: str
    confidence: float = 0.95
    num_groups: int = 0
    num_pairs: int = 0
    prompts_needed: int | None = None
    length_controlled_win_rate: float | None = None
    length_controlled_interval_95: Interval | None = None
    opponent: str = ""
    against: str = ""
    over: str = ""
    label: str = ""
    spread_prompts: float | None = None
    spread_seeds: float | None = None
    spread_rest: float | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read one comparison of results.json."""
        known = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        for name in ("interval_95", "length_controlled_interval_95"):
            known[name] = as_interval(known.get(name))
        return cls(**known)


@dataclass(frozen=True)
class Decision:
    """What the sweep says about one arm, or about two arms against each other (`over`).

    `verdict` is `better`, `worse`, `no difference` (the effect is excluded on both sides) or
    `cannot tell yet`; it needs every comparison. `stopped` says why no further seed was added:
    `decided`, `futile`, `last look`, `failed` or `budget`. `num_settings` were tried for the arm
    and `num_reference_settings` for the reference; of `num_trained` confirmed trainings, both sides
    together, `num_failed` came to no end. `withheld` is the reason why the verdict of the numbers
    is not given. `seeds_needed`, in all, would tell a gap of the effect with 80 % power; None where
    the verdict is given or no number of seeds would do.
    """

    arm: str
    verdict: str
    comparisons: tuple[Comparison, ...]
    over: str = ""
    label: str = ""
    num_seeds: int = 0
    looks: tuple[int, ...] = ()
    stopped: str = ""
    num_settings: int = 0
    num_reference_settings: int = 0
    num_trained: int = 0
    num_failed: int = 0
    withheld: str = ""
    seeds_needed: int | None = None

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict != "cannot tell yet"

    @property
    def trainings_needed(self) -> int | None:
        """Trainings of a sweep with `seeds_needed`; None where no number of seeds is given.

        A seed takes the arm, and the reference at every setting that it is compared with; of a
        contrast both arms and the reference.
        """
        if self.seeds_needed is None:
            return None
        return self.seeds_needed * (3 if self.over else 1 + len(self.comparisons))

    def excludes(self, effect: float) -> tuple[bool, bool]:
        """Whether all intervals exclude a gain, and a loss, of the effect or more."""
        distance = effect / 2 if self.over else effect
        ends = [each.interval_95 for each in self.comparisons]
        return (
            bool(ends) and all(high < 0.5 + distance for _, high in ends),
            bool(ends) and all(low > 0.5 - distance for low, _ in ends),
        )

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read one decision of results.json."""
        known = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        known["comparisons"] = tuple(map(Comparison.from_json, known["comparisons"]))
        known["looks"] = tuple(known.get("looks") or ())
        return cls(**known)


@dataclass(frozen=True)
class Verdict:
    """What a sweep says at its end; `looks` counts its verdicts, one more for each growth.

    `treatment` is what was compared, `reference` the arm it was compared with, `effect` the
    smallest difference in win rate that matters.
    """

    sentence: str = ""
    looks: int = 1
    decisions: tuple[Decision, ...] = ()
    treatment: str = "noise.type"
    reference: str = "none"
    effect: float = 0.03
    population: str = "these_groups"

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons that the decisions rest on."""
        return tuple(each for decision in self.decisions for each in decision.comparisons)

    def best(self, *, undecided: bool = False) -> Decision | None:
        """The arm that was found better; of several the one with the most wins.

        Where there is none, with `undecided` that of the confirmed arms that were not found worse,
        else None.
        """
        own = [each for each in self.decisions if each.comparisons and not each.over]
        found = [each for each in own if each.verdict == BETTER]
        if not found and undecided:
            found = [each for each in own if each.verdict != WORSE]
        return max(found, key=lambda each: each.comparisons[0].win_rate, default=None)

    @property
    def is_decided(self) -> bool:
        """Whether every arm that was confirmed has a verdict."""
        return bool(self.decisions) and all(each.is_decided for each in self.decisions)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read the verdict of results.json; one of an earlier version has bare comparisons."""
        known = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        known["sentence"] = known.get("sentence") or ""
        rows = known.get("decisions")
        if rows is None:
            rows = [{**row, "comparisons": [row]} for row in content.get("comparisons") or ()]
        known["decisions"] = tuple(map(Decision.from_json, rows))
        return cls(**known)
