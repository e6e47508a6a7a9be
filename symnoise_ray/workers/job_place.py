"""Where the sweep of a Ray job writes, so that another job of the cluster can find it.

In: a sweep's directory, in its own job. Out: the same directory, in another job, by the submission
id of the first. It is kept in the cluster's own table of keys, which ends with the cluster.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from symnoise_ray.errors import UserError
from symnoise_ray.preflight.resources import in_ray_job

_NAMESPACE = b"symnoise_ray"


def note_place(directory: Path) -> None:
    """Write down where the sweep of this job writes; does nothing outside a job."""
    if not in_ray_job():
        return
    # Private names: the version of ray is pinned, and a test gives an order through a job.
    from ray.experimental.internal_kv import _internal_kv_put

    config = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
    job = config.get("metadata", {}).get("job_submission_id", "")
    _internal_kv_put(job.encode(), str(directory).encode(), namespace=_NAMESPACE)


def place_of(job: str) -> Path:
    """Where the sweep of a job of this cluster writes.

    Raises:
        UserError: no sweep of that job has begun.
    """
    import ray
    from ray.experimental.internal_kv import _internal_kv_get

    if not in_ray_job():
        raise UserError(f"job:{job} has a meaning within a Ray job only; give the job's address")
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        found = _internal_kv_get(job.encode(), namespace=_NAMESPACE)
    finally:
        ray.shutdown()
    if not found:
        raise UserError(f"{job}: must be a job whose sweep has begun, but none has; try again")
    return Path(found.decode())
