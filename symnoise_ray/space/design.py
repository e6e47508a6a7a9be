"""The design of a search: which arm each trial belongs to, and what all arms share.

In: a `SweepConfig`. Out: its arms, and one `Cell` per trial of the search, baselines first. Every
arm meets the same values of the shared parameters equally often, since an arm that was tuned with
more care than its opponent would look better than it is. Trials come in blocks: one trial of every
arm at the same shared values and the same training seed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from symnoise_ray.config import Parameter, SweepConfig, TrainConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.space.parameters import Params, Space, flat, resolve
from symnoise_ray.space.spread import draws_of, value_at

NUM_STARTUP = 10
"""Blocks that an adaptive sampler is given before it proposes; Optuna's own number."""
ADAPTIVE = ("tpe", "gp")
FRESH_SEED = 1000
"""Distance of the first confirmation's seeds from the search's."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Cell:
    """A trial's place: its arm, its block (from 0), and its point; None if a sampler chooses it."""

    arm: Any
    block: int
    point: Params | None


@dataclass(frozen=True)
class Arms:
    """The values of the treatment, the reference first, and which parameters belong to it.

    `searched` are those that the search draws trials for: all of them before a confirmation, which
    needs them tuned alike, else those of the space. `own` are the parameters that only some arms
    have, because a condition names the treatment or the trial refuses them elsewhere.
    """

    treatment: str
    reference: Any
    values: tuple[Any, ...]
    searched: tuple[Any, ...]
    own: frozenset[str]

    @classmethod
    def of(cls, sweep: SweepConfig) -> Arms:
        """The arms of a sweep: the treatment's choices, and what baselines add to them."""
        question = sweep.question
        parameter = sweep.parameters.get(question.treatment)
        found = list(parameter.choices or ()) if parameter else []
        if parameter is None and sweep.parameters:
            found = [fixed_value(sweep, question.treatment)]
        searched = list(found)
        for point in sweep.baselines:
            value = treatment_of(sweep, point)
            if value not in found:
                found.append(value)
        if not found:
            found = [treatment_of(sweep, {})]
        if sweep.confirm.arms:
            searched = found
        for values in (found, searched):
            values.sort(key=lambda value: value != question.reference)
        reference = next(
            (value for value in found if value == question.reference), question.reference
        )
        own = _conditional_on(question.treatment, sweep.parameters) | _of_some_baselines(sweep)
        return cls(question.treatment, reference, tuple(found), tuple(searched), frozenset(own))

    def name(self, value: Any) -> str:
        """A word for an arm, fit for names of files and runs: `symnoise`, `rank-8`."""
        word = _UNSAFE.sub("_", str(value)).strip("_") or "empty"
        if self.treatment == "noise.type":
            return word
        return f"{self.treatment.split('.')[-1]}-{word}"

    def shared(self, point: Params) -> Params:
        """What of a point belongs to no single arm."""
        return {k: v for k, v in point.items() if k != self.treatment and k not in self.own}


def treatment_of(sweep: SweepConfig, point: Params) -> Any:
    """The treatment's value of a point, whether it says so or leaves it to the trial."""
    name = sweep.question.treatment
    value = point[name] if name in point else flat(resolve(sweep, point)).get(name)
    parameter = sweep.parameters.get(name)
    # A baseline may say 5.0 where the space says 5.
    return next((c for c in (parameter and parameter.choices) or () if c == value), value)


def fixed_value(sweep: SweepConfig, name: str) -> Any:
    """The value of a setting that the space does not vary."""
    section, _, key = name.partition(".")
    given = sweep.trial.get(section)
    if isinstance(given, dict) and key in given:
        return given[key]
    return flat(TrialConfig()).get(name)


def first_seed(sweep: SweepConfig, treatment: str, arm: Any) -> int:
    """The training seed that an arm's further seeds are counted from.

    All arms share it, whatever seeds the search varied. Where the seed is the treatment, each arm
    has its own: so a setting can meet itself.
    """
    seed = arm if treatment == "train.seed" else fixed_value(sweep, "train.seed")
    return TrainConfig(seed=seed).seed


