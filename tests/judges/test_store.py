"""Verdicts on disk: many writers lose nothing, a killed one costs what was in flight, no more."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import DataError
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import judge_all
from symnoise_ray.judges.protocol import Pair, Usage, Verdict
from symnoise_ray.judges.store import CachedJudge, VerdictStore, key_of
from tests.conftest import ROOT
from tests.judges.test_judging import Scripted, items
from tests.servers.endpoint import parts, serving

PAIR = Pair("Who?", "a", "b")
ONE = Verdict(1.25, usage=Usage(1, 10, 1))


def lines(folder: Path) -> list[str]:
    return [
        line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().split("\n")
    ]


def test_what_one_writer_put_another_reads(tmp_path: Path) -> None:
    writer, reader = VerdictStore(tmp_path, "sweep"), VerdictStore(tmp_path, "sweep")
    writer.put("k", ONE)
    assert reader.get("k") is None
    reader.refresh()
    assert reader.get("k") == 1.25
    writer.put("l", Verdict(2.0))
    reader.refresh()
    assert reader.get("l") == 2.0


def test_a_failure_is_not_kept_but_its_cost_is(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path, "sweep")
    store.put("k", Verdict(None, "status 500", Usage(3, 30, 0)))
    other = VerdictStore(tmp_path, "sweep")
    assert other.spent_elsewhere() == Usage(3, 30, 0)
    assert other.get("k") is None
    assert store.spent_elsewhere() == Usage(), "its own spending is known to the budget already"
    assert VerdictStore(tmp_path, "another").spent_elsewhere() == Usage()


def test_no_text_is_stored(tmp_path: Path) -> None:
    judge = CachedJudge(Scripted(lambda pair: ONE), VerdictStore(tmp_path, "sweep"))
    assert dict(judge.judge([Pair("secret prompt", "secret a", "secret b")]))
    assert lines(tmp_path)
    assert "secret" not in "".join(lines(tmp_path))


def test_when_the_judge_is_over_what_is_stored_is_still_had_and_nobody_is_asked(
    tmp_path: Path,
) -> None:
    own, other = items(50)
    store = VerdictStore(tmp_path, "sweep")
    judge_all(CachedJudge(Scripted(lambda pair: ONE), store), own[40:], other[40:])
    seen: list[Pair] = []

    def over(pair: Pair) -> Verdict:
        seen.append(pair)
        return Verdict(None, "no money left", Usage(1, 5, 0), over=True)

    judge = CachedJudge(Scripted(over), store)
    judged = judge_all(judge, own, other, early=True)
    given = {p.item for p in judged.preferences if p.preference is not None}
    assert given == set(range(40, 50))
    assert judged.num_items == 50
    assert len(seen) == judged.usage.calls <= 2 * 16, "the first batch, and no other"


def test_a_broken_last_line_is_left_out_and_a_broken_whole_one_is_reported(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path, "sweep")
    store.put("k", ONE)
    store.close()
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("a") as end:
        end.write('{"key": "l", "prefer')
    reader = VerdictStore(tmp_path, "sweep")
    reader.refresh()
    assert (reader.get("k"), reader.get("l")) == (1.25, None)
    with file.open("a") as end:
        end.write("\n")
    with pytest.raises(DataError, match=r"must hold one verdict a line, .* remove the file"):
        VerdictStore(tmp_path, "sweep").refresh()


@pytest.mark.parametrize("preference", ["5.0", "0.99", "NaN", "Infinity", '"1.7"', "true", "[1.5]"])
def test_a_stored_preference_that_is_none_is_reported_with_its_file(
    preference: str, tmp_path: Path
) -> None:
    file = tmp_path / "host-1.jsonl"
    file.write_text(
        f'{{"key": "k", "preference": {preference}, "scope": "sweep", "usage": [1, 2, 3]}}\n'
    )
    with pytest.raises(DataError, match=r"host-1\.jsonl: must hold one verdict a line, .* remove"):
        VerdictStore(tmp_path, "sweep").refresh()


@pytest.mark.parametrize("preference", ["1", "2", "1.0", "1.7", "2.0"])
def test_a_stored_preference_may_be_any_number_from_1_to_2(preference: str, tmp_path: Path) -> None:
    (tmp_path / "host-1.jsonl").write_text(
        f'{{"key": "k", "preference": {preference}, "scope": "sweep", "usage": [1, 2, 3]}}\n'
    )
    store = VerdictStore(tmp_path, "sweep")
    store.refresh()
    assert store.get("k") == float(preference)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    writer = VerdictStore(tmp_path, "sweep")
    writer.put("k", ONE)
    (tmp_path / "z.jsonl").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    reader = VerdictStore(tmp_path, "sweep")
    reader.refresh()
    assert reader.get("k") == 1.25


def test_a_key_tells_every_part_from_every_other() -> None:
    identity = {"type": "api", "model": "m"}
    base = Pair("i", "a", "b", "gold")
    others = [
        key_of({**identity, "model": "n"}, base),
        key_of(identity, base._replace(instruction="j")),
        key_of(identity, base._replace(first="b", second="a")),
        key_of(identity, base._replace(first="a\x00b", second="")),
        key_of(identity, base._replace(first='a", "b', second="b")),
        key_of(identity, base._replace(first="\ud800")),
        key_of(identity, base._replace(first_turns=(("q", "a"),))),
        key_of(identity, base._replace(second_turns=(("q", "a"),))),
    ]
    assert len({key_of(identity, base), *others}) == 9
    assert key_of(identity, base._replace(gold="")) == key_of(identity, base)


def test_threads_share_a_store(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path, "sweep")

    def write(start: int) -> None:
        for number in range(start, start + 50):
            store.put(str(number), ONE)
            store.spent_elsewhere()

    threads = [threading.Thread(target=write, args=(50 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = VerdictStore(tmp_path, "sweep")
    assert reader.spent_elsewhere() == Usage(200, 2000, 200)
    assert all(reader.get(str(number)) == 1.25 for number in range(200))


WRITER = """
import sys
from pathlib import Path
from symnoise_ray.judges.judging import judge_all
from symnoise_ray.judges.store import VerdictStore
from symnoise_ray.judges.protocol import Usage, Verdict
store = VerdictStore(Path(sys.argv[1]), "sweep")
print("ready", flush=True)
sys.stdin.readline()
for number in range(300):
    store.put(f"{sys.argv[2]}-{number}", Verdict(1.0 + number / 300, usage=Usage(1, 2, 3)))
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [start(WRITER, str(tmp_path), str(number)) for number in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0
    reader = VerdictStore(tmp_path, "sweep")
    assert reader.spent_elsewhere() == Usage(900, 1800, 2700)
    for process in range(3):
        for number in range(300):
            assert reader.get(f"{process}-{number}") == 1.0 + number / 300


CALLER = """
import sys
from pathlib import Path
from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.protocol import Pair
config = JudgeConfig(type="api", model="judge", base_url=sys.argv[1], concurrency=4)
judge = make_judge(config, Path(sys.argv[2]), "sweep")
pairs = [Pair(f"Prompt {i}?", "x" * i, "y" * (i + i % 2)) for i in range(60)]
for _ in judge.judge(pairs):
    pass
"""


def count_cached(url: str, folder: Path) -> int:
    """The same in this process."""
    config = JudgeConfig(type="api", model="judge", base_url=url, concurrency=4)
    pairs = [Pair(f"Prompt {i}?", "x" * i, "y" * (i + i % 2)) for i in range(60)]
    answered = make_judge(config, folder, "sweep").judge(pairs)
    return sum(verdict.cached for _, verdict in answered)


def test_a_killed_judge_is_asked_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    with serving() as endpoint:
        endpoint.delay = 0.02
        caller = start(CALLER, endpoint.url, str(tmp_path))
        deadline = time.monotonic() + 60
        while len(endpoint.requests) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(caller.pid, signal.SIGKILL)
        caller.communicate(timeout=30)
        assert caller.returncode == -signal.SIGKILL
        time.sleep(0.1)
        asked = [parts(body)[0] for body in endpoint.requests]
        assert 20 <= len(asked) < 60
        stored = sum(
            json.loads(line)["key"] is not None for line in lines(tmp_path / "verdicts") if line
        )
        assert count_cached(endpoint.url, tmp_path) == stored >= len(asked) - 8
        asked_again = [parts(body)[0] for body in endpoint.requests[len(asked) :]]
        assert len(asked_again) == 60 - stored
        assert len(set(asked) & set(asked_again)) <= 8, "in flight or just come back, 4 threads"
        before = len(endpoint.requests)
        assert count_cached(endpoint.url, tmp_path) == 60
        assert len(endpoint.requests) == before
