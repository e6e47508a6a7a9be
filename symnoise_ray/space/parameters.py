"""The `parameters:` block: every key checked against the trial, and sampled through Optuna.

In: a `SweepConfig`. Out: resolved `TrialConfig`s and a picklable define-by-run `Space`.
Optuna's own `suggest_*` calls are used, so bounds, steps and logarithms are exactly Optuna's.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from symnoise_ray.config import Parameter, SweepConfig, TrialConfig
from symnoise_ray.config.loading import Document, build, nearest, put
from symnoise_ray.errors import UserError
from symnoise_ray.noise.types import adds_noise

Params = dict[str, Any]


class Suggesting(Protocol):
    """The part of `optuna.Trial` that a space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """Sample a float; both ends are inclusive."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Sample an integer; both ends are inclusive."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """Sample one of the choices."""


@dataclass(frozen=True)
class Space:
    """A define-by-run search space; calling it samples the parameters whose conditions hold.

    Parents of conditions are sampled first. Picklable, since Tune's searcher is saved to disk.
    """

    parameters: Mapping[str, Parameter]

    def __call__(self, trial: Suggesting) -> None:
        """Sample one point into an Optuna trial."""
        point: Params = {}
        for name in self.ordered():
            if self.active(name, point):
                point[name] = _suggest(trial, name, self.parameters[name])

    def ordered(self) -> list[str]:
        """Names with every parent before its children.

        Raises:
            UserError: conditions form a circle.
        """
        order: list[str] = []
        waiting = list(self.parameters)
        while waiting:
            ready = [n for n in waiting if set(self.parameters[n].when) <= set(order)]
            if not ready:
                raise UserError(f"parameters: the conditions of {', '.join(waiting)} form a circle")
            order += ready
            waiting = [n for n in waiting if n not in ready]
        return order

    def active(self, name: str, point: Params) -> bool:
        """Whether a parameter's conditions hold at a partly sampled point."""
        conditions = self.parameters[name].when.items()
        return all(parent in point and point[parent] in values for parent, values in conditions)

    def grid(self) -> list[Params]:
        """Every combination once; parameters whose condition does not hold are left out."""
        points: list[Params] = [{}]
        for name in self.ordered():
            values = _grid_values(name, self.parameters[name])
            points = [
                {**point, name: value} if self.active(name, point) else point
                for point in points
                for value in (values if self.active(name, point) else values[:1])
            ]
        return points

    def contains(self, point: Params) -> bool:
        """Whether Optuna could have sampled this point."""
        wanted = {name for name in self.parameters if self.active(name, point)}
        return wanted == set(point) and all(
            _in_range(self.parameters[name], value) for name, value in point.items()
        )


def _suggest(trial: Suggesting, name: str, parameter: Parameter) -> Any:
    if parameter.type == "categorical":
        return trial.suggest_categorical(name, list(parameter.choices or ()))
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.type == "int":
        step = int(parameter.step or 1)
        low, high = int(parameter.low), int(parameter.high)
        return trial.suggest_int(name, low, high, step=step, log=parameter.log)
    return trial.suggest_float(
        name, parameter.low, parameter.high, step=parameter.step, log=parameter.log
    )


def _grid_values(name: str, parameter: Parameter) -> list[Any]:
    if parameter.type == "categorical":
        return list(parameter.choices or ())
    assert parameter.low is not None
    assert parameter.high is not None
    step = parameter.step or (1 if parameter.type == "int" else None)
    if step is None:
        raise UserError(f"parameters.{name}: a grid needs step or categorical choices")
    count = int((parameter.high - parameter.low) / step + 1e-9) + 1
    values = [parameter.low + index * step for index in range(count)]
    return [int(value) for value in values] if parameter.type == "int" else values


def _in_range(parameter: Parameter, value: Any) -> bool:
    if parameter.type == "categorical":
        return value in (parameter.choices or ())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.type == "int" and value != int(value):
        return False
    steps = (value - parameter.low) / parameter.step if parameter.step else 0.0
    on_step = abs(steps - round(steps)) < 1e-6  # 0.1 + 2 * 0.1 is not 0.3 to the last bit
    return parameter.low <= value <= parameter.high and on_step


