"""The gate of a slot: no worker trains on a node that was not found fit.

In: where Ray has put a slot's workers, and where it would put them. Out: a start that is broken off
before anything of the sweep runs on an unfit node, and a next one that leaves such nodes out. It
lives in Ray Train's controller, on the node of the sweep. Ray itself puts workers on any node that
has joined, and knows nothing of what a sweep needs.

The hooks and the error are private names of Ray Train: the version of ray is pinned.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from symnoise_ray.preflight.cluster import Checked, what_is_wrong

NODE_LABEL = "ray.io/node-id"
"""A label that Ray gives to every node."""
ANSWER_SECONDS = 60.0
"""How long the hub's answer may take."""


class Gate(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Looks at nodes that have joined since the sweep looked at all of them.

    Args:
        hub: Keeps what is known of unfit nodes, for all slots.
        checked: The nodes that were found fit, and what another one must find.
    """

    def __init__(self, hub: Any, checked: Checked) -> None:
        self.hub, self.fit, self.needs = hub, set(checked.fit), checked.needs
        self.unfit: dict[str, str] = {}

    def on_controller_start_worker_group(
        self, *, scaling_config: Any, num_workers: int
    ) -> dict[str, str] | None:
        """A selector of nodes that leaves the unfit ones out; None where there are none."""
        self._share()
        return {NODE_LABEL: f"!in({', '.join(sorted(self.unfit))})"} if self.unfit else None

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Look at the nodes of workers that are there and have read nothing of the sweep's yet.

        Raises:
            WorkerGroupStartupFailedError: one is unfit; Ray Train starts the group once more.
        """
        nodes = {worker.metadata.node_id for worker in workers}
        for node in nodes - self.fit - self.unfit.keys():
            if problem := what_is_wrong(node, self.needs):
                self.unfit[node] = problem
            else:
                self.fit.add(node)
        if refused := nodes & self.unfit.keys():
            self._share()
            raise WorkerGroupStartupFailedError(self.unfit[refused.pop()])
        return {}

    def _share(self) -> None:
        """Tell the hub, and hear what other slots have told it.

        Where the hub is away this slot goes by what it knows, and looks itself at what it does not.
        """
        with suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            self.unfit = ray.get(self.hub.unfit.remote(self.unfit), timeout=ANSWER_SECONDS)
