"""A sweep on two or three machines: what they must share, and what happens when one is lost.

The machines are network namespaces (`machines.py`); Ray, its nodes and the sweeps are real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from symnoise_ray.records.files import read_json, read_lines
from symnoise_ray.records.layout import PREFLIGHT
from tests.cluster.machines import Cluster, Machine, until, why_not
from tests.conftest import ROOT
from tests.judges.test_local import folder
from tests.sweep.test_run import SPACE

__all__ = ["folder"]  # a fixture: the tiny judging model
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SHORT = SPACE.replace("arms: 1", "arms: 0").replace("max_steps: 8", "max_steps: 4")
"""Two trials of four steps, one after the other."""
UNBOUNDED = SHORT.replace("workers: {max_slots: 1}", "")
"""The same, for a cluster that does not grow."""
LONG = SPACE.replace("arms: 1", "arms: 0").replace("max_steps: 8", "max_steps: 60, num_epochs: 20")
"""Two trials long enough for something to happen in the midst of them."""
LONGER = LONG.replace("max_steps: 60", "max_steps: 200")
"""The same, for what takes longer."""
TWO = ("workers.max_slots=2",)
"""Two trials at once, one on each machine."""
ACROSS = ("workers.num_workers=2",)
"""One trial at a time, with a worker on each machine."""
WORKER = "ray::RayTrainWo"
"""The name of a worker's process, as far as the system keeps it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with one CPU, which the tests join other machines to."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.add("head")
        yield made
    finally:
        made.close()


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Machine]:
    """A second machine with one CPU, for one test."""
    name = f"m{len(cluster.machines)}"
    machine = cluster.add(name)
    yield machine
    machine.leave()


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Path:
    """The directory of the short sweep on the head alone."""
    assert cluster.tune(SHORT, output="alone", name="alone").wait(900) == 0, said(cluster, "alone")
    return cluster.folder / "alone"


def said(cluster: Cluster, name: str) -> str:
    return cluster.log(name).read_text()


def losses(directory: Path) -> dict[str, list[float]]:
    """The training losses of every trial of a sweep."""
    return {
        path.parent.name: [row["loss"] for row in read_lines(path) if "loss" in row]
        for path in sorted(directory.glob("trials/*/metrics.jsonl"))
    }


def steps(directory: Path) -> int:
    """How many records the trials of a sweep have written."""
    return sum(
        len(path.read_text().splitlines()) for path in directory.glob("trials/*/metrics.jsonl")
    )


def begun(directory: Path) -> list[Path]:
    """The trials of a sweep that have written a record."""
    files = directory.glob("trials/*/metrics.jsonl")
    return [path.parent for path in files if path.stat().st_size]


def is_whole(directory: Path) -> bool:
    return bool(read_json(directory / "results.json")["status"] == "whole")


def end_whole(cluster: Cluster, sweep: subprocess.Popen[bytes], name: str) -> None:
    assert sweep.wait(1500) == 0, said(cluster, name)
    assert is_whole(cluster.folder / name)


def refused(cluster: Cluster, name: str, *words: str, space: str = SHORT) -> str:
    """The one line with which a sweep is refused; it leaves nothing."""
    log = Path(name).name
    assert cluster.tune(space, *words, output=name, name=log).wait(900) == 2, said(cluster, log)
    assert not (cluster.folder / name).exists()
    line = said(cluster, log).splitlines()[-1]
    assert line.startswith("error: ")
    assert "starting" not in said(cluster, log)
    return line


def test_a_trial_that_fits_on_no_machine_is_refused_with_the_nearest(
    cluster: Cluster, other: Machine
):
    line = refused(cluster, "wide", "workers.cpus_per_worker=2", space=UNBOUNDED)
    assert "one trial needs a worker of 2 CPU, but the 2 nodes have room for 0" in line


def test_a_machine_with_storage_or_code_of_its_own_is_refused(cluster: Cluster):
    own = cluster.folder / "own"
    own.mkdir()
    hidden = f'mount -t tmpfs none {own} && exec "$@"'
    private = cluster.add("private", around=["unshare", "--mount", "sh", "-c", hidden, "sh"])
    line = refused(cluster, "own/unshared")
    assert f"node {private.address}" in line
    assert "--output must lie on storage that all nodes share" in line
    private.leave()
    copy = edited_copy(cluster.folder / "copy")
    edited = cluster.add("edited", PYTHONPATH=str(copy))
    line = refused(cluster, "code")
    assert f"node {edited.address}" in line
    assert "its symnoise_ray must be the same code as here, but differs" in line
    edited.leave()


def edited_copy(folder: Path) -> Path:
    """Where the package lies with one more comment."""
    shutil.copytree(ROOT / "symnoise_ray", folder / "symnoise_ray")
    with (folder / "symnoise_ray" / "errors.py").open("a") as file:
        file.write("# edited on one machine\n")
    return folder


