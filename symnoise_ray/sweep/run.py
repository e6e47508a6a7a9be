"""The sweep from end to end: baselines, search, confirmation, verdict.

In: a search space. Out: a directory with every trial, the Optuna study, results.json and the
report; runs in MLflow; the verdict on the screen. The exit status is 0 only for a whole sweep.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.judges.protocol import Judge
from symnoise_ray.preflight.inputs import prepare
from symnoise_ray.records.files import contents, require_folder, write_json
from symnoise_ray.report.board import Board
from symnoise_ray.report.write import write_report
from symnoise_ray.space.parameters import flat, search_size
from symnoise_ray.space.paths import input_files
from symnoise_ray.space.trials import SweepPlans, first_point, known_points, size_text
from symnoise_ray.sweep.directory import claim_directory
from symnoise_ray.sweep.results import assemble, exit_code
from symnoise_ray.sweep.resume import Past, begin, has_begun
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.tracking.mlflow_runs import Tracker
from symnoise_ray.workers.session import ray_session

INTERRUPTED_CLOSE_SECONDS = 1.5
"""`ray job stop` leaves three seconds in all by default."""


@dataclass
class Sweep:
    """A sweep on its way: what it is, where it writes, what it has found."""

    config: SweepConfig
    directory: Path
    board: Board
    uri: str
    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    comparisons: list[Any] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    past: Past = field(default_factory=Past)

    @property
    def seeds(self) -> dict[str, Any]:
        """What decides the numbers beside the settings, for run.lock.json."""
        plans, config = self.plans, self.config
        return {
            "baselines": [plans.config(point).digest() for point in config.baselines],
            "search_seed": config.search.seed,
            "files": contents(input_files(plans.config(point) for point in known_points(config))),
        }

    @property
    def plans(self) -> SweepPlans:
        """The plans of its trials."""
        return SweepPlans(self.config, self.directory)

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
) -> int:
    """Run a whole sweep, or what is left of it, and tell what it found; returns the exit status.

    Raises:
        UserError: the input is not usable; nothing was created.
        Interrupted: a signal came; what was done is on disk.
    """
    began = time.monotonic()
    config = prepare(space, overrides)
    with claim_directory(config.name, output, resume=resume) as directory:
        return _run_in(directory, config, console, began)


def _run_in(directory: Path, config: SweepConfig, console: Console, began: float) -> int:
    uri = config.tracking.uri or f"sqlite:///{directory.parent / 'mlflow.db'}"
    board = Board(console, f"{config.name}: {directory}")
    sweep = Sweep(config, directory, board, uri, began)
    _check_settings(sweep)  # before anything is written: a key in a wrong place must not be
    if has_begun(directory):
        sweep.past = begin(config, directory, sweep.seeds)
    verb = f"part {sweep.past.parts + 1} of the sweep in" if sweep.past.parts else "results in"
    board.say(f"sweep {config.name}: {size_text(config)}; {verb} {_short(directory)}")
    if sweep.past.other_versions:
        told = ", ".join(sweep.past.other_versions)
        board.say(f"not as in its first part, so that numbers may differ a little: {told}")
    if sweep.judge.type != "local":
        _check_judge(sweep)
    with ray_session() as resources:
        num_slots = _count_slots(sweep, resources)
        with _local_judge(sweep) as local:
            results = _run(sweep, num_slots, local)
    summarise(results, directory, board)
    return exit_code(results)


@contextmanager
def _local_judge(sweep: Sweep) -> Iterator[Judge | None]:
    """A local judge on its workers, tried on planted pairs; None for another judge."""
    if sweep.judge.type != "local":
        yield None
        return
    from symnoise_ray.judges.remote import judge_workers

    sweep.board.say(f"starting the judge {sweep.judge.model} ...")
    with judge_workers(sweep.judge, sweep.config.workers.start_minutes) as judge:
        _check_judge(sweep, judge)
        yield judge


def _check_settings(sweep: Sweep) -> None:
    """Read what can be read of the judge: its prompt, key or annotators."""
    if sweep.judge.type != "reference":
        from symnoise_ray.judges.self_check import check_settings  # clients, where needed

        check_settings(sweep.judge)


def _check_judge(sweep: Sweep, local: Judge | None = None) -> None:
    """Try the judge on planted pairs before anything is trained.

    Raises:
        JudgeError: it cannot tell good answers from bad ones.
        UserError: its store of verdicts cannot be written.
    """
    if sweep.judge.type != "reference":
        from symnoise_ray.judges.self_check import self_check

        require_folder(sweep.directory.parent / sweep.judge.cache, "judge.cache")
        self_check(sweep.judge, sweep.directory.parent, str(sweep.directory), local)


def _count_slots(sweep: Sweep, resources: dict[str, float]) -> int:
    from symnoise_ray.workers.pool import count_slots  # ray, after the input is checked

    num_trials = len(sweep.config.baselines) + search_size(sweep.config)
    return count_slots(sweep.config.workers, resources, num_trials, sweep.judge)


def _run(sweep: Sweep, num_slots: int, judge: Judge | None) -> dict[str, Any]:
    """Everything that needs the cluster, and the results whatever happens."""
    from symnoise_ray.workers.pool import Pool

    config, plans = sweep.config, sweep.plans
    if not sweep.past.parts:
        begin(config, sweep.directory, sweep.seeds)
    tracker = Tracker(sweep.directory, sweep.uri, config.tracking.experiment)
    _start_parent(sweep, tracker)
    sweep.board.say(f"starting {num_slots} worker group{'s' if num_slots > 1 else ''} ...")
    watch = Watch(config.name, sweep.board, tracker)
    warm = plans.search(0, first_point(config)).config
    try:
        with (
            Pool(config.workers, num_slots, warm, sweep.directory / ".slots", judge) as pool,
            sweep.board,
            watch,
        ):
            _search_and_confirm(sweep, pool, watch, num_slots)
    except BaseException as error:
        watch.abandon()
        _finish(sweep, watch, tracker, interrupted=isinstance(error, KeyboardInterrupt))
        raise
    return _finish(sweep, watch, tracker, interrupted=False)


def _search_and_confirm(sweep: Sweep, pool: Any, watch: Watch, num_slots: int) -> None:
    from symnoise_ray.sweep.confirm import choose, comparisons, labels, run_confirmation
    from symnoise_ray.sweep.search import run_search  # ray.tune and optuna: over a second

    plans = sweep.plans
    pool.wait_until_up()
    started = time.monotonic()
    sweep.seconds["start"] = started - sweep.began
    run_search(plans, pool.workers, watch, num_slots=num_slots, storage=sweep.directory)
    sweep.seconds["search"] = time.monotonic() - started
    confirm = sweep.config.confirm
    if confirm.top_k:
        started = time.monotonic()
        arms = choose(watch.results, confirm)
        if arms:
            sweep.board.say(f"confirming {', '.join(arms)} on fresh seeds and prompts ...")
        by_arm = run_confirmation(plans, arms, pool.workers, watch, num_slots)
        sweep.comparisons, sweep.labels = comparisons(by_arm, confirm.contrasts), labels(arms)
        sweep.seconds["confirm"] = time.monotonic() - started


def _start_parent(sweep: Sweep, tracker: Tracker) -> None:
    """The sweep's own run: what is fixed, and how it searches; told once, whatever the parts."""
    config = sweep.config
    tags = {"symnoise.part": "sweep", "symnoise.parts": str(sweep.past.parts + 1)}
    if tracker.journal.path.exists():
        tracker.log("start", config.name, parent=None, params={}, tags=tags)
        return
    point = first_point(config)
    fixed = flat(sweep.plans.config(point))
    varied = {name for p in config.baselines for name in p} | set(config.parameters)
    params = {name: value for name, value in fixed.items() if name not in varied}
    for section in ("search", "confirm", "workers"):
        values = getattr(config, section).model_dump(mode="json")
        params |= {f"{section}.{name}": value for name, value in values.items()}
    for name, parameter in config.parameters.items():
        params[f"parameters.{name}"] = parameter.model_dump(mode="json", exclude_defaults=True)
    tracker.log("start", config.name, parent=None, params=params, tags=tags)


