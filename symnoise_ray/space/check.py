"""Everything about a search space that is checked before anything starts.

In: a `SweepConfig` and the document it was read from. Out: nothing, or one error that names the
place and the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from symnoise_ray.config import SweepConfig
from symnoise_ray.config.faults import KeyPath, nearest
from symnoise_ray.config.loading import OVERRIDE, Document
from symnoise_ray.errors import UserError
from symnoise_ray.space.design import (
    FRESH_SEED,
    Arms,
    Cell,
    design,
    first_seed,
    reference_baseline,
    treatment_of,
)
from symnoise_ray.space.parameters import Params, Space, corners, in_range, leaf_paths, resolve

Fault = Callable[[KeyPath, str], UserError]
"""Makes the error about a place of the space, as `Document.fault` does."""

_SEEDS = 2**32
"""Seeds are below it, as `train.seed` says."""


def check_sweep(sweep: SweepConfig, document: Document | None = None) -> None:
    """Resolve every baseline and the ends of every range before anything starts.

    Raises:
        UserError: an unknown or doubly given key, a value the trial refuses, a condition that can
            never hold, or a sweep without the trial that its judge compares with.
    """
    known = list(leaf_paths())
    document = document or Document({}, {}, sweep.name)
    where, fault = document.where, document.fault
    for section, settings in sweep.trial.items():
        for key in settings if isinstance(settings, dict) else ():
            _check_known(f"{section}.{key}", known, fault, ("trial", section, key))
        if not isinstance(settings, dict):
            _check_section(section, settings, known, fault)
    for name, parameter in sweep.parameters.items():
        _check_known(name, known, fault, ("parameters", name))
        _check_same_judge(name, fault, ("parameters", name))
        _check_not_fixed(name, sweep.trial, document)
        for parent, values in parameter.when.items():
            _check_condition(name, parent, values, sweep, fault)
    for index, baseline in enumerate(sweep.baselines):
        for name in baseline:
            _check_known(name, known, fault, ("baselines", index, name))
            _check_same_judge(name, fault, ("baselines", index, name))
        resolve(sweep, baseline, document, where(("baselines", index)))
    _check_cost_is_measured(sweep, fault)
    for point in corners(Space(sweep.parameters)):
        resolve(sweep, point, document, where(("parameters",)))
    _check_counts(sweep, fault)
    _check_question(sweep, known, fault)
    _check_reference(sweep, document)
    cells = design(sweep)
    points = [cell.point for cell in cells if cell.point is not None]
    for point in (*corners(_searched(sweep)), *points):
        resolve(sweep, point, document, where(("parameters",)))
    _check_seeds(sweep, cells, fault)
    _check_budget(sweep, len(cells), fault)


def _searched(sweep: SweepConfig) -> Space:
    """The space with every arm that is searched, since a baseline may add one."""
    arms = Arms.of(sweep)
    parameters = dict(sweep.parameters)
    if arms.treatment in parameters:
        parameters[arms.treatment] = parameters[arms.treatment].model_copy(
            update={"choices": arms.searched}
        )
    return Space(parameters)


def _check_known(name: str, known: list[str], fault: Fault, path: KeyPath) -> None:
    if name not in known:
        raise fault(path, f"'{name}' is not a trial setting.{nearest(name, known)}")


def _check_section(name: str, value: Any, known: list[str], fault: Fault) -> None:
    """A value where `trial` wants a section: a dotted key, or settings that were left out."""
    if name in known:
        section, _, key = name.partition(".")
        raise fault(
            ("trial", name),
            f"under `trial` a dotted key has no place, but got '{name}'; write "
            f"`{section}: {{{key}: ...}}`",
        )
    sections = sorted({each.partition(".")[0] for each in known})
    if name not in sections:
        raise fault(("trial", name), f"'{name}' is not a section.{nearest(name, sections)}")
    if value is None:
        raise fault(
            ("trial", name), f"{name}: must hold settings, but is empty; give some or leave it out"
        )


def _check_same_judge(name: str, fault: Fault, path: KeyPath) -> None:
    if name.startswith("judge."):
        raise fault(
            path,
            "all trials of a sweep must have the same judge, so that their win rates "
            f"mean the same, but '{name}' differs between them; set it under `trial`",
        )


def _check_cost_is_measured(sweep: SweepConfig, fault: Fault) -> None:
    """The cost of a step is measured, since one number cannot hold for every noise type."""
    name = "train.step_cost"
    given: list[KeyPath] = [
        ("baselines", number, name) for number, point in enumerate(sweep.baselines) if name in point
    ]
    if name in sweep.parameters:
        given.append(("parameters", name))
    if (sweep.trial.get("train") or {}).get("step_cost") is not None:
        given.append(("trial", "train", "step_cost"))
    if given:
        raise fault(
            given[0],
            f"{name} must be left out: a sweep measures it for every kind of noise; it is for "
            "single trials",
        )


def _check_not_fixed(name: str, trial: Params, document: Document) -> None:
    section, _, key = name.partition(".")
    settings = trial.get(section)
    if isinstance(settings, dict) and key in settings:
        fixed = document.places.get(("trial", section, key), "")
        path: KeyPath = ("parameters", name)
        raise document.fault(
            ("trial", section, key) if fixed.startswith(OVERRIDE) else path,
            f"'{name}' is varied by `parameters` and held fixed by `trial` or an "
            "override; remove one of the two",
        )


def _check_condition(
    name: str, parent: str, values: tuple[Any, ...], sweep: SweepConfig, fault: Fault
) -> None:
    other, path = sweep.parameters.get(parent), ("parameters", name, "when")
    if parent == name:
        raise fault(path, f"the condition of '{name}' names '{name}' itself; name another one")
    if other is None:
        raise fault(
            path,
            f"the condition of '{name}' names '{parent}', which is not varied."
            f"{nearest(parent, list(sweep.parameters))}",
        )
    if not values:
        raise fault(path, f"the condition of '{name}' lists no value of '{parent}'")
    for value in values:
        if not in_range(other, value):
            raise fault(path, f"'{parent}' never takes the value {value!r}")


def _check_counts(sweep: SweepConfig, fault: Fault) -> None:
    search = sweep.search
    if search.sampler == "grid":
        Space(sweep.parameters).grid()
    elif search.num_trials is None:
        raise fault(("search",), f"search.num_trials must be given for sampler {search.sampler}")
    if not sweep.parameters and search.num_trials:
        raise fault(
            ("search",),
            f"search.num_trials={search.num_trials} needs `parameters`; "
            "without any, list the trials under `baselines` and set it to 0",
        )
    if not sweep.baselines and not sweep.parameters:
        raise fault((), "a sweep needs `parameters` or `baselines`")


def _check_question(sweep: SweepConfig, known: list[str], fault: Fault) -> None:
    question, path = sweep.question, ("question",)
    varied = sweep.parameters.get(question.treatment)
    if varied and varied.when:
        raise fault(
            path,
            f"question.treatment={question.treatment} must be varied in all trials, since "
            "every arm meets the same values of the others, but has a condition under `when`",
        )
    if "question" not in sweep.model_fields_set and not sweep.confirm.arms:
        return
    treatment = question.treatment
    _check_known(treatment, known, fault, (*path, "treatment"))
    parameter = sweep.parameters.get(treatment)
    if parameter is None and sweep.parameters:
        raise fault(
            path,
            f"question.treatment={treatment} must be a categorical parameter of the "
            f"space, so that its values are tuned alike, but `parameters` has only "
            f"{', '.join(sweep.parameters)}",
        )
    if parameter is not None and parameter.type != "categorical":
        raise fault(
            path,
            f"question.treatment={treatment} must be categorical, but is "
            f"{parameter.type}; list its values under `choices`",
        )
    arms = Arms.of(sweep)
    listed = ", ".join(map(str, arms.values))
    if question.reference not in arms.values:
        raise fault(
            path,
            f"question.reference={question.reference} must be a value of {treatment}, "
            f"which takes {listed}",
        )
    if sweep.confirm.arms and len(arms.values) < 2:
        raise fault(
            path,
            f"{treatment} must take two values at least, one to be compared with "
            f"{question.reference}, but takes only {listed}",
        )
    _check_contrasts(sweep, arms, fault)
    names = list(map(arms.name, arms.values))
    if len(set(names)) < len(names):
        raise fault(
            path,
            f"the values of {treatment} must differ in letters, digits, dots or hyphens, "
            f"since they name files, but are {listed}",
        )


def _check_contrasts(sweep: SweepConfig, arms: Arms, fault: Fault) -> None:
    """Another arm would be left out without a word, and so would the reference."""
    known = [arms.name(value) for value in arms.values if value != arms.reference]
    for name in (name for pair in sweep.confirm.contrasts for name in pair):
        if name not in known:
            raise fault(
                ("confirm", "contrasts"),
                f"confirm.contrasts must name arms that are compared with {arms.reference}, which "
                f"are {', '.join(known)}, but got {name}; take another, or make it a value of "
                "noise.type",
            )


def _check_seeds(sweep: SweepConfig, cells: Sequence[Cell], fault: Fault) -> None:
    """The seeds that are counted from the trial's must be seeds too, to the last look's."""
    arms, blocks = Arms.of(sweep), [cell.block for cell in cells]
    further = max(blocks, default=0)
    if sweep.confirm.arms:
        further = max(further, FRESH_SEED + sweep.confirm.looks[-1] - 1)
    seed = max(first_seed(sweep, arms.treatment, value) for value in arms.values)
    if seed + further >= _SEEDS:
        is_arm = arms.treatment == "train.seed" and "train.seed" in sweep.parameters
        raise fault(
            ("parameters", "train.seed") if is_arm else ("trial", "train", "seed"),
            f"train.seed must be {_SEEDS - 1 - further} at most, since the sweep's trials count up "
            f"to {further} on from it and a seed must be below 2**32, but is {seed}",
        )


def _check_budget(sweep: SweepConfig, num_searched: int, fault: Fault) -> None:
    """One trial of every arm and the first look must be within the number of trials."""
    if sweep.budget.trials is None or not sweep.confirm.arms:
        return
    num_arms, first = len(Arms.of(sweep).values), sweep.confirm.looks[0]
    confirmed = first * (1 + 2 * min(sweep.confirm.arms, num_arms - 1))
    least = min(num_searched, num_arms) + confirmed
    if sweep.budget.trials < least:
        raise fault(
            ("budget",),
            f"budget.trials must be at least {least}, one trial of each arm and the "
            f"{confirmed} trainings of the first look, but is {sweep.budget.trials}",
        )


def _check_reference(sweep: SweepConfig, document: Document) -> None:
    configs = [resolve(sweep, point, document) for point in sweep.baselines]
    judged = configs or [resolve(sweep, next(corners(Space(sweep.parameters))), document)]
    judges_baseline = judged[0].judge.reference == "baseline"
    if (judges_baseline or sweep.confirm.arms) and reference_baseline(sweep) is None:
        question = sweep.question
        found = [treatment_of(sweep, point) for point in sweep.baselines]
        need = (
            "judge.reference=baseline" if judges_baseline else f"confirm.arms={sweep.confirm.arms}"
        )
        raise document.fault(
            ("baselines",),
            f"{need} needs a baseline with {question.treatment}: {question.reference}, "
            f"but got {len(found)} baselines without one",
        )