def test_a_trial_that_spans_both_has_the_losses_of_one_machine(
    cluster: Cluster, other: Machine, alone: Path
):
    sweep = cluster.tune(SHORT, *ACROSS, output="across", name="across")
    until(lambda: other.processes(WORKER), sweep, cluster.log("across"))
    end_whole(cluster, sweep, "across")
    expected, found = losses(alone), losses(cluster.folder / "across")
    assert found.keys() == expected.keys()
    for name in expected:
        assert len(found[name]) == 4
        assert found[name] == pytest.approx(expected[name], rel=0, abs=1e-6)


@pytest.mark.nightly
def test_a_link_that_is_cut_for_twenty_seconds_and_then_slow_costs_no_trial(
    cluster: Cluster, other: Machine
):
    sweep = cluster.tune(LONG, *ACROSS, output="cut", name="cut")
    until(lambda: steps(cluster.folder / "cut") > 2, sweep, cluster.log("cut"))
    other.cut()
    time.sleep(20)
    other.mend()
    other.slow("50mbit")
    end_whole(cluster, sweep, "cut")


@pytest.mark.nightly
def test_calls_between_machines_that_get_lost_now_and_then_cost_no_trial(
    cluster: Cluster, alone: Path
):
    """Of the calls that actors of one machine make, one in ten is lost, and one answer in ten."""
    lost = {"num_failures": -1, "req_failure_prob": 10, "resp_failure_prob": 10}
    calls = json.dumps({"CoreWorkerService.grpc_client.PushTask": lost})
    lossy = cluster.add("lossy", RAY_testing_rpc_failure=calls)
    sweep = cluster.tune(SHORT, *ACROSS, output="lossy", name="lossy")
    until(lambda: lossy.processes(WORKER), sweep, cluster.log("lossy"))
    end_whole(cluster, sweep, "lossy")
    directory = cluster.folder / "lossy"
    assert {trial["attempts"] for trial in read_json(directory / "results.json")["trials"]} == {1}
    assert losses(directory).keys() == losses(alone).keys()
    for name, found in losses(directory).items():
        assert found == pytest.approx(losses(alone)[name], rel=0, abs=1e-6)
    lossy.leave()


def test_a_sweep_trains_on_both_machines_and_ends_whole_though_the_raylet_of_one_is_killed(
    cluster: Cluster, other: Machine
):
    sweep = cluster.tune(LONG, *TWO, output="lost", name="lost")
    log = cluster.log("lost")
    until(lambda: cluster.head.processes(WORKER) and other.processes(WORKER), sweep, log)
    assert "starting 2 worker groups, as many as workers.max_slots allows" in log.read_text()
    until(lambda: len(begun(cluster.folder / "lost")) == 2, sweep, log)
    other.end("raylet")
    end_whole(cluster, sweep, "lost")


def test_a_sweep_grows_to_a_machine_that_comes_later(cluster: Cluster):
    sweep = cluster.tune(LONG, *TWO, output="later", name="later")
    until(lambda: steps(cluster.folder / "later") > 2, sweep, cluster.log("later"))
    late = cluster.add("late")
    until(lambda: late.processes(WORKER), sweep, cluster.log("later"))
    end_whole(cluster, sweep, "later")
    late.leave()


@pytest.mark.nightly
def test_a_machine_that_comes_later_with_other_code_is_left_out_and_a_fit_one_is_not(
    cluster: Cluster,
):
    copy = edited_copy(cluster.folder / "late-copy")
    sweep = cluster.tune(LONGER, *TWO, output="unfit", name="unfit")
    log = cluster.log("unfit")
    until(lambda: steps(cluster.folder / "unfit") > 2, sweep, log)
    edited = cluster.add("late-edited", PYTHONPATH=str(copy))
    line = f"node {edited.address}"
    until(lambda: line in log.read_text(), sweep, log)
    fit = cluster.add("late-fit")
    until(lambda: fit.processes(WORKER), sweep, log)
    assert edited.processes(WORKER) == []
    end_whole(cluster, sweep, "unfit")
    said_of_it = [each for each in log.read_text().splitlines() if line in each]
    assert len(said_of_it) == 1
    assert said_of_it[0].endswith(
        "its symnoise_ray must be the same code as here, but differs; install it anew; "
        "it is left out"
    )
    assert not list((cluster.folder / "unfit").glob(f"{PREFLIGHT}-*"))
    for machine in (edited, fit):
        machine.leave()


