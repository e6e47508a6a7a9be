"""Everything that only a GPU can show, in one command: `make gpu OUT=DIR`.

    python benchmarks/gpu.py --out DIR [--only NAME,NAME] [--minutes 8] [--rehearse] [--list]

Every step runs in a process of its own with a limit of its own, so one that crashes or hangs
leaves the others; what it has started ends with it. A step prints one line and leaves DIR/NAME.json
and DIR/NAME.log; DIR/summary.json tells all of them. A step is skipped, with the reason, where a
package or the GPU is missing, or where no minutes are left. The exit status is 1 if a step failed,
else 0; bars that are missed are told and fail nothing. `--rehearse` runs the same steps on the CPU
with tiny shapes, so that a run on a GPU is not spent on mistakes: its figures mean nothing.

This file starts processes and imports nothing of the project; the steps are in `gpu_checks`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
MARK = "SYMNOISE_GPU_STEP"
"""Environment variable that every process of a step inherits: by it they are found and ended."""
MINUTES, REHEARSAL_MINUTES = 8.0, 45.0
REHEARSAL_PATIENCE = 6
"""A rehearsal may run on a busy machine of two cores: its limits are so many times longer."""
LEAST_SECONDS = 10.0
"""A step is not begun with less time than this, since it would only load its packages."""
ENDINGS = ("passed", "skipped", "failed")


class Step(NamedTuple):
    """A step: its module in `gpu_checks`, its limit in seconds, the module's arguments.

    `needs` names a package, as Python and as pip call it. A rehearsal does without: the module then
    takes something else in its place, and says so.
    """

    name: str
    module: str
    limit: float
    about: str
    arguments: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None
    package: str = "benchmarks.gpu_checks"


BITSANDBYTES = ("bitsandbytes", "bitsandbytes")
FLASH = ("flash_attn", "flash-attn")
VLLM = ("vllm", "vllm")
MACHINE = Step("machine", "machine", 60, "versions, and the GPU's name, driver and memory")
"""Runs always and first; without a GPU nothing else runs."""
STEPS = (
    Step("bits", "bits", 60, "the noise of every law has the CPU's bits"),
    Step("tests", "tests", 60, "the tests that are marked gpu"),
    Step("zero", "zero", 100, "ZeRO 1, 2, 3 and offload train as ZeRO 0 does"),
    Step("sweep", "sweep", 150, "a whole sweep of 6 trials, two at a time on one GPU"),
    Step("warm", "warm", 60, "memory after 4 and after 20 trials of one process; equal records"),
    Step("training-1b", "training", 90, "tokens per second, share of the matmul rate", ("1B",)),
    Step("training-0.5b", "training", 75, "the same at 0.5 B weights", ("0.5B",)),
    Step("noise", "noise", 60, "what noise costs: forward, step, memory"),
    Step("lora", "adapters", 45, "adapters learn, and need less memory", ("none",)),
    Step("nf4", "adapters", 45, "the same on weights of 4 bits", ("nf4",), BITSANDBYTES),
    Step(
        "flash", "attention", 60, "FlashAttention on packed rows against the block mask", (), FLASH
    ),
    Step("answering", "answering", 75, "answers against `generate`; the judge against prefill"),
    Step("vllm", "vllm", 120, "the judge in vLLM against the one in transformers", (), VLLM),
)
"""In the order in which they run: what is right or wrong first, then what is fast."""


def run_step(step: Step, out: Path, limit: float, *, rehearse: bool) -> dict[str, Any]:
    """One step in a process of its own, ended at its limit in seconds with all that it started.

    Returns:
        What DIR/NAME.json holds: `step`, `status` (one of `ENDINGS`), `seconds`, `limit`, `line`
        (the main figures, or the reason) and `figures`, those of a step that failed midway too.
    """
    result, mark = out / f"{step.name}.json", uuid.uuid4().hex
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as scratch:
        command = [sys.executable, "-m", "benchmarks.gpu_checks"]
        command += [f"{step.package}.{step.module}", *step.arguments, "--result", str(result)]
        command += ["--scratch", scratch, *["--rehearse"] * rehearse]
        environment = environment_of(scratch, mark, rehearse)
        status = run_process(command, out / f"{step.name}.log", environment, limit)
    seconds = round(time.monotonic() - began, 1)
    found = judged(read_result(result), status, limit, step.name)
    told = {"step": step.name, "seconds": seconds, "limit": round(limit, 1), **found}
    result.write_text(json.dumps(told, indent=1) + "\n")
    return told


def run_process(
    command: list[str], log: Path, environment: Mapping[str, str], limit: float
) -> int | None:
    """A process and all that it starts, ended after the limit; its status, None if it was ended."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
        )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)  # it prints where it hangs, and ends
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        return None
    finally:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it for ever
            process.wait(10)
        end_all(environment[MARK])


def environment_of(scratch: str, mark: str, rehearse: bool) -> dict[str, str]:
    """The step's environment: this checkout's code, its own temporary files, its mark."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {**os.environ, MARK: mark, "TMPDIR": scratch, "PYTHONPATH": os.pathsep.join(paths)}
    return found | ({"CUDA_VISIBLE_DEVICES": ""} if rehearse else {})


def end_all(mark: str) -> None:
    """End every process that a step has started, also in sessions of their own."""
    for _ in range(3):  # one that ends may have started another meanwhile
        ours = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == mark:
                    process.kill()
                    ours.append(process)
        if not ours:
            return
        psutil.wait_procs(ours, timeout=10)


def read_result(file: Path) -> dict[str, Any]:
    """What a step wrote of itself, which is nothing if it ended before that."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):
        return {"status": "running", "line": "", "figures": {}}
    return found


