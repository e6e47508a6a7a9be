"""Which trials a cluster can hold: what one needs, against what every node offers.

In: the settings of the workers and of the judge, and the nodes. Out: how many trials train at once
and what sets that number, or one error that names the node that comes nearest. A worker runs on one
node, so what counts is the room of each node and not the sum over the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from symnoise_ray.config import JudgeConfig, WorkersConfig
from symnoise_ray.errors import UserError

_ROUNDING = 1e-9
"""Parts of GPUs are no exact numbers."""


class Node(NamedTuple):
    """A machine of the cluster: how people know it, and its number of `CPU`s and `GPU`s."""

    name: str
    resources: Mapping[str, float]


class Slots(NamedTuple):
    """How many trials train at once, and what sets that number, in words."""

    number: int
    why: str


def count_slots(
    workers: WorkersConfig,
    nodes: Sequence[Node],
    num_trials: int,
    judge: JudgeConfig | None = None,
    *,
    grows: bool = False,
) -> Slots:
    """How many trials train at once: what fits, at most `max_slots`, at most the trials.

    A local judge's workers hold their part of the nodes all the time. Where the cluster `grows`,
    nodes may still come, so `max_slots` is also the number to start: those without room wait.

    Raises:
        UserError: not one trial fits, and no `max_slots` says that the cluster will grow.
    """
    worker = _of_one(workers)
    left = _beside_judge(nodes, judge)
    rooms = [] if left is None else [_room(node.resources, worker) for node in left]
    limits = [(num_trials, "one for each trial")]
    if workers.max_slots:
        limits.insert(0, (workers.max_slots, "as many as workers.max_slots allows"))
    if sum(rooms) >= workers.num_workers:
        fitting = sum(rooms) // workers.num_workers
        if grows and workers.max_slots:
            return Slots(*min(limits, key=_count))
        where = "the machine has" if len(nodes) == 1 else f"the {len(nodes)} nodes have"
        return Slots(*min((*limits, (fitting, f"as many as {where} room for")), key=_count))
    if workers.max_slots:
        return Slots(*min(limits, key=_count))
    raise UserError(_too_small(workers, worker, nodes, rooms, judge))


def _count(limit: tuple[int, str]) -> int:
    return limit[0]


def _of_one(config: WorkersConfig | JudgeConfig) -> dict[str, float]:
    """What one worker holds."""
    return {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}


def _beside_judge(nodes: Sequence[Node], judge: JudgeConfig | None) -> list[Node] | None:
    """What the nodes offer beside a local judge's workers; None if these do not fit."""
    left = [Node(node.name, dict(node.resources)) for node in nodes]
    if judge is None or judge.type != "local":
        return left
    need = _of_one(judge)
    for _ in range(judge.num_workers):
        at = next((i for i, node in enumerate(left) if _room(node.resources, need)), None)
        if at is None:
            return None
        offered = left[at].resources
        rest = {name: offered.get(name, 0) - need[name] for name in need}
        left[at] = Node(left[at].name, rest)
    return left


def _room(resources: Mapping[str, float], need: Mapping[str, float]) -> int:
    """How many workers a node takes. A part of a GPU lies on one GPU."""
    counts = [math.floor(resources.get("CPU", 0) / need["CPU"] + _ROUNDING)]
    if need["GPU"]:
        gpus = resources.get("GPU", 0) + _ROUNDING
        whole = math.floor(gpus)
        counts.append(
            whole * math.floor(1 / need["GPU"] + _ROUNDING)
            + math.floor((gpus - whole + _ROUNDING) / need["GPU"])
        )
    return max(0, min(counts))


def _too_small(
    workers: WorkersConfig,
    worker: Mapping[str, float],
    nodes: Sequence[Node],
    rooms: Sequence[int],
    judge: JudgeConfig | None,
) -> str:
    """The error where not one trial fits."""
    several = f"{workers.num_workers} workers of" if workers.num_workers > 1 else "a worker of"
    beside = ""
    if judge is not None and judge.type == "local":
        beside = f" beside the judge's {judge.num_workers} of {_listed(_of_one(judge))}"
    advice = (
        "lower workers.num_workers, cpus_per_worker or gpus_per_worker, or set RAY_ADDRESS to a "
        "cluster, or, where the cluster grows on demand, workers.max_slots"
    )
    return (
        f"workers: one trial needs {several} {_listed(worker)}{beside}, but "
        f"{_offered(worker, nodes, rooms)}; {advice}"
    )


def _offered(worker: Mapping[str, float], nodes: Sequence[Node], rooms: Sequence[int]) -> str:
    """What there is instead, with the node that comes nearest."""
    if not rooms:  # the judge's workers alone do not fit
        rooms = [_room(node.resources, worker) for node in nodes]
    index = max(range(len(nodes)), key=lambda i: (rooms[i], _share(nodes[i].resources, worker)))
    nearest = nodes[index]
    needed = [name for name, count in worker.items() if count]
    offers = ", ".join(f"{nearest.resources.get(name, 0):g} {name}" for name in needed)
    if len(nodes) == 1:
        return f"the only node, {nearest.name}, offers {offers}, which is room for {rooms[index]}"
    return (
        f"the {len(nodes)} nodes have room for {sum(rooms)}, the nearest being {nearest.name}, "
        f"which offers {offers} and has room for {rooms[index]}"
    )


def _share(resources: Mapping[str, float], need: Mapping[str, float]) -> float:
    """How much of one worker a node could hold, from 0 to 1, summed over what it needs."""
    return sum(min(1.0, resources.get(name, 0) / count) for name, count in need.items() if count)


def _listed(need: Mapping[str, float]) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in need.items() if count)
