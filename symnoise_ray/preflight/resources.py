"""What a sweep's workers need, compared with this machine, where it is the only one.

In: the settings of the workers and of the judge. Out: nothing, or an error of one line. The machine
is known before Ray starts; `cluster.py` looks at all others.
"""

from __future__ import annotations

import os
import sys

from symnoise_ray.config import JudgeConfig, WorkersConfig
from symnoise_ray.preflight.placement import Node, count_slots


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
    judging = judge is not None and judge.type == "local" and judge.gpus_per_worker
    num_gpus = _num_gpus() if workers.gpus_per_worker or judging else 0
    count_slots(
        workers, [Node("this machine", {"CPU": os.cpu_count() or 1, "GPU": num_gpus})], 1, judge
    )


def _num_gpus() -> int:
    import torch  # seconds, for workers with GPUs only

    return torch.cuda.device_count()