def judged(found: dict[str, Any], status: int | None, limit: float, name: str) -> dict[str, Any]:
    """The step's own word, unless its process ended in another way than it said."""
    if status is None:
        line = f"had not ended after its limit of {limit:.0f} s: see {name}.log"
    elif status < 0:
        line = f"ended by {signal.Signals(-status).name}: see {name}.log"
    elif status or found["status"] not in ENDINGS:
        line = f"ended with status {status} before its end: see {name}.log"
    else:
        return found
    return {**found, "status": "failed", "line": line}


def run_all(
    steps: Sequence[Step], out: Path, minutes: float, *, rehearse: bool
) -> dict[str, dict[str, Any]]:
    """The steps in turn within so many minutes; a line of each as it ends, and summary.json."""
    deadline = time.monotonic() + 60 * minutes
    told: dict[str, dict[str, Any]] = {}
    for step in (MACHINE, *steps):
        left = deadline - time.monotonic()
        reason = None
        if left < LEAST_SECONDS:
            reason = f"no time is left of {minutes:g} minutes; --minutes gives more"
        elif not rehearse:
            reason = why_not_here(step, told.get(MACHINE.name))
        if reason is None:
            limit = min(step.limit * (REHEARSAL_PATIENCE if rehearse else 1), left)
            told[step.name] = run_step(step, out, limit, rehearse=rehearse)
        else:
            told[step.name] = skipped(step, reason)
            (out / f"{step.name}.json").write_text(json.dumps(told[step.name], indent=1) + "\n")
        one = told[step.name]
        print(f"{step.name:14} {one['status']:8}{one['seconds']:7.1f} s  {one['line']}", flush=True)
        summary = summary_of(told, rehearse=rehearse)
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return told


def why_not_here(step: Step, machine: Mapping[str, Any] | None) -> str | None:
    """Why a step cannot run on this machine; None if it can, and for the look at the machine."""
    if machine is None:
        return None
    if machine["status"] == "failed":
        return "it is not known whether there is a GPU: the step machine failed"
    if not machine["figures"]["gpu"]:
        return "torch sees no CUDA GPU here"
    if step.needs and importlib.util.find_spec(step.needs[0]) is None:
        return f"{step.needs[0]} is not installed: pip install {step.needs[1]}"
    return None


def skipped(step: Step, reason: str) -> dict[str, Any]:
    """What is told of a step that did not begin."""
    empty = {"seconds": 0.0, "limit": step.limit, "figures": {}}
    return {"step": step.name, "status": "skipped", "line": reason, **empty}


def summary_of(told: Mapping[str, Mapping[str, Any]], *, rehearse: bool) -> dict[str, Any]:
    """All steps in short, and the machine that they ran on."""
    by_ending = {
        ending: [name for name, one in told.items() if one["status"] == ending]
        for ending in ENDINGS
    }
    return {
        "rehearsed": rehearse,
        **by_ending,
        "seconds": round(sum(one["seconds"] for one in told.values()), 1),
        "lines": {name: one["line"] for name, one in told.items()},
        "machine": told[MACHINE.name]["figures"],
    }


# The command line


def chosen(only: str | None) -> list[Step]:
    """The named steps in their own order; all by default.

    Raises:
        ValueError: there is no such step.
    """
    if only is None:
        return list(STEPS)
    names = [name.strip() for name in only.split(",")]
    known = [step.name for step in STEPS]
    for name in names:
        if name not in known:
            raise ValueError(f"--only must name steps, but {name!r} is none of {', '.join(known)}")
    return [step for step in STEPS if step.name in names]


def empty_folder(out: Path | None) -> Path:
    """The folder for the results, made.

    Raises:
        ValueError: it is not given, is a file, or holds something.
    """
    if out is None:
        raise ValueError("--out must name the folder for the results, such as --out runs/gpu")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out must be a new or empty folder, but {out} is not; name another one")
    out.mkdir(parents=True, exist_ok=True)
    return out.resolve()


def main() -> int:
    """Run the steps; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="new or empty folder")
    parser.add_argument("--only", metavar="NAME,NAME", help="these steps alone")
    parser.add_argument("--minutes", type=float, help="for all steps together (8; rehearsed 45)")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny shapes")
    parser.add_argument("--list", action="store_true", help="show the steps and end")
    arguments = parser.parse_args()
    try:
        steps = chosen(arguments.only)
        if arguments.list:
            for step in (MACHINE, *steps):
                print(f"{step.name:14}{step.limit:5.0f} s  {step.about}")
            return 0
        minutes = arguments.minutes
        if minutes is None:
            minutes = REHEARSAL_MINUTES if arguments.rehearse else MINUTES
        if not minutes > 0:
            raise ValueError(f"--minutes must be above 0, but got {minutes:g}")
        out = empty_folder(arguments.out)
    except ValueError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a step is ended as well
    told = run_all(steps, out, minutes, rehearse=arguments.rehearse)
    return int(any(one["status"] == "failed" for one in told.values()))


if __name__ == "__main__":
    sys.exit(main())
