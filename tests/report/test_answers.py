"""Without a confirmation the page shows the answers of the best arm, whatever the sweep asks."""

from pathlib import Path
from typing import Any

from symnoise_ray.report.answers import Answers, confirmed_answers
from tests.report.made import content, read, trial, write_trial

VERDICTS = {"q1": 2.0, "q2": 1.0}


def searched(
    directory: Path, *trials: dict[str, Any], treatment: str = "noise.type", reference: str = "none"
) -> Answers | None:
    """The answers that are shown of a sweep which confirmed nothing."""
    for each in trials:
        write_trial(directory / "trials" / each["trial"], each["trial"], VERDICTS)
    verdict = {"decisions": [], "treatment": treatment, "reference": reference}
    return confirmed_answers(read(content(trials=list(trials), verdict=verdict), directory))


def shown(answers: Answers | None) -> set[str]:
    """The arms whose answers are shown."""
    assert answers is not None
    return {entry.arm for entry in answers.entries}


def test_the_best_trial_of_another_treatment_is_told_by_its_arm(tmp_path: Path):
    found = searched(
        tmp_path,
        trial(0, "rank-4", 0.5, is_reference=True, baseline=True),
        trial(1, "rank-8", 0.55),
        trial(2, "rank-16", 0.61),
        treatment="lora.rank",
        reference="rank-4",
    )
    assert shown(found) == {"rank-16"}
    assert found is not None
    assert found.note == (
        "Nothing was confirmed, so these are the answers of the search's best trial, the "
        "reference's left out. Its arm is rank-16, and its win rate is flattered."
    )


def test_a_trial_of_the_reference_is_not_shown_even_if_it_won_most(tmp_path: Path):
    trials = (
        trial(0, "neftune", 0.5, is_reference=True, baseline=True),
        trial(1, "neftune", 0.7),
        trial(2, "symnoise", 0.6),
    )
    assert shown(searched(tmp_path, *trials, reference="neftune")) == {"symnoise"}


def test_plain_fine_tuning_may_be_the_arm(tmp_path: Path):
    trials = (
        trial(0, "neftune", 0.5, is_reference=True, baseline=True),
        trial(1, "none", 0.6, is_reference=False, baseline=False),
    )
    found = searched(tmp_path, *trials, reference="neftune")
    assert shown(found) == {"none"}
    assert found is not None
    assert "Its arm is plain fine-tuning," in found.note


def test_the_trial_that_the_others_are_judged_against_is_never_the_best_arm(tmp_path: Path):
    """A sweep that was killed has no verdict, so nothing else says which arm is the reference."""
    trials = (
        trial(0, "rank-4", 0.5, is_reference=True, baseline=False),
        trial(1, "rank-8", 0.4, baseline=False),
    )
    assert shown(searched(tmp_path, *trials)) == {"rank-8"}


def test_with_the_reference_alone_no_answers_are_shown(tmp_path: Path):
    trials = (trial(0, "neftune", 0.5, is_reference=True), trial(1, "neftune", 0.7))
    assert searched(tmp_path, *trials, reference="neftune") is None