def leaf_paths(model: type[BaseModel] = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all settings of a configuration."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaf_paths(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def flat(config: TrialConfig) -> Params:
    """A trial's settings by dotted path, as they are logged."""
    values: Any = config.model_dump(mode="json")
    pairs = {}
    for path in leaf_paths():
        section, name = path.split(".")
        pairs[path] = values[section][name]
    return pairs


def resolve(
    sweep: SweepConfig, point: Params, document: Document | None = None, where: str = ""
) -> TrialConfig:
    """The complete configuration of one point; `where` is the point's place, for messages.

    Raises:
        UserError: the settings contradict each other or are out of range.
    """
    values = copy.deepcopy(sweep.trial)
    places = dict(document.places) if document else {}
    for path, value in point.items():
        section, _, name = path.partition(".")
        put(values, [section, name], value)
        places |= {("trial", section): where, ("trial", section, name): where} if where else {}
    source = document.source if document else sweep.name
    return build(TrialConfig, Document(values, places, source), prefix=("trial",))


def check_sweep(sweep: SweepConfig, document: Document | None = None) -> None:
    """Resolve every baseline and the ends of every range before anything starts.

    Raises:
        UserError: an unknown or doubly given key, a value the trial refuses, a condition that can
            never hold, or a sweep without the trial that its judge compares with.
    """
    known = list(leaf_paths())
    where = document.where if document else (lambda _path: sweep.name)
    for section, settings in sweep.trial.items():
        for key in settings if isinstance(settings, dict) else ():
            _check_known(f"{section}.{key}", known, where(("trial", section, key)))
    for name, parameter in sweep.parameters.items():
        _check_known(name, known, where(("parameters", name)))
        _check_same_judge(name, where(("parameters", name)))
        _check_not_fixed(name, sweep.trial, where(("parameters", name)))
        for parent, values in parameter.when.items():
            _check_condition(name, parent, values, sweep, where(("parameters", name, "when")))
    for index, baseline in enumerate(sweep.baselines):
        for name in baseline:
            _check_known(name, known, where(("baselines", index, name)))
            _check_same_judge(name, where(("baselines", index, name)))
        resolve(sweep, baseline, document, where(("baselines", index)))
    for point in corners(Space(sweep.parameters)):
        resolve(sweep, point, document, where(("parameters",)))
    _check_counts(sweep, where)
    _check_reference(sweep, where(("baselines",)), document)


def _check_known(name: str, known: list[str], where: str) -> None:
    if name not in known:
        raise UserError(f"{where}: '{name}' is not a trial setting.{nearest(name, known)}")


def _check_same_judge(name: str, where: str) -> None:
    if name.startswith("judge."):
        raise UserError(
            f"{where}: all trials of a sweep must have the same judge, so that their win rates "
            f"mean the same, but '{name}' differs between them; set it under `trial`"
        )


def _check_not_fixed(name: str, trial: Params, where: str) -> None:
    section, _, key = name.partition(".")
    settings = trial.get(section)
    if isinstance(settings, dict) and key in settings:
        raise UserError(
            f"{where}: '{name}' is varied by `parameters` and held fixed by `trial` or an "
            "override; remove one of the two"
        )


def _check_condition(
    name: str, parent: str, values: tuple[Any, ...], sweep: SweepConfig, where: str
) -> None:
    other = sweep.parameters.get(parent)
    if other is None:
        raise UserError(
            f"{where}: the condition of '{name}' names '{parent}', which is not varied."
            f"{nearest(parent, list(sweep.parameters))}"
        )
    if not values:
        raise UserError(f"{where}: the condition of '{name}' lists no value of '{parent}'")
    for value in values:
        if not _in_range(other, value):
            raise UserError(f"{where}: '{parent}' never takes the value {value!r}")


def corners(space: Space) -> Iterator[Params]:
    """Points that together hold every choice and both ends of every range."""
    ends = {
        name: list(p.choices or ()) if p.type == "categorical" else [p.low, p.high]
        for name, p in space.parameters.items()
    }
    conditions = {parent for p in space.parameters.values() for parent in p.when}
    parents = [name for name in space.ordered() if name in conditions or name == "noise.type"]
    others = [name for name in space.ordered() if name not in parents]
    for combination in itertools.product(*(ends[name] for name in parents)):
        base = dict(zip(parents, combination, strict=True))
        base = {name: value for name, value in base.items() if space.active(name, base)}
        active = [name for name in others if space.active(name, base)]
        for index in range(max([len(ends[name]) for name in active], default=1)):
            yield {**base, **{n: ends[n][min(index, len(ends[n]) - 1)] for n in active}}


def _check_counts(sweep: SweepConfig, where: Any) -> None:
    search = sweep.search
    if search.sampler == "grid":
        Space(sweep.parameters).grid()
    elif search.num_trials is None:
        raise UserError(
            f"{where(('search',))}: search.num_trials must be given for sampler {search.sampler}"
        )
    if not sweep.parameters and search.num_trials:
        raise UserError(
            f"{where(('search',))}: search.num_trials={search.num_trials} needs `parameters`; "
            "without any, list the trials under `baselines` and set it to 0"
        )
    if not sweep.baselines and not sweep.parameters:
        raise UserError(f"{where(())}: a sweep needs `parameters` or `baselines`")


def _check_reference(sweep: SweepConfig, where: str, document: Document | None) -> None:
    configs = [resolve(sweep, point, document) for point in sweep.baselines]
    plain = [config for config in configs if config.noise.type == "none"]
    judged = configs or [resolve(sweep, next(corners(Space(sweep.parameters))), document)]
    if judged[0].judge.reference == "baseline" and not plain:
        raise UserError(
            f"{where}: judge.reference=baseline needs a baseline with noise.type: none, "
            f"but got {len(configs)} baselines without one"
        )
    if sweep.confirm.top_k and not plain:
        raise UserError(
            f"{where}: confirm.top_k={sweep.confirm.top_k} compares with plain fine-tuning and "
            "needs a baseline with noise.type: none"
        )


def plain_baseline(sweep: SweepConfig) -> int | None:
    """Index of the baseline that the others are compared with: the first without noise."""
    for index, point in enumerate(sweep.baselines):
        if resolve(sweep, point).noise.type == "none":
            return index
    return None


def search_size(sweep: SweepConfig) -> int:
    """Number of trials beside the baselines; a grid leaves out what the baselines have."""
    wanted = sweep.search.num_trials
    if sweep.search.sampler != "grid":
        assert wanted is not None
        return wanted
    points = [p for p in Space(sweep.parameters).grid() if p not in sweep.baselines]
    return len(points) if wanted is None else min(wanted, len(points))


def arm_of(config: TrialConfig) -> str:
    """The noise type that a trial stands for in comparisons; alpha 0 is still its type."""
    return config.noise.type


def describe(config: TrialConfig) -> str:
    """A trial's noise in a few words, for tables."""
    if not adds_noise(config.noise.type):
        return config.noise.type
    return f"{config.noise.type} {config.noise.alpha:.3g}"
