"""The sweep from end to end: baselines, search, confirmation, verdict.

In: a search space. Out: a directory with every trial, the Optuna study, results.json and the
report; runs in MLflow; the verdict on the screen. The exit status is 0 only for a whole sweep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.config.loading import find_space
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.preflight.inputs import prepare
from symnoise_ray.records.files import short_path
from symnoise_ray.records.layout import SLOTS
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.records.verdict import Choice, Decision
from symnoise_ray.report.board import Board
from symnoise_ray.space.counts import size_text
from symnoise_ray.space.design import FRESH_SEED
from symnoise_ray.space.trials import SweepPlans, first_point, known_points
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.directory import claim_directory
from symnoise_ray.sweep.earlier import used_prompts
from symnoise_ray.sweep.judge import check_judge, judges_of_sweep
from symnoise_ray.sweep.mend import mend
from symnoise_ray.sweep.ordered import with_ordered_budget
from symnoise_ray.sweep.pairs import spent_on_pairs
from symnoise_ray.sweep.place import Place, place
from symnoise_ray.sweep.prompts import prompts_of
from symnoise_ray.sweep.questions import questions
from symnoise_ray.sweep.registration import register
from symnoise_ray.sweep.results import assemble, settle
from symnoise_ray.sweep.resume import Past, begin, has_begun, seeds_of, weights_of
from symnoise_ray.sweep.steering import Steering
from symnoise_ray.sweep.step_costs import measure_step_costs
from symnoise_ray.sweep.summary import summarise
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.tracking import events
from symnoise_ray.tracking.mlflow_runs import Tracker
from symnoise_ray.tracking.origin import origin_tags
from symnoise_ray.tracking.store import Store, choose_store, require_driver, written_down
from symnoise_ray.workers.job_place import note_place
from symnoise_ray.workers.session import ray_session

if TYPE_CHECKING:
    from symnoise_ray.sweep.proposals import Proposals
    from symnoise_ray.workers.client import Workers  # ray, after the input is checked

INTERRUPTED_CLOSE_SECONDS = 1.5
"""`ray job stop` leaves three seconds in all by default."""


SPENT = (
    "{} was spent, so the sweep ended before its design did; with a larger budget it goes on: "
    "--resume --output {}"
)


@dataclass
class Sweep:
    """A sweep on its way: what it is, where it writes, what it has found."""

    config: SweepConfig
    directory: Path
    board: Board
    store: Store
    source: Path
    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    past: Past = field(default_factory=Past)
    declared: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Note what it needs to be run again, or take up its earlier parts."""
        configs = [self.plans.config(point) for point in known_points(self.config)]
        asked = prompts_of(configs, confirms=bool(self.config.confirm.arms))
        seeds = seeds_of(self.plans)
        if not has_begun(self.directory):
            seeds["weights"] = weights_of(self.plans)  # it may take a second per gigabyte
        self.past = begin(self.config, self.directory, seeds, asked)

    @property
    def plans(self) -> SweepPlans:
        """The plans of its trials."""
        fresh, asked = self.declared.get("fresh_seeds_from", FRESH_SEED), self.past.prompts
        limit = asked.search_limit if asked else None
        return SweepPlans(self.config, self.directory, fresh, limit)

    @property
    def judge(self) -> JudgeConfig:
        """The judge of all its trials."""
        return self.plans.config(first_point(self.config)).judge


def run_sweep(
    space: str,
    overrides: Sequence[str],
    output: Path | None,
    console: Console,
    *,
    resume: bool = False,
) -> SweepResult:
    """Run a whole sweep, or what is left of it, and say on the console what it found.

    Raises:
        UserError: the input is not usable; nothing was created.
        Interrupted: a signal came; what was done is on disk.
    """
    began = time.monotonic()
    config = prepare(space, overrides)
    require_driver(choose_store(config.tracking, Path(), os.environ))
    with claim_directory(config.name, output, resume=resume) as directory:
        return _run_in(directory, config, find_space(space), console, began)


