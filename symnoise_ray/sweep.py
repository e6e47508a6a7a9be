"""The sweep from end to end: baselines, search, confirmation, verdict.

In: a search space. Out: a directory with every trial, the Optuna study, results.json and the
report; runs in MLflow; the verdict on the screen. The exit status is 0 only for a whole sweep.
"""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.errors import UserError
from symnoise_ray.judges.protocol import Judge
from symnoise_ray.live import Board
from symnoise_ray.plans import SweepPlans, first_point, prepare, size_text
from symnoise_ray.records import require_folder, write_json
from symnoise_ray.report import write_report
from symnoise_ray.results import assemble, exit_code
from symnoise_ray.session import in_ray_job, ray_session
from symnoise_ray.space import flat, search_size
from symnoise_ray.tracking import Tracker
from symnoise_ray.watch import Watch

LOCKED = ("ray", "torch", "deepspeed", "transformers", "optuna", "mlflow", "numpy", "sacrebleu")
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

    @property
    def plans(self) -> SweepPlans:
        """The plans of its trials."""
        return SweepPlans(self.config, self.directory)

    @property
    def judge(self) -> JudgeConfig:
        """The judge of all its trials."""
        return self.plans.config(first_point(self.config)).judge


@contextmanager
def claim_directory(name: str, output: Path | None) -> Iterator[Path]:
    """Make the sweep's directory: `output`, else the first free of runs/NAME, runs/NAME-2, ...

    It is made at once, so that no two sweeps take the same, and goes away if nothing is written.
    Inside a Ray job the working directory is a copy that goes away, so runs lie in the home.

    Raises:
        UserError: `output` holds something already, or a directory cannot be made there.
    """
    root = (Path.home() if in_ray_job() else Path.cwd()) / "runs"
    try:
        directory = _first_free(root, name) if output is None else _empty(output)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UserError(f"--output {output or root}: must be writable, but {reason}") from None
    try:
        yield directory
    finally:
        with suppress(OSError):  # it holds something
            directory.rmdir()


def _empty(output: Path) -> Path:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"--output {output}: must be a new or empty directory, since results are never "
            "overwritten; choose another"
        )
    output.mkdir(parents=True, exist_ok=True)
    return output.absolute()


def _first_free(root: Path, name: str) -> Path:
    number = 1
    while True:
        directory = root / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return directory


def run_sweep(space: str, overrides: Sequence[str], output: Path | None, console: Console) -> int:
    """Run a whole sweep and tell what it found; returns the exit status.

    Raises:
        UserError: the input is not usable; nothing was created.
        Interrupted: a signal came; what was done is on disk.
    """
    began = time.monotonic()
    config = prepare(space, overrides)
    with claim_directory(config.name, output) as directory:
        return _run_in(directory, config, console, began)


def _run_in(directory: Path, config: SweepConfig, console: Console, began: float) -> int:
    uri = config.tracking.uri or f"sqlite:///{directory.parent / 'mlflow.db'}"
    board = Board(console, f"{config.name}: {directory}")
    sweep = Sweep(config, directory, board, uri, began)
    board.say(f"sweep {config.name}: {size_text(config)}; results in {_short(directory)}")
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
    from symnoise_ray.workers.judging import judge_workers

    sweep.board.say(f"starting the judge {sweep.judge.model} ...")
    with judge_workers(sweep.judge, sweep.config.workers.start_minutes) as judge:
        _check_judge(sweep, judge)
        yield judge


def _check_judge(sweep: Sweep, local: Judge | None = None) -> None:
    """Try the judge on planted pairs before anything is trained.

    Raises:
        JudgeError: it cannot tell good answers from bad ones.
        UserError: its prompt, key or model cannot be read.
    """
    if sweep.judge.type != "reference":
        from symnoise_ray.judges.check import check_settings, self_check  # clients, where needed

        check_settings(sweep.judge)
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
    _write_sources(sweep)
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
    from symnoise_ray.confirm import choose, comparisons, labels, run_confirmation
    from symnoise_ray.search import run_search  # ray.tune and optuna: over a second

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


def _write_sources(sweep: Sweep) -> None:
    """What is needed to run the sweep again: configuration, versions, digests, seeds."""
    config = sweep.config
    write_json(config.model_dump(mode="json"), sweep.directory / "sweep.json")
    lock = {
        "versions": {name: metadata.version(name) for name in LOCKED},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "baselines": [sweep.plans.config(point).digest() for point in config.baselines],
        "search_seed": config.search.seed,
    }
    write_json(lock, sweep.directory / "run.lock.json")


def _start_parent(sweep: Sweep, tracker: Tracker) -> None:
    """The sweep's own run: what is fixed, and how it searches."""
    config = sweep.config
    point = first_point(config)
    fixed = flat(sweep.plans.config(point))
    varied = {name for p in config.baselines for name in p} | set(config.parameters)
    params = {name: value for name, value in fixed.items() if name not in varied}
    for section in ("search", "confirm", "workers"):
        values = getattr(config, section).model_dump(mode="json")
        params |= {f"{section}.{name}": value for name, value in values.items()}
    for name, parameter in config.parameters.items():
        params[f"parameters.{name}"] = parameter.model_dump(mode="json", exclude_defaults=True)
    tracker.log("start", config.name, parent=None, params=params, tags={"symnoise.part": "sweep"})


def _finish(sweep: Sweep, watch: Watch, tracker: Tracker, *, interrupted: bool) -> dict[str, Any]:
    """Write results.json and the report, and end the sweep's run in MLflow."""
    started = time.monotonic()
    for result in watch.results:
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
    record: dict[str, Any] = {"step": 0, "num_trials": len(results["trials"])}
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
