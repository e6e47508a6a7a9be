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
from symnoise_ray.config.loading import Document, build, put
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
            values = grid_values(name, self.parameters[name])
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
            in_range(self.parameters[name], value) for name, value in point.items()
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


def grid_values(name: str, parameter: Parameter) -> list[Any]:
    """All values of a parameter that has choices or steps.

    Raises:
        UserError: it is continuous.
    """
    if parameter.type == "categorical":
        return list(parameter.choices or ())
    assert parameter.low is not None
    assert parameter.high is not None
    step = parameter.step or (1 if parameter.type == "int" else None)
    if step is None:
        raise UserError(f"parameters.{name}: a grid needs step or categorical choices")
    count = int((parameter.high - parameter.low) / step + 1e-9) + 1
    values = [min(parameter.low + index * step, parameter.high) for index in range(count)]
    return [int(value) for value in values] if parameter.type == "int" else values


def in_range(parameter: Parameter, value: Any) -> bool:
    """Whether a parameter can take a value."""
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


def describe(config: TrialConfig) -> str:
    """A trial's noise in a few words, for tables."""
    if not adds_noise(config.noise.type):
        return config.noise.type
    return f"{config.noise.type} {config.noise.alpha:.3g}"
