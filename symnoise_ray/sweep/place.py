"""Where a sweep's trials will train, once the cluster is seen to be fit for them.

In: a sweep's plans, and a connection to Ray. Out: how many trials train at once, and what a node
that comes later must find; or one error before any worker starts.
"""

from __future__ import annotations

from typing import NamedTuple

from symnoise_ray.config import JudgeConfig
from symnoise_ray.preflight.cluster import Checked, Needs, check_nodes, nodes
from symnoise_ray.preflight.disk import check_disk
from symnoise_ray.preflight.placement import Slots, count_slots
from symnoise_ray.preflight.resources import runs_alone
from symnoise_ray.records.layout import RESULT, TRIALS
from symnoise_ray.space.counts import most_confirmed
from symnoise_ray.space.design import search_size
from symnoise_ray.space.paths import input_files
from symnoise_ray.space.trials import SweepPlans, known_points


class Place(NamedTuple):
    """Where trials train: how many at once, and on which nodes."""

    slots: Slots
    checked: Checked


def place(plans: SweepPlans, judge: JudgeConfig) -> Place:
    """Where trials train; all checks that need the cluster are done on the way.

    Raises:
        UserError: no trial fits, the nodes do not belong together, or the storage is too small.
        InfrastructureError: a node does not answer.
    """
    sweep, directory = plans.sweep, plans.directory
    searched = len(sweep.baselines) + search_size(sweep)
    slots = count_slots(sweep.workers, nodes(), searched, judge, grows=not runs_alone())
    configs = [plans.config(point) for point in known_points(sweep)]
    needs = Needs(directory, sorted(input_files(configs)))
    checked = check_nodes(needs, 60 * sweep.workers.start_minutes)
    ended = len(list((directory / TRIALS).glob(f"*/{RESULT}")))
    to_come = max(0, searched + most_confirmed(sweep) - ended)
    check_disk(configs, slots.number, to_come, directory)
    return Place(slots, checked)
