"""The forecasts of a whole sweep, or of one trial's file, as text and as JSON.

In: a search space or a trial's file. Out: a `Plan` of `Forecast`s, where trials with equal needs
share one, and of what the confirmation can tell. Sizes are in bytes in a `Forecast`, and in GiB in
the text and in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from symnoise_ray.config import SweepConfig, TrialConfig
from symnoise_ray.config.loading import is_space
from symnoise_ray.errors import UserError
from symnoise_ray.preflight import power
from symnoise_ray.preflight.forecast import (
    Forecast,
    Options,
    forecast,
    gpu_hours,
    judge_cost,
    what_fits,
)
from symnoise_ray.preflight.memory import GIB
from symnoise_ray.preflight.power import Confirmation
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.counts import most_confirmed, most_pairs, size_text
from symnoise_ray.space.design import search_size
from symnoise_ray.space.parameters import Space, corners, describe
from symnoise_ray.space.paths import read_space, read_trial
from symnoise_ray.space.trials import SweepPlans

RUNS = Path("runs")
"""Where earlier sweeps lie, which say how much scores differ."""


@dataclass(frozen=True)
class Plan:
    """Forecasts with the names of their trials; `size` is a sweep's number of trials in words.

    `confirmation` is None for a trial's file, and for a sweep that confirms nothing. `choosing` is
    what judging the searched trials against several of the reference's takes at most.
    """

    name: str
    size: str | None
    num_trials: int
    options: Options
    forecasts: list[tuple[list[str], TrialConfig, Forecast]]
    confirmation: Confirmation | None = None
    choosing: Verdicts | None = None


@dataclass(frozen=True)
class Verdicts:
    """A number of verdicts, None where the prompts are not known, and what they cost, if known."""

    pairs: int
    calls: int | None
    cost: float | None


def plan(source: str, overrides: Sequence[str], options: Options) -> Plan:
    """Forecast the trials of a sweep, or one trial.

    The searched trials are not known before they are drawn, so both ends of every range and every
    choice are forecast in their place.

    Raises:
        UserError: a setting, the data or the model cannot be used.
    """
    path = Path(source)
    if path.is_file() and not is_space(path):
        config = read_trial(path, overrides)
        workers = options.num_workers or 1
        found = [(["trial"], config, forecast(config, workers, options))]
        return Plan(source, None, 1, options, found)
    if options.num_workers is not None:
        raise UserError("--workers is for a trial's file; a sweep has workers.num_workers")
    sweep, document = read_space(source, overrides)
    check_sweep(sweep, document)
    groups: list[tuple[list[str], TrialConfig, Forecast]] = []
    for name, config in _trials(sweep):
        need = forecast(config, sweep.workers.num_workers, options)
        same = next((names for names, _, other in groups if other == need), None)
        if same is None:
            groups.append(([name], config, need))
        elif name not in same:
            same.append(name)
    num_trials = len(sweep.baselines) + search_size(sweep) + most_confirmed(sweep)
    confirmation = _confirmation(sweep, groups) if sweep.confirm.arms else None
    return Plan(
        sweep.name,
        size_text(sweep),
        num_trials,
        options,
        groups,
        confirmation,
        _choosing(sweep, [need for _, _, need in groups]),
    )


def _choosing(sweep: SweepConfig, needs: Sequence[Forecast]) -> Verdicts | None:
    """Of the longest prompts and the most of them, where trials differ in that."""
    pairs = most_pairs(sweep)
    if not pairs:
        return None
    calls = max((need.judge_calls for need in needs if need.judge_calls), default=None)
    cost = max((need.judge_cost for need in needs if need.judge_cost), default=None)
    return Verdicts(pairs, calls and pairs * calls, cost and pairs * cost)


def _confirmation(
    sweep: SweepConfig, groups: Sequence[tuple[list[str], TrialConfig, Forecast]]
) -> Confirmation:
    """The confirmation; its prompts are taken to be as long as those of the search."""
    found = Confirmation.of(sweep, RUNS.resolve())
    costs = [
        judge_cost(config, replace(need.rows, num_prompts=found.num_prompts))
        for _, config, need in groups
    ]
    return replace(found, judge_cost=max((cost for cost in costs if cost), default=None))


def _trials(sweep: SweepConfig) -> Iterator[tuple[str, TrialConfig]]:
    """Name and configuration of the baselines, and of the ends of the search space."""
    plans = SweepPlans(sweep, Path())
    for index, point in enumerate(sweep.baselines):
        trial = plans.search(index, point)
        yield trial.name, trial.config
    if sweep.parameters and search_size(sweep):
        for point in corners(Space(sweep.parameters)):
            config = plans.config(point)
            yield f"searched {describe(config).split()[0]}", config


def to_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values; sizes are in GiB, as their names say."""
    trials = []
    for names, config, need in plan.forecasts:
        values = {
            **asdict(need),
            "passes_per_step": need.passes_per_step,
            "memory_gib": {
                "need": need.memory.need / GIB,
                "largest_phase": need.memory.phase,
                "parts": _gib(need.memory.parts),
                "phases": _gib(need.memory.phases),
                "host": _gib(need.memory.host),
            },
            "disk_gib": _gib(need.disk),
        }
        del values["memory"], values["disk"]
        if plan.options.gpu_memory is not None:
            fits = need.memory.need <= plan.options.gpu_memory * GIB
            values["fits"] = fits
            if not fits:
                values["would_fit"] = what_fits(config, need.num_workers, plan.options)
        if (hours := gpu_hours(need, plan.options)) is not None:
            values["gpu_hours"] = hours
        trials.append({"trials": names, **values})
    told = {"name": plan.name, "num_trials": plan.num_trials, "forecasts": trials}
    if plan.choosing is not None:
        told["choice_of_settings"] = {
            "pairs": plan.choosing.pairs,
            "judge_calls_most": plan.choosing.calls,
            "judge_cost_most": plan.choosing.cost,
        }
    if plan.confirmation is not None:
        told["confirmation"] = power.to_json(plan.confirmation)
    return told


