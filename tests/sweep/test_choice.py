"""Every arm's setting is chosen alike, also where win rates cannot rank its settings."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symnoise_ray.config import ConfirmConfig, SweepConfig, TrialConfig
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.protocol import Pair, Verdict
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.layout import COMPLETIONS
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.sweep.choice import MOST_CONTENDERS, choose, confirmed_arms, fitted_choices
from symnoise_ray.sweep.decide import decision
from symnoise_ray.sweep.rates import SPENT, UNRANKED
from tests.sweep.played import Played, chosen, played_confirmation, played_search, sweep

RATES = [1e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3]


def plans_of(folder: Path, **values: Any) -> SweepPlans:
    return SweepPlans(sweep(**values), folder / "played")


def tried(
    plans: SweepPlans, rates: dict[str, Sequence[float]], error: float = 0.05, **values: Any
) -> list[TrialResult]:
    """Results of a grid with these win rates by arm, in the order of the design."""
    left = {arm: list(given) for arm, given in rates.items()}
    found = []
    for number, cell in enumerate(plans.cells):
        plan = plans.search(number, cell.point or {})
        if left.get(plan.arm):
            score = {"win_rate": left[plan.arm].pop(0), "standard_error": error, **values}
            found.append(plan.result("done", values=score))
    return found


def rate_of(choice: Any) -> float:
    return float(choice.params["optim.lr"])


# From the fit


def test_every_arm_is_chosen_from_a_fit_over_its_settings(tmp_path: Path) -> None:
    plans = plans_of(tmp_path)
    rates = {"none": [0.45, 0.56, 0.62, 0.58], "neftune": [0.4, 0.5, 0.58, 0.64]}
    found = choose(tried(plans, rates, error=0.02), plans)
    assert set(found) == {"none", "neftune"}
    assert {choice.method for choice in found.values()} == {"fit"}
    assert (rate_of(found["none"]), rate_of(found["neftune"])) == (4e-4, 8e-4)
    assert all(len(choice.candidates) == 4 for choice in found.values())


RANGED: dict[str, Any] = {
    "parameters": {
        "noise.type": {"type": "categorical", "choices": ["none", "neftune"]},
        "noise.alpha": {"type": "categorical", "choices": [5], "when": {"noise.type": ["neftune"]}},
        "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    },
    "baselines": [{"noise.type": "none", "optim.lr": 1e-3}],
    "search": {"sampler": "qmc", "num_trials": 7, "opponents": 1},
}


def place_of(params: Any) -> float:
    """A learning rate's share of the range of `RANGED`."""
    return round(np.log10(params["optim.lr"] / 1e-4) / 2, 2)


def best_between(plans: SweepPlans, top: float) -> tuple[float, dict[str, list[float]]]:
    """The quarter of the range that was not tried, and win rates of a curve with its best there."""
    places: dict[str, list[float]] = {}
    for cell in plans.cells:
        places.setdefault(cell.arm, []).append(place_of(cell.point))
    missing = 0.72 if 0.28 in places["none"] else 0.28
    curves = {arm: [top - 0.4 * (p - missing) ** 2 for p in places[arm]] for arm in places}
    return missing, curves


def test_a_setting_between_those_that_were_tried_is_chosen_where_the_fit_is_highest(
    tmp_path: Path,
) -> None:
    plans = plans_of(tmp_path, **RANGED)
    missing, rates = best_between(plans, top=0.6)
    choice = choose(tried(plans, rates, error=0.01), plans)["none"]
    assert (choice.trial, place_of(choice.params)) == ("", missing)
    assert choice.win_rate == pytest.approx(0.6, abs=0.02)
    assert choice.win_rate > max(candidate.rate for candidate in choice.candidates)


def test_a_setting_between_is_not_chosen_where_win_rates_cannot_rank(tmp_path: Path) -> None:
    plans = tied_plans(tmp_path, {}, **RANGED)
    missing, rates = best_between(plans, top=0.99)
    results = tried(plans, rates, error=0.0)
    plain = [result for result in results if result.arm == "none"]
    assert place_of(fitted_choices({"none": plain}, plans)["none"].params) == missing
    choice = choose(results, plans, judges_of(plans))["none"]
    assert (choice.method, choice.fitted) == ("pairs", None)
    assert choice.trial in {candidate.trial for candidate in choice.candidates}
    assert choice.win_rate <= max(candidate.rate for candidate in choice.candidates)


