"""What tracking costs: CPU time per training step, and for a trial's answers as traces.

    python benchmarks/tracking.py [--steps 200] [--prompts 805] [--tiny] [--json]

A sweep's process logs one record per step of 300 ms, which a thread beside it sends to MLflow in an
SQLite file. Steps come at their real pace, since how many go together depends on it. CPU time of
the whole process is counted, both threads. The bars: 1 % of a step, and 10 seconds of one core for
the 805 prompts of AlpacaEval.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import mlflow

from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.layout import COMPLETIONS, PREFERENCES, TRIALS
from symnoise_ray.records.preferences import Preference
from symnoise_ray.tracking.mlflow_runs import Tracker
from symnoise_ray.tracking.traces import AT_ONCE

STEP_SECONDS, SHARE, TRACE_SECONDS = 0.3, 0.01, 10.0
EXPERIMENT, TRIAL, SWEEP = "benchmark", "000-none", "small"
PATIENCE = 3600.0


def begun(directory: Path, uri: str) -> Tracker:
    """A tracker that has made its database, and knows the sweep and its trial."""
    tracker = Tracker(directory, uri, EXPERIMENT)
    tracker.log("start", SWEEP, parent="", params={}, tags={})
    tracker.log("start", TRIAL, parent=SWEEP, params={}, tags={})
    tracker.log("metrics", TRIAL, records=[{"step": 0, "train/loss": 2.0}])
    while tracker.applier.num_applied < 3:
        if tracker.problem:
            raise SystemExit(f"the tracker failed: {tracker.problem}")
        time.sleep(0.05)
    return tracker


def cpu_of_steps(tracker: Tracker, uri: str, steps: int) -> float:
    """CPU seconds per step; every record must arrive."""
    began = time.process_time()
    for step in range(1, steps + 1):
        values = {"train/loss": 2.0, "train/grad_norm": 1.0, "train/lr": 1e-3}
        tracker.log("metrics", TRIAL, records=[{"step": step, **values}])
        time.sleep(STEP_SECONDS)
    wait(tracker, 3 + steps)
    spent = (time.process_time() - began) / steps
    client = mlflow.MlflowClient(uri)
    run = tracker.applier._runs[TRIAL]
    assert len(client.get_metric_history(run, "train/loss")) == steps + 1
    return spent


def cpu_of_traces(tracker: Tracker, directory: Path, uri: str, prompts: int) -> float:
    """CPU seconds for the answers of one trial; every trace must arrive."""
    place = directory / TRIALS / TRIAL
    write_answers(place, prompts)
    before = tracker.applier.num_applied
    began = time.process_time()
    firsts = range(0, prompts, AT_ONCE)
    for first in firsts:
        items = [first, min(first + AT_ONCE, prompts)]
        tracker.log("traces", TRIAL, path=f"{TRIALS}/{TRIAL}", items=items)
    wait(tracker, before + len(firsts))
    spent = time.process_time() - began
    client = mlflow.MlflowClient(uri)
    found = client.search_traces(
        locations=[tracker.applier.experiment_id], max_results=prompts + 1, include_spans=False
    )
    assert len(found) == prompts
    return spent


def write_answers(place: Path, prompts: int) -> None:
    """Answers of the usual length, 200 words, and their verdicts in both orders."""
    texts = [(f"Question {n}?", f"word{n} " * 200) for n in range(prompts)]
    write_lines([Completion(asked, said, TRIAL) for asked, said in texts], place / COMPLETIONS)
    verdicts = [
        Preference(n, asked, "", said, "plain", said, TRIAL, "judge", order, 1.5)
        for n, (asked, said) in enumerate(texts)
        for order in ("reference first", "trial first")
    ]
    write_lines(verdicts, place / PREFERENCES)


def wait(tracker: Tracker, number: int) -> None:
    """Until so many events are applied."""
    until = time.monotonic() + PATIENCE
    while tracker.applier.num_applied < number:
        if time.monotonic() > until:
            raise SystemExit(f"not all events were sent: {tracker.problem}")
        time.sleep(0.02)


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps that are logged")
    parser.add_argument("--prompts", type=int, default=805, help="answers of the trial")
    parser.add_argument("--tiny", action="store_true", help="only show that it runs")
    parser.add_argument("--json", action="store_true", help="one object")
    options = parser.parse_args()
    if options.tiny:
        options.steps, options.prompts = 3, 5
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "sweep"
        directory.mkdir()
        uri = f"sqlite:///{folder}/mlflow.db"
        tracker = begun(directory, uri)
        step = cpu_of_steps(tracker, uri, options.steps)
        traces = cpu_of_traces(tracker, directory, uri, options.prompts)
        problem = tracker.close(PATIENCE)
    assert not problem, problem
    found = {
        "cpu_ms_per_step": 1000 * step,
        "share_of_a_step": step / STEP_SECONDS,
        "cpu_seconds_for_traces": traces,
        "prompts": options.prompts,
        "cores": os.cpu_count(),
    }
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"a step: {1000 * step:.2f} ms of CPU, {100 * step / STEP_SECONDS:.2f} % of "
        f"{1000 * STEP_SECONDS:.0f} ms (bar: {100 * SHARE:g} %)\n"
        f"{options.prompts} traces: {traces:.1f} s of CPU (bar for 805: {TRACE_SECONDS:g} s)"
    )


if __name__ == "__main__":
    main()
