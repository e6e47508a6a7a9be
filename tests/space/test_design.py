"""Every arm is tuned alike: as many trials, at the same shared values, with the same seeds."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import UserError
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.counts import most_confirmed
from symnoise_ray.space.design import (
    NUM_STARTUP,
    Arms,
    Cell,
    design,
    reference_baseline,
    search_size,
)
from symnoise_ray.space.parameters import Params, Space
from symnoise_ray.space.spread import QUARTERS, draws_of, value_at
from symnoise_ray.space.trials import SweepPlans

NOISY = ["neftune", "symnoise"]
TYPE = {"type": "categorical", "choices": ["none", *NOISY]}
ALPHA = {"type": "float", "low": 1, "high": 20, "log": True, "when": {"noise.type": NOISY}}
LR = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
PLAIN = {"noise.type": "none", "optim.lr": 3e-3}
UNIFORM = {"noise.type": "neftune", "noise.alpha": 5, "optim.lr": 3e-3}
PAIRED = {"noise.type": "symnoise", "noise.alpha": 5, "optim.lr": 3e-3}
DRAWING = ("tpe", "gp", "random", "qmc")


def sweep(**values: Any) -> SweepConfig:
    """Three arms with a baseline each, which are confirmed."""
    sound = {
        "name": "small",
        "parameters": {"noise.type": TYPE, "noise.alpha": ALPHA, "optim.lr": LR},
        "baselines": [PLAIN, UNIFORM, PAIRED],
        "search": {"sampler": "qmc", "num_trials": 9},
        "confirm": {"arms": 1},
    }
    return SweepConfig.model_validate({**sound, **values})


def grid(noisy: Sequence[float], rates: Sequence[float] = (1e-3, 3e-3), **values: Any):
    """A grid over alpha and the learning rate, with a plain baseline."""
    alpha = {"type": "categorical", "choices": list(noisy), "when": {"noise.type": NOISY}}
    rate = {"type": "categorical", "choices": list(rates)}
    parameters = {"noise.type": TYPE, "noise.alpha": alpha, "optim.lr": rate}
    settings = {"parameters": parameters, "baselines": [PLAIN], "search": {"sampler": "grid"}}
    return sweep(**{**settings, **values})


def by_arm(cells: Sequence[Cell]) -> dict[Any, list[Cell]]:
    found: dict[Any, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.arm, []).append(cell)
    return found


def shared(config: SweepConfig, cell: Cell) -> Params:
    assert cell.point is not None
    return Arms.of(config).shared(cell.point)


# Balance


@pytest.mark.parametrize("sampler", DRAWING)
def test_every_arm_has_as_many_trials_as_the_others_baselines_among_them(sampler: str) -> None:
    cells = design(sweep(search={"sampler": sampler, "num_trials": 9}))
    assert [cell.point for cell in cells[:3]] == [PLAIN, UNIFORM, PAIRED]
    assert Counter(cell.arm for cell in cells) == {"none": 4, "neftune": 4, "symnoise": 4}


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_block_has_the_same_shared_values_in_every_arm(sampler: str) -> None:
    config = sweep(search={"sampler": sampler, "num_trials": 27})
    blocks: dict[int, list[Cell]] = {}
    for cell in design(config):
        blocks.setdefault(cell.block, []).append(cell)
    assert len(blocks) == 10
    for cells in blocks.values():
        assert [cell.arm for cell in cells] == ["none", "neftune", "symnoise"]
        assert len({repr(shared(config, cell)) for cell in cells}) == 1
        assert all(("noise.alpha" in (cell.point or {})) == (cell.arm != "none") for cell in cells)
    rates = {shared(config, cells[0])["optim.lr"] for cells in blocks.values()}
    assert len(rates) == 10


@pytest.mark.parametrize("sampler", [*DRAWING, "grid"])
def test_the_trials_of_a_block_have_one_training_seed_in_all_arms(
    sampler: str, tmp_path: Path
) -> None:
    config = sweep(search={"sampler": sampler, "num_trials": 9}, trial={"train": {"seed": 40}})
    if sampler == "grid":
        config = grid([5, 9], rates=[3e-3], trial={"train": {"seed": 40}})
    plans = SweepPlans(config, tmp_path)
    seeds: dict[str, list[int]] = {}
    for number, cell in enumerate(plans.cells):
        plan = plans.search(number, cell.point or {})
        assert plan.config.train.seed == 40 + cell.block
        seeds.setdefault(plan.arm, []).append(plan.config.train.seed)
    if sampler != "grid":
        assert seeds["none"] == seeds["neftune"] == seeds["symnoise"] == [40, 41, 42, 43]


def test_a_seed_that_is_varied_or_given_is_left_alone(tmp_path: Path) -> None:
    own = [{**PLAIN, "train.seed": 7}, {**UNIFORM, "train.seed": 7}, {**PAIRED, "train.seed": 7}]
    plans = SweepPlans(sweep(baselines=own), tmp_path)
    assert [plans.search(n, own[n]).config.train.seed for n in range(3)] == [7, 7, 7]


def test_a_baseline_opens_a_block_that_the_other_arms_complete() -> None:
    config = sweep(baselines=[PLAIN], search={"sampler": "qmc", "num_trials": 5})
    cells = design(config)
    assert [(cell.arm, cell.block) for cell in cells] == [
        ("none", 0), ("neftune", 0), ("symnoise", 0),
        ("none", 1), ("neftune", 1), ("symnoise", 1),
    ]  # fmt: skip
    assert [shared(config, cell) for cell in cells[:3]] == [{"optim.lr": 3e-3}] * 3
    alphas = [cell.point["noise.alpha"] for cell in cells[1:3] if cell.point]
    assert all(1 <= alpha <= 20 for alpha in alphas)


def test_what_a_baseline_leaves_to_the_trial_all_arms_leave_to_it() -> None:
    config = sweep(baselines=[{"noise.type": "none"}], search={"sampler": "qmc", "num_trials": 5})
    assert [shared(config, cell) for cell in design(config)[:3]] == [{}, {}, {}]


def test_two_baselines_of_an_arm_with_the_same_shared_values_open_two_blocks() -> None:
    twice = [PLAIN, UNIFORM, {**UNIFORM, "noise.alpha": 9}]
    cells = design(sweep(baselines=twice, search={"sampler": "qmc", "num_trials": 3}))
    assert [(cell.arm, cell.block) for cell in cells] == [
        ("none", 0), ("neftune", 0), ("neftune", 1),
        ("symnoise", 0), ("none", 1), ("symnoise", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_longer_search_begins_with_the_cells_of_a_shorter_one(sampler: str) -> None:
    short, long = (
        design(sweep(search={"sampler": sampler, "num_trials": number, "seed": 3}))
        for number in (9, 42)
    )
    assert long[: len(short)] == short


@pytest.mark.parametrize(
    ("treatment", "arm"), [("noise.type", UNIFORM | {"train.seed": 7}), ("train.seed", PLAIN)]
)
def test_an_arm_meets_the_reference_on_the_same_number_of_a_fresh_seed(
    treatment: str, arm: dict[str, Any], tmp_path: Path
) -> None:
    """Also where the search varies the training seed, or where the arms are seeds."""
    plain, arm = {**PLAIN, "train.seed": 0}, {**arm, "train.seed": 7}
    config = SweepConfig.model_validate(
        {
            "name": "seeds",
            "parameters": {
                "noise.type": {"type": "categorical", "choices": ["none", "neftune"]},
                "train.seed": {"type": "categorical", "choices": [0, 7]},
            },
            "baselines": [plain],
            "question": {"treatment": treatment, "reference": plain[treatment]},
            "search": {"sampler": "grid"},
            "confirm": {"arms": 1, "looks": [2]},
        }
    )
    plans = SweepPlans(config, tmp_path)
    for number in range(2):
        own, other = plans.confirm(arm, number), plans.confirm(plain, number)
        assert own.reference == other.directory / "completions.jsonl"
        apart = own.config.train.seed - other.config.train.seed
        assert apart == (7 if treatment == "train.seed" else 0)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_another_seed_of_the_search_draws_other_points(sampler: str) -> None:
    one, same, other = (
        design(sweep(search={"sampler": sampler, "num_trials": 9, "seed": seed}))
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one[3:] != other[3:]


def test_adaptive_samplers_begin_with_ten_blocks_and_choose_the_rest_by_arm() -> None:
    for sampler in DRAWING:
        cells = design(sweep(search={"sampler": sampler, "num_trials": 36}))
        left = {cell.block for cell in cells if cell.point is None}
        assert left == (set(range(NUM_STARTUP, 13)) if sampler in ("tpe", "gp") else set())


def test_values_are_spread_over_a_range_more_evenly_than_chance() -> None:
    def largest_gap(sampler: str) -> float:
        config = sweep(search={"sampler": sampler, "num_trials": 3 * 16 - 3}, baselines=[PLAIN])
        config = config.model_copy(update={"baselines": ()})
        config = config.model_copy(
            update={"confirm": config.confirm.model_copy(update={"arms": 0})}
        )
        rates = sorted({shared(config, cell)["optim.lr"] for cell in design(config)})
        return max(high / low for low, high in itertools.pairwise(rates))

    assert largest_gap("qmc") < 2 < largest_gap("random")


def test_values_stay_in_their_ranges_and_on_their_steps() -> None:
    parameters = {
        "noise.type": TYPE,
        "noise.alpha": ALPHA,
        "optim.lr": LR,
        "optim.warmup_ratio": {"type": "float", "low": 0, "high": 0.3, "step": 0.1},
        "train.num_epochs": {"type": "int", "low": 1, "high": 4},
        "data.max_length": {"type": "int", "low": 8, "high": 512, "log": True},
        "optim.schedule": {"type": "categorical", "choices": ["linear", "cosine"]},
    }
    for sampler in ("qmc", "random"):
        search = {"sampler": sampler, "num_trials": 192}
        config = sweep(parameters=parameters, baselines=[], confirm={}, search=search)
        space, cells = Space(config.parameters), design(config)
        assert all(cell.point is not None and space.contains(cell.point) for cell in cells)
        for name, values in (
            ("train.num_epochs", {1, 2, 3, 4}),
            ("optim.schedule", {"linear", "cosine"}),
        ):
            assert {cell.point[name] for cell in cells if cell.point} == values


# What is refused


@pytest.mark.parametrize(
    ("num_trials", "counts", "advice"),
    [
        (8, "none 4, neftune 4, symnoise 3", "take search.num_trials=6 or 9"),
        (1, "none 2, neftune 1, symnoise 1", "take search.num_trials=0 or 3"),
    ],
)
def test_a_search_that_cannot_be_balanced_is_told_which_size_can(
    num_trials: int, counts: str, advice: str
) -> None:
    with pytest.raises(UserError) as caught:
        design(sweep(search={"sampler": "tpe", "num_trials": num_trials}))
    assert str(caught.value) == (
        "search: every arm must be tuned with the same number of trials, baselines among them, so "
        "that the verdict is not one about the tuning, but the trials are "
        f"{counts}; {advice}"
    )


def test_the_advised_sizes_are_taken() -> None:
    for number in (0, 3, 6, 9):
        check_sweep(sweep(search={"num_trials": number}))


def test_a_baseline_whose_shared_values_some_arm_does_not_meet_is_refused() -> None:
    other = {**PAIRED, "optim.lr": 1e-3}
    with pytest.raises(UserError) as caught:
        design(sweep(baselines=[PLAIN, UNIFORM, other], search={"num_trials": 0}))
    assert str(caught.value) == (
        "baselines: every arm must meet the same values of the shared parameters, but symnoise "
        "does not meet [('optim.lr', 0.003)]; raise search.num_trials by 3, or give every arm such "
        "a baseline"
    )
    check_sweep(sweep(baselines=[PLAIN, UNIFORM, other], search={"num_trials": 3}))


def test_without_a_confirmation_nothing_must_be_balanced() -> None:
    config = sweep(search={"num_trials": 8}, confirm={})
    check_sweep(config)
    assert search_size(config) == 8


def test_baselines_alone_are_balanced_by_listing_as_many_of_each() -> None:
    alone = {"parameters": {}, "search": {"num_trials": 0}}
    check_sweep(sweep(**alone))
    more = [{**PLAIN, "optim.lr": 1}, {**PLAIN, "optim.lr": 2}, {**UNIFORM, "optim.lr": 1}]
    with pytest.raises(UserError, match=r"none 3, neftune 2, symnoise 1; list as many baselines f"):
        check_sweep(sweep(**alone, baselines=[PLAIN, UNIFORM, PAIRED, *more]))
    with pytest.raises(
        UserError, match=r"neftune, symnoise does not meet .*1.*; give every arm su"
    ):
        check_sweep(sweep(**alone, baselines=[PLAIN, UNIFORM, PAIRED, more[0]]))


# Grids


def test_a_grid_tries_every_combination_once_where_the_arms_have_equally_many() -> None:
    config = grid([5], rates=[1e-3, 2e-3, 3e-3])
    cells = design(config)
    assert cells[0].point == PLAIN
    assert {arm: len(found) for arm, found in by_arm(cells).items()} == {
        "none": 3, "neftune": 3, "symnoise": 3
    }  # fmt: skip
    points = [cell.point for cell in cells]
    assert len({repr(sorted((point or {}).items())) for point in points}) == len(points)
    check_sweep(config)


def test_a_grid_repeats_the_settings_of_an_arm_that_has_fewer() -> None:
    config = grid([5, 9])
    found = by_arm(design(config))
    assert {arm: len(cells) for arm, cells in found.items()} == {
        "none": 4, "neftune": 4, "symnoise": 4
    }  # fmt: skip
    rates = Counter((cell.point or {})["optim.lr"] for cell in found["none"])
    assert rates == {1e-3: 2, 3e-3: 2}
    assert [cell.block for cell in found["none"]] == [0, 1, 2, 3], "each with a seed of its own"
    check_sweep(config)


def test_an_arm_with_one_setting_alone_has_nothing_to_be_tuned_and_is_not_repeated() -> None:
    config = grid([5, 9], rates=[3e-3])
    assert Counter(cell.arm for cell in design(config)) == {
        "none": 1, "neftune": 2, "symnoise": 2
    }  # fmt: skip
    check_sweep(config)


def test_a_grid_whose_arms_cannot_be_made_equal_is_refused() -> None:
    alpha = {"type": "categorical", "choices": [5, 9], "when": {"noise.type": ["symnoise"]}}
    third = {"type": "categorical", "choices": [1, 2, 3], "when": {"noise.type": ["duplicate"]}}
    parameters = {
        "noise.type": {"type": "categorical", "choices": ["none", "duplicate", "symnoise"]},
        "noise.alpha": alpha,
        "train.num_epochs": third,
    }
    with pytest.raises(UserError) as caught:
        design(grid([5], parameters=parameters, baselines=[{"noise.type": "none"}]))
    assert str(caught.value).endswith(
        "but the trials are none 1, duplicate 3, symnoise 2; give every arm as many combinations "
        "as the others, or one alone"
    )


def test_a_grid_that_is_cut_off_must_still_be_balanced() -> None:
    with pytest.raises(UserError, match=r"symnoise does not meet .*; leave search\.num_trials out"):
        design(grid([5], search={"sampler": "grid", "num_trials": 4}))
    with pytest.raises(UserError, match=r"neftune 3, symnoise 2; leave search\.num_trials out"):
        design(grid([5], [1, 2, 3e-3], search={"sampler": "grid", "num_trials": 7}))


# Arms


@pytest.mark.parametrize(
    ("treatment", "values", "reference", "names"),
    [
        ("lora.rank", [4, 8, 16], 8, ["rank-8", "rank-4", "rank-16"]),
        ("optim.schedule", ["linear", "cosine"], "cosine", ["schedule-cosine", "schedule-linear"]),
        (
            "noise.scale",
            ["published", "matched"],
            "published",
            ["scale-published", "scale-matched"],
        ),
    ],
)
def test_any_categorical_parameter_can_be_the_treatment(
    treatment: str, values: list[Any], reference: Any, names: list[str], tmp_path: Path
) -> None:
    config = sweep(
        question={"treatment": treatment, "reference": reference},
        parameters={treatment: {"type": "categorical", "choices": values}, "optim.lr": LR},
        trial={"model": {"name": "demo"}, "noise": {"type": "neftune", "alpha": 5}},
        baselines=[{treatment: reference, "optim.lr": 3e-3}],
        search={"sampler": "qmc", "num_trials": 3 * len(values) - 1},
    )
    check_sweep(config)
    arms, plans = Arms.of(config), SweepPlans(config, tmp_path)
    assert [arms.name(value) for value in arms.values] == names
    assert Counter(cell.arm for cell in plans.cells) == dict.fromkeys(values, 3)
    first = plans.search(0, config.baselines[0])
    assert (first.name, first.arm) == (f"000-{names[0]}", names[0])
    assert first.reference == first.directory / "completions.jsonl"
    assert first.result("done").arm == names[0]
    again = plans.confirm({treatment: values[0], "optim.lr": 1e-3}, 2)
    assert again.name == f"confirm-{arms.name(values[0])}-seed1002"


def test_arms_of_noise_types_are_named_as_they_are_and_the_reference_is_the_first() -> None:
    config = sweep(question={"reference": "neftune"})
    arms = Arms.of(config)
    assert [arms.name(value) for value in arms.values] == ["neftune", "none", "symnoise"]
    assert reference_baseline(config) == 1


def test_a_name_is_fit_for_files() -> None:
    config = sweep(question={"treatment": "data.template", "reference": "a"})
    arms = Arms.of(config.model_copy(update={"parameters": {}, "baselines": ()}))
    assert arms.name("folder/own text.yaml") == "template-folder_own_text.yaml"
    assert arms.name("  ") == "template-empty"


def test_a_value_that_a_baseline_writes_otherwise_is_the_same_arm() -> None:
    config = sweep(
        question={"treatment": "noise.alpha", "reference": 5.0},
        parameters={"noise.alpha": {"type": "categorical", "choices": [5, 10]}, "optim.lr": LR},
        trial={"noise": {"type": "neftune"}},
        baselines=[{"noise.alpha": 5.0, "optim.lr": 1e-3}],
        search={"sampler": "qmc", "num_trials": 3},
    )
    check_sweep(config)
    assert [repr(value) for value in Arms.of(config).values] == ["5", "10"]
    assert Counter(cell.arm for cell in design(config)) == {5: 2, 10: 2}


def test_parameters_under_a_condition_on_the_treatment_belong_to_its_arms() -> None:
    parameters = {
        "noise.type": TYPE,
        "noise.alpha": {"type": "categorical", "choices": [5, 9], "when": {"noise.type": NOISY}},
        "optim.lr": LR,
        "train.num_epochs": {"type": "int", "low": 1, "high": 3, "when": {"noise.alpha": [9]}},
    }
    assert Arms.of(sweep(parameters=parameters)).own == {"noise.alpha", "train.num_epochs"}


# Searches without a confirmation


def test_without_a_confirmation_only_what_the_space_varies_is_searched() -> None:
    alone = {"type": "float", "low": 1, "high": 20}
    config = sweep(
        parameters={"noise.type": {"type": "categorical", "choices": NOISY}, "noise.alpha": alone},
        baselines=[{"noise.type": "none"}],
        confirm={},
    )
    check_sweep(config)
    cells = design(config)[1:]
    assert Counter(cell.arm for cell in cells) == {"neftune": 5, "symnoise": 4}
    assert all(Space(config.parameters).contains(cell.point or {}) for cell in cells)


@pytest.mark.parametrize("sampler", ["qmc", "grid"])
def test_a_treatment_that_is_no_parameter_is_left_to_the_trial(
    sampler: str, tmp_path: Path
) -> None:
    rates = {"type": "categorical", "choices": [1e-3, 2e-3]}
    config = sweep(
        trial={"noise": {"type": "duplicate"}},
        parameters={"optim.lr": rates},
        baselines=[{"noise.type": "none"}],
        search={"sampler": sampler, "num_trials": 2},
        confirm={},
    )
    check_sweep(config)
    plans = SweepPlans(config, tmp_path)
    points = [cell.point or {} for cell in plans.cells]
    assert [plans.search(n, p).config.noise.type for n, p in enumerate(points)] == [
        "none", "duplicate", "duplicate"
    ]  # fmt: skip
    assert all(Space(config.parameters).contains(point) for point in points[1:])


# How many are confirmed


def test_the_most_that_can_be_confirmed_counts_both_opponents_and_the_last_look() -> None:
    assert most_confirmed(sweep()) == (1 + 2) * 8
    assert most_confirmed(sweep(confirm={"arms": 2, "looks": [2, 4]})) == (1 + 2 * 2) * 4
    assert most_confirmed(sweep(confirm={})) == 0
    type_alone = {"noise.type": {"type": "categorical", "choices": ["none", "duplicate"]}}
    nothing_shared = grid([5], parameters=type_alone, baselines=[{"noise.type": "none"}])
    assert most_confirmed(nothing_shared) == 2 * 8


def test_the_first_blocks_meet_the_middle_the_ends_and_the_quarters_of_a_range() -> None:
    config = sweep(search={"sampler": "qmc", "num_trials": 14}, baselines=[PLAIN])
    config = config.model_copy(
        update={
            "baselines": (),
            "confirm": config.confirm.model_copy(update={"arms": 0}),
        }
    )
    rates = [shared(config, cell)["optim.lr"] for cell in design(config)][::3]
    parameter = config.parameters["optim.lr"]
    places = [value_at("optim.lr", parameter, share) for share in QUARTERS]
    assert rates[0] == places[2]
    assert sorted(rates[1:3]) == [places[0], places[4]]
    assert sorted(rates[3:5]) == [places[1], places[3]]


def test_parameters_do_not_rise_and_fall_together_over_the_first_blocks() -> None:
    for seed in range(20):
        config = sweep(search={"sampler": "qmc", "num_trials": 14, "seed": seed})
        draws = draws_of(config, 5, {"noise.type", "noise.alpha"})
        rates, alphas = ([draw[name] for draw in draws] for name in ("optim.lr", "noise.alpha"))
        assert sorted(rates[1:3]) == [QUARTERS[0], QUARTERS[4]], "what all arms share comes first"
        assert sorted(rates) == sorted(alphas) == list(QUARTERS)
        assert abs(np.corrcoef(rates, alphas)[0, 1]) < 0.15
        assert abs(np.corrcoef(rates[:4], alphas[:4])[0, 1]) < 0.3