def _conditional_on(treatment: str, parameters: dict[str, Parameter]) -> set[str]:
    """Parameters whose conditions lead to the treatment, directly or not."""
    found = {treatment}
    while more := {n for n, p in parameters.items() if set(p.when) & found} - found:
        found |= more
    return found - {treatment}


def _of_some_baselines(sweep: SweepConfig) -> set[str]:
    """Settings of baselines that other baselines cannot have, such as the alpha of no noise."""
    found = set()
    for point in sweep.baselines:
        for name in set(point) - {sweep.question.treatment, *sweep.parameters}:
            for other in sweep.baselines:
                try:
                    resolve(sweep, {name: point[name], **other})
                except UserError:
                    found.add(name)
    return found


def design(sweep: SweepConfig) -> list[Cell]:
    """The cells of all trials of the search by their number; the baselines are the first.

    A longer search begins with the cells of a shorter one. With a confirmation, the design is
    balanced: every arm has as many trials as the others, baselines among them.

    Raises:
        UserError: it cannot be balanced; the message says what can.
    """
    arms = Arms.of(sweep)
    cells = _baseline_cells(sweep, arms)
    if sweep.search.sampler == "grid":
        cells += _grid_cells(sweep, arms, cells)
    else:
        cells += _drawn_cells(sweep, arms, cells)
    if sweep.confirm.arms:
        _require_balance(sweep, arms, cells)
    return cells


def _baseline_cells(sweep: SweepConfig, arms: Arms) -> list[Cell]:
    """A baseline opens a block with its shared values, or joins one that lacks its arm."""
    blocks: list[tuple[Params, set[str]]] = []
    cells = []
    for point in sweep.baselines:
        value, shared = treatment_of(sweep, point), arms.shared(point)
        joins = (
            n for n, (known, has) in enumerate(blocks) if known == shared and repr(value) not in has
        )
        number = next(joins, len(blocks))
        if number == len(blocks):
            blocks.append((shared, set()))
        blocks[number][1].add(repr(value))
        cells.append(Cell(value, number, dict(point)))
    return cells


