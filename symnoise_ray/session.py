"""The Ray session of a sweep, and its end by signal.

In: the environment. Out: a connected driver and the cluster's resources. A sweep on its own starts
a private local Ray and ends it; inside a job, or where RAY_ADDRESS names a cluster, it joins that.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from symnoise_ray.errors import EXIT_SIGINT, EXIT_SIGTERM, InfrastructureError

OBJECT_STORE_BYTES = 200 * 2**20
"""Of a private local Ray; trials pass files, not objects."""


class Interrupted(KeyboardInterrupt):
    """The sweep was told to stop; carries the exit status of the signal."""

    def __init__(self, exit_code: int = EXIT_SIGINT) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def in_ray_job() -> bool:
    """Whether this driver was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextmanager
def ray_session() -> Iterator[dict[str, float]]:
    """Connect to Ray; yields the cluster's resources.

    Raises:
        InfrastructureError: the cluster that RAY_ADDRESS names does not answer.
    """
    import ray  # half a second, which a check of the configuration need not pay

    try:
        if "RAY_ADDRESS" in os.environ or in_ray_job():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InfrastructureError(f"Ray must start or answer, but {reason}") from None
    # ray.init replaces the handler of SIGTERM, so ours is set after it.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield ray.cluster_resources()
    finally:
        # What is left to do takes a moment; a second Ctrl-C must not leave processes behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ray.shutdown()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(EXIT_SIGTERM if number == signal.SIGTERM else EXIT_SIGINT)
