"""The front door for Python: a script or a notebook runs a sweep and has its result."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import symnoise_ray
from symnoise_ray.errors import UserError

SETTINGS = {
    "name": "tiny",
    "data.max_eval_prompts": 8,
    "train.max_steps": 2,
    "train.num_clean_rows": 8,
    "train.num_evals": 1,
    "generate.max_new_tokens": 4,
    "search.num_trials": 0,
    "confirm.arms": 0,
    "workers.max_slots": 1,
}
SPACE = "name: tiny\nbaselines: [{noise.type: none, optim.lr: 1e-3}]\n"
# A notebook's cell runs inside an event loop, so this one does.
CELL = """
import asyncio, json, sys
import symnoise_ray

async def cell():
    result = symnoise_ray.run("space.yaml", json.loads(sys.argv[1]), output="out", quiet=True)
    table = result.to_pandas()
    print(json.dumps([result.status, list(table.trial), table.win_rate.tolist()]))
    assert symnoise_ray.load("out") == result
    try:
        symnoise_ray.run("space.yaml", json.loads(sys.argv[1]), output="out")
    except symnoise_ray.errors.UserError as error:
        print(error)

if __name__ == "__main__":
    asyncio.run(cell())
"""
INTERRUPTED = """
import json, os, signal, sys, threading, time
from pathlib import Path
import symnoise_ray

def interrupt():
    while not Path("out/.slots").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

def run(resume):
    settings = json.loads(sys.argv[1])
    return symnoise_ray.run("space.yaml", settings, output="out", resume=resume, quiet=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        run(resume=False)
    except KeyboardInterrupt:
        print(run(resume=True).status)
"""
"""A cell that is interrupted while its workers start, and run again in the same kernel."""
UNGUARDED = """
import multiprocessing
import symnoise_ray

if __name__ != "__mp_main__":  # stands for a library that spawns a process
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join()
else:
    symnoise_ray.run("quickstart")
"""


def run_script(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, symnoise_ray\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert {name for name in imported if name.startswith("symnoise_ray")} == {"symnoise_ray"}
    assert not imported & {"numpy", "pydantic", "torch", "ray", "pandas", "rich", "mlflow"}


@pytest.mark.slow
def test_a_cell_runs_a_sweep_and_has_its_result(tmp_path: Path):
    (tmp_path / "space.yaml").write_text(SPACE)
    run = run_script(CELL, tmp_path, json.dumps(SETTINGS))
    assert run.returncode == 0, run.stdout + run.stderr
    found, refusal = run.stdout.splitlines()
    assert json.loads(found) == ["whole", ["000-none"], [0.5]]
    assert "must be a new or empty directory" in refusal


@pytest.mark.slow
def test_a_process_whose_sweep_was_interrupted_can_go_on_with_it(tmp_path: Path):
    (tmp_path / "space.yaml").write_text(SPACE)
    run = run_script(INTERRUPTED, tmp_path, json.dumps(SETTINGS))
    assert (run.stdout, run.returncode) == ("whole\n", 0), run.stderr


def test_a_child_process_that_imports_the_script_starts_no_sweep(tmp_path: Path):
    run = run_script(UNGUARDED, tmp_path)
    assert 'put the call under if __name__ == "__main__":' in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim.lr": object()}, r"optim\.lr: must be a number, text, .* but is a object"),
        ({"optim.lr": float("nan")}, r"optim\.lr: must be a number"),
        ({"optim.learning": 1}, r"override optim\.learning=1: .*not a trial setting"),
        ({"judge.api_key": "sk-secret"}, r"^((?!sk-secret).)*$"),
    ],
)
def test_settings_that_are_not_usable_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(UserError, match=message):
        symnoise_ray.run("quickstart", settings, output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
