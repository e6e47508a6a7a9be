"""The confirmation's comparisons come from the files that its trials left."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symnoise_ray.config import ConfirmConfig, SweepConfig, TrialConfig
from symnoise_ray.records.files import write_json, write_lines
from symnoise_ray.records.layout import PREFERENCES, RESULT
from symnoise_ray.records.preferences import Preference, read_annotations
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import SweepPlans, TrialPlan
from symnoise_ray.statistics.judged_models import standings
from symnoise_ray.statistics.words import verdict_sentence
from symnoise_ray.sweep.confirm import choose, comparisons, number_choices

TEXTS = ("", "r" * 50, "plain")


def confirmed(
    folder: Path,
    name: str,
    scores: Sequence[float | None],
    status: str = "done",
    *,
    times: int = 1,
    same_request: bool = False,
) -> TrialPlan:
    """A trial that ended, with these verdicts on answers that are the longer the better.

    Every prompt is asked so many times; with `same_request` they differ in what came before.
    """
    directory = folder / name
    write_json({"trial": name, "status": status}, directory / RESULT)
    rows = [
        Preference(
            item + len(scores) * time, "and why?" if same_request else f"question {item}", *TEXTS,
            "t" * int(40 + 20 * (score or 0) + item % 7), "noisy", "judge", "one",
            None if score is None else 1 + score,
            earlier_requests=(f"question {item}",) if same_request else (),
        )
        for time in range(times)
        for item, score in enumerate(scores)
    ]  # fmt: skip
    write_lines(rows, directory / PREFERENCES)
    return TrialPlan(name, TrialConfig(), directory, directory / "reference.jsonl", {}, "confirm")


def some_scores(seed: int, count: int = 40) -> list[float | None]:
    return [float(score) for score in np.random.default_rng(seed).choice([0, 0.5, 1], size=count)]


def test_seeds_are_paired_on_the_prompts_that_all_of_them_answered(tmp_path: Path) -> None:
    first, second = some_scores(1), some_scores(2)
    second[3] = None
    plans = [confirmed(tmp_path, "a", first), confirmed(tmp_path, "b", second)]
    (found,) = comparisons({"none": [], "symnoise": plans})
    both = [s for pair in zip(first, second, strict=True) if None not in pair for s in pair]
    assert found.win_rate == pytest.approx(np.mean(both))
    assert (found.arm, found.num_prompts, found.num_seeds) == ("symnoise", 39, 2)


def test_a_prompt_that_repeats_counts_once_as_it_does_in_score(tmp_path: Path) -> None:
    once = [1.0] * 26 + [0.0] * 14
    asked_again = [
        [confirmed(tmp_path, f"{count} times, seed {n}", once, times=count) for n in range(2)]
        for count in (1, 3)
    ]
    (alone,), (repeated,) = (comparisons({"symnoise": plans}) for plans in asked_again)
    assert repeated.num_prompts == alone.num_prompts == 40
    assert repeated.p_value == pytest.approx(alone.p_value)
    assert repeated.interval_95 == pytest.approx(alone.interval_95)
    assert repeated.verdict == "cannot tell yet"
    (scored,) = standings({"own": read_annotations(asked_again[1][0].directory / PREFERENCES)})
    assert scored.num_prompts == 40


def test_last_requests_of_different_conversations_are_different_prompts(tmp_path: Path) -> None:
    plan = confirmed(tmp_path, "a", some_scores(6), same_request=True)
    (found,) = comparisons({"symnoise": [plan]})
    assert found.num_prompts == 40


def test_a_comparison_names_the_win_rate_at_equal_lengths(tmp_path: Path) -> None:
    scores = [0.0 if score == 0 else 1.0 for score in some_scores(3, 90)]
    plans = [confirmed(tmp_path, "a", list(scores)), confirmed(tmp_path, "b", list(scores))]
    (found,) = comparisons({"symnoise": plans})
    assert found.length_controlled_win_rate is not None
    assert found.length_controlled_interval_95 is not None
    low, high = found.length_controlled_interval_95
    assert low <= found.length_controlled_win_rate <= high
    assert found.length_controlled_win_rate < found.win_rate - 0.05, "length explains the wins"


def test_a_setting_that_a_growing_search_chooses_anew_is_another_choice(tmp_path: Path) -> None:
    path, plain, other = tmp_path / "confirm.json", {"optim.lr": 0.002}, {"optim.lr": 0.001}
    mild, wild = {"noise.alpha": 1.5}, {"noise.alpha": 9.0}
    for _ in range(2):
        assert number_choices({"none": plain, "symnoise": mild}, path) == {"none": 1, "symnoise": 1}
    assert number_choices({"none": plain, "symnoise": wild}, path) == {"none": 1, "symnoise": 2}
    assert number_choices({"none": plain, "neftune": mild}, path) == {"none": 1, "neftune": 1}
    # Judged against another plain model, the same setting is to be judged anew.
    assert number_choices({"none": other, "symnoise": wild}, path) == {"none": 2, "symnoise": 3}
    assert number_choices({"none": other, "neftune": mild}, path) == {"none": 2, "neftune": 2}


def test_trials_of_another_choice_have_names_and_references_of_their_own(tmp_path: Path) -> None:
    plans = SweepPlans(SweepConfig(name="a", baselines=({"noise.type": "none"},)), tmp_path)
    point = {"noise.type": "symnoise", "noise.alpha": 5}
    first, again = plans.confirm("symnoise", point, 0), plans.confirm("symnoise", point, 0, 2, 1)
    third = plans.confirm("symnoise", point, 0, 3, 2)
    names = [plan.name for plan in (first, again, third)]
    assert names == [f"confirm-symnoise-seed1000{end}" for end in ("", "-choice2", "-choice3")]
    assert first.reference == again.reference != third.reference
    plain = plans.confirm("none", {"noise.type": "none"}, 0, 2, 2)
    assert third.reference == plain.reference == plain.directory / "completions.jsonl"


def test_a_seed_that_failed_and_an_arm_without_any_are_left_out(tmp_path: Path) -> None:
    good = confirmed(tmp_path, "a", some_scores(4))
    failed = confirmed(tmp_path, "b", some_scores(5), status="failed")
    never = confirmed(tmp_path, "c", [None] * 40)
    found = comparisons({"symnoise": [good, failed], "neftune": [failed], "bernoulli": [never]})
    assert [(c.arm, c.num_seeds) for c in found] == [("symnoise", 1)]


def test_a_contrast_is_the_difference_of_two_win_rates_on_shared_prompts_and_seeds(
    tmp_path: Path,
) -> None:
    better = [1.0] * 30 + [0.0] * 10
    worse = [0.0] * 30 + [1.0] * 10
    missing: list[float | None] = [None, *worse[1:]]
    arms = {
        "symnoise": [confirmed(tmp_path, f"s{n}", list(better)) for n in range(3)],
        "independent": [
            confirmed(tmp_path, "i0", missing),
            confirmed(tmp_path, "i1", list(worse)),
            confirmed(tmp_path, "i2", list(worse), status="failed"),
        ],
    }
    *plain, contrast = comparisons(arms, [("symnoise", "independent")])
    assert [(c.arm, c.over) for c in plain] == [("symnoise", ""), ("independent", "")]
    assert (contrast.arm, contrast.over) == ("symnoise", "independent")
    assert (contrast.num_prompts, contrast.num_seeds) == (39, 2)
    assert contrast.win_rate == pytest.approx(0.5 + (29 - 10) / 39 / 2)
    assert contrast.verdict == "better"
    assert contrast.p_holm >= contrast.p_value
    told = verdict_sentence([*plain, contrast], {"symnoise": "A", "independent": "B"})
    assert "A is better than B (+48.7 points, 95 % interval +" in told
    assert comparisons(arms, [("symnoise", "bernoulli")])[-1].over == "", "bernoulli was not run"


def test_contrasted_arms_are_confirmed_whatever_their_rank() -> None:
    results = [
        TrialResult(str(n), arm=arm, params={"a": arm}, values={"win_rate": rate})
        for n, (arm, rate) in enumerate(
            [("none", 0.5), ("symnoise", 0.4), ("neftune", 0.6), ("independent", 0.3)]
        )
    ]
    alone = ConfirmConfig(top_k=1)
    assert list(choose(results, alone)) == ["none", "neftune"]
    both = ConfirmConfig(top_k=1, contrasts=(("symnoise", "independent"),))
    assert list(choose(results, both)) == ["none", "neftune", "symnoise", "independent"]


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
        ConfirmConfig.model_validate({"top_k": 1, "contrasts": contrasts})
    with pytest.raises(ValueError, match=r"needs confirm\.top_k >= 1"):
        ConfirmConfig.model_validate({"contrasts": [["symnoise", "independent"]]})