def _finish(sweep: Sweep, watch: Watch, tracker: Tracker, *, interrupted: bool) -> dict[str, Any]:
    """Write results.json and the report, and end the sweep's run in MLflow."""
    started = time.monotonic()
    for result in watch.results:
        if result["trial"] in watch.before:
            continue
        track = round(tracker.applier.seconds.get(result["trial"], 0.0), 3)
        result["seconds"]["track"] = track
        record = {"step": result.get("num_steps", 0), "seconds/track": track}
        tracker.log("metrics", result["trial"], records=[record])
    sweep.seconds["wall"] = time.monotonic() - sweep.began
    seconds = {name: round(value, 2) for name, value in sweep.seconds.items()}
    results = assemble(
        sweep.config,
        watch.results,
        sweep.comparisons,
        sweep.labels,
        seconds,
        uri=sweep.uri,
        interrupted=interrupted,
        parts=sweep.past.parts + 1,
        looks=sweep.past.looks + 1,
    )
    write_json(results, sweep.directory / "results.json")
    write_report(sweep.directory, results)
    _end_parent(sweep, results, tracker, time.monotonic() - started)
    problem = tracker.close(INTERRUPTED_CLOSE_SECONDS) if interrupted else tracker.close()
    if problem:
        sweep.board.say(
            f"not everything reached MLflow ({problem}); the journal has it: "
            f"symnoise-ray sync {_short(sweep.directory)}"
        )
    return results


