"""A sweep spends no more than it may, and leaves its confirmation enough."""

from collections.abc import Sequence
from typing import Any

import pytest

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.errors import UserError
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.choice import complete_blocks


def sweep(**budget: float) -> SweepConfig:
    """Two arms of five trials, and at most six trainings to confirm."""
    return SweepConfig.model_validate(
        {
            "name": "a",
            "parameters": {
                "noise.type": {"type": "categorical", "choices": ["none", "symnoise"]},
                "noise.alpha": {
                    "type": "categorical",
                    "choices": [5],
                    "when": {"noise.type": ["symnoise"]},
                },
                "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            },
            "baselines": [{"noise.type": "none", "optim.lr": 2e-3}],
            "search": {"num_trials": 9},
            "confirm": {"arms": 1, "looks": [2]},
            "budget": budget,
        }
    )


def ended(number: int, seconds: float = 60.0, **values: Any) -> list[TrialResult]:
    return [
        TrialResult(f"{n:03d}-none", seconds={"train": seconds}, values=values)
        for n in range(number)
    ]


def budget(results: Sequence[TrialResult], judge: JudgeConfig | None = None, **limits: float):
    return Budget(sweep(**limits), judge or JudgeConfig(), lambda: results, num_slots=2)


def test_without_a_budget_everything_may_go_on():
    free = budget(ended(100))
    assert free.search_may_go_on(3)
    assert free.allows(1000)
    assert not free.search_time_is_up()
    assert free.spent_on == ""


def test_the_confirmations_trainings_are_reserved_from_the_beginning():
    """Of 16 trials, 6 are the confirmation's at most."""
    assert budget(ended(9), trials=16).search_may_go_on(0)
    assert not budget(ended(10), trials=16).search_may_go_on(0)
    assert not budget(ended(8), trials=16).search_may_go_on(2), "running trials count"


def test_of_few_trials_those_of_the_first_look_are_kept():
    assert budget(ended(1), trials=8).search_may_go_on(0)
    assert not budget(ended(2), trials=8).search_may_go_on(0)
    assert budget(ended(2), trials=8).allows(6)


def test_a_look_that_would_exceed_the_budget_is_not_begun():
    """Twelve trials of a minute on one GPU are 0.2 GPU-hours."""
    results = ended(12)
    limited = budget(results, gpu_hours=0.3)
    object.__setattr__(limited.sweep.workers, "gpus_per_worker", 1.0)
    assert limited.allows(6)
    assert not limited.allows(7)
    assert limited.spent_on == "budget.gpu_hours=0.3"


def test_the_wall_time_left_is_that_of_the_search_until_its_share_is_used():
    limited = budget([], wall_time=1.6)
    limited.began -= 3590
    assert not limited.search_time_is_up()
    limited.began -= 10
    assert limited.search_time_is_up()
    assert budget(ended(4, seconds=600), wall_time=1).allows(10)
    assert not budget(ended(4, seconds=600), wall_time=1).allows(14), "two slots, ten minutes each"


def test_calls_and_cost_of_the_judge_are_counted_over_all_trials():
    judge = JudgeConfig(
        type="api", model="m", base_url="http://x/v1", price_input=1.0, price_output=10.0
    )
    usage = {"calls": 100, "input_tokens": 50_000, "output_tokens": 1_000}
    results = ended(4, judge_usage=usage)
    assert budget(results, judge, judge_calls=1000).allows(6)
    assert not budget(results, judge, judge_calls=999).allows(6)
    assert budget(results, judge, judge_cost=0.61).allows(6)
    assert not budget(results, judge, judge_cost=0.59).allows(6)
    assert budget(results, judge, judge_calls=1000).allows(2, num_pairs=4), "pairs are judged too"
    assert not budget(results, judge, judge_calls=1000).allows(2, num_pairs=5)
    assert budget(results, judge, trials=10).allows(6, num_pairs=100), "and not trained"


def test_verdicts_before_the_confirmation_leave_it_its_share():
    """Of 48 sets of answers that are judged 8 are the confirmation's: six, and a pair a seed."""
    usage = {"calls": 100, "input_tokens": 50_000, "output_tokens": 0}
    limited = budget(ended(4, judge_usage=usage), judge_calls=1000)
    assert limited.search_may_judge(433)
    assert not limited.search_may_judge(434)
    assert limited.spent_on == "budget.judge_calls=1000"
    limited.pairs = lambda: [usage, usage]
    assert limited.search_may_judge(233)
    assert not limited.search_may_judge(234), "calls on pairs of trials count"


def test_a_confirmation_that_judges_all_pairs_has_more_of_the_judge_reserved():
    """Two seeds give four pairs with each of the two opponents, where two would be equal seeds."""
    one_seed_each, all_pairs = budget([]), budget([])
    all_pairs.sweep = all_pairs.sweep.model_copy(
        update={"confirm": all_pairs.sweep.confirm.model_copy(update={"pairs": "all"})}
    )
    assert one_seed_each.reserved("judge_calls") == pytest.approx(8 / 48)
    assert all_pairs.reserved("judge_cost") == pytest.approx(12 / 52)
    assert all_pairs.reserved("gpu_hours") == one_seed_each.reserved("gpu_hours") == 6 / 16


def test_a_confirmation_on_more_prompts_has_more_of_the_judge_reserved():
    """A set of answers to three times the prompts takes three times the calls."""
    usage = {"calls": 100, "input_tokens": 50_000, "output_tokens": 0}
    search = ended(4, judge_usage=usage)
    limited = budget(search, judge_calls=2200)
    limited.num_prompts = (10, 30)
    assert limited.reserved("judge_calls") == pytest.approx(24 / 64)
    assert limited.allows(6), "of 300 calls each"
    assert not limited.allows(6, num_pairs=1)
    confirmed = TrialResult("confirm-none", part="confirm", values={"judge_usage": usage})
    limited.results = lambda: [*search, confirmed]
    assert limited.allows(6, num_pairs=1), "what one took is known"


def test_their_cost_is_taken_to_be_that_of_the_verdicts_so_far():
    judge = JudgeConfig(type="api", model="m", base_url="http://x/v1", price_input=1.0)
    usage = {"calls": 100, "input_tokens": 50_000, "output_tokens": 0}
    limited = budget(ended(4, judge_usage=usage), judge, judge_cost=0.8)
    assert limited.search_may_judge(930), "0.2 is spent, and 0.0005 a verdict, of 0.667"
    assert not limited.search_may_judge(940)


def test_a_budget_too_small_for_the_first_look_is_refused():
    with pytest.raises(UserError, match=r"budget\.trials must be at least 8.*but is 7"):
        check_sweep(sweep(trials=7))
    check_sweep(sweep(trials=8))


def test_only_blocks_that_every_arm_has_ended_are_chosen_from(tmp_path: Any):
    plans = SweepPlans(sweep(), tmp_path)
    arms = [plans.arms.name(cell.arm) for cell in plans.cells]
    results = [
        TrialResult(f"{n:03d}-{arm}", arm=arm, status="cancelled" if n == 5 else "done")
        for n, arm in enumerate(arms)
        if n < 7
    ]
    kept = [int(result.trial[:3]) for result in complete_blocks(results, plans)]
    blocks = [plans.cells[n].block for n in kept]
    assert kept
    assert 5 not in kept
    assert all(blocks.count(block) == 2 for block in blocks)
