"""Warm slots: trials are handed out, followed, cancelled, and survive what happens to workers."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from symnoise_ray.config import TrialConfig, WorkersConfig
from symnoise_ray.errors import (
    CancelledError,
    DivergedError,
    InfrastructureError,
    OutOfMemoryError,
    UserError,
)
from symnoise_ray.records.files import read_lines
from symnoise_ray.workers.client import ANSWER_SECONDS, Workers
from symnoise_ray.workers.hub import MAX_ATTEMPTS, MAX_START_FAILURES, Hub
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.pool import Pool


@contextmanager
def warm_slot(storage: Path) -> Iterator[Pool]:
    """One slot of one worker, which is up, on a private Ray."""
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        with Pool(WorkersConfig(), 1, short_trial(), storage) as opened:
            opened.wait_until_up()
            yield opened
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One warm slot of one worker on a private Ray."""
    with warm_slot(tmp_path_factory.mktemp("slots")) as opened:
        yield opened


def short_trial(**train: object) -> TrialConfig:
    settings = {"max_steps": 6, "global_batch_size": 8, "num_clean_rows": 8, "num_evals": 1}
    return TrialConfig.model_validate(
        {
            "noise": {"type": "symnoise", "alpha": 5},
            "optim": {"lr": 2e-3},
            "data": {"max_eval_prompts": 4},
            "train": settings | train,
            "generate": {"max_new_tokens": 6},
        }
    )


def run(pool: Pool, name: str, config: TrialConfig, directory: Path) -> Outcome:
    last = list(pool.workers.run(name, config, directory))[-1]
    assert isinstance(last, Outcome)
    return last


def slot_state(pool: Pool) -> dict[str, object]:
    state = ray.get(pool.hub.state.remote())
    return dict(state["slots"]["slot-0"])


def worker_pid(pool: Pool) -> int:
    pids = slot_state(pool)["pids"]
    assert isinstance(pids, dict)
    return int(pids[0])