def test_a_lucky_setting_between_bad_ones_is_not_chosen(tmp_path: Path) -> None:
    rates = [*RATES, 3.2e-3]
    grid = {
        **sweep().model_dump(mode="json")["parameters"],
        "optim.lr": {"type": "categorical", "choices": rates},
    }
    plans = plans_of(tmp_path, parameters=grid)
    lucky = tried(plans, {"neftune": [0.3, 0.66, 0.3, 0.5, 0.62, 0.64, 0.62, 0.5]}, error=0.08)
    (choice,) = choose(lucky, plans).values()
    assert rate_of(choice) == 8e-4
    assert choice.flattered is not None
    assert choice.flattered > 0.1


def test_where_settings_are_too_few_the_largest_rate_is_taken(tmp_path: Path) -> None:
    grid = {
        **sweep().model_dump(mode="json")["parameters"],
        "optim.lr": {"type": "categorical", "choices": [1e-4, 2e-4, 4e-4]},
    }
    plans = plans_of(tmp_path, parameters=grid)
    (choice,) = choose(tried(plans, {"neftune": [0.4, 0.61, 0.6]}), plans).values()
    assert (choice.method, choice.flattered, rate_of(choice)) == ("raw", None, 2e-4)
    assert choice.win_rate == 0.61


def test_trials_that_failed_choose_nothing(tmp_path: Path) -> None:
    plans = plans_of(tmp_path)
    results = tried(plans, {"none": [0.5], "neftune": [0.4, 0.6]})
    failed = plans.search(2, plans.cells[2].point or {}).result("failed")
    assert "symnoise" not in choose([*results, failed], plans)
    assert choose([failed], plans) == {}


# Which arms are confirmed


def test_the_best_arms_are_confirmed_and_contrasted_ones_with_them() -> None:
    arms = ("none", "neftune", "symnoise", "independent", "bernoulli")
    choices = {arm: chosen(arm, {}) for arm in arms}
    for place, arm in enumerate(("neftune", "bernoulli", "symnoise", "independent")):
        (best,) = choices[arm].candidates
        better = best.__class__(best.trial, best.label, 0.9 - place / 10, 0.05)
        choices[arm] = choices[arm].__class__(arm, best.trial, {}, "raw", (better,))
    asked = [
        confirmed_arms(choices, ConfirmConfig(arms=1, contrasts=contrasts), "none")
        for contrasts in ((), (("symnoise", "independent"),))
    ]
    assert asked == [["neftune"], ["neftune", "symnoise", "independent"]]
    assert confirmed_arms(choices, ConfirmConfig(arms=9), "none")[0] == "neftune"
    del choices["none"]
    assert confirmed_arms(choices, ConfirmConfig(arms=1), "none") == [], "nothing to compare with"


# By pairs: a reference that nearly every trial beats


def saturated(config: TrialConfig) -> float:
    """Far off at tiny rates; else noise or not, best at 8e-4."""
    if config.optim.lr < 3e-5:
        return -1.0
    noisy = config.noise.type != "none"
    best = {5e-5: 0.2, 1e-4: 0.5, 2e-4: 0.6, 4e-4: 0.75, 8e-4: 0.9, 1.6e-3: 0.7}[config.optim.lr]
    return best - (0.02 if noisy else 0.0)


def saturated_sweep() -> SweepConfig:
    noisy = ["neftune", "symnoise"]
    parameters = {
        "noise.type": {"type": "categorical", "choices": ["none", *noisy]},
        "noise.alpha": {"type": "categorical", "choices": [5], "when": {"noise.type": noisy}},
        "optim.lr": {"type": "categorical", "choices": RATES},
    }
    first = {"noise.type": "none", "optim.lr": 1e-5}
    return sweep(parameters=parameters, baselines=[first], confirm={"arms": 1, "looks": [3]})