def _run_in(
    directory: Path, config: SweepConfig, source: Path, console: Console, began: float
) -> SweepResult:
    store = choose_store(config.tracking, directory, os.environ)
    # From here on nothing but the store knows a password, so that no file can get it.
    tracking = written_down(config.tracking, store, directory)
    config = config.model_copy(update={"tracking": tracking})
    board = Board(console, f"{config.name}: {directory}")
    board.standing.began = began
    sweep = Sweep(config, directory, board, store, source, began)
    if has_begun(directory):
        sweep.begin()
        for line in mend(directory):
            board.say(line)
    verb = f"part {sweep.past.parts + 1} of the sweep in" if sweep.past.parts else "results in"
    board.say(f"sweep {config.name}: {size_text(config)}; {verb} {short_path(directory)}")
    board.say(f"runs are logged in MLflow at {store.shown}, experiment {store.experiment}")
    if sweep.past.prompts and sweep.past.prompts.told:
        board.say(sweep.past.prompts.told)
    if sweep.past.other_versions:
        changed = ", ".join(sweep.past.other_versions)
        board.say(f"not as in its first part, so that numbers may differ a little: {changed}")
    if sweep.judge.type != "local":
        check_judge(sweep.judge, directory)
    with board, ray_session(board.say, _import_next):
        note_place(directory)
        found = place(sweep.plans, sweep.judge)
        minutes = config.workers.start_minutes
        with judges_of_sweep(sweep.judge, directory, minutes, board.say) as judges:
            result, page = _run(sweep, found, judges)
    summarise(result, store, page, board)
    return result


def _import_next() -> None:
    """Import Ray Train, Ray Tune, Optuna and the report's figures: two seconds."""
    from symnoise_ray.workers.pool import import_slots

    import_slots()
    import symnoise_ray.report.write
    import symnoise_ray.sweep.search  # noqa: F401


def _run(sweep: Sweep, found: Place, judges: JudgeSource) -> tuple[SweepResult, str]:
    """Everything that needs the cluster, and the results whatever happens.

    Returns:
        What it found, and the page of MLflow that shows it; empty where MLflow did not answer.
    """
    from symnoise_ray.workers.pool import Pool

    config, slots = sweep.config, found.slots
    if not sweep.past.parts:
        sweep.begin()
    asked = sweep.past.prompts
    num_prompts = asked.num_grown if asked else 0
    sweep.declared = register(config, sweep.directory, sweep.past.looks, num_prompts)
    plans = sweep.plans
    _warn_of_reuse(sweep)
    tags = origin_tags(sweep.source)
    tracker = Tracker(sweep.directory, sweep.store.uri, sweep.store.experiment, tags)
    events.start_sweep(tracker, plans, sweep.past.parts + 1)
    groups = f"{slots.number} worker group{'s' if slots.number > 1 else ''}"
    sweep.board.say(f"starting {groups}, {slots.why} ...")
    watch = Watch(config.name, sweep.board, tracker)
    budget = _budget(sweep, watch, slots.number)
    steering = Steering(plans, watch, budget)
    sweep.board.standing.num_slots, sweep.board.standing.phase = slots.number, "starting slots"
    warm = plans.search(0, first_point(config)).config
    try:
        with (
            Pool(
                *(config.workers, slots.number, warm, sweep.directory / SLOTS, found.checked),
                say=sweep.board.say,
            ) as pool,
            watch,
            steering.of(pool.workers),
        ):
            from symnoise_ray.sweep.search import open_study

            proposals = open_study(steering)  # while slots start
            pool.wait_until_up()
            measure_step_costs(plans, pool.workers, sweep.board.say)
            _search_and_confirm(sweep, judges, steering, slots.number, proposals)
    except BaseException as error:
        watch.abandon()
        patient = not isinstance(error, KeyboardInterrupt)
        _finish(sweep, watch, tracker, ended=False, patient=patient)
        raise
    result = _finish(sweep, watch, tracker, ended=True, patient=True)
    return result, events.page(tracker, result)


def _budget(sweep: Sweep, watch: Watch, num_slots: int) -> Budget:
    asked = sweep.past.prompts
    return Budget(
        with_ordered_budget(sweep.config, sweep.directory),
        sweep.judge,
        lambda: watch.results,
        sweep.began,
        num_slots,
        pairs=partial(spent_on_pairs, sweep.directory),
        num_prompts=(len(asked.search), len(asked.confirm)) if asked and asked.confirm else (1, 1),
    )


