"""`make gpu`: steps in processes of their own, with limits, reasons, one line each, and a status.

The checks themselves need a GPU; here they are rehearsed on the CPU.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import gpu
from benchmarks.gpu import MACHINE, STEPS, Step, run_all, run_step, why_not_here
from symnoise_ray.noise.types import NOISES, adds_noise
from tests.conftest import ROOT

NAMES = [MACHINE.name, *(step.name for step in STEPS)]
CHECKS = {
    "right": "def check(step):\n    step.note(one=1)\n    return 'one is 1'\n",
    "wrong": "def check(step):\n    step.note(one=1)\n    assert 1 == 2, 'one is\\nnot two'\n",
    "unfit": (
        "from benchmarks.gpu_checks.step import SkippedError\n"
        "def check(step):\n    raise SkippedError('no such thing here')\n"
    ),
    "calling": "def check(step):\n    step.benchmark('no_such.py')\n",
    "crashing": "import os\ndef check(step):\n    step.note(one=1)\n    os.abort()\n",
    "leaving": "import os\ndef check(step):\n    os._exit(0)\n",
    "hanging": (
        "import subprocess, sys, time\n"
        "def check(step):\n"
        "    sleep = [sys.executable, '-c', 'import time; time.sleep(3000)']\n"
        "    step.note(child=subprocess.Popen(sleep, start_new_session=True).pid)\n"
        "    time.sleep(3000)\n"
    ),
}
"""Steps that end in every way; each is the text of a module."""


@pytest.fixture
def own_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Step]:
    """`CHECKS` as steps that `gpu.py` can run."""
    package = tmp_path / "code" / "own_steps"
    package.mkdir(parents=True)
    for name, text in CHECKS.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return {name: Step(name, name, 100, name, package=package.name) for name in CHECKS}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "benchmarks" / "gpu.py")
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def test_the_steps_are_listed_with_their_limits() -> None:
    run = command("--list")
    assert run.returncode == 0
    rows = [line.split(maxsplit=3) for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == NAMES
    assert all(float(row[1]) > 0 and row[2] == "s" and row[3] for row in rows)
    assert len(set(NAMES)) == len(NAMES) == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "OUT", "--only", "bits,zeros"], "--only must name steps, but 'zeros' is none"),
        (["--out", "OUT", "--minutes", "0"], "--minutes must be above 0, but got 0"),
        (["--out", "FULL"], "--out must be a new or empty folder, but"),
        (["--out", "FULL/file"], "--out must be a new or empty folder, but"),
        ([], "--out must name the folder for the results"),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").touch()
    places = [str(tmp_path / a) if a[0] in "OF" else a for a in arguments]
    run = command(*places)
    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["FULL", "file"]


def test_without_a_gpu_every_step_is_skipped_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "out"
    run = command("--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert "no GPU; torch " in lines[0]
    assert all(line.endswith(" 0.0 s  torch sees no CUDA GPU here") for line in lines[1:])
    told = summary(out)
    assert (told["passed"], told["failed"]) == (["machine"], [])
    assert told["skipped"] == NAMES[1:]
    assert told["machine"]["versions"]["torch"]
    for name in NAMES:
        assert json.loads((out / f"{name}.json").read_text())["line"] == told["lines"][name]


def test_a_missing_package_is_a_reason_and_a_gpu_is_none() -> None:
    machine = {"status": "passed", "figures": {"gpu": {"name": "a GPU"}}}
    step = Step("given", "given", 1, "", needs=("no_such_package", "no-such-package"))
    reason = "no_such_package is not installed: pip install no-such-package"
    assert why_not_here(step, machine) == reason
    assert why_not_here(step._replace(needs=("json", "json")), machine) is None
    failed = {"status": "failed", "figures": {}}
    assert "the step machine failed" in str(why_not_here(step, failed))


def test_one_step_that_fails_leaves_the_others_and_gives_the_status(
    own_steps: dict[str, Step],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending = {
        "crashing": ("failed", "ended by SIGABRT: see crashing.log"),
        "wrong": ("failed", "AssertionError: one is not two"),
        "calling": ("failed", "No such file or directory"),
        "leaving": ("failed", "ended with status 0 before its end: see leaving.log"),
        "unfit": ("skipped", "no such thing here"),
        "right": ("passed", "one is 1"),
    }
    out = tmp_path / "out"
    monkeypatch.setattr(gpu, "STEPS", [own_steps[name] for name in ending])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", "--out", str(out)])
    assert gpu.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["machine", *ending]
    for line, (name, (status, words)) in zip(lines[1:], ending.items(), strict=True):
        assert line.split()[1] == status
        assert line.endswith(words)
        told = json.loads((out / f"{name}.json").read_text())
        assert (told["step"], told["status"]) == (name, status)
        assert told["line"].endswith(words)
        assert told["figures"] == ({"one": 1} if name in ("crashing", "wrong", "right") else {})
    assert "not two" in (out / "wrong.log").read_text()
    assert summary(out)["failed"] == ["crashing", "wrong", "calling", "leaving"]


def test_steps_that_are_right_or_skipped_give_the_status_0(
    own_steps: dict[str, Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(gpu, "STEPS", [own_steps["unfit"], own_steps["right"]])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--rehearse", "--out", str(out), "--only", "right"])
    assert gpu.main() == 0
    assert summary(out)["passed"] == ["machine", "right"]


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_with_all_that_it_started(
    own_steps: dict[str, Step], tmp_path: Path
) -> None:
    told = run_step(own_steps["hanging"], tmp_path, 15, rehearse=True)
    assert told["status"] == "failed"
    assert told["line"] == "had not ended after its limit of 15 s: see hanging.log"
    assert told["seconds"] >= 15
    child = told["figures"]["child"]
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert "in check" in (tmp_path / "hanging.log").read_text(), "the log shows where it hung"


@pytest.mark.slow
def test_a_command_that_is_terminated_ends_its_step(
    own_steps: dict[str, Step], tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom benchmarks import gpu\n"
        f"gpu.STEPS = [gpu.Step(*{tuple(own_steps['hanging'])!r})]\nsys.exit(gpu.main())"
    )
    out = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "--rehearse", "--out", str(out)], cwd=ROOT, text=True
    )
    result = out / "hanging.json"
    while "child" not in (result.read_text() if result.exists() else ""):
        assert running.poll() is None, "it ended by itself"
        time.sleep(0.1)
    child = json.loads(result.read_text())["figures"]["child"]
    running.terminate()
    assert running.wait() == 143
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_steps_for_which_no_minutes_are_left_are_skipped(
    own_steps: dict[str, Step], tmp_path: Path
) -> None:
    told = run_all([own_steps["right"]], tmp_path, 0.01, rehearse=False)
    reason = "no time is left of 0.01 minutes; --minutes gives more"
    assert [one["line"] for one in told.values()] == [reason, reason]
    assert summary(tmp_path)["skipped"] == ["machine", "right"]


@pytest.mark.slow
def test_a_cheap_step_is_rehearsed(tmp_path: Path) -> None:
    run = command("--rehearse", "--only", "bits", "--out", tmp_path)
    assert run.returncode == 0, run.stdout
    told = summary(tmp_path)
    assert told["passed"] == ["machine", "bits"]
    assert told["rehearsed"] is True
    figures = json.loads((tmp_path / "bits.json").read_text())["figures"]
    assert len(figures) == 3 * sum(map(adds_noise, NOISES))
    assert all(table["numbers"] > 10_000 and table["differ"] == 0 for table in figures.values())


ELSEWHERE = {"noise", "training-1b", "training-0.5b"}
"""Steps that run a benchmark which tests/test_benchmarks.py runs as well."""


@pytest.mark.slow
@pytest.mark.nightly
def test_the_steps_are_rehearsed_on_the_cpu(tmp_path: Path) -> None:
    names = [name for name in NAMES[1:] if name not in ELSEWHERE]
    run = command("--rehearse", "--only", ",".join(names), "--out", tmp_path, "--minutes", "29")
    assert run.returncode == 0, run.stdout
    told = summary(tmp_path)
    assert told["passed"] == ["machine", *names], run.stdout
    assert len(run.stdout.splitlines()) == 1 + len(names)
    collected = json.loads((tmp_path / "tests.json").read_text())["figures"]["collected"]
    assert any("test_a_gpu_draws_the_same_noise" in name for name in collected)
    sweep = json.loads((tmp_path / "sweep-results.json").read_text())
    assert [trial["status"] for trial in sweep["trials"]] == ["done"] * 6
    zero = json.loads((tmp_path / "zero.json").read_text())["figures"]
    assert len([name for name in zero if not name.endswith("zero 0")]) == 12
