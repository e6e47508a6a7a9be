"""The verb `verdict`: what a sweep decided, for people and for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symnoise_ray.cli.verbs import Verbs, add_verb
from symnoise_ray.errors import EXIT_OK, EXIT_UNDECIDED

if TYPE_CHECKING:
    from symnoise_ray.records.results import SweepResult
    from symnoise_ray.records.verdict import Comparison, Decision, Verdict


def add_verdict(verbs: Verbs) -> None:
    """Add `verdict`."""
    parser = add_verb(
        verbs,
        "verdict",
        "Tell what a sweep decided; exit status 0 if it did, 4 if it cannot tell yet.",
        "symnoise-ray verdict runs/quickstart --json",
        _run_verdict,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the sweep")
    parser.add_argument("--json", action="store_true", help="the same as JSON, rates as fractions")


def _run_verdict(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records.results import read_sweep

    result = read_sweep(arguments.directory)
    if arguments.json:
        print(json.dumps(_as_json(result), indent=2, allow_nan=False))
    else:
        print("\n".join(_as_lines(result)))
    return _status(result.verdict)


def _status(verdict: Verdict) -> int:
    return EXIT_OK if verdict.is_decided else EXIT_UNDECIDED


def _as_json(result: SweepResult) -> dict[str, Any]:
    """The verdict of results.json, and per decision what is excluded and what is open."""
    from symnoise_ray.records.results import SCHEMA_VERSION
    from symnoise_ray.statistics.looks import SIGNIFICANCE

    verdict = result.verdict
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.name,
        "status": result.status,
        "exit_status": _status(verdict),
        "decided": verdict.is_decided,
        "level": SIGNIFICANCE,
        **asdict(verdict),
        "decisions": [_decision_as_json(each, verdict.effect) for each in verdict.decisions],
        "departures": list(result.departures),
    }


def _decision_as_json(decision: Decision, effect: float) -> dict[str, Any]:
    gain, loss = decision.excludes(effect)
    return {
        **asdict(decision),
        "decided": decision.is_decided,
        "excludes_gain": gain,
        "excludes_loss": loss,
        "trainings_needed": decision.trainings_needed,
    }


def _as_lines(result: SweepResult) -> Iterator[str]:
    yield f"{result.name}: {'decided' if result.verdict.is_decided else 'cannot tell yet'}"
    yield result.verdict.sentence
    for decision in result.verdict.decisions:
        yield ""
        yield from _decision_lines(decision, result.verdict)
    for departure in result.departures:
        yield f"not as designed: {departure}"


def _decision_lines(decision: Decision, verdict: Verdict) -> Iterator[str]:
    over = f" over {decision.over}" if decision.over else ""
    yield f"{decision.label or decision.arm}{over}: {decision.verdict}"
    for comparison in decision.comparisons:
        yield f"  {_against(comparison, verdict)}: {_numbers(comparison)}"
    if decision.looks:  # an older file does not have them
        looks = ", ".join(map(str, decision.looks))
        yield f"  looks: {looks} seeds; stopped: {decision.stopped or 'before its end'}"
        yield f"  trainings: {decision.num_trained}, of them failed {decision.num_failed}"
    if excluded := _excluded(decision, verdict.effect):
        yield f"  excluded: {excluded}"
    if decision.withheld:
        yield f"  withheld: {decision.withheld}"
    elif decision.looks and not decision.is_decided:
        yield f"  open: {_open(decision, verdict.effect)}"


def _against(comparison: Comparison, verdict: Verdict) -> str:
    from symnoise_ray.statistics.words import arm_words

    if comparison.over:
        return f"against {comparison.over}"
    other = arm_words(verdict, verdict.reference)
    where = {"best": " at its own best", "shared": " at the same setting"}
    setting = f" ({comparison.against})" if comparison.against else ""
    return f"against {other}{where.get(comparison.opponent, '')}{setting}"


def _numbers(comparison: Comparison) -> str:
    """Rate and interval, of a contrast the difference in points, and what they rest on."""
    from symnoise_ray.statistics.words import in_points

    low, high = comparison.interval_95
    level = f"{100 * comparison.confidence:.4g} % interval"
    basis = f"{comparison.num_seeds} seeds, {comparison.num_prompts} prompts"
    if comparison.over:
        gap, least, most = map(in_points, (comparison.win_rate, low, high))
        return f"{gap:+.1f} points ({level} {least:+.1f} to {most:+.1f}), {basis}"
    equal, ends = (
        comparison.length_controlled_win_rate,
        comparison.length_controlled_interval_95,
    )
    at_equal = ""
    if equal is not None and ends is not None:
        at_equal = f"; at equal lengths {_percent(equal)}, {_range(*ends)}"
    return f"{_percent(comparison.win_rate)} wins ({level} {_range(low, high)}{at_equal}), {basis}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _excluded(decision: Decision, effect: float) -> str:
    from symnoise_ray.statistics.words import points

    kinds = zip(("gain", "loss"), decision.excludes(effect), strict=True)
    return ", ".join(f"a {kind} of {points(effect)} or more" for kind, is_out in kinds if is_out)


def _open(decision: Decision, effect: float) -> str:
    """What it takes to tell a gap of the effect with 80 % power."""
    from symnoise_ray.statistics.power import MOST_SEEDS
    from symnoise_ray.statistics.words import points, why_not_compared

    gap, needed = f"a gap of {points(effect)}", decision.seeds_needed
    if not decision.comparisons:
        return f"{gap}; {why_not_compared(decision)}"
    if needed is not None and needed <= decision.comparisons[0].num_seeds:
        return f"{gap} would probably have been seen with so many seeds"
    if needed is not None:
        return (
            f"{gap} takes about {needed} seeds on these prompts, "
            f"{decision.trainings_needed} trainings"
        )
    if decision.comparisons[0].num_seeds < 2:
        return f"{gap} takes several seeds"
    return f"{gap}; even {MOST_SEEDS} seeds on these prompts would not be enough"
