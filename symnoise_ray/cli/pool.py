"""The verb `pool`: what several finished sweeps say together about the same arms."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from symnoise_ray.records.results import SweepResult
    from symnoise_ray.records.verdict import Decision, Verdict
    from symnoise_ray.statistics.pooling import Effect, Pooled

Key = tuple[str, str]
"""An arm, and the arm that it is compared with where that is not the reference."""


@dataclass(frozen=True)
class Against:
    """An arm against one kind of opponent over all sweeps; of a contrast, `opponent` is empty."""

    opponent: str
    effects: tuple[Effect, ...]
    pooled: Pooled


@dataclass(frozen=True)
class Together:
    """What all sweeps say of one arm; `single` are their own verdicts, in their order."""

    arm: str
    over: str
    verdict: str
    single: tuple[str, ...]
    against: tuple[Against, ...]


def add_pool(verbs: Verbs) -> None:
    """Add `pool`."""
    parser = add_verb(
        verbs,
        "pool",
        "Combine what several finished sweeps found, as a random-effects meta-analysis.",
        "symnoise-ray pool runs/alpaca-llama2-7b runs/sharegpt-llama2-7b",
        _run_pool,
        prints_last=True,
    )
    parser.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="directories of sweeps"
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON, rates as fractions")


def _run_pool(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records.results import read_sweep

    results = [read_sweep(directory) for directory in arguments.directories]
    _check(results)
    keys = _common(results)
    found = [_together(key, results) for key in keys]
    notes = list(_notes(results, keys))
    if arguments.json:
        print(json.dumps(_as_json(found, results, notes), indent=2, allow_nan=False))
    else:
        print("\n".join(_as_lines(found, results, notes)))
    return EXIT_OK


def _check(results: Sequence[SweepResult]) -> None:
    """Two sweeps or more, each another one, which asked the same and came to an end."""
    if len(results) < 2:
        raise UserError(f"pool takes at least 2 sweeps, but got {len(results)}; name more of them")
    first = results[0]
    seen: dict[str, Path] = {}
    for result in results:
        directory = result.paths.directory
        if not result.verdict.decisions:
            raise UserError(
                f"{directory}: must hold a sweep with a decision, but it is {result.status} and "
                "decided nothing; finish it, or leave it out"
            )
        for name in ("treatment", "reference", "population"):
            own, other = getattr(result.verdict, name), getattr(first.verdict, name)
            if own != other:
                raise UserError(
                    f"{directory}: must have asked the same as {first.paths.directory}, but its "
                    f"question.{name} is {own}, not {other}; pool those that agree"
                )
        # A copy, or the same sweep run again from the same seeds, is no further evidence.
        evidence = repr(result.verdict.decisions)
        if evidence in seen:
            raise UserError(
                f"{directory}: must be another sweep than {seen[evidence]}, but has the same "
                "numbers; name each once"
            )
        seen[evidence] = directory


def _common(results: Sequence[SweepResult]) -> list[Key]:
    """The arms, and pairs of arms, that every sweep confirmed."""
    by_sweep = [{(each.arm, each.over) for each in r.verdict.decisions} for r in results]
    common = set.intersection(*by_sweep)
    if not common:
        told = "; ".join(
            f"{result.name} confirmed {', '.join(sorted(map(_named, keys)))}"
            for result, keys in zip(results, by_sweep, strict=True)
        )
        raise UserError(f"all sweeps must have confirmed one arm in common, but {told}")
    return sorted(common, key=lambda key: (bool(key[1]), key))


def _together(key: Key, results: Sequence[SweepResult]) -> Together:
    from symnoise_ray.statistics.decision import ruled
    from symnoise_ray.statistics.pooling import pool

    decisions = [_decision(key, result.verdict) for result in results]
    kinds = dict.fromkeys(each.opponent for one in decisions for each in one.comparisons)
    against = []
    for kind in kinds:
        effects = [_effect(each, kind, r) for each, r in zip(decisions, results, strict=True)]
        against.append(Against(kind, tuple(effects), pool(effects)))
    lows, highs = zip(*(each.pooled.interval_95 for each in against), strict=True)
    smallest = min(result.verdict.effect for result in results)
    verdict = ruled([0.5 + low for low in lows], [0.5 + high for high in highs], smallest)
    single = tuple(each.verdict for each in decisions)
    return Together(*key, str(verdict), single, tuple(against))


def _decision(key: Key, verdict: Verdict) -> Decision:
    return next(each for each in verdict.decisions if (each.arm, each.over) == key)


def _effect(decision: Decision, kind: str, result: SweepResult) -> Effect:
    """What a sweep found against one kind of opponent.

    A sweep without `shared` found that this is the reference's best setting, which it compared.
    """
    from symnoise_ray.statistics.pooling import effect

    by_kind = {each.opponent: each for each in decision.comparisons}
    compared = by_kind.get(kind) or by_kind.get("best")
    where = f"{result.paths.directory}: {_named((decision.arm, decision.over))}"
    if compared is None:
        raise UserError(f"{where} must have been compared, but too many of its trainings failed")
    found = effect(compared, by_groups=result.verdict.population == "other_groups")
    if found is None or not found.error:
        raise UserError(
            f"{where} must have a standard error over prompts and 2 seeds or more, but has "
            f"{compared.num_seeds} seeds and {compared.num_prompts} prompts; leave it out"
        )
    return found


def _notes(results: Sequence[SweepResult], keys: Sequence[Key]) -> Iterator[str]:
    """What a reader must know of the sweeps."""
    from symnoise_ray.records.files import read_json
    from symnoise_ray.records.layout import LOCK

    asked: list[set[str]] = []
    for result in results:
        path = result.paths.directory / LOCK
        prompts = (read_json(path).get("prompts") or {}) if path.is_file() else {}
        asked.append(set(prompts.get("confirm") or ()))
    shared = sum(any(one & other for other in asked if other is not one) for one in asked)
    if shared:
        yield (
            f"{shared} sweeps were judged on the same prompts, so the interval is about other "
            "sweeps on these prompts"
        )
    for result in results:
        left = [d for d in result.verdict.decisions if (d.arm, d.over) not in keys]
        if left:
            names = ", ".join(_named((each.arm, each.over)) for each in left)
            yield f"not pooled, since not every sweep confirmed it: {names} of {result.name}"


def _as_json(
    found: Sequence[Together], results: Sequence[SweepResult], notes: Sequence[str]
) -> dict[str, Any]:
    from symnoise_ray.statistics.pooling import CONFIDENCE

    first = results[0].verdict
    return {
        "treatment": first.treatment,
        "reference": first.reference,
        "population": first.population,
        "effect": min(result.verdict.effect for result in results),
        "confidence": CONFIDENCE,
        "sweeps": [
            {"directory": str(r.paths.directory), "name": r.name, "finished": r.finished}
            for r in results
        ],
        "pooled": [
            asdict(each) | {"against": [_against_as_json(one) for one in each.against]}
            for each in found
        ],
        "notes": list(notes),
    }


def _against_as_json(against: Against) -> dict[str, Any]:
    return {
        "opponent": against.opponent,
        **asdict(against.pooled),
        "effects": [each._asdict() for each in against.effects],
    }


def _as_lines(
    found: Sequence[Together], results: Sequence[SweepResult], notes: Sequence[str]
) -> Iterator[str]:
    yield f"{len(results)} sweeps, each one piece of evidence:"
    for together in found:
        yield ""
        yield f"{_named((together.arm, together.over))}: {together.verdict}"
        for against in together.against:
            yield from _against_lines(against, together, results)
    yield from (f"note: {note}" for note in notes)


def _against_lines(
    against: Against, together: Together, results: Sequence[SweepResult]
) -> Iterator[str]:
    from symnoise_ray.statistics.words import arm_words

    pooled, first = against.pooled, results[0].verdict
    where = {"best": " at its own best", "shared": " at the same setting"}
    other = together.over or arm_words(first, first.reference)
    ends = _range(pooled.interval_95)
    yield (
        f"  against {other}{where.get(against.opponent, '')}: {100 * pooled.gain:+.1f} points "
        f"(95 % interval {ends})"
    )
    next_one = "" if pooled.prediction_95 is None else _range(pooled.prediction_95)
    yield (
        f"    true effects differ by {100 * pooled.tau:.2g} points (I^2 "
        f"{100 * pooled.i_squared:.0f} %, Q {pooled.q:.3g}, p = {pooled.q_p_value:.2g})"
        + (f"; another such sweep: {next_one}" if next_one else "")
    )
    rows = zip(results, against.effects, pooled.weights, together.single, strict=True)
    for result, effect, weight, single in rows:
        yield (
            f"    {result.name}: {100 * effect.gain:+.1f} points, standard error "
            f"{100 * effect.error:.2g}, weight {100 * weight:.0f} %, alone: {single}"
        )


def _range(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"


def _named(key: Key) -> str:
    return " over ".join(filter(None, key))
