"""Tune's scheduler of a sweep: trials run in their order, in processes that stay.

In: Tune's controller, when it hears of the first trial. Out: a controller that keeps the process of
every trial that ends for the next one.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler


class InOrder(FIFOScheduler):  # type: ignore[misc]
    """Keeps as many free processes as trials are followed at once.

    Tune by itself keeps one. The next of two trials that end together would wait for a process to
    start, three seconds; and with short trials that is again and again, since a trial that waits
    for its process takes one that becomes free meanwhile, and the one that starts is thrown away.

    Args:
        num_processes: How many trials are followed at once.
    """

    def __init__(self, num_processes: int) -> None:
        super().__init__()
        self.num_processes = num_processes
        self._keeps = False

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its scheduler to disk to restore it; this one lives in the driver alone.
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tell the controller once what to keep. Private name: the version of ray is pinned."""
        super().on_trial_add(tune_controller, trial)
        if not self._keeps:
            kind = trial.placement_group_factory
            tune_controller._actor_cache.increase_max(kind, self.num_processes)
            self._keeps = True
