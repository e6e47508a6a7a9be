"""A local judge on Ray workers: the same verdicts from anywhere, whatever happens to a worker."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import UserError
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import judge_all
from symnoise_ray.judges.local import local_judge
from symnoise_ray.judges.protocol import Judge, Pair, by_item
from symnoise_ray.judges.reader import batches
from symnoise_ray.judges.remote import JudgeWorker, RemoteJudge, judge_workers
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import read_json, read_lines
from tests.conftest import ROOT
from tests.judges.test_local import folder, pairs, settings, values
from tests.sweep.test_run import left_by, tune

__all__ = ["folder"]  # a fixture: the tiny judging model

PATIENCE = 120.0
"""Seconds without an answer after which a worker is given up."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A private Ray with room for two pairs of workers, and one more."""
    ray.init(address="local", num_cpus=5, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def config(folder: Path) -> JudgeConfig:
    return settings(folder, batch_size=3, num_workers=2)


@pytest.fixture(scope="module")
def remote(cluster: None, config: JudgeConfig) -> Iterator[RemoteJudge]:
    with judge_workers(config, start_minutes=2) as judge:
        yield judge


def verdicts(judge: Judge, asked: list[Pair]) -> list[float | None]:
    answered = list(judge.judge(asked))
    assert sorted(index for index, _ in answered) == list(range(len(asked))), "one verdict a pair"
    return [verdict.preference for _, verdict in sorted(answered)]


def nearly(preferences: list[Any]) -> Any:
    """Up to one in the last digit, which may turn on what else was in the batch."""
    return pytest.approx(preferences, abs=1.01e-4)


def worker_processes() -> list[psutil.Process]:
    """Processes of judge workers that are alive; one may end while it is looked at."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "JudgeWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
def test_workers_judge_as_one_process_does(remote: RemoteJudge, config: JudgeConfig):
    here = local_judge(config)
    assert remote.identity == here.identity
    assert verdicts(remote, pairs(20)) == verdicts(here, pairs(20))


@pytest.mark.slow
def test_workers_read_the_same_pairs_together_so_that_even_bf16_gives_the_same_verdicts(
    cluster: None, config: JudgeConfig
):
    half = config.model_copy(update={"dtype": "bf16"})
    broken = pairs(40)
    broken[9] = broken[9]._replace(first="too long " * 999)
    with judge_workers(half, start_minutes=2) as remote:
        assert verdicts(remote, pairs(40)) == verdicts(local_judge(half), pairs(40))
        assert verdicts(remote, broken) == verdicts(local_judge(half), broken)


def test_the_orders_of_an_item_are_read_together():
    asked = pairs(20)
    found = batches(asked, 3)
    assert [len(items) for items in found] == [3] * 6 + [2]
    for items in found:
        assert all(len({asked[index].instruction for index in item}) == 1 for item in items)
        assert all(len(item) == 2 for item in items)


def test_an_item_is_its_two_orders_though_the_next_one_has_the_same_instruction():
    one, two, three = (Pair("Go on.", "a", answer) for answer in "bcd")
    asked = [one, one.swapped, two, two.swapped, three, one, one]
    assert by_item(asked) == [[0, 1], [2, 3], [4], [5], [6]]
    earlier = Pair("Go on.", "a", "b", first_turns=(("q", "a"),))
    assert by_item([earlier, earlier.swapped, one]) == [[0, 1], [2]]
    assert by_item([earlier, one.swapped]) == [[0], [1]], "other conversations"
    same = [pair._replace(instruction="Go on.") for pair in pairs(60)]
    found = batches(same, 2)
    assert [len(items) for items in found] == [2] * 30
    assert all(len(item) == 2 for items in found for item in items)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_anew_and_asked_again(remote: RemoteJudge):
    asked = pairs(20)
    before = verdicts(remote, asked)
    running = remote.judge(asked)
    answered = [next(running)]
    for process in worker_processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    answered += running
    assert [verdict.preference for _, verdict in sorted(answered)] == before


@pytest.mark.slow
def test_a_worker_that_cannot_read_the_model_takes_no_pairs_with_it(
    cluster: None, config: JudgeConfig, tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    actor = ray.remote(num_cpus=1)(JudgeWorker)
    other = config.model_copy(update={"model": str(tmp_path / "empty")})
    workers = [actor.remote(config), actor.remote(other)]
    asked = pairs(20)
    remote = RemoteJudge("both", {}, 3, workers, PATIENCE)
    assert verdicts(remote, asked) == nearly(values(local_judge(config), asked))
    assert remote.workers == workers[:1]


MOVED = """
import sys
from pathlib import Path
import psutil
import ray
from symnoise_ray import errors
from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.protocol import Pair
from symnoise_ray.judges.remote import judge_workers
from symnoise_ray.preflight.cluster import code_check

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
config = JudgeConfig.model_validate_json(sys.argv[1])
with judge_workers(config, 2, code_check()) as judge:
    asked = [Pair("Name a colour.", "Red.", "I cannot.")]
    (_, verdict), = judge.judge(asked)
    assert verdict.preference is not None, verdict
    with Path(errors.__file__).open("a") as file:
        file.write("# edited")
    for process in psutil.Process().children(recursive=True):
        if "JudgeWorker" in " ".join(process.cmdline()):
            process.kill()
            process.wait()
    (_, verdict), = judge.judge([asked[0].swapped])
    assert verdict.preference is None and judge.workers == [], verdict
    print(verdict.reason)
"""


@pytest.mark.slow
def test_a_worker_that_is_started_again_where_other_code_lies_reads_nothing(
    config: JudgeConfig, tmp_path: Path
):
    shutil.copytree(ROOT / "symnoise_ray", tmp_path / "symnoise_ray")
    (tmp_path / "moved.py").write_text(MOVED)
    one = config.model_copy(update={"num_workers": 1}).model_dump_json()
    found = subprocess.run(
        [sys.executable, tmp_path / "moved.py", one],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # Ray lets workers import from here first
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "its symnoise_ray must be the same code as here, but differs" in found.stdout


def mortal_workers(config: JudgeConfig, count: int) -> list[Any]:
    """Judge workers whose process ends whenever it reads an answer DEADLY."""

    class Mortal(JudgeWorker):
        def judge(self, key: str, pairs: list[Pair]) -> Any:
            if any("DEADLY" in (pair.first, pair.second) for pair in pairs):
                os._exit(1)
            return super().judge(key, pairs)

    options = {"num_cpus": 1, "max_restarts": 1, "max_task_retries": 1}
    return [ray.remote(Mortal).options(**options).remote(config) for _ in range(count)]


@pytest.mark.slow
def test_a_pair_that_kills_every_worker_costs_two_and_fails_alone(
    cluster: None, config: JudgeConfig
):
    asked = pairs(20)
    before = values(local_judge(config), asked)
    asked[6] = asked[6]._replace(first="DEADLY")
    asked[7] = asked[6].swapped
    remote = RemoteJudge("mortal", {}, 3, mortal_workers(config, 3), PATIENCE)
    answered = dict(remote.judge(asked))
    assert sorted(answered) == list(range(len(asked)))
    failed = [answered.pop(index) for index in (6, 7)]
    assert all(verdict.preference is None and not verdict.over for verdict in failed)
    assert failed[0].reason.startswith("two workers of the judge were lost with it; the last:")
    del before[6:8]
    assert [verdict.preference for _, verdict in sorted(answered.items())] == nearly(before)
    (left,) = remote.workers
    assert verdicts(remote, asked[:6]) == nearly(before[:6])
    ray.kill(left)


@pytest.mark.slow
def test_workers_that_were_dead_before_are_held_against_no_pair(cluster: None, config: JudgeConfig):
    asked = pairs(2)
    remote = RemoteJudge("mortal", {}, 3, mortal_workers(config, 3), PATIENCE)
    first, second, left = remote.workers
    ray.get([worker.load.remote() for worker in remote.workers])
    ray.kill(first)
    ray.kill(second)
    assert verdicts(remote, asked) == nearly(values(local_judge(config), asked))
    assert remote.workers == [left]
    ray.kill(left)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_worker_that_falls_silent_is_given_up_and_costs_no_verdict(
    cluster: None, config: JudgeConfig
):
    """As one behind a link that was cut, or one that is to start again where there is no room."""
    workers = [ray.remote(num_cpus=1)(Told).remote(config) for _ in range(2)]
    processes = [psutil.Process(ray.get(worker.pid.remote())) for worker in workers]
    asked = pairs(20)
    remote = RemoteJudge("silent", {}, 3, workers, patience=20)
    remote.ask_again_seconds = 5
    before = verdicts(remote, asked)
    processes[0].suspend()
    assert verdicts(remote, asked) == nearly(before)
    assert remote.workers == workers[1:]
    processes[1].suspend()
    failed = [verdict for _, verdict in remote.judge(asked)]
    assert len(failed) == len(asked)
    assert {(verdict.preference, verdict.over) for verdict in failed} <= {
        (None, True),
        (None, False),
    }
    assert remote.workers == []
    assert failed[-1].reason.endswith(
        "a worker of the judge must answer or be up again within workers.start_minutes=0.333333, "
        "but is silent"
    )
    for worker in workers:
        ray.kill(worker)


@pytest.mark.slow
def test_a_chunk_that_is_asked_for_again_is_not_read_again(cluster: None, config: JudgeConfig):
    """A worker that is slow, or whose answer was lost with a link, has no second work by it."""
    worker = ray.remote(num_cpus=1)(Told).remote(config)
    process = psutil.Process(ray.get(worker.pid.remote()))
    asked = pairs(20)
    remote = RemoteJudge("slow", {}, 3, [worker], PATIENCE)
    remote.ask_again_seconds = 0.2
    before = verdicts(remote, asked)
    process.suspend()
    running = remote.judge(asked)
    answered: list[Any] = []
    reading = threading.Thread(target=lambda: answered.extend(running))
    reading.start()
    time.sleep(2)
    process.resume()
    reading.join()
    assert [verdict.preference for _, verdict in sorted(answered)] == before
    asked_for, read = ray.get(worker.counts.remote())
    assert asked_for > read == 2 * len(batches(asked, 3))
    ray.kill(worker)


class Told(JudgeWorker):
    """A judge worker that says which process it is, and how often it was asked and has read."""

    asked_for = read = 0

    def pid(self) -> int:
        return os.getpid()

    def judge(self, key: str, pairs: list[Pair]) -> Any:
        self.asked_for += 1
        self.read += key not in self._read
        return super().judge(key, pairs)

    def counts(self) -> tuple[int, int]:
        return self.asked_for, self.read


@pytest.mark.slow
def test_a_pair_that_raises_fails_alone(remote: RemoteJudge):
    asked = pairs(20)
    before = verdicts(remote, asked)
    broken: Any = b"no text"
    asked[7] = asked[7]._replace(second=broken)
    answered = dict(remote.judge(asked))
    assert sorted(answered) == list(range(len(asked)))
    assert [index for index, verdict in answered.items() if verdict.preference is None] == [7]
    assert answered[7].reason.startswith("the judge's worker failed: TypeError: ")
    del before[7], answered[7]
    assert [verdict.preference for _, verdict in sorted(answered.items())] == nearly(before)


@pytest.mark.slow
def test_the_same_pair_asked_several_times_has_as_many_verdicts(remote: RemoteJudge):
    once = pairs(2)
    before = verdicts(remote, once)
    assert verdicts(remote, once * 5) == nearly(before * 5)
    assert verdicts(remote, [once[0]] * 9) == nearly(before[:1] * 9)


@pytest.mark.slow
def test_verdicts_of_workers_are_stored_like_all_others(
    remote: RemoteJudge, config: JudgeConfig, tmp_path: Path
):
    own = [Completion(f"Q{i}", "fox " * i, "trial") for i in range(4)]
    other = [Completion(f"Q{i}", "bird", "plain") for i in range(4)]
    first = judge_all(make_judge(config, tmp_path, local=remote), own, other)
    again = judge_all(make_judge(config, tmp_path), own, other)
    assert first.usage.calls == 8
    assert again.usage.calls == 0, "the same judge, here or on workers, is asked nothing twice"
    assert again.preferences == first.preferences


@pytest.mark.slow
def test_a_worker_that_is_dead_for_good_takes_no_pairs_with_it(
    remote: RemoteJudge, config: JudgeConfig
):
    """The last test with the workers that the tests above share: it ends them."""
    asked = pairs(40)
    before = values(local_judge(config), asked)
    running = remote.judge(asked)
    answered = [next(running)]
    ray.kill(remote.workers[0])
    answered += running
    assert [verdict.preference for _, verdict in sorted(answered)] == nearly(before)
    (left,) = remote.workers
    assert verdicts(remote, asked) == nearly(before)
    ray.kill(left)
    for _ in range(2):
        failed = [verdict for _, verdict in remote.judge(asked)]
        assert len(failed) == len(asked)
        assert all(verdict.over for verdict in failed)
        assert {verdict.reason for verdict in failed} == {failed[0].reason}
        assert failed[0].reason.startswith("all workers of the judge are lost; the last: The a")


@pytest.mark.slow
def test_a_model_that_no_worker_can_read_is_reported_in_one_line(cluster: None, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    config = JudgeConfig(type="local", model=str(tmp_path / "empty"))
    before = worker_processes()
    with (
        pytest.raises(UserError, match=r"^judge\.model=.*empty: must be a folder or hub name"),
        judge_workers(config, start_minutes=2),
    ):
        pass
    left = [process for process in worker_processes() if process not in before]
    assert psutil.wait_procs(left, timeout=20)[1] == []


SPACE = """
name: local
trial:
  data: {max_eval_prompts: 12}
  train: {max_steps: 2, global_batch_size: 8, num_clean_rows: 8, num_evals: 1}
  generate: {max_new_tokens: 6}
  judge: {type: local, self_check: false}
baselines:
  - {noise.type: none, optim.lr: 0.002}
  - {noise.type: symnoise, noise.alpha: 5, optim.lr: 0.002}
search: {num_trials: 0}
"""


@pytest.mark.slow
def test_a_sweep_judges_with_its_own_model(folder: Path, tmp_path: Path):
    (tmp_path / "local.yaml").write_text(SPACE)
    run = tune("local.yaml", f"judge.model={folder}", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"starting the judge {folder}" in run.stdout
    noisy = tmp_path / "runs" / "local" / "trials" / "001-symnoise"
    answered = read_lines(noisy / "preferences.jsonl")
    assert len(answered) == 24
    assert {row["annotator"] for row in answered} == {str(folder)}
    assert read_json(noisy / "trial.json")["judge_usage"]["calls"] > 0
    assert left_by(tmp_path) == []


@pytest.mark.nightly
def test_a_judge_that_guesses_ends_the_sweep_before_its_first_trial(folder: Path, tmp_path: Path):
    (tmp_path / "local.yaml").write_text(SPACE)
    run = tune("local.yaml", f"judge.model={folder}", "judge.self_check=true", cwd=tmp_path)
    assert run.returncode == 1
    assert "must prefer the good answer in 80% of 16 planted pairs" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "runs" / "local").exists()
    assert left_by(tmp_path) == []