def _search_and_confirm(
    sweep: Sweep,
    judges: JudgeSource,
    steering: Steering,
    num_slots: int,
    proposals: Proposals,
) -> None:
    from symnoise_ray.sweep.search import run_search  # ray.tune and optuna: over a second

    plans, watch, budget, workers = sweep.plans, steering.watch, steering.budget, steering.workers
    standing, started = sweep.board.standing, time.monotonic()
    sweep.seconds["start"], standing.phase = started - sweep.began, "search"
    run_search(steering, judges, num_slots, proposals)
    sweep.seconds["search"] = time.monotonic() - started
    if sweep.config.search.early_exit == "on" and any(each.is_stopped for each in watch.results):
        from symnoise_ray.sweep.early_exit import evidence_note

        sweep.notes.append(evidence_note(plans, watch.results))
    if sweep.config.confirm.arms:
        started, standing.phase = time.monotonic(), "choice of settings"
        _confirm(sweep, workers, judges, watch, budget)
        sweep.seconds["confirm"] = time.monotonic() - started
    if budget.spent_on:
        sweep.notes.append(SPENT.format(budget.spent_on, short_path(sweep.directory)))
        sweep.board.say(sweep.notes[-1])


def _confirm(
    sweep: Sweep, workers: Workers, judges: JudgeSource, watch: Watch, budget: Budget
) -> None:
    """Choose a setting for every arm, and decide on the best ones."""
    from symnoise_ray.sweep.choice import choose, complete_blocks, confirmed_arms
    from symnoise_ray.sweep.confirm import Confirmation
    from symnoise_ray.sweep.decide import decision

    plans = sweep.plans
    searched = [result for result in watch.results if result.part == "search"]
    sweep.choices = choose(complete_blocks(searched, plans), plans, judges, budget.search_may_judge)
    reference = plans.arms.name(plans.arms.reference)
    arms = confirmed_arms(sweep.choices, sweep.config.confirm, reference)
    if not arms:
        return
    parts = sweep.declared["parts"]
    own, asked = questions(plans, sweep.choices, arms, parts)
    confirmation = Confirmation(plans, own, asked, parts)
    confirmation.run(workers, judges, watch, budget)
    sweep.notes += confirmation.notes
    sweep.decisions = [decision(confirmation, each, sweep.choices) for each in asked]


def _warn_of_reuse(sweep: Sweep) -> None:
    """Say which sweeps of the folder have confirmed on the same prompts."""
    data, files = sweep.plans.config(first_point(sweep.config)).data, seeds_of(sweep.plans)["files"]
    names = used_prompts(sweep.directory.parent, sweep.directory, data, files)
    if sweep.config.confirm.arms and names:
        sweep.board.say(
            f"these prompts were confirmed on before, by {', '.join(names)}: a verdict on them is "
            "not independent of theirs"
        )


def _finish(
    sweep: Sweep, watch: Watch, tracker: Tracker, *, ended: bool, patient: bool
) -> SweepResult:
    """Write results.json and the report, and end the sweep's run in MLflow."""
    started = time.monotonic()
    trials = [_with_tracking_time(result, watch, tracker) for result in watch.results]
    sweep.seconds["wall"] = time.monotonic() - sweep.began
    result = assemble(
        sweep.config,
        sweep.directory,
        trials,
        list(sweep.choices.values()),
        sweep.decisions,
        {name: round(value, 2) for name, value in sweep.seconds.items()},
        notes=sweep.notes,
        store=sweep.store,
        interrupted=not ended,
        parts=sweep.past.parts + 1,
        looks=sweep.past.looks + 1,
    )
    result = settle(result, ended=ended)
    events.end_sweep(tracker, sweep.config, result, watch.settings, time.monotonic() - started)
    if told := events.register_winner(tracker, sweep.config, result):
        sweep.board.say(told)
    problem = tracker.close(patient=True) if patient else tracker.close(INTERRUPTED_CLOSE_SECONDS)
    if problem:
        sweep.board.say(
            f"not everything reached MLflow ({problem}); the journal has it: "
            f"symnoise-ray sync {short_path(sweep.directory)}"
        )
    return result


def _with_tracking_time(result: TrialResult, watch: Watch, tracker: Tracker) -> TrialResult:
    if result.trial in watch.before:
        return result
    timed = result.with_seconds(track=round(tracker.applier.seconds.get(result.trial, 0.0), 3))
    events.log_tracking_time(tracker, timed)
    return timed
