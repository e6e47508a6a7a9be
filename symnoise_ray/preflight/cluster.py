"""Whether the nodes of a cluster can run one sweep together, before any worker starts.

In: a connection to Ray, and the sweep's directory. Out: nothing, or one error that names the node
and what is wrong there. A single node, which the sweep itself runs on, is not asked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from symnoise_ray.errors import InfrastructureError, UserError, one_line
from symnoise_ray.preflight import probe
from symnoise_ray.preflight.placement import Node
from symnoise_ray.records.layout import PREFLIGHT

MAX_SKEW_SECONDS = 30.0
"""Clocks that differ by more make a sweep's times useless, and access to cloud storage fails."""


def nodes() -> list[Node]:
    """The living nodes of the cluster that this process is connected to."""
    return [_node(raw) for raw in _living()]


def _living() -> list[dict[str, Any]]:
    import ray  # half a second, which a check of the configuration need not pay

    return [raw for raw in ray.nodes() if raw["Alive"]]


def _node(raw: Mapping[str, Any]) -> Node:
    address, host = raw["NodeManagerAddress"], raw["NodeManagerHostname"]
    return Node(address if address == host else f"{address} ({host})", raw["Resources"])


def check_nodes(directory: Path, inputs: Sequence[str], seconds: float) -> None:
    """Ask every node what it sees of the sweep's directory, its inputs, its code and the time.

    Args:
        directory: Where the sweep writes. It holds a few small files meanwhile.
        inputs: Files and folders that trials read.
        seconds: How long a node may take to answer, the set-up of its environment included.

    Raises:
        UserError: the storage is not shared, an input is missing, or code, versions or clocks
            differ.
        InfrastructureError: a node does not answer.
    """
    living = {raw["NodeID"]: _node(raw).name for raw in _living()}
    if len(living) < 2:
        return
    # A name that no node has asked for before: network file systems remember what is not there.
    written = directory / f"{PREFLIGHT}-{secrets.token_hex(4)}"
    try:
        written.write_text(secrets.token_hex(16), encoding="utf-8")
        began = time.time()
        found = _ask(living, written, inputs, seconds)
        here = probe.look(str(written), str(written), [])
        problems = [
            f"node {living[node]}: {problem}"
            for node, seen in found.items()
            for problem in differences(seen, here, began, time.time())
            + ([] if seen["problem"] else _unshared(written, _answer(written, node)))
        ]
    finally:
        for path in directory.glob(f"{PREFLIGHT}-*"):
            path.unlink(missing_ok=True)
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)


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
    if seen["code"] is None:
        yield f"it must have the package {probe.PACKAGE}, but has none; install it there"
    elif seen["code"] != here["code"]:
        yield f"its {probe.PACKAGE} must be the same code as here, but differs; install it anew"
    for name, version in here["versions"].items():
        if seen["versions"][name] != version:
            other = seen["versions"][name] or "absent"
            yield f"its {name} must be {version} as here, but is {other}"
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
