"""Whether the nodes of a cluster can run one sweep together, before any worker starts.

In: a connection to Ray, and what a sweep needs. Out: the nodes that are fit, or one error that
names a node and what is wrong there. A single node, which the sweep itself runs on, is not asked.
A node that comes later is looked at alone: what is wrong there keeps it out of the sweep.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.errors import InfrastructureError, UserError, one_line
from symnoise_ray.preflight import probe
from symnoise_ray.preflight.placement import Node
from symnoise_ray.records.layout import PREFLIGHT

MAX_SKEW_SECONDS = 30.0
"""Clocks that differ by more make a sweep's times useless, and access to cloud storage fails."""

LATE_SECONDS = 120.0
"""How long a node may take to answer that has joined later, where a worker runs already."""


class Needs(NamedTuple):
    """What every node must find as the sweep's own does.

    Args:
        directory: Where the sweep writes. It holds a few small files during a check.
        inputs: Files and folders that trials read.
    """

    directory: Path
    inputs: Sequence[str]


class Checked(NamedTuple):
    """The nodes that were found fit, by Ray's ids, and what one that comes later must find."""

    fit: frozenset[str]
    needs: Needs


def nodes() -> list[Node]:
    """The living nodes of the cluster that this process is connected to."""
    return [_node(raw) for raw in _living()]


def _living() -> list[dict[str, Any]]:
    import ray  # half a second, which a check of the configuration need not pay

    return [raw for raw in ray.nodes() if raw["Alive"]]


def _node(raw: Mapping[str, Any]) -> Node:
    address, host = raw["NodeManagerAddress"], raw["NodeManagerHostname"]
    return Node(address if address == host else f"{address} ({host})", raw["Resources"])


def check_nodes(needs: Needs, seconds: float) -> Checked:
    """Ask every node what it sees of the sweep's directory, its inputs, its code and the time.

    Args:
        needs: What it must find.
        seconds: How long a node may take to answer, the set-up of its environment included.

    Raises:
        UserError: the storage is not shared, an input is missing, or code, versions or clocks
            differ.
        InfrastructureError: a node does not answer.
    """
    living = {raw["NodeID"]: _node(raw).name for raw in _living()}
    if len(living) < 2:
        return Checked(frozenset(living), needs)
    for path in needs.directory.glob(f"{PREFLIGHT}-*"):  # of a part that was killed meanwhile
        path.unlink(missing_ok=True)
    if problems := _problems(living, needs, seconds):
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)
    return Checked(frozenset(living), needs)


def what_is_wrong(node: str, needs: Needs) -> str:
    """What keeps a node from training for a sweep that runs already; empty if it is fit.

    Args:
        node: Ray's id of it.
        needs: What it must find.
    """
    living = {raw["NodeID"]: _node(raw).name for raw in _living() if raw["NodeID"] == node}
    if not living:
        return ""  # it has left again, and its workers with it
    try:
        return next(iter(_problems(living, needs, LATE_SECONDS)), "")
    except InfrastructureError as error:
        return error.message


def code_check() -> bytes:
    """A pickled function by which a machine says what is wrong with its code; see `code_problem`.

    It travels by value, so that a machine with other code is asked by the sweep's own.
    """
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(probe)
    try:
        pickled: bytes = cloudpickle.dumps(partial(probe.code_problem, probe.code_here()))
        return pickled
    finally:
        cloudpickle.unregister_pickle_by_value(probe)


def _problems(living: Mapping[str, str], needs: Needs, seconds: float) -> list[str]:
    """What is wrong with nodes, by id, that have these names."""
    # A name that no node has asked for before: network file systems remember what is not there.
    written = needs.directory / f"{PREFLIGHT}-{secrets.token_hex(4)}"
    try:
        written.write_text(secrets.token_hex(16), encoding="utf-8")
        began = time.time()
        found = _ask(living, written, needs.inputs, seconds)
        here = probe.look(str(written), str(written), [])
        return [
            f"node {living[node]}: {problem}"
            for node, seen in found.items()
            for problem in differences(seen, here, began, time.time())
            + ([] if seen["problem"] else _unshared(written, _answer(written, node)))
        ]
    finally:
        for path in needs.directory.glob(f"{written.name}*"):
            path.unlink(missing_ok=True)


def _answer(written: Path, node: str) -> Path:
    return written.with_name(f"{written.name}-{node}")


def _ask(
    living: Mapping[str, str], written: Path, inputs: Sequence[str], seconds: float
) -> dict[str, dict[str, Any]]:
    """What every node sees, by its id; a node that is lost meanwhile is left out."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cloudpickle.register_pickle_by_value(probe)
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(probe.look)
        asked = {}
        for node in living:
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            task = look.options(scheduling_strategy=here)
            asked[node] = task.remote(str(written), str(_answer(written, node)), list(inputs))
    finally:
        cloudpickle.unregister_pickle_by_value(probe)
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    found = {}
    for node, answer in asked.items():
        try:
            found[node] = ray.get(answer, timeout=0)
        except (ray.exceptions.RayError, TimeoutError) as error:
            if node in {raw["NodeID"] for raw in _living()}:
                told = "it is silent" if isinstance(error, TimeoutError) else one_line(error)
                raise InfrastructureError(
                    f"node {living[node]} must answer within {seconds:g} s, but {told}"
                ) from None
    return found


def differences(
    seen: Mapping[str, Any], here: Mapping[str, Any], began: float, ended: float
) -> list[str]:
    """What is wrong with a node, in words; the worst first.

    Args:
        seen: What it says of itself; see `probe.look`.
        here: The same of the machine that the sweep runs on.
        began: When it was asked, by the clock of this machine, in seconds since 1970.
        ended: When its answer had come.
    """
    return list(_differences(seen, here, began, ended))


def _differences(
    seen: Mapping[str, Any], here: Mapping[str, Any], began: float, ended: float
) -> Iterator[str]:
    if seen["problem"]:
        yield (
            "--output must lie on storage that all nodes share and may write, mounted at the same "
            f"path, but there: {seen['problem']}"
        )
    for path in seen["missing"]:
        yield f"it must find every input at the same path, but there is no {path}"
    yield from probe.code_differences(seen, here)
    skew = max(began - seen["time"], seen["time"] - ended)
    if skew > MAX_SKEW_SECONDS:
        yield (
            f"its clock must be within {MAX_SKEW_SECONDS:g} s of this machine's, but differs by "
            f"{skew:.0f} s or more; set it, for example by chrony"
        )


def _unshared(written: Path, answer: Path) -> list[str]:
    """What is wrong if what the node wrote is not seen here."""
    with suppress(OSError):
        if answer.read_text(encoding="utf-8") == written.read_text(encoding="utf-8"):
            return []
    return ["--output must lie on storage that all nodes share, but what it wrote is not seen here"]