def _gib(sizes: dict[str, float]) -> dict[str, float]:
    return {name: size / GIB for name, size in sizes.items()}


def as_text(plan: Plan) -> str:
    """The plan as text: one block of lines per forecast, then the choice and the confirmation."""
    lines = [f"{plan.name}: {plan.size}" if plan.size else plan.name]
    for names, config, need in plan.forecasts:
        lines += ["", ", ".join(names) + ":", *(f"  {line}" for line in _block(config, need, plan))]
    if plan.choosing is not None:
        lines += ["", "choice of settings:", f"  {_choosing_line(plan.choosing)}"]
    if plan.confirmation is not None:
        lines += ["", "confirmation:", *(f"  {line}" for line in power.as_lines(plan.confirmation))]
    return "\n".join(lines)


def _choosing_line(found: Verdicts) -> str:
    calls = "an unknown number of" if found.calls is None else f"at most {found.calls:,}"
    cost = "" if found.cost is None else f", at most about {found.cost:.2f} in money"
    return f"judge: {calls} verdicts on {found.pairs} pairs of trials (search.opponents){cost}"


def _block(config: TrialConfig, need: Forecast, plan: Plan) -> Iterator[str]:
    rows, train = need.rows, config.train
    yield f"parameters: {need.num_parameters:,}, of them trained {need.num_trained:,}"
    count = "unknown" if rows.num_rows is None else f"{rows.num_rows:,}"
    tokens = "unknown" if rows.num_tokens is None else f"{rows.num_tokens:,}"
    yield f"rows: {count}; tokens: {tokens}; longest row: {rows.longest} tokens"
    yield from (f"not known: {why}" for why in rows.unknown)
    ascents = f"; to find the noise: {need.ascents}" if need.ascents else ""
    steps = "unknown" if need.num_steps is None else f"{need.num_steps:,}"
    yield (
        f"steps: {steps} of {train.global_batch_size} rows; per step and worker "
        f"{need.passes_per_step} forward and backward passes (micro-batches: {need.micro_batches}, "
        f"copies of the batch: {' + '.join(map(str, need.copies))}{ascents})"
    )
    yield from _memory_lines(config, need, plan.options)
    yield f"disk: {_sizes(need.disk)}"
    if need.flops is not None:
        hours = gpu_hours(need, plan.options)
        at = "" if hours is None else f", {hours:.3g} GPU-hours"
        yield f"training: {need.flops:.3g} floating-point operations{at}"
    calls = "unknown" if need.judge_calls is None else f"{need.judge_calls:,}"
    cost = "" if need.judge_cost is None else f", at most about {need.judge_cost:.2f} in money"
    orders = "both orders" if config.judge.orders == "both" else "one order"
    yield f"judge: {calls} verdicts (every prompt in {orders}){cost}"
    yield from (f"note: {note}" for note in need.notes)


def _memory_lines(config: TrialConfig, need: Forecast, options: Options) -> Iterator[str]:
    used = need.memory
    shared = f"workers: {need.num_workers}, ZeRO {config.train.zero_stage}"
    yield (
        f"memory per worker: {_size(used.need)}, most in the {used.phase} ({shared}, "
        f"offload {config.train.offload}, {config.model.dtype})"
    )
    yield f"  parts: {_sizes(used.parts)}"
    yield f"  phases: {_sizes(used.phases)}"
    yield f"  in the host's memory: {_sizes(used.host)}"
    if options.gpu_memory is None:
        return
    spare = options.gpu_memory - used.need / GIB
    if spare >= 0:
        yield f"  fits in {options.gpu_memory:g} GiB, with {spare:.2f} GiB to spare"
        return
    yield f"  DOES NOT FIT in {options.gpu_memory:g} GiB: {-spare:.2f} GiB too much"
    found = what_fits(config, need.num_workers, options)
    if found is None:
        yield "  no ZeRO stage, offload, checkpointing or smaller micro-batch makes it fit"
    else:
        settings = " ".join(f"train.{name}={_word(value)}" for name, value in found.items())
        yield f"  would fit with {settings}"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sizes(sizes: dict[str, float]) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in sizes.items() if size) or "nothing"


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.2f} MiB"