def _end_parent(
    sweep: Sweep, results: dict[str, Any], tracker: Tracker, report_seconds: float
) -> None:
    name = sweep.config.name
    scored = [t for t in results["trials"] if t["part"] == "search" and t["status"] == "done"]
    # Of a sweep in several parts, each tells its own: the last one counts.
    record: dict[str, Any] = {"step": sweep.past.parts, "num_trials": len(results["trials"])}
    if scored:
        record["best_win_rate"] = max(trial["win_rate"] for trial in scored)
    for phase, value in {**results["seconds"], "report": report_seconds}.items():
        if isinstance(value, float | int):
            record[f"seconds/{phase}"] = value
    for phase, value in results["seconds"]["by_phase"].items():
        record[f"seconds/trials/{phase}"] = value
    for comparison in results["verdict"]["comparisons"]:
        record[f"confirmed_win_rate/{comparison['arm']}"] = comparison["win_rate"]
    tracker.log("metrics", name, records=[record])
    for file in ("results.json", "report.html", "report.md", "sweep.json", "run.lock.json"):
        tracker.log("file", name, path=file)
    sentence = results["verdict"]["sentence"]
    status = {"whole": "FINISHED", "partial": "FINISHED", "failed": "FAILED"}
    tracker.log(
        "end",
        name,
        status=status.get(results["status"], "KILLED"),
        tags={"mlflow.note.content": sentence, "symnoise.status": results["status"]},
    )


def summarise(results: dict[str, Any], directory: Path, board: Board) -> None:
    """The end of a sweep on the screen: table, where the time went, verdict, what to open."""
    board.summary()
    phases = ", ".join(
        f"{name} {value:.0f} s" for name, value in results["seconds"]["by_phase"].items()
    )
    wall = results["seconds"]["wall"]
    board.say(f"\n{wall:.0f} s in all; over all trials: {phases}")
    left_out = {k: v for trial in results["trials"] for k, v in trial.get("counts", {}).items()}
    for what, number in left_out.items():
        board.say(f"{number} {what}")
    board.say(f"\nVerdict: {results['verdict']['sentence']}\n")
    python = _short(Path(sys.executable))
    uri = results["tracking"]["uri"]
    board.say(f"report:  {python} -m webbrowser {(directory / 'report.html').as_uri()}")
    board.say(
        f"runs:    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {python} -m mlflow ui "
        f"--backend-store-uri {shlex.quote(uri)}"
    )


def _short(path: Path) -> str:
    """A path as a person would type it from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
