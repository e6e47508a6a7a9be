"""The confirmation trains, judges and decides look by look, from the files of its trials."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import ConfirmConfig, TrialConfig
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import PREFERENCES, RESULT
from symnoise_ray.records.verdict import Choice, Decision, Verdict
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.statistics.words import verdict_sentence
from symnoise_ray.sweep.choice import UNRANKED
from symnoise_ray.sweep.confirm import Confirmation
from symnoise_ray.sweep.decide import MOST_FAILED, decision
from symnoise_ray.sweep.results import assemble
from symnoise_ray.tracking.store import Store
from tests.sweep.played import Played, Skill, chosen, played_confirmation, sweep
from tests.sweep.test_choice import MuteSource

STORE = Store("sqlite:///mlflow.db", "e")
PLAIN = {"noise.type": "none", "optim.lr": 1e-4}
NOISY = {"noise.type": "symnoise", "noise.alpha": 5, "optim.lr": 8e-4}
UNIFORM = {"noise.type": "neftune", "noise.alpha": 5, "optim.lr": 1e-4}
CHOICES = {
    "none": chosen("none", PLAIN, 4),
    "symnoise": chosen("symnoise", NOISY, 3),
    "neftune": chosen("neftune", UNIFORM, 3),
}


def skills(none: float, symnoise: float, neftune: float = 0.5, high_rate: float = 0.0) -> Skill:
    """Shares of right answers by noise type; the high learning rate adds some."""
    by_type = {"none": none, "symnoise": symnoise, "neftune": neftune}

    def skill(config: TrialConfig) -> float:
        return by_type[config.noise.type] + (high_rate if config.optim.lr > 5e-4 else 0)

    return skill


def plans_of(folder: Path, **values: Any) -> SweepPlans:
    return SweepPlans(sweep(**values), folder / "played")


def confirmed(
    folder: Path, skill: Skill, arms: tuple[str, ...] = ("symnoise",), **values: Any
) -> tuple[Confirmation, Played]:
    workers = Played(skill, values.pop("num_prompts", 60), failing=values.pop("failing", ()))
    parts = values.pop("parts", None)
    plans = plans_of(folder, **values)
    return played_confirmation(plans, workers, CHOICES, arms, parts), workers


def decisions(
    confirmation: Confirmation, choices: dict[str, Choice] | None = None
) -> list[Decision]:
    return [decision(confirmation, each, choices or CHOICES) for each in confirmation.asked]


# Two opponents


def test_an_arm_is_compared_with_the_references_best_and_at_its_own_shared_settings(
    tmp_path: Path,
) -> None:
    confirmation, workers = confirmed(tmp_path, skills(0.1, 0.9))
    (told,) = decisions(confirmation)
    assert [(c.opponent, c.against) for c in told.comparisons] == [
        ("best", "none, lr=0.0001"), ("shared", "none, lr=0.0008")
    ]  # fmt: skip
    assert told.verdict == "better"
    assert all(c.num_prompts == 60 and c.win_rate > 0.7 for c in told.comparisons)
    settings = {name.split("-seed")[0] + name.partition("-setting")[2] for name in workers.trained}
    assert settings == {"confirm-none", "confirm-none2", "confirm-symnoise"}
    sentence = verdict_sentence(Verdict(decisions=(told,)))
    assert sentence.startswith(
        "symnoise at alpha=5, lr=0.0008 (3 settings tried) is better than plain fine-tuning: "
    )
    assert "against plain fine-tuning at its own best, lr=0.0001 (4 settings tried)" in sentence
    assert "against plain fine-tuning at the same lr=0.0008" in sentence


def test_a_gain_that_is_the_learning_rates_alone_is_no_verdict(tmp_path: Path) -> None:
    confirmation, _ = confirmed(tmp_path, skills(0.1, 0.1, high_rate=0.8))
    (told,) = decisions(confirmation)
    best, shared = told.comparisons
    assert best.interval_95[0] > 0.5, "better than the reference that the search chose"
    assert shared.interval_95[0] < 0.5 < shared.interval_95[1]
    assert told.verdict == "cannot tell yet"


def test_at_the_references_own_best_setting_there_is_one_opponent(tmp_path: Path) -> None:
    confirmation, workers = confirmed(tmp_path, skills(0.1, 0.5, 0.9), ("neftune",))
    (told,) = decisions(confirmation)
    assert [c.opponent for c in told.comparisons] == ["best"]
    assert len(workers.trained) == 2 * told.num_seeds
    assert told.num_trained == 2 * told.num_seeds


def test_answers_of_both_sides_are_paired_seed_by_seed(tmp_path: Path) -> None:
    confirmation, _ = confirmed(tmp_path, skills(0.5, 0.6))
    plans = confirmation.plans
    for number in (0, 1):
        plan = confirmation.plan(confirmation.asked[0].setting, number, 0)
        assert plan.reference.parent.name == f"confirm-none-seed{1000 + number}"
        assert plan.config.data.prompts == "confirm"
        rival = f"preferences-against-confirm-none-seed{1000 + number}-setting2.jsonl"
        assert {PREFERENCES, rival} <= {path.name for path in plan.directory.iterdir()}
    assert plans.sweep.confirm.looks == (2, 3)


def test_all_trainings_of_both_sides_are_paired_for_the_same_trainings(tmp_path: Path) -> None:
    confirm: dict[str, Any] = {"arms": 2, "looks": [3], "contrasts": [["symnoise", "neftune"]]}
    arms, skill = ("symnoise", "neftune"), skills(0.3, 0.7, 0.5)
    same, few = confirmed(tmp_path / "same", skill, arms, confirm=confirm)
    every, workers = confirmed(tmp_path / "all", skill, arms, confirm=confirm | {"pairs": "all"})
    assert sorted(workers.trained) == sorted(few.trained)
    plan = every.plan(every.asked[0].setting, 0, 0)
    best = {f"preferences-against-confirm-none-seed{seed}.jsonl" for seed in (1001, 1002)}
    shared = {
        f"preferences-against-confirm-none-seed{seed}-setting2.jsonl" for seed in (1000, 1001, 1002)
    }
    assert {path.name for path in plan.directory.glob("preferences*")} == {
        PREFERENCES, *best, *shared
    }  # fmt: skip
    told, usual = decisions(every), decisions(same)
    assert {c.num_pairs for each in told for c in each.comparisons} == {9}
    assert {c.num_pairs for each in usual for c in each.comparisons} == {3}
    assert told[0].verdict == "better"
    assert "; 3 fresh seeds in all 9 pairs, 60 fresh prompts" in verdict_sentence(
        Verdict(decisions=tuple(told))
    )
    again, idle = confirmed(tmp_path / "all", skill, arms, confirm=confirm | {"pairs": "all"})
    assert idle.trained == []
    assert decisions(again) == told


def test_pairs_that_are_still_to_be_judged_are_counted_for_the_budget(tmp_path: Path) -> None:
    confirmation, _ = confirmed(tmp_path, skills(0.3, 0.6), confirm={"arms": 1, "looks": [2]})
    counted = {}
    for pairs in ("same", "all"):
        plans = plans_of(tmp_path, confirm={"arms": 1, "looks": [3], "pairs": pairs})
        asked = Confirmation(plans, confirmation.own, confirmation.asked, [{"looks": [3]}])
        counted[pairs] = asked.num_unjudged(asked.asked, 3, 0)
    assert counted == {"same": 1, "all": 9 + 6 - 2}, "two pairs were judged before"


def test_of_all_pairs_those_of_a_training_that_failed_are_left_out(tmp_path: Path) -> None:
    confirm = {"arms": 1, "looks": [3], "pairs": "all"}
    confirmation, _ = confirmed(
        tmp_path, skills(0.1, 0.9), failing={"confirm-symnoise-seed1001"}, confirm=confirm
    )
    (told,) = decisions(confirmation)
    assert {(c.num_seeds, c.num_pairs) for c in told.comparisons} == {(2, 4)}
    assert told.num_failed == 1


# Looks


def test_what_is_decided_at_the_first_look_gets_no_further_seed(tmp_path: Path) -> None:
    looks: dict[str, Any] = {"confirm": {"arms": 1, "looks": [3, 4]}}
    confirmation, workers = confirmed(tmp_path, skills(0.05, 0.95), num_prompts=120, **looks)
    (told,) = decisions(confirmation)
    assert (told.verdict, told.looks, told.stopped, told.num_seeds) == (
        "better", (3,), "decided", 3
    )  # fmt: skip
    seeds = {name.split("-seed")[1][:4] for name in workers.trained}
    assert seeds == {"1000", "1001", "1002"}


def test_what_is_open_is_looked_at_with_more_seeds(tmp_path: Path) -> None:
    looks = {"confirm": {"arms": 1, "looks": [2, 3]}, "question": {"effect": 0.4}}
    confirmation, workers = confirmed(tmp_path, skills(0.5, 0.52), num_prompts=12, **looks)
    (told,) = decisions(confirmation)
    assert (told.verdict, told.looks, told.stopped) == ("no difference", (2, 3), "decided")
    assert len(workers.trained) == len(set(workers.trained)) == 3 * 3


def test_what_no_look_can_tell_is_given_up(tmp_path: Path) -> None:
    looks = {"confirm": {"arms": 1, "looks": [2, 3, 20]}, "question": {"effect": 0.01}}
    confirmation, workers = confirmed(tmp_path, skills(0.5, 0.5), num_prompts=30, **looks)
    (told,) = decisions(confirmation)
    assert (told.verdict, told.stopped) == ("cannot tell yet", "futile")
    assert told.num_seeds < 20
    assert len(workers.trained) == 3 * told.num_seeds


def test_seeds_of_an_open_question_are_not_spent_on_a_decided_one(tmp_path: Path) -> None:
    confirm, question = {"arms": 2, "looks": [3, 4]}, {"effect": 0.05}
    confirmation, workers = confirmed(
        tmp_path, skills(0.05, 0.95, 0.12), ("symnoise", "neftune"), num_prompts=120,
        confirm=confirm, question=question,
    )  # fmt: skip
    by_arm = {told.arm: told for told in decisions(confirmation)}
    assert by_arm["symnoise"].looks == (3,)
    assert by_arm["neftune"].looks == (3, 4)
    assert "confirm-neftune-seed1003" in workers.trained
    assert "confirm-none-seed1003" in workers.trained
    assert "confirm-symnoise-seed1003" not in workers.trained


def test_what_was_trained_and_judged_before_is_taken_from_its_files(tmp_path: Path) -> None:
    first, workers = confirmed(tmp_path, skills(0.3, 0.6))
    assert workers.trained
    again, idle = confirmed(tmp_path, skills(0.3, 0.6))
    assert idle.trained == []
    assert decisions(again) == decisions(first)


@pytest.mark.parametrize("budget", [6, 7])
def test_a_budget_that_is_spent_ends_the_looks_and_the_sentence_says_what_was_seen(
    budget: int, tmp_path: Path
) -> None:
    values: dict[str, Any] = {
        "confirm": {"arms": 1, "looks": [2, 9]},
        "question": {"effect": 0.4},
        "budget": {"trials": budget},
    }
    searched = plans_of(tmp_path, **values).search(0, PLAIN)
    write_json(searched.result("done").to_json(), searched.directory / RESULT)
    confirmation, workers = confirmed(tmp_path, skills(0.5, 0.6), num_prompts=30, **values)
    (told,) = decisions(confirmation)
    assert told.stopped == "budget"
    assert len(workers.trained) == told.num_trained == (6 if budget == 7 else 0)
    plans = confirmation.plans
    result = assemble(
        plans.sweep, plans.directory, [], [], [told], {}, store=STORE, interrupted=False
    )
    sentence = result.verdict.sentence
    if budget == 7:
        assert sentence.startswith("Whether symnoise at alpha=5, lr=0.0008 (3 settings tried) is ")
        assert "2 fresh seeds" in sentence
    else:
        assert sentence == (
            "No verdict: the budget was spent before the first look of the confirmation."
        )


# Failures


def test_a_seed_that_failed_is_left_out_and_counted(tmp_path: Path) -> None:
    failing = {"confirm-symnoise-seed1001"}
    confirmation, _ = confirmed(tmp_path, skills(0.1, 0.9), failing=failing)
    (told,) = decisions(confirmation)
    assert {c.num_seeds for c in told.comparisons} == {told.num_seeds - 1}
    assert (told.num_failed, told.num_trained) == (1, 3 * told.num_seeds)


@pytest.mark.parametrize("skill", [skills(0.05, 0.95), skills(0.95, 0.05)])
@pytest.mark.parametrize(
    ("failing", "flattered"),
    [
        ("symnoise-seed1001", "symnoise, alpha=5, lr=0.0008"),
        ("none-seed1001-setting2", "none, lr=0.0008"),
    ],
)
def test_a_verdict_is_withheld_that_failed_trainings_of_its_side_flatter(
    skill: Skill, failing: str, flattered: str, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"confirm": {"arms": 1, "looks": [3]}, "num_prompts": 120}
    confirmation, _ = confirmed(tmp_path, skill, failing={f"confirm-{failing}"}, **values)
    (told,) = decisions(confirmation)
    assert (told.num_failed, told.num_trained) == (1, 9)
    assert MOST_FAILED * 3 < 1
    numbers = "better" if told.comparisons[0].win_rate > 0.5 else "worse"
    leans_on = "symnoise" if numbers == "better" else "none"
    if not flattered.startswith(leans_on):
        assert (told.verdict, told.withheld) == (numbers, "")
        return
    reason = f"1 of 3 trainings of {flattered} failed"
    assert (told.verdict, told.withheld) == ("cannot tell yet", reason)
    sentence = verdict_sentence(Verdict(decisions=(told,)))
    assert f"withheld: {reason}." in sentence


@pytest.mark.parametrize("failing", ["symnoise-seed1001", "none-seed1001-setting2"])
def test_no_difference_is_withheld_whichever_side_failed(failing: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"confirm": {"arms": 1, "looks": [4]}, "question": {"effect": 0.4}}
    skill = skills(0.5, 0.52)
    whole, _ = confirmed(tmp_path / "whole", skill, num_prompts=120, **values)
    assert decisions(whole)[0].verdict == "no difference"
    confirmation, _ = confirmed(
        tmp_path / "failing", skill, num_prompts=120, failing={f"confirm-{failing}"}, **values
    )
    (told,) = decisions(confirmation)
    assert told.verdict == "cannot tell yet"
    assert told.withheld.startswith("1 of 4 trainings of ")


@pytest.mark.parametrize("later", [[], [4]])
def test_one_seed_that_is_left_of_several_is_no_evidence_until_there_are_more(
    later: list[int], tmp_path: Path
) -> None:
    failing = {"confirm-symnoise-seed1000", "confirm-symnoise-seed1002"}
    confirm = {"arms": 1, "looks": [3, *later]}
    confirmation, _ = confirmed(
        tmp_path, skills(0.95, 0.05), num_prompts=120, failing=failing, confirm=confirm
    )
    (told,) = decisions(confirmation)
    if later:
        assert (told.verdict, told.looks) == ("worse", (3, 4))
        assert {c.num_seeds for c in told.comparisons} == {2}
    else:
        assert (told.verdict, told.stopped, told.comparisons) == ("cannot tell yet", "failed", ())


def test_a_sweep_that_declares_one_seed_is_about_its_two_models(tmp_path: Path) -> None:
    confirm: dict[str, Any] = {"arms": 1, "looks": [1]}
    confirmation, _ = confirmed(tmp_path, skills(0.05, 0.95), num_prompts=120, confirm=confirm)
    (told,) = decisions(confirmation)
    assert (told.verdict, told.num_seeds) == ("better", 1)


def test_an_arm_or_an_opponent_that_always_fails_gives_no_comparison(tmp_path: Path) -> None:
    for number, name in enumerate(("confirm-symnoise-seed{}", "confirm-none-seed{}-setting2")):
        failing = {name.format(seed) for seed in range(1000, 1010)}
        confirmation, _ = confirmed(tmp_path / str(number), skills(0.1, 0.9), failing=failing)
        (told,) = decisions(confirmation)
        assert (told.verdict, told.stopped, told.comparisons) == ("cannot tell yet", "failed", ())
        assert told.num_failed == 2
    result = assemble(
        confirmation.plans.sweep, confirmation.plans.directory,
        [each for _, own in confirmation.results(confirmation.asked[0]) for each in own if each],
        [], [told], {},
        store=STORE, interrupted=False,
    )  # fmt: skip
    assert result.verdict.sentence == (
        "No verdict: symnoise could not be compared: 2 of its 6 trainings failed."
    )


def test_a_pair_that_the_judge_failed_on_leaves_its_seed_out_and_says_why(tmp_path: Path) -> None:
    confirmation, _ = confirmed(tmp_path, skills(0.1, 0.9), confirm={"arms": 1, "looks": [3]})
    (question,) = confirmation.asked
    plan = confirmation.plan(question.setting, 1, 0)
    (plan.directory / "preferences-against-confirm-none-seed1001-setting2.jsonl").unlink()
    seen = {question.key: [3]}
    confirmation.look_again(seen, MuteSource())  # type: ignore[arg-type]
    (told,) = decisions(confirmation)
    assert [each.num_seeds for each in told.comparisons] == [3, 2]
    (note,) = confirmation.notes
    assert note.startswith(
        "confirm-symnoise-seed1001 against confirm-none-seed1001-setting2 could not be judged: "
    )
    assert "status 500" in note


def test_a_search_that_ends_before_arms_can_be_compared_has_no_verdict_and_says_why(
    tmp_path: Path,
) -> None:
    plans = plans_of(tmp_path)
    ended = [plans.search(number, point) for number, point in enumerate((PLAIN, NOISY))]
    done = [plan.result("done", values={"win_rate": 0.5}) for plan in ended]
    for trials, reason in (
        (done, "the search ended before every arm had trials at the same settings."),
        (done[:1], "only 1 of 1 trials came to their end, and plain fine-tuning or every other "
         "arm is not among them."),
    ):  # fmt: skip
        result = assemble(
            plans.sweep, plans.directory, trials, [], [], {}, store=STORE, interrupted=False
        )
        assert result.verdict.sentence == f"No verdict: {reason}"


@pytest.mark.parametrize("arm", ["none", "symnoise"])
def test_a_verdict_is_withheld_where_the_settings_of_a_side_could_not_be_ranked(
    arm: str, tmp_path: Path
) -> None:
    confirmation, _ = confirmed(tmp_path, skills(0.05, 0.95), num_prompts=120)
    note = UNRANKED.format("no money left")
    choices = CHOICES | {arm: replace(CHOICES[arm], note=note)}
    (told,) = decisions(confirmation, choices)
    assert told.verdict == "cannot tell yet"
    assert told.withheld == f"of {arm}, the best settings could not be ranked: no money left"
    (open_case,) = decisions(confirmed(tmp_path / "open", skills(0.5, 0.5))[0], choices)
    assert open_case.withheld == ""


# Several arms, and arms against each other


def test_arms_are_contrasted_on_shared_seeds(tmp_path: Path) -> None:
    confirm = {"arms": 2, "looks": [2, 3], "contrasts": [["symnoise", "neftune"]]}
    confirmation, _ = confirmed(
        tmp_path, skills(0.5, 0.95, 0.05), ("symnoise", "neftune"), num_prompts=120,
        confirm=confirm,
    )  # fmt: skip
    *_, told = decisions(confirmation)
    assert (told.arm, told.over, told.verdict) == ("symnoise", "neftune", "better")
    assert told.comparisons[0].win_rate > 0.6
    assert confirmation.effect_on(confirmation.asked[-1]) == 0.015, "a contrast is halved"
    sentence = verdict_sentence(Verdict(decisions=tuple(decisions(confirmation))))
    assert "symnoise at alpha=5, lr=0.0008 (3 settings tried) is better than neftune: +" in sentence


def test_a_contrast_with_an_arm_that_was_not_chosen_is_not_asked(tmp_path: Path) -> None:
    confirm = {"arms": 1, "looks": [2], "contrasts": [["symnoise", "bernoulli"]]}
    confirmation, _ = confirmed(tmp_path, skills(0.5, 0.6), confirm=confirm)
    assert [each.key for each in confirmation.asked] == [("symnoise", "")]


def test_for_other_groups_the_groups_are_the_units(tmp_path: Path) -> None:
    values: dict[str, Any] = {"question": {"population": "other_groups"}}
    confirmation, _ = confirmed(tmp_path, skills(0.3, 0.7), **values)
    (told,) = decisions(confirmation)
    assert {(c.num_prompts, c.num_groups) for c in told.comparisons} == {(60, 6)}
    (same,) = decisions(confirmed(tmp_path, skills(0.3, 0.7))[0])
    widths = [
        c.comparisons[0].interval_95[1] - c.comparisons[0].interval_95[0] for c in (told, same)
    ]
    assert widths[0] != widths[1]


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ([["symnoise", "symnoise"]], "two different noise types"),
        ([["none", "symnoise"]], "plain fine-tuning not among them"),
        ([["symnoise", "magic"]], "Input should be"),
    ],
)
def test_contrasts_that_cannot_be_made_are_refused(contrasts: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfirmConfig.model_validate({"arms": 1, "contrasts": contrasts})
    with pytest.raises(ValueError, match=r"needs confirm\.arms >= 1"):
        ConfirmConfig.model_validate({"contrasts": [["symnoise", "independent"]]})


# Prompts that grew


def grown(*numbers: int, looks: tuple[int, ...] = (2, 3)) -> list[dict[str, Any]]:
    """A part with the prompts at first, and one more after a verdict for each larger number."""
    more = [{"looks": list(looks), "prompts": number} for number in numbers]
    return [{"looks": list(looks)}, *more]


def test_after_a_verdict_an_open_arm_is_trained_again_and_answers_all_prompts(
    tmp_path: Path,
) -> None:
    skill = skills(0.3, 0.55)
    first, _ = confirmed(tmp_path, skill, num_prompts=20)
    assert [told.verdict for told in decisions(first)] == ["cannot tell yet"]
    second, after = confirmed(tmp_path, skill, num_prompts=400, parts=grown(400))
    (told,) = decisions(second)
    assert all(name.endswith("-prompts400") for name in after.trained)
    seeds = {name.split("-seed")[1][:4] for name in after.trained}
    assert {"1000", "1001"} <= seeds <= {"1000", "1001", "1002"}, "the seeds of the first part"
    assert {c.num_prompts for c in told.comparisons} == {400}
    assert told.num_trained == len(after.trained) == 3 * told.num_seeds
    confidences = [{c.confidence for c in each.comparisons} for each in (*decisions(first), told)]
    assert max(confidences[0]) < 0.99 < min(confidences[1]), "only the level kept for growth"


def test_what_was_decided_before_the_prompts_grew_stays_as_it_was(tmp_path: Path) -> None:
    values: dict[str, Any] = {"confirm": {"arms": 2, "looks": [3, 4]}, "question": {"effect": 0.05}}
    skill, arms = skills(0.05, 0.95, 0.12), ("symnoise", "neftune")
    first, _ = confirmed(tmp_path, skill, arms, num_prompts=60, **values)
    second, again = confirmed(
        tmp_path, skill, arms, num_prompts=400, parts=grown(400, looks=(3, 4)), **values
    )
    (decided, still), (kept, told) = decisions(first), decisions(second)
    assert (decided.verdict, still.verdict) == ("better", "cannot tell yet")
    assert (kept.verdict, kept.looks) == (decided.verdict, decided.looks)
    assert {c.num_prompts for c in kept.comparisons} == {60}
    assert {c.num_prompts for c in told.comparisons} == {400}
    assert not [name for name in again.trained if name.startswith("confirm-symnoise")]


def test_before_a_verdict_added_prompts_leave_the_level_as_declared(tmp_path: Path) -> None:
    parts = [{"looks": [2, 3], "prompts": 60}]
    confirmation, workers = confirmed(tmp_path / "more", skills(0.3, 0.6), parts=parts)
    same, _ = confirmed(tmp_path / "same", skills(0.3, 0.6))
    assert all(name.endswith("-prompts60") for name in workers.trained)
    told, other = decisions(confirmation)[0], decisions(same)[0]
    assert told == other


def test_a_look_that_was_never_taken_is_not_taken_on_the_earlier_prompts(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "confirm": {"arms": 1, "looks": [2, 9]},
        "question": {"effect": 0.4},
        "budget": {"trials": 6},
    }
    first, before = confirmed(tmp_path, skills(0.5, 0.6), num_prompts=30, **values)
    assert [told.stopped for told in decisions(first)] == ["budget"]
    assert len(before.trained) == 6
    values["budget"] = {"trials": 100}
    second, after = confirmed(
        tmp_path, skills(0.5, 0.6), num_prompts=40, parts=grown(40, looks=(2, 9)), **values
    )
    assert all(name.endswith("-prompts40") for name in after.trained)
    seen = [(look.num_seeds, look.part) for look in second.asked[0].seen]
    assert seen[:2] == [(2, 1), (2, 2)]