def spent(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fresh_process(config: TrialConfig, directory: Path) -> None:
    """The same trial without Ray, in a process of its own."""
    import subprocess
    import sys

    directory.mkdir()
    (directory / "trial.json").write_text(config.model_dump_json())
    code = (
        "import pathlib, torch; torch.set_num_threads(1)\n"
        "from symnoise_ray.config.loading import load_trial\n"
        "from symnoise_ray.workers.task import run_task\n"
        f"out = pathlib.Path({str(directory)!r})\n"
        "outcome = run_task(load_trial(out / 'trial.json'), out, report=lambda record: None,\n"
        "                   cancelled=lambda: False)\n"
        "assert outcome.status == 'done', outcome\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def answers(directory: Path) -> list[str]:
    return [row["output"] for row in read_lines(directory / "completions.jsonl")]


def actors_of_ray() -> dict[str, psutil.Process]:
    """The actors of this process's Ray by the names of their classes."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline())
        if title.startswith("ray::"):
            found[title.removeprefix("ray::").split(".")[0].strip()] = process
    return found


@pytest.mark.slow
def test_beside_a_slot_runs_only_what_it_needs_and_its_rank_alone_imports_torch(pool: Pool):
    found = actors_of_ray()
    assert {"TrainController", "Hub", "RayTrainWorker"} <= set(found)
    assert not {"DatasetManager", "PlacementGroupCleaner", "PreemptionWatcher"} & set(found)
    with_torch = {
        name
        for name, process in found.items()
        if any("libtorch" in each.path for each in process.memory_maps())
    }
    assert with_torch == {"RayTrainWorker"}


@pytest.mark.slow
def test_ten_trials_in_one_slot_stay_equal_and_leave_no_memory(pool: Pool, tmp_path: Path):
    """Warm and fresh losses and answers are the same bits; memory is flat after the third."""
    memory = []
    for number in range(10):
        config = short_trial(zero_stage=number % 3)
        run(pool, f"ten-{number}", config, tmp_path / f"{number}")
        memory.append(resident_mib(worker_pid(pool)))
    for stage in range(3):
        fresh = tmp_path / f"fresh-{stage}"
        fresh_process(short_trial(zero_stage=stage), fresh)
        for number in range(stage, 10, 3):
            warm = tmp_path / f"{number}"
            assert read_lines(warm / "metrics.jsonl") == read_lines(fresh / "metrics.jsonl")
            assert answers(warm) == answers(fresh)
    assert max(memory[3:]) - memory[2] < 8, memory


@pytest.mark.slow
@pytest.mark.nightly
def test_forty_trials_end_with_the_memory_of_the_first(pool: Pool, tmp_path: Path):
    """Single figures jump by 7 MiB, since malloc hands pages back when it likes."""
    memory = []
    for number in range(40):
        config = short_trial(zero_stage=number % 4)
        run(pool, f"forty-{number}", config, tmp_path / f"{number}")
        memory.append(resident_mib(worker_pid(pool)))
    assert median(memory[-5:]) - median(memory[3:8]) < 16, memory


@pytest.mark.slow
def test_records_come_while_the_trial_runs(pool: Pool, tmp_path: Path):
    records = list(pool.workers.run("records", short_trial(), tmp_path / "records"))
    steps = [record["step"] for record in records[:-1] if isinstance(record, dict)]
    assert steps == list(range(7))
    finished = records[-1]
    assert isinstance(finished, Outcome)
    assert set(finished.seconds) == {"start", "load", "train", "generate"}


@pytest.mark.slow
def test_a_cancelled_trial_frees_its_slot_within_a_second(pool: Pool, tmp_path: Path):
    running = pool.workers.run("long", short_trial(max_steps=5000), tmp_path / "long")
    next(running)
    # Of the worker's own seconds, which do not pass while other processes have the machine.
    began = spent(worker_pid(pool))
    pool.workers.cancel("long")
    with pytest.raises(CancelledError, match="cancelled at step"):
        list(running)
    following = pool.workers.run("following", short_trial(), tmp_path / "following")
    assert next(following) is not None
    assert spent(worker_pid(pool)) - began < 1.0
    assert isinstance(list(following)[-1], Outcome)


@pytest.mark.slow
def test_a_waiting_trial_can_be_cancelled(pool: Pool, tmp_path: Path):
    running = pool.workers.run("first", short_trial(max_steps=5000), tmp_path / "first")
    next(running)
    waiting = pool.workers.run("waiting", short_trial(), tmp_path / "waiting", patience=0.1)
    assert next(waiting) is None
    pool.workers.cancel("waiting")
    with pytest.raises(CancelledError, match="cancelled"):
        list(waiting)
    pool.workers.cancel("first")
    with pytest.raises(CancelledError, match="cancelled at step"):
        list(running)


@pytest.mark.slow
def test_a_failing_trial_leaves_its_worker_alive(pool: Pool, tmp_path: Path):
    pid = worker_pid(pool)
    wild = TrialConfig.model_validate(short_trial().model_dump() | {"optim": {"lr": 1e30}})
    with pytest.raises(DivergedError, match="must be finite, but is nan at step"):
        list(pool.workers.run("diverges", wild, tmp_path / "diverges"))
    odd = TrialConfig.model_validate(
        short_trial().model_dump() | {"generate": {"max_new_tokens": 4096}}
    )
    with pytest.raises(UserError, match="max_new_tokens must be smaller"):
        list(pool.workers.run("raises", odd, tmp_path / "raises"))
    run(pool, "after", short_trial(), tmp_path / "after")
    run(pool, "reference", short_trial(), tmp_path / "reference")
    assert worker_pid(pool) == pid
    metrics = "metrics.jsonl"
    assert read_lines(tmp_path / "after" / metrics) == read_lines(tmp_path / "reference" / metrics)


@pytest.mark.slow
def test_a_killed_workers_trial_is_finished_all_the_same(pool: Pool, tmp_path: Path):
    run(pool, "undisturbed", short_trial(), tmp_path / "undisturbed")
    killed = pool.workers.run("killed", short_trial(), tmp_path / "killed")
    assert next(killed) is not None
    os.kill(worker_pid(pool), signal.SIGKILL)
    records = list(killed)
    finished = records[-1]
    assert isinstance(finished, Outcome)
    assert finished.attempts == 2
    steps = [record["step"] for record in records[:-1] if isinstance(record, dict)]
    assert steps == sorted(set(steps)), "steps that were told before are not told again"
    metrics = "metrics.jsonl"
    undisturbed = read_lines(tmp_path / "undisturbed" / metrics)
    assert read_lines(tmp_path / "killed" / metrics) == undisturbed
    assert answers(tmp_path / "killed") == answers(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_workers_train_like_one(pool: Pool, tmp_path: Path):
    """Same rows, same noise, one loss over all tokens: only the order of sums differs."""
    run(pool, "one", short_trial(), tmp_path / "one")
    one = read_lines(tmp_path / "one" / "metrics.jsonl")
    with Pool(WorkersConfig(num_workers=2), 1, short_trial(), tmp_path) as pair:
        pair.wait_until_up()
        for stage in range(3):
            directory = tmp_path / f"two-{stage}"
            run(pair, f"two-{stage}", short_trial(zero_stage=stage), directory)
            for expected, record in zip(one, read_lines(directory / "metrics.jsonl"), strict=True):
                assert record == pytest.approx(expected, rel=1e-4)
            assert len(answers(directory)) == len(answers(tmp_path / "one"))
        running = pair.workers.run("both", short_trial(max_steps=5000), tmp_path / "both")
        next(running)
        pair.workers.cancel("both")
        with pytest.raises(CancelledError, match="cancelled at step"):
            list(running)


SLOW = {
    "data": {"max_eval_prompts": 108},
    "generate": {"max_new_tokens": 200, "batch_size": 1, "temperature": 10.0},
}
"""Many long answers, one by one: of words at random, so that hardly one ends early."""


@pytest.mark.slow
def test_two_workers_are_free_within_a_second_of_a_cancel_in_training_and_answers(
    pool: Pool, tmp_path: Path
):
    with Pool(WorkersConfig(num_workers=2), 1, short_trial(), tmp_path) as pair:
        pair.wait_until_up()
        pids = ray.get(pair.hub.state.remote())["slots"]["slot-0"]["pids"].values()
        for stage in (0, 3):
            for what, train in (("training", {"max_steps": 5000}), ("answers", {})):
                name = f"{what}-{stage}"
                settings = short_trial(zero_stage=stage, **train).model_dump() | SLOW
                config = TrialConfig.model_validate(settings)
                running = pair.workers.run(name, config, tmp_path / name)
                last = 6 if what == "answers" else 0
                while (next(running) or {}).get("step") != last:
                    pass
                if what == "answers":
                    time.sleep(1)
                began = [spent(pid) for pid in pids]
                pair.workers.cancel(name)
                with pytest.raises(CancelledError, match="cancelled"):
                    list(running)
                used = [spent(pid) - before for pid, before in zip(pids, began, strict=True)]
                assert max(used) < 1.0, name
        assert isinstance(run(pair, "after", short_trial(), tmp_path / "after"), Outcome)


def hub_with_task() -> Hub:
    """A hub with one slot of one rank, that has taken one task."""
    hub = Hub()

    async def prepare() -> None:
        payload = {"config": {"train": {"micro_batch_size": 4}}, "directory": ""}
        await hub.submit("trial", payload, "pool", "key")
        await hub.slot_up("slot", "pool", "first", 0, 1, 1, None)
        await hub.take("slot", "first", 0)

    asyncio.run(prepare())
    return hub


def test_a_trial_that_is_lost_too_often_fails_with_the_reason():
    hub = hub_with_task()

    async def lose_again_and_again() -> None:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            assert hub.tasks["trial"].attempt == attempt
            await hub.slot_down("slot", "pool", "the node went away")
            if attempt < MAX_ATTEMPTS:
                await hub.slot_up("slot", "pool", f"again-{attempt}", 0, 1, 1, None)
                await hub.take("slot", f"again-{attempt}", 0)

    asyncio.run(lose_again_and_again())
    outcome = hub.tasks["trial"].outcome
    assert outcome is not None
    assert outcome.kind == InfrastructureError.kind
    assert outcome.reason == f"lost {MAX_ATTEMPTS} times, last because the node went away"


def test_words_of_an_earlier_life_are_not_heard():
    hub = hub_with_task()

    async def restart_and_talk() -> str:
        await hub.tell("slot", "first", "trial", [{"step": 0}])
        await hub.slot_down("slot", "pool", "killed")
        await hub.slot_up("slot", "pool", "second", 0, 1, 1, None)
        await hub.tell("slot", "first", "trial", [{"step": 1}])
        assert await hub.beat("slot", "first", 0, 0.0) is False
        return await hub.finish("slot", "first", "trial", 0, Outcome("done"))

    assert asyncio.run(restart_and_talk()) == "die"
    assert [event["step"] for event in hub.tasks["trial"].events] == [0]
    assert hub.tasks["trial"].outcome is None


def test_a_hub_that_took_anothers_place_asks_for_the_trials_again_and_tells_no_step_twice():
    hub = Hub()

    async def go_on() -> list[int]:
        assert await hub.events("trial", 3, 0.0) is None, "it does not know the trial"
        payload = {"config": {"train": {"micro_batch_size": 4}}, "directory": ""}
        for _ in range(2):  # the first answer may be lost
            await hub.submit("trial", payload, "pool", "key", last_step=2)
        assert await hub.beat("slot", "old", 0, 0.0) is False, "ranks of the old one are sent home"
        await hub.slot_up("slot", "pool", "new", 0, 1, 1, None)
        await hub.take("slot", "new", 0)
        for step in range(5):
            await hub.tell("slot", "new", "trial", [{"step": step}])
        events, outcome = await hub.events("trial", 0, 0.0)
        assert outcome is None
        return [event["step"] for event in events]

    assert asyncio.run(go_on()) == [3, 4]


def test_ranks_that_leave_an_old_hub_are_no_failed_starts():
    hub = Hub()

    async def leave() -> None:
        await hub.submit("trial", {}, "pool", "key", last_step=2)
        for number in range(MAX_START_FAILURES):
            await hub.slot_down(f"slot-{number}", "pool", "its hub was gone")

    asyncio.run(leave())
    assert hub.tasks["trial"].outcome is None


def test_slots_that_never_start_end_the_waiting_trials():
    hub = Hub()

    async def fail_to_start() -> None:
        await hub.expect("slot", "pool")
        await hub.submit("trial", {}, "pool", "key")
        for _ in range(MAX_START_FAILURES):
            await hub.slot_down("slot", "pool", "the model cannot be read")

    asyncio.run(fail_to_start())
    outcome = hub.tasks["trial"].outcome
    assert outcome is not None
    assert "the model cannot be read" in outcome.reason


def test_an_answer_is_waited_for_as_long_as_the_hub_may_take(monkeypatch: pytest.MonkeyPatch):
    waited: list[float] = []

    def get(_answer: Any, timeout: float) -> None:
        waited.append(timeout)

    monkeypatch.setattr(ray, "get", get)
    hub = SimpleNamespace(ask=SimpleNamespace(remote=lambda *_: None))
    assert Workers(hub, "pool").ask("trial", "Who are you?", 60.0) is None
    assert waited == [60.0 + ANSWER_SECONDS]


def test_a_slot_that_never_starts_ends_no_trial_while_another_is_up():
    hub = hub_with_task()

    async def fail_beside() -> None:
        await hub.expect("other", "pool")
        await hub.submit("waiting", {"config": {"train": {"micro_batch_size": 4}}}, "pool", "key")
        for _ in range(2 * MAX_START_FAILURES):
            await hub.slot_down("other", "pool", "its GPU is broken")
        await hub.submit("later", {"config": {"train": {"micro_batch_size": 4}}}, "pool", "key")

    async def lose_the_last() -> None:
        await hub.slot_down("slot", "pool", "its node went away")
        for _ in range(MAX_START_FAILURES):
            assert hub.tasks["waiting"].outcome is None, "it may come back"
            await hub.slot_down("slot", "pool", "its node cannot be reached")

    asyncio.run(fail_beside())
    assert not hub.gave_up
    assert [hub.tasks[name].outcome for name in ("waiting", "later")] == [None, None]
    asyncio.run(lose_the_last())
    for name in ("trial", "waiting", "later"):
        outcome = hub.tasks[name].outcome
        assert outcome is not None
        assert "its node cannot be reached" in outcome.reason


def test_a_cancelled_trial_that_runs_out_of_memory_is_not_begun_again():
    hub = hub_with_task()

    async def cancel_and_fail() -> None:
        assert await hub.cancel("trial")
        failed = Outcome("failed", kind=OutOfMemoryError.kind, reason="out of memory")
        await hub.finish("slot", "first", "trial", 0, failed)

    asyncio.run(cancel_and_fail())
    outcome = hub.tasks["trial"].outcome
    assert outcome is not None
    assert (outcome.status, outcome.kind) == ("cancelled", CancelledError.kind)
    assert not any(hub.queues.values())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")
def test_memory_that_runs_out_halves_the_micro_batch_and_nothing_else(pool: Pool, tmp_path: Path):
    trial = {"global_batch_size": 512, "max_steps": 2, "packing": "off"}
    small = run(pool, "small", short_trial(**trial, micro_batch_size=32), tmp_path / "small")
    pid = worker_pid(pool)
    unlimited = resource.prlimit(pid, resource.RLIMIT_AS)
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(pid, resource.RLIMIT_AS, (used + 300 * 2**20, unlimited[1]))
    try:
        large = run(pool, "large", short_trial(**trial, micro_batch_size=512), tmp_path / "large")
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
    fitted = large.summary["micro_batch_size"]
    assert 32 <= fitted < 512
    assert worker_pid(pool) == pid
    losses = [
        [row["loss"] for row in read_lines(tmp_path / name / "metrics.jsonl")[1:]]
        for name in ("small", "large")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert large.summary["num_answer_tokens"] == small.summary["num_answer_tokens"]
    later = run(pool, "later", short_trial(**trial, micro_batch_size=512), tmp_path / "later")
    assert later.summary["micro_batch_size"] == fitted
    assert later.attempts == 1


def test_trials_end_with_the_reason_when_no_worker_group_comes_back():
    hub = Hub(start_seconds=1.5)

    async def lose_the_only_slot() -> Outcome | None:
        await hub.slot_up("slot", "pool", "first", 0, 1, 1, b"")
        await hub.submit("running", {"config": {"train": {"micro_batch_size": 4}}}, "pool", "key")
        await hub.take("slot", "first", 0)
        await hub.slot_down("slot", "pool", "the node went away")
        found = await hub.events("running", 0, 20.0)
        assert found is not None
        return found[1]

    outcome = asyncio.run(lose_the_only_slot())
    assert outcome is not None
    assert outcome.reason == (
        "no worker group could be started: none was up for 0.025 minutes (workers.start_minutes), "
        "after the node went away"
    )


def test_a_worker_group_that_comes_back_late_takes_the_trials_after_it():
    hub = Hub(start_seconds=1.5)

    async def come_back() -> dict[str, object] | None:
        payload = {"config": {"train": {"micro_batch_size": 4}}, "directory": ""}
        await hub.submit("first", payload, "pool", "key")
        assert (await hub.events("first", 0, 20.0) or ([], None))[1] is not None
        assert (await hub.state())["gave_up"]
        await hub.slot_up("slot", "pool", "new", 0, 1, 1, b"")
        await hub.submit("second", payload, "pool", "key")
        return await hub.take("slot", "new", 0)

    task = asyncio.run(come_back())
    assert task is not None
    assert task["name"] == "second"


def test_a_trial_that_is_submitted_again_since_no_answer_came_is_queued_once():
    hub = Hub()

    async def submit_twice() -> dict[str, object]:
        payload = {"config": {"train": {"micro_batch_size": 4}}, "directory": ""}
        await hub.submit("trial", payload, "pool", "key")
        await hub.submit("trial", payload, "pool", "key")
        return await hub.state()

    assert asyncio.run(submit_twice())["waiting"] == 1


def test_a_name_is_used_by_one_submitter_alone():
    hub = Hub()

    async def submit_as(*keys: str) -> None:
        for key in keys:
            await hub.submit("trial", {}, "pool", key)

    with pytest.raises(ValueError, match="'trial' was submitted before"):
        asyncio.run(submit_as("one", "another"))


def test_a_rank_that_says_again_that_it_is_through_hears_the_same():
    hub = hub_with_task()

    async def finish_twice() -> list[str]:
        return [await hub.finish("slot", "first", "trial", 0, Outcome("done")) for _ in range(2)]

    assert asyncio.run(finish_twice()) == ["ok", "ok"]
    assert hub.tasks["trial"].attempt == 1


def test_records_that_come_again_behind_later_ones_are_told_once_and_in_order():
    hub = hub_with_task()

    async def tell() -> None:
        for steps in ([0, 1], [0], [0, 1, 2], [1, 2]):
            await hub.tell("slot", "first", "trial", [{"step": step} for step in steps])

    asyncio.run(tell())
    assert [event["step"] for event in hub.tasks["trial"].events] == [0, 1, 2]