@pytest.mark.nightly
def test_a_machine_that_is_to_be_taken_away_is_left_and_the_sweep_ends_whole(
    cluster: Cluster, other: Machine
):
    sweep = cluster.tune(LONG, *TWO, output="spot", name="spot")
    log = cluster.log("spot")
    until(lambda: other.processes(WORKER) and steps(cluster.folder / "spot") > 2, sweep, log)
    notice = other.ray(
        *("drain-node", f"--address={cluster.address}", f"--node-id={node_id(cluster, other)}"),
        *("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"),
        "--deadline-remaining-seconds=5",
    )
    assert notice == 0, (cluster.folder / f"ray-{other.name}.log").read_text()
    time.sleep(5)
    other.end()
    end_whole(cluster, sweep, "spot")


def node_id(cluster: Cluster, machine: Machine) -> str:
    """How Ray calls a living machine."""
    code = (
        "import ray; ray.init(log_to_driver=False); print(next(node['NodeID'] for node in "
        f"ray.nodes() if node['Alive'] and node['NodeManagerAddress'] == '{machine.address}'))"
    )
    out = cluster.folder / f"{machine.name}.id"
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert cluster.head.start(command, out, RAY_ADDRESS=cluster.address).wait(300) == 0
    return out.read_text().split()[-1]


@pytest.mark.nightly
def test_capacity_that_never_returns_ends_the_sweep_with_the_reason(
    cluster: Cluster, other: Machine
):
    sweep = cluster.tune(LONG, *ACROSS, "workers.start_minutes=1.5", output="never", name="never")
    until(lambda: steps(cluster.folder / "never") > 2, sweep, cluster.log("never"))
    other.end()
    assert sweep.wait(900) == 1, said(cluster, "never")
    results = read_json(cluster.folder / "never" / "results.json")
    assert [trial["kind"] for trial in results["trials"]] == ["infrastructure"] * 2
    reasons = {trial["reason"] for trial in results["trials"]}
    assert all("none was up for 1.5 minutes (workers.start_minutes)" in one for one in reasons)


def judged_afar(
    cluster: Cluster, model: Path, name: str, *words: str
) -> tuple[Machine, subprocess.Popen[bytes], psutil.Process]:
    """A sweep whose judge works on a machine of its own and holds its breath over the first trial.

    Returns:
        That machine, the sweep, and the judge's process.
    """
    far = cluster.add(f"{name}-judge", cpus=2)
    space = SHORT.replace("generate:", "judge: {type: local, cpus_per_worker: 2}\n  generate:")
    # A store of its own, or the verdicts of the sweep before would be taken.
    settings = (f"judge.model={model}", "judge.self_check=false", f"judge.cache={name}-verdicts")
    sweep = cluster.tune(space, *settings, *words, output=name, name=name)
    log, answers = cluster.log(name), cluster.folder / name / "trials" / "001-symnoise"
    until(lambda: "starting 1 worker group" in log.read_text(), sweep, log)
    (judge,) = far.processes("ray::JudgeWork")
    judge.suspend()
    until(lambda: (answers / "outcome.json").exists(), sweep, log)
    time.sleep(5)  # its pairs are on their way, and no verdict comes
    return far, sweep, judge


@pytest.mark.nightly
def test_a_judge_whose_link_is_cut_for_a_while_costs_no_verdict(cluster: Cluster, folder: Path):
    far, sweep, judge = judged_afar(cluster, folder, "judged")
    far.cut()
    judge.resume()
    time.sleep(20)
    far.mend()
    end_whole(cluster, sweep, "judged")
    for trial in read_json(cluster.folder / "judged" / "results.json")["trials"]:
        assert "judge_failures" not in trial
    far.leave()


@pytest.mark.nightly
def test_a_judge_that_is_lost_for_good_ends_the_wait_for_its_verdicts(
    cluster: Cluster, folder: Path
):
    far, sweep, _ = judged_afar(cluster, folder, "unjudged", "workers.start_minutes=1.5")
    far.end()
    assert sweep.wait(900) in (1, 3), said(cluster, "unjudged")
    trials = read_json(cluster.folder / "unjudged" / "results.json")["trials"]
    (failed,) = [trial for trial in trials if trial["trial"] == "001-symnoise"]
    assert failed["kind"] == "judge"
    assert "workers.start_minutes=1.5, but is silent" in failed["reason"]


def test_a_lost_head_ends_the_sweep_and_a_fresh_head_goes_on_with_it(cluster: Cluster):
    sweep = cluster.tune(LONG, output="head", name="head")
    directory = cluster.folder / "head"
    until(lambda: list(directory.glob("trials/*/trial.json")), sweep, cluster.log("head"))
    before = {path: path.stat().st_mtime_ns for path in directory.glob("trials/*/trial.json")}
    cluster.head.end("gcs_server", "raylet")
    assert sweep.wait(900) == 1, said(cluster, "head")
    cluster.head.end()
    cluster.head.start_ray(1)
    again = cluster.tune(LONG, "--resume", output="head", name="again")
    assert again.wait(1500) == 0, said(cluster, "again")
    assert is_whole(directory)
    assert {path: path.stat().st_mtime_ns for path in before} == before
