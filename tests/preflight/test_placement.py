"""How many trials a cluster holds at once, and the line where it holds none."""

import re

import pytest

from symnoise_ray.config import JudgeConfig, WorkersConfig
from symnoise_ray.errors import UserError
from symnoise_ray.preflight.placement import Node, count_slots


def cluster(*offers: tuple[float, float]) -> list[Node]:
    """Nodes n0, n1, ... with so many CPUs and GPUs each."""
    return [Node(f"n{i}", {"CPU": cpus, "GPU": gpus}) for i, (cpus, gpus) in enumerate(offers)]


@pytest.mark.parametrize(
    ("offers", "num_trials", "number", "why"),
    [
        ([(64, 8)], 20, 4, "as many as the machine has room for"),
        ([(16, 8)], 20, 2, "as many as the machine has room for"),
        ([(64, 8)], 3, 3, "one for each trial"),
        # A head without GPUs; then two workers of one trial on a node each.
        ([(8, 0), (4, 1), (4, 1)], 20, 1, "as many as the 3 nodes have room for"),
        # 12 CPUs in all are enough for three workers, but no node has two times four of them.
        ([(6, 4), (6, 4)], 20, 1, "as many as the 2 nodes have room for"),
    ],
)
def test_the_number_of_trials_at_once_follows_from_the_room_of_each_node(
    offers: list[tuple[float, float]], num_trials: int, number: int, why: str
):
    workers = WorkersConfig(num_workers=2, gpus_per_worker=1, cpus_per_worker=4)
    assert count_slots(workers, cluster(*offers), num_trials) == (number, why)


def test_max_slots_caps_the_number_and_speaks_for_a_cluster_that_grows():
    workers = WorkersConfig(gpus_per_worker=1, max_slots=2)
    told = "as many as workers.max_slots allows"
    assert count_slots(workers, cluster((64, 8)), 20) == (2, told)
    assert count_slots(workers, cluster((8, 0)), 20) == (2, told)
    assert count_slots(workers, cluster((8, 0)), 1) == (1, "one for each trial")


def test_on_a_cluster_that_grows_max_slots_is_also_the_number_to_start():
    workers = WorkersConfig(gpus_per_worker=1, max_slots=3)
    assert count_slots(workers, cluster((8, 1)), 20).number == 1
    assert count_slots(workers, cluster((8, 1)), 20, grows=True).number == 3
    uncapped = workers.model_copy(update={"max_slots": None})
    assert count_slots(uncapped, cluster((8, 1)), 20, grows=True).number == 1


@pytest.mark.parametrize(
    ("offers", "said"),
    [
        ([(2, 0)], "8 workers of 1 CPU, but the only node, n0, offers 2 CPU, which is room for 2;"),
        (
            [(2, 0), (3, 0)],
            "8 workers of 1 CPU, but the 2 nodes have room for 5, the nearest being n1, which "
            "offers 3 CPU and has room for 3;",
        ),
    ],
)
def test_a_trial_that_fits_nowhere_is_told_with_the_nearest_node(
    offers: list[tuple[float, float]], said: str
):
    with pytest.raises(
        UserError, match=re.escape(f"workers: one trial needs {said} lower")
    ) as told:
        count_slots(WorkersConfig(num_workers=8), cluster(*offers), 20)
    assert "\n" not in told.value.message


def test_the_nearest_node_is_the_one_that_lacks_least():
    workers = WorkersConfig(cpus_per_worker=4, gpus_per_worker=1)
    with pytest.raises(UserError, match=r"the nearest being n1, which offers 2 CPU, 1 GPU and has"):
        count_slots(workers, cluster((8, 0), (2, 1), (1, 1)), 20)


@pytest.mark.parametrize(("share", "number"), [(0.3, 6), (0.5, 4), (0.6, 2), (1.0, 2)])
def test_a_part_of_a_gpu_lies_on_one_gpu(share: float, number: int):
    workers = WorkersConfig(gpus_per_worker=share)
    assert count_slots(workers, cluster((64, 2)), 20).number == number


def test_a_local_judge_holds_its_part_of_the_nodes():
    judge = JudgeConfig(
        type="local", model="m", num_workers=1, cpus_per_worker=1, gpus_per_worker=0.3
    )
    shared = WorkersConfig(gpus_per_worker=0.7)
    assert count_slots(shared, cluster((8, 1)), 20, judge).number == 1
    assert count_slots(shared, cluster((8, 1), (8, 1)), 20, judge).number == 2
    alone = judge.model_copy(update={"num_workers": 2, "gpus_per_worker": 1.0})
    assert count_slots(shared, cluster((8, 3)), 20, alone).number == 1
    for gpus in (0, 1, 2):
        with pytest.raises(UserError, match=r"GPU beside the judge's 2 of 1 CPU, 1 GPU, but the"):
            count_slots(shared, cluster((8, gpus)), 20, alone)