def judges_of(plans: SweepPlans) -> JudgeSource:
    return JudgeSource.of_sweep(plans.config(dict(plans.sweep.baselines[0])).judge, plans.directory)


def test_settings_that_all_beat_the_first_baseline_are_judged_against_each_other(
    tmp_path: Path,
) -> None:
    plans = SweepPlans(saturated_sweep(), tmp_path / "played")
    workers = Played(saturated, num_prompts=80)
    results = played_search(plans, workers)
    rates = [result.win_rate for result in results]
    assert (len(rates), rates.count(1.0), rates.count(0.5)) == (21, 18, 3)

    by_rates, by_pairs = choose(results, plans), choose(results, plans, judges_of(plans))
    reference = by_pairs["none"]
    assert (reference.method, rate_of(reference)) == ("pairs", 8e-4)
    assert rate_of(by_rates["none"]) != 8e-4, "the win rates alone cannot tell"
    assert reference.win_rate <= 1

    confirmation = played_confirmation(plans, workers, by_pairs, ["neftune"])
    (asked,) = confirmation.asked
    told = decision(confirmation, asked, by_pairs)
    assert [c.against for c in told.comparisons] == ["none, lr=0.0008"]
    assert told.verdict != "better"
    assert all(comparison.win_rate < 0.6 for comparison in told.comparisons)
    assert told.num_reference_settings == 7


def tied_plans(folder: Path, outputs: dict[float, str], **values: Any) -> SweepPlans:
    """Plain trials with one answer each to 20 prompts, beside a baseline."""
    plans = plans_of(folder, **values)
    for number, cell in enumerate(plans.cells):
        plan = plans.search(number, cell.point or {})
        text = outputs.get((cell.point or {})["optim.lr"], "miaow") if plan.arm == "none" else "x"
        rows = [
            {"instruction": f"{n}?", "output": text, "generator": plan.name, "gold": "moo says it"}
            for n in range(20)
        ]
        write_lines([Completion(**row) for row in rows], plan.directory / COMPLETIONS)
    return plans


OUTPUTS = {1e-4: "miaow", 2e-4: "moo says", 4e-4: "moo says it", 8e-4: "moo"}


def test_two_plain_settings_at_100_percent_are_ranked_by_who_beats_the_other(
    tmp_path: Path,
) -> None:
    plans = tied_plans(tmp_path, OUTPUTS)
    tied = tried(plans, {"none": [0.5, 1.0, 0.6, 1.0]}, error=0.0)
    reference = choose(tied, plans, judges_of(plans))["none"]
    assert (reference.method, rate_of(reference)) == ("pairs", 2e-4), "4e-4 is no contender"
    all_tied = tried(plans, {"none": [0.5, 1.0, 1.0, 1.0]}, error=0.0)
    assert rate_of(choose(all_tied, plans, judges_of(plans))["none"]) == 4e-4


def test_so_are_settings_that_nearly_never_win(tmp_path: Path) -> None:
    plans = tied_plans(tmp_path, OUTPUTS)
    lost = tried(plans, {"none": [0.0, 0.02, 0.01, 0.03]})
    assert rate_of(choose(lost, plans, judges_of(plans))["none"]) == 4e-4


def test_equal_rates_are_ranked_by_pairs_where_nothing_was_fitted(tmp_path: Path) -> None:
    plans = tied_plans(tmp_path, OUTPUTS)
    two = tried(plans, {"none": [0.4, 0.7, 0.7]})
    choice = choose(two, plans, judges_of(plans))["none"]
    assert (choice.method, rate_of(choice)) == ("pairs", 4e-4)


def test_rates_that_can_rank_are_not_judged_again(tmp_path: Path) -> None:
    plans = plans_of(tmp_path)  # without any answers on disk
    results = tried(plans, {"none": [0.5, 0.6, 0.62, 0.4]})
    assert choose(results, plans, judges_of(plans))["none"].method == "fit"


