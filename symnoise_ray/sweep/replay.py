"""A trial of a finished or running sweep, trained again: are its numbers the same?

In: the directory of a sweep, and the name of a trial. Out: each curve, the answers, the verdicts
and the scores of both trainings compared bit by bit, and what has changed since the first one. The
second training runs as the first did, on workers of the same kind, in a folder that goes away.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from symnoise_ray import __version__
from symnoise_ray.config import WorkersConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.models.source import weights_digests
from symnoise_ray.preflight.inputs import check_inputs
from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.files import contents, read_json, read_lines
from symnoise_ray.records.layout import (
    COMPLETIONS,
    LOCK,
    METRICS,
    PREFERENCES,
    SCORE,
    SLOTS,
    SWEEP,
    trial_directory,
)
from symnoise_ray.records.metrics import UPSTREAM
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.records.results import TrialResult, read_result, read_sweep
from symnoise_ray.space.paths import input_files
from symnoise_ray.space.trials import TrialPlan, ended_plan
from symnoise_ray.sweep.resume import seen_from, versions
from symnoise_ray.sweep.trial import run_trial
from symnoise_ray.workers.session import ray_session

_FIXED_WORKERS = ("workers.num_workers", "workers.cpus_per_worker", "workers.gpus_per_worker")
"""Settings of the workers on which the last bits depend; a sweep that goes on may change them."""


@dataclass(frozen=True)
class Found:
    """A trial that can be compared, and what was written down when its sweep began."""

    sweep: Path
    plan: TrialPlan
    result: TrialResult
    lock: Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """One kind of value in both trainings; `before` and `now` are its last ones, if numbers."""

    name: str
    number: int
    num_same: int
    before: Any = None
    now: Any = None


def find_trial(directory: Path, name: str) -> Found:
    """The trial of a sweep.

    Raises:
        UserError: there is no such sweep or trial, it has no score, or its input cannot be used.
        DataError: a file of it is broken.
    """
    directory = directory.absolute()
    known = {trial.trial: trial for trial in read_sweep(directory).trials}
    if name not in known:
        raise UserError(
            f"{directory}: must have the trial {name}, but has {', '.join(known) or 'none'}"
        )
    place = trial_directory(directory, name)
    result = read_result(place)
    if result is None or not result.is_done:
        raise UserError(
            f"{directory}: {name} must have a score to be compared with, but is "
            f"{known[name].status}; name another trial"
        )
    plan = ended_plan(place, result)
    # What ran out of memory ran with less, which rounds otherwise.
    size = result.get("micro_batch_size", plan.config.train.micro_batch_size)
    train = plan.config.train.model_copy(update={"micro_batch_size": size})
    plan = replace(plan, config=plan.config.model_copy(update={"train": train}))
    check_inputs([plan.config])
    return Found(directory, plan, result, read_json(directory / LOCK))


def changed_since(found: Found) -> list[str]:
    """What numbers depend on and is not as it was: one line each, settings apart."""
    return [*_other_versions(found), *_other_files(found), *_other_weights(found)]


def _other_versions(found: Found) -> Iterator[str]:
    first, parts = found.lock["versions"], found.lock["resumed"]
    for name, now in versions().items():
        # A trial of a later part may have had that part's version.
        had = {first.get(name), *(part["versions"].get(name) for part in parts)} - {None}
        if now not in had:
            yield f"{name} {' or '.join(sorted(had)) or 'not noted'} -> {now}"
    own = read_sweep(found.sweep).version
    if own and own != __version__:
        yield f"symnoise_ray {own} -> {__version__}"
    for part in parts:
        for name in _FIXED_WORKERS:
            if name in part["changed"]:
                was, then = part["changed"][name]
                yield f"{name} was {was} in an earlier part of the sweep, then {then}"


def _other_files(found: Found) -> Iterator[str]:
    now = contents(input_files([found.plan.config]))
    yield from _differences(now, found.lock["files"], found.lock["directory"])


def _other_weights(found: Found) -> Iterator[str]:
    try:
        now = weights_digests(found.plan.config.model)
    except (OSError, ValueError) as error:
        yield f"the weights of {found.plan.config.model.name} cannot be told: {one_line(error)}"
        return
    if "weights" not in found.lock:  # of an earlier version of this package
        yield "the weights that the sweep began with were not noted"
    else:
        yield from _differences(now, found.lock["weights"], found.lock["directory"])


def _differences(now: Mapping[str, str], then: Mapping[str, str], root: str) -> Iterator[str]:
    for path, digest in now.items():
        was = then.get(seen_from(root, path))
        if was != digest:
            yield f"{path}: {was[:12] if was else 'not noted'} -> {digest[:12]}"


def compare(found: Found) -> list[Compared]:
    """Train, answer and judge again, and compare.

    Verdicts that the judge's store holds are not asked for again, so equal answers cost nothing.

    Raises:
        SymnoiseError: the second training failed.
    """
    with tempfile.TemporaryDirectory(dir=found.sweep, prefix=".replay-") as folder:
        place = trial_directory(Path(folder), found.plan.name)
        again = _run(found, place)
        return _all_compared(found, place, again)


def _run(found: Found, place: Path) -> TrialResult:
    from symnoise_ray.preflight.cluster import nodes
    from symnoise_ray.preflight.placement import count_slots
    from symnoise_ray.workers.pool import Pool  # ray, after the input is checked

    plan = replace(found.plan, directory=place, reference=_reference(found, place))
    workers = WorkersConfig.model_validate(read_json(found.sweep / SWEEP)["workers"])
    judges = JudgeSource.of_sweep(plan.config.judge, found.sweep)
    with ray_session(partial(print, file=sys.stderr)):
        count_slots(workers, nodes(), 1)
        with Pool(workers, 1, plan.config, place.parents[1] / SLOTS) as pool:
            pool.wait_until_up()
            for record in run_trial(plan, pool.workers, judges):
                if isinstance(record, TrialResult):
                    return record
    raise AssertionError("a trial's last word is its result or an exception")


def _reference(found: Found, place: Path) -> Path:
    """The answers that the trial was judged against."""
    if found.result.is_reference:
        return place / COMPLETIONS
    rows = read_annotations(found.plan.directory / PREFERENCES)
    trial = trial_directory(found.sweep, rows[0].generator_1) / COMPLETIONS
    return trial if trial.exists() else Path(found.plan.config.judge.reference)


def _all_compared(found: Found, place: Path, again: TrialResult) -> list[Compared]:
    before = found.plan.directory
    compared = list(_curves(read_lines(before / METRICS), read_lines(place / METRICS)))
    answers = [
        {n: (c.output, c.turns) for n, c in enumerate(read_completions(folder / COMPLETIONS))}
        for folder in (before, place)
    ]
    verdicts = [
        {(row.item, row.order): row.preference for row in read_annotations(folder / PREFERENCES)}
        for folder in (before, place)
    ]
    whole = [_compared("answers", *answers), _compared("verdicts", *verdicts)]
    compared += [replace(each, before=None, now=None) for each in whole]
    compared += _scores(read_json(before / SCORE), read_json(place / SCORE))
    return compared + list(_scores(_upstream(found.result), _upstream(again)))


def _upstream(result: TrialResult) -> dict[str, Any]:
    return {name: value for name, value in result.values.items() if name.startswith(UPSTREAM)}


def _curves(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> Iterator[Compared]:
    """Every value of metrics.jsonl by step."""
    for name in dict.fromkeys(name for row in (*before, *now) for name in row if name != "step"):
        one, other = ({row["step"]: row[name] for row in rows if name in row}
                      for rows in (before, now))  # fmt: skip
        yield _compared(name, one, other)


def _scores(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Compared]:
    for name in dict.fromkeys((*before, *now)):
        one, other = ({name: values[name]} if name in values else {} for values in (before, now))
        yield _compared(name, one, other)


def _compared(name: str, before: Mapping[Any, Hashable], now: Mapping[Any, Hashable]) -> Compared:
    """Equal means equal in every bit: JSON keeps all digits of a number."""
    keys = {*before, *now}
    same = sum(key in before and key in now and before[key] == now[key] for key in keys)
    last = [next(reversed(values.values()), None) for values in (dict(before), dict(now))]
    return Compared(name, len(keys), same, *last)
