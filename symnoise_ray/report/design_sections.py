"""Sections that the page alone has: design, costs beside what was expected, exits, failures.

In: a `SweepResult`, and design.json and sweep.json beside it. Out: `Section`s. What a sweep did not
write down is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import DESIGN, SWEEP, TRIALS, usage_against
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Comparison
from symnoise_ray.report.section import Section, Table
from symnoise_ray.report.trial_tables import number, reason_tables
from symnoise_ray.report.words import DASH, percent
from symnoise_ray.statistics.looks import SIGNIFICANCE

Importances = Mapping[str, Mapping[str, float]]


def read_declared(results: SweepResult, name: str) -> Mapping[str, Any]:
    """A file that the sweep wrote before its first trial; empty if it wrote none."""
    path = results.paths.directory / name
    found: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    return found


def design(results: SweepResult) -> Section:
    """The question, and what was fixed before the first trial."""
    declared, verdict = read_declared(results, DESIGN), results.verdict
    asked = (
        f"Question: {verdict.treatment} against {verdict.reference}; a difference of "
        f"{100 * verdict.effect:.3g} points would matter; about "
        f"{ABOUT.get(verdict.population, verdict.population)}."
    )
    tables = [_arms(results, declared)] if results.trials else []
    if looks := declared.get("looks"):
        rows = [
            (
                str(n),
                str(each["num_seeds"]),
                percent(SIGNIFICANCE * each["share"]),
                str(each["part"]),
            )
            for n, each in enumerate(looks, 1)
        ]
        header = ("look", "seeds", "level spent, %", "declared in part")
        tables.append(Table("rrrr", header, rows))
    return Section("Question and design", (asked, *_power(declared)), tuple(tables))


ABOUT = {
    "these_groups": "more prompts of the same groups",
    "other_groups": "prompts of other groups like these",
}


def _arms(results: SweepResult, declared: Mapping[str, Any]) -> Table:
    planned = declared.get("trials_by_arm") or {}
    settings = {choice.arm: choice.num_settings for choice in results.choices}
    searched = results.part("search")
    arms = list(dict.fromkeys([*planned, *(trial.arm for trial in searched)]))
    rows = []
    for arm in arms:
        own = [trial for trial in searched if trial.arm == arm]
        ended = (own, *([t for t in own if t.status == s] for s in ("done", "stopped", "failed")))
        found = settings.get(arm)
        counts = [str(len(trials)) for trials in ended]
        rows.append((arm, str(planned.get(arm, DASH)), *counts, str(found or DASH)))
    header = ("arm", "trials declared", "run", "done", "stopped early", "failed", "settings tried")
    return Table("lrrrrrr", header, rows, tuple(arms))


def _power(declared: Mapping[str, Any]) -> Iterator[str]:
    """What was expected of the confirmation before the first trial."""
    power = declared.get("power")
    if not power:
        return
    yield (
        f"Power: a true gain of {100 * power['effect']:.3g} points would be found with a chance of "
        f"{percent(power['power'])} %, on {power['num_prompts']} prompts"
        + ("" if power.get("prompts_known", True) else " (assumed)")
        + f". The spreads behind it are {power['assumed']['from']}."
    )


def lengths(count: int) -> Section:
    """Whether longer answers won more; the figure says it."""
    note = LENGTHS if count else "No trial has both a win rate and a length of its answers."
    return Section("Lengths beside win rates", (note,))


LENGTHS = (
    "Judges like long answers. Where win rates rise with length, look at the rates at equal "
    "lengths in the tables."
)


def importance(found: Importances, fewest: int) -> Section:
    """How much each setting matters for the win rate, by Optuna."""
    heading = "Importance of settings"
    if not found:
        note = (
            f"Optuna's importances need {fewest} finished trials of an arm and two settings that "
            "differ; no arm has them."
        )
        return Section(heading, (note,))
    rows = [
        (arm, name, percent(share))
        for arm, shares in found.items()
        for name, share in shares.items()
    ]
    arms = tuple(row[0] for row in rows)
    return Section(heading, (IMPORTANCE,), (Table("llr", ("arm", "setting", "%"), rows, arms),))


IMPORTANCE = (
    "Optuna's importance (PED-ANOVA) of each setting for reaching a good win rate, over the "
    "searched trials of an arm. It says where to search finer, not what is best."
)


def cost(results: SweepResult) -> Section:
    """What the confirmation and the judge were expected to take, and what they took."""
    rows = [*_trainings(results), *_spreads(results), *_judge(results)]
    header = ("what", "declared or expected", "came out")
    tables = (Table("lrr", header, rows),) if rows else ()
    notes = () if rows else ("No expectation was written down.",)
    return Section("Expected and what came out", notes, tables)


def _trainings(results: SweepResult) -> Iterator[tuple[str, str, str]]:
    declared = read_declared(results, DESIGN)
    if planned := declared.get("trials_by_arm"):
        done = len(results.part("search"))
        yield "trials of the search", str(sum(planned.values())), str(done)
    if power := declared.get("power"):
        trained = len(results.part("confirm"))
        expected = f"{power['trainings_expected']:.1f}, at most {power['trainings_most']}"
        yield "trainings of the confirmation", expected, str(trained)
        seeds = max((each.num_seeds for each in results.verdict.decisions), default=0)
        yield "seeds", f"{power['mean_seeds']:.1f}", str(seeds)


def _spreads(results: SweepResult) -> Iterator[tuple[str, str, str]]:
    """Variance components: what the power was computed with, and what the confirmation found."""
    power = read_declared(results, DESIGN).get("power")
    compared = [each for each in results.comparisons if not each.over]
    if not power or not compared:
        return
    for part in ("prompts", "seeds", "rest"):
        name = f"spread_{part}"
        found = [number(_spread(each, name), 2) for each in compared]
        assumed = number(power["assumed"].get(name), 2)
        yield f"variance of a score: {part}", assumed, ", ".join(found)


def _spread(comparison: Comparison, name: str) -> float | None:
    value: float | None = getattr(comparison, name)
    return value


def _judge(results: SweepResult) -> Iterator[tuple[str, str, str]]:
    """Calls, tokens and cost of the judge, beside the budget; nothing if it cost nothing."""
    used = _usage(results.paths.directory, results.trials)
    if not used:
        return
    sweep = read_declared(results, SWEEP)
    budget, judge = sweep.get("budget") or {}, (sweep.get("trial") or {}).get("judge") or {}
    calls, read, wrote = (
        sum(each.get(name) or 0 for each in used)
        for name in ("calls", "input_tokens", "output_tokens")
    )
    yield "judge calls", _limit(budget.get("judge_calls")), f"{calls:,}"
    yield "judge tokens, read and written", DASH, f"{read:,}, {wrote:,}"
    prices = judge.get("price_input") or 0, judge.get("price_output") or 0
    if any(prices):
        spent = (read * prices[0] + wrote * prices[1]) / 1e6
        yield "judge cost", _limit(budget.get("judge_cost")), f"{spent:.2f}"


def _usage(directory: Path, trials: Sequence[TrialResult]) -> list[Mapping[str, Any]]:
    own = [usage for trial in trials if (usage := trial.get("judge_usage"))]
    return own + [read_json(path) for path in (directory / TRIALS).glob(f"*/{usage_against('*')}")]


def _limit(limit: float | None) -> str:
    return f"at most {limit:,}" if limit else DASH


def early_exits(results: SweepResult) -> Section:
    """Trials of the search that stopped because they were clearly behind."""
    stopped = [trial for trial in results.trials if trial.is_stopped]
    notes = (EXITS,) if stopped else ("No trial was stopped early.",)
    return Section("Early exits", notes, reason_tables(stopped, "trial that was stopped"))


EXITS = (
    "These trials were clearly behind others of their own arm, so they stopped. That is no failure."
)


def failures(results: SweepResult) -> Section:
    """Trials that came to no end, with kind and reason."""
    failed = [trial for trial in results.trials if trial.win_rate is None and not trial.is_stopped]
    notes = () if failed else ("No trial failed.",)
    return Section("Failures", notes, reason_tables(failed, "trial without a result"))
