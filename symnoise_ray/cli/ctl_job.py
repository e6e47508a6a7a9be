"""Orders to a sweep that runs as a Ray job: a second job beside it gives them on its own machine.

In: the address of the cluster's dashboard with the job's submission id, and an order's words. Out:
what the sweep said. The second job finds the sweep's directory through the cluster itself, so
whoever may submit jobs there may give orders, as that one may read and write all that they do.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from symnoise_ray.errors import InfrastructureError, UserError, one_line
from symnoise_ray.report.words import printable

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 300.0
"""A job starts a process of its own, and on a busy machine that takes a while."""


def give_in_job(address: str, words: Sequence[str]) -> int:
    """Give an order through a cluster's job interface; returns the exit status.

    Args:
        address: `http://HEAD:8265/ID` with the submission id of the sweep's job.
        words: The order, as on the command line.

    Raises:
        UserError: nothing answers there, or no such job runs.
        InfrastructureError: the order was not answered in time.
    """
    cluster, job = _split(address)
    client, info = _find(cluster, job)
    command = shlex.join(["python", "-m", "symnoise_ray", "ctl", f"job:{job}", *words])
    # With the sweep's own code: its working directory is on the cluster already.
    environment = {
        name: value for name, value in (info.runtime_env or {}).items() if not name.startswith("_")
    }
    order = client.submit_job(entrypoint=command, runtime_env=environment)
    status = _await_end(client, order)
    # Ray's own lines end with the one that names the command.
    text = client.get_job_logs(order).rpartition(f": {command}\n")[2]
    print(printable(text).rstrip(), file=sys.stderr if status else sys.stdout)
    client.delete_job(order)
    return status


def _split(address: str) -> tuple[str, str]:
    """Address of a cluster's dashboard, and the submission id of a job there."""
    cluster, _, job = address.rstrip("/").rpartition("/")
    if "//" not in cluster or cluster.endswith("/"):
        raise UserError(
            f"{address}: must be http://HEAD:8265/ID with the submission id of a job, such as "
            "http://127.0.0.1:8265/raysubmit_1a2b3c; `ray job list` shows it"
        )
    return cluster, job


def _find(cluster: str, job: str) -> tuple[Any, Any]:
    from ray.job_submission import JobStatus, JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        client = JobSubmissionClient(cluster)
        info = client.get_job_info(job)
    except Exception as error:  # Ray raises all kinds
        raise UserError(
            f"{cluster}/{job}: must be a job of a Ray cluster that answers, but {one_line(error)}"
        ) from None
    if info.status != JobStatus.RUNNING:
        raise UserError(f"{cluster}/{job}: must be a job that runs, but is {info.status.value}")
    return client, info


def _await_end(client: Any, order: str) -> int:
    """Exit status of the job that gives the order."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not client.get_job_status(order).is_terminal():
        if time.monotonic() > deadline:
            client.stop_job(order)
            raise InfrastructureError(
                f"the job {order}, which gives the order, must end within "
                f"{PATIENCE_SECONDS:.0f} s, but did not, and was stopped"
            )
        time.sleep(POLL_SECONDS)
    code = client.get_job_info(order).driver_exit_code
    return 1 if code is None else int(code)