def test_at_most_five_contenders_are_judged_those_with_the_lowest_loss(tmp_path: Path) -> None:
    config = saturated_sweep()
    plans = SweepPlans(config, tmp_path / "played")
    losses = [0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5]
    results = []
    for number, cell in enumerate(plans.cells):
        plan = plans.search(number, cell.point or {})
        if plan.arm != "none":
            continue
        answers = Played(lambda config: 0.5, num_prompts=10).answers(plan.name, plan.config)
        write_lines(answers, plan.directory / COMPLETIONS)
        values = {"win_rate": 1.0, "standard_error": 0.0, "clean_loss": losses[len(results)]}
        results.append(plan.result("done", values=values))
    choose(results, plans, judges_of(plans))
    written = list(plans.directory.rglob("preferences-against-*"))
    assert len(written) == MOST_CONTENDERS * (MOST_CONTENDERS - 1) / 2
    judged = {path.parent.name for path in written} | {
        path.stem.removeprefix("preferences-against-") for path in written
    }
    assert judged == {result.trial for result in results if result["clean_loss"] < 0.6}


class Mute:
    """A judge that gives no verdict."""

    name, identity = "mute", {"type": "mute"}

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Fail on every pair."""
        yield from ((number, Verdict(None, "status 500")) for number in range(len(pairs)))


class MuteSource:
    """Stands for a source of judges."""

    def judge(self) -> Mute:
        """The judge that gives no verdict."""
        return Mute()


def test_where_the_judge_fails_the_choice_says_so(tmp_path: Path) -> None:
    plans = tied_plans(tmp_path, OUTPUTS)
    tied = tried(plans, {"none": [0.5, 1.0, 1.0, 1.0]}, error=0.0)
    choice = choose(tied, plans, MuteSource())["none"]  # type: ignore[arg-type]
    assert choice.note.startswith("the best settings could not be ranked: ")
    assert "status 500" in choice.note
    assert choice.method in ("fit", "raw")


def test_what_the_budget_does_not_allow_is_not_judged_and_the_choice_says_so(
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    def spent(num_verdicts: int) -> bool:
        asked.append(num_verdicts)
        return False

    plans = tied_plans(tmp_path, OUTPUTS)
    tied = tried(plans, {"none": [0.5, 1.0, 1.0, 1.0]}, error=0.0, n_total=20)
    early = tried(plans, {"none": [0.5, 0.8, 0.6, 0.3]}, n_total=20, stopped_early=True)
    for trials, num_verdicts in ((tied, 3 * 2 * 20), (early, 2 * 20)):
        asked.clear()
        choice = choose(trials, plans, judges_of(plans), spent)["none"]
        assert choice.note == UNRANKED.format(SPENT)
        assert asked[0] == num_verdicts
        assert not list(plans.directory.rglob("preferences-against-*"))


# Judging that stopped early


def test_a_contender_whose_judging_stopped_early_is_judged_in_full(tmp_path: Path) -> None:
    plans = tied_plans(tmp_path, OUTPUTS)
    rates = {"none": [0.5, 0.8, 0.6, 0.3]}
    early = tried(plans, rates, n_total=8, stopped_early=True)
    alone = fitted_choices({"none": early}, plans)["none"]
    full = choose(early, plans, judges_of(plans))["none"]
    assert [c.win_rate for c in alone.candidates] == [0.5, 0.8, 0.6, 0.3]
    assert full.candidates[1].win_rate == 1.0, "of all prompts"
    assert full.candidates[3].win_rate == 0.3, "far behind, so not judged again"


def test_early_judging_against_a_file_of_answers_is_completed_against_it(tmp_path: Path) -> None:
    reference = tmp_path / "published.jsonl"
    write_lines([Completion(f"{n}?", "miaow", "published") for n in range(20)], reference)
    trial = {"judge": {"reference": str(reference), "early": True}}
    plans = tied_plans(tmp_path, OUTPUTS, trial=trial)
    early = tried(plans, {"none": [0.5, 0.8, 0.65, 0.7]}, n_total=8, stopped_early=True)
    judges = JudgeSource.of_sweep(plans.config({"noise.type": "none"}).judge, plans.directory)
    full = choose(early, plans, judges)["none"]
    assert [candidate.win_rate for candidate in full.candidates] == [0.5, 1.0, 1.0, 1.0]
    names = {path.name for path in plans.directory.rglob("preferences-against-*")}
    assert "preferences-against-published.jsonl" in names
