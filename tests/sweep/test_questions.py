"""Which settings meet which; what was chosen once is never taken for another choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import CHOICES
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.statistics.looks import declared_looks, growth_share
from symnoise_ray.sweep.questions import Question, Registry, Setting, questions, rivals
from symnoise_ray.sweep.schedule import Part
from tests.sweep.played import chosen, sweep

PLAIN = {"noise.type": "none", "optim.lr": 1e-4}
OTHER = {"noise.type": "none", "optim.lr": 2e-4}
MILD = {"noise.type": "symnoise", "noise.alpha": 1, "optim.lr": 8e-4}
WILD = {"noise.type": "symnoise", "noise.alpha": 9, "optim.lr": 8e-4}


def asked(
    folder: Path, plain: dict[str, Any], noisy: dict[str, Any], parts: Sequence[Part]
) -> tuple[Setting, Question]:
    plans = SweepPlans(sweep(), folder)
    choices = {"none": chosen("none", plain), "symnoise": chosen("symnoise", noisy)}
    own, (question,) = questions(plans, choices, ["symnoise"], parts)
    return own, question


# Opponents


def test_what_arms_share_is_the_arms_and_what_the_reference_has_alone_is_its_best() -> None:
    arms = SweepPlans(sweep(), Path("x")).arms
    assert rivals(arms, PLAIN, MILD) == {
        "best": PLAIN, "shared": {"noise.type": "none", "optim.lr": 8e-4}
    }  # fmt: skip
    assert rivals(arms, PLAIN, {**MILD, "optim.lr": 1e-4}) == {"best": PLAIN}


def test_what_the_arm_leaves_to_the_trial_the_opponent_leaves_to_it_as_well() -> None:
    arms = SweepPlans(sweep(), Path("x")).arms
    assert rivals(arms, PLAIN, {"noise.type": "symnoise", "noise.alpha": 1}) == {
        "best": PLAIN, "shared": {"noise.type": "none"}
    }  # fmt: skip


def test_a_reference_with_noise_keeps_its_own_alpha() -> None:
    arms = SweepPlans(sweep(question={"reference": "symnoise"}), Path("x")).arms
    other = {"noise.type": "neftune", "noise.alpha": 5, "optim.lr": 2e-4}
    assert rivals(arms, MILD, other)["shared"] == {
        "noise.type": "symnoise", "noise.alpha": 1, "optim.lr": 2e-4
    }  # fmt: skip


# Choices of a sweep that grew


def test_a_setting_that_a_growing_search_chooses_anew_is_another_one(tmp_path: Path) -> None:
    registry = Registry(SweepPlans(sweep(), tmp_path), 1)
    assert [registry.number("symnoise", MILD, PLAIN) for _ in range(2)] == [1, 1]
    assert registry.number("symnoise", WILD, PLAIN) == 2
    assert registry.number("neftune", MILD, PLAIN) == 1
    # Judged against another plain model, the same setting is to be judged anew.
    assert registry.number("symnoise", WILD, OTHER) == 3
    registry.compared(("symnoise", ""), [3, 2])
    later = Registry(SweepPlans(sweep(), tmp_path), 2)
    assert later.number("symnoise", MILD, PLAIN) == 1
    assert later.compared(("symnoise", ""), [1, 1]) == [[3, 2], [1, 1]]


def test_the_same_choice_after_a_verdict_goes_on_with_its_looks(tmp_path: Path) -> None:
    asked(tmp_path, PLAIN, MILD, [{"looks": [2]}])
    own, question = asked(tmp_path, PLAIN, MILD, [{"looks": [2]}, {"looks": [2, 4]}])
    assert own.number == question.setting.number == 1
    assert [(look.num_seeds, look.part) for look in question.looks] == [(2, 1), (4, 2)]
    assert read_json(tmp_path / CHOICES)["parts"] == [{"symnoise": [1, 1, 2]}] * 2


def test_another_choice_after_a_verdict_has_the_level_that_was_kept_for_growth(
    tmp_path: Path,
) -> None:
    for number, (plain, noisy) in enumerate(((PLAIN, WILD), (OTHER, MILD))):
        folder = tmp_path / str(number)
        asked(folder, PLAIN, MILD, [{"looks": [2]}])
        _, question = asked(folder, plain, noisy, [{"looks": [2]}, {"looks": [2]}])
        assert question.looks == declared_looks([2], growth_share(1), 2)


def test_trials_of_another_choice_have_names_and_references_of_their_own(tmp_path: Path) -> None:
    plans = SweepPlans(sweep(), tmp_path)
    first, again = plans.confirm(MILD, 0), plans.confirm(WILD, 0, 2, 1)
    third = plans.confirm(WILD, 0, 3, 2)
    names = [plan.name for plan in (first, again, third)]
    assert names == [f"confirm-symnoise-seed1000{end}" for end in ("", "-setting2", "-setting3")]
    assert first.reference == again.reference != third.reference
    plain = plans.confirm(PLAIN, 0, 2, 2)
    assert third.reference == plain.reference == plain.directory / "completions.jsonl"


def test_a_pair_of_arms_is_asked_about_once_both_are_confirmed(tmp_path: Path) -> None:
    confirm = {"arms": 2, "contrasts": [["symnoise", "neftune"]]}
    plans = SweepPlans(sweep(confirm=confirm), tmp_path)
    uniform = {**MILD, "noise.type": "neftune"}
    points = {"none": PLAIN, "symnoise": MILD, "neftune": uniform}
    choices = {arm: chosen(arm, point) for arm, point in points.items()}
    parts = [{"looks": [3, 5, 8]}]
    _, found = questions(plans, choices, ["symnoise", "neftune"], parts)
    assert [each.key for each in found] == [
        ("symnoise", ""), ("neftune", ""), ("symnoise", "neftune")
    ]  # fmt: skip
    assert found[-1].opponents == {"": found[1].setting}
    assert found[-1].looks == declared_looks([3, 5, 8])
    _, alone = questions(plans, choices, ["symnoise"], parts)
    assert [each.key for each in alone] == [("symnoise", "")]