def _grid_cells(sweep: SweepConfig, arms: Arms, baselines: Sequence[Cell]) -> list[Cell]:
    """Every combination once; an arm with fewer repeats its own in further blocks.

    An arm that has one setting alone has nothing to be tuned, so it is not repeated.
    """
    given = [cell.point for cell in baselines]
    points = [p for p in Space(sweep.parameters).grid() if p not in given]
    listed: dict[str, list[Params]] = {repr(value): [] for value in arms.values}
    known = {key: [c.point for c in baselines if repr(c.arm) == key] for key in listed}
    for point in points:
        listed[repr(treatment_of(sweep, point))].append(point)
    sizes = {key: len(listed[key]) + len(known[key]) for key in listed}
    most = max(sizes.values())
    if sweep.confirm.arms:
        for key, size in sizes.items():
            if size > 1 and most % size == 0:
                own = [*(p for p in known[key] if p is not None), *listed[key]]
                listed[key] += own * (most // size - 1)
    blocks = {key: len(known[key]) for key in listed}
    cells = [
        Cell(value, blocks[repr(value)] + number, listed[repr(value)][number])
        for number in range(max(map(len, listed.values())))
        for value in arms.values
        if number < len(listed[repr(value)])
    ]
    wanted = sweep.search.num_trials
    return cells if wanted is None else cells[:wanted]


def _drawn_cells(sweep: SweepConfig, arms: Arms, baselines: Sequence[Cell]) -> list[Cell]:
    """Blocks that baselines opened are completed; then come new ones, until there are enough.

    Without a confirmation nothing has to be completed, and every point is drawn from the space.
    """
    wanted = sweep.search.num_trials or 0
    opened = max((cell.block for cell in baselines), default=-1) + 1
    present = {(repr(cell.arm), cell.block) for cell in baselines}
    shared = {cell.block: arms.shared(cell.point or {}) for cell in baselines}
    num_blocks = opened + math.ceil(wanted / max(1, len(arms.searched)))
    draws = draws_of(sweep, num_blocks, {arms.treatment, *arms.own})
    cells: list[Cell] = []
    for block in range(num_blocks):
        for value in arms.searched:
            if (repr(value), block) in present:
                continue
            adaptive = block >= max(opened, NUM_STARTUP) and sweep.search.sampler in ADAPTIVE
            point = None if adaptive else _point(sweep, arms, value, draws[block])
            if block in shared and point is not None and sweep.confirm.arms:
                # What a baseline leaves to the trial, all arms leave to it.
                own = {k: v for k, v in point.items() if k in (arms.treatment, *arms.own)}
                point = {**own, **shared[block]}
            cells.append(Cell(value, block, point))
    return cells[:wanted]


def _point(sweep: SweepConfig, arms: Arms, value: Any, draw: dict[str, float]) -> Params:
    space = Space(sweep.parameters)
    point: Params = {arms.treatment: value} if arms.treatment in space.parameters else {}
    for name in space.ordered():
        if name != arms.treatment and space.active(name, point):
            point[name] = value_at(name, space.parameters[name], draw[name])
    return point


def _require_balance(sweep: SweepConfig, arms: Arms, cells: Sequence[Cell]) -> None:
    counts = {repr(value): 0 for value in arms.values}
    settings: dict[str, set[str]] = {key: set() for key in counts}
    for cell in cells:
        counts[repr(cell.arm)] += 1
        settings[repr(cell.arm)].add(repr(cell.point) if cell.point else repr(cell))
    tuned = [
        key
        for key in counts
        if (sweep.search.sampler != "grid" and sweep.parameters) or len(settings[key]) > 1
    ]
    if len({counts[key] for key in tuned} | ({0} & set(counts.values()))) > 1:
        _refuse(sweep, arms, counts)
    if opened := _unmet(cells, arms):
        advice = "give every arm such a baseline"
        if sweep.search.sampler == "grid" and sweep.search.num_trials is not None:
            advice = "leave search.num_trials out"
        elif sweep.search.sampler != "grid" and sweep.parameters:
            advice = f"raise search.num_trials by {len(arms.values)}, or {advice}"
        raise UserError(
            f"baselines: every arm must meet the same values of the shared parameters, but "
            f"{opened}; {advice}"
        )


def _refuse(sweep: SweepConfig, arms: Arms, counts: dict[str, int]) -> None:
    listed = ", ".join(f"{arms.name(v)} {counts[repr(v)]}" for v in arms.values)
    total, number = sum(counts.values()), len(arms.values)
    baselines = len(sweep.baselines)
    fitting = sorted(
        {n * number - baselines for n in range(1, total + 2) if n * number >= baselines},
        key=lambda n: abs(n - (total - baselines)),
    )
    advice = (
        "leave search.num_trials out"
        if sweep.search.sampler == "grid" and sweep.search.num_trials is not None
        else "give every arm as many combinations as the others, or one alone"
        if sweep.search.sampler == "grid"
        else f"take search.num_trials={' or '.join(map(str, sorted(fitting[:2])))}"
        if sweep.parameters
        else "list as many baselines for each"
    )
    raise UserError(
        f"search: every arm must be tuned with the same number of trials, baselines among them, so "
        f"that the verdict is not one about the tuning, but the trials are {listed}; {advice}"
    )


def _unmet(cells: Sequence[Cell], arms: Arms) -> str:
    """The first shared values that some arm does not meet, in words; empty if there are none."""
    met: dict[str, set[str]] = {}
    for cell in cells:
        if cell.point is not None:
            shared = arms.shared(cell.point)
            met.setdefault(repr(sorted(shared.items())), set()).add(repr(cell.arm))
    for key, present in met.items():
        missing = [arms.name(value) for value in arms.values if repr(value) not in present]
        if missing:
            return f"{', '.join(missing)} does not meet {key}"
    return ""


def reference_baseline(sweep: SweepConfig) -> int | None:
    """Index of the baseline that the search's trials are judged against: the reference's first."""
    for index, point in enumerate(sweep.baselines):
        if treatment_of(sweep, point) == sweep.question.reference:
            return index
    return None


def search_size(sweep: SweepConfig) -> int:
    """Number of trials beside the baselines."""
    return len(design(sweep)) - len(sweep.baselines)
