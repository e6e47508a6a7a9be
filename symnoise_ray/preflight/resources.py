"""What a sweep's workers need, compared with what there is: in a cluster, or on this machine.

In: the settings of the workers and of the judge, and resources. Out: how many trials train at once,
or an error of one line. Where this is the only machine, its resources are known before Ray starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from symnoise_ray.config import JudgeConfig, WorkersConfig
from symnoise_ray.errors import UserError

ROUNDING = 1e-9
"""Parts of GPUs are no exact numbers."""


def in_ray_job() -> bool:
    """Whether this driver was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def runs_alone() -> bool:
    """Whether a sweep started here starts a Ray of its own, on this machine only."""
    return "RAY_ADDRESS" not in os.environ and not in_ray_job()


def require_machine(workers: WorkersConfig, judge: JudgeConfig | None) -> None:
    """Refuse workers for which this machine is too small, where it is the only one.

    Raises:
        UserError: not one trial fits.
    """
    ray = sys.modules.get("ray")  # whoever has started Ray in this process has imported it
    if not runs_alone() or (ray is not None and ray.is_initialized()):
        return
    wants_gpus = workers.gpus_per_worker or judge_resources(judge).get("GPU")
    resources = {"CPU": os.cpu_count() or 1, "GPU": _num_gpus() if wants_gpus else 0}
    count_slots(workers, resources, 1, judge, place="this machine")


def _num_gpus() -> int:
    import torch  # seconds, for workers with GPUs only

    return torch.cuda.device_count()


def count_slots(
    workers: WorkersConfig,
    resources: Mapping[str, float],
    num_trials: int,
    judge: JudgeConfig | None = None,
    *,
    place: str = "the cluster",
) -> int:
    """How many trials train at once: what fits, at most `max_slots`, at most the trials.

    A local judge's workers hold their part of the cluster all the time.

    Raises:
        UserError: not one trial fits, and no `max_slots` says that the cluster will grow.
    """
    held = judge_resources(judge)
    wanted = {
        "CPU": workers.num_workers * workers.cpus_per_worker,
        "GPU": workers.num_workers * workers.gpus_per_worker,
    }
    left = {name: resources.get(name, 0) - held.get(name, 0) for name in wanted}
    fitting = min(int(left[name] / need + ROUNDING) for name, need in wanted.items() if need)
    limits = [num_trials] + ([workers.max_slots] if workers.max_slots else [])
    if fitting > 0 and min(left.values()) >= 0:
        return max(1, min(fitting, *limits))
    if workers.max_slots:
        return max(1, min(limits))
    beside = f", of which the judge's workers take {_listed(held)}" if held else ""
    raise UserError(
        f"workers: one trial needs {_listed(wanted)}, but {place} has "
        f"{_listed({name: resources.get(name, 0) for name in wanted}, zeros=True)}{beside}; lower "
        "workers.num_workers, cpus_per_worker or gpus_per_worker, or set RAY_ADDRESS to a cluster, "
        "or, where the cluster grows on demand, workers.max_slots"
    )


def judge_resources(judge: JudgeConfig | None) -> dict[str, float]:
    """What the workers of a local judge hold together; nothing for another judge."""
    if judge is None or judge.type != "local":
        return {}
    return {
        "CPU": judge.num_workers * judge.cpus_per_worker,
        "GPU": judge.num_workers * judge.gpus_per_worker,
    }


def _listed(resources: Mapping[str, float], zeros: bool = False) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in resources.items() if count or zeros)
