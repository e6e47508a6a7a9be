"""Settings are chosen by win rates over several trials of the reference, not over one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.protocol import Pair, Usage, Verdict
from symnoise_ray.judges.reference import ReferenceJudge
from symnoise_ray.records.files import read_json, write_lines
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.counts import most_pairs
from symnoise_ray.space.trials import SweepPlans
from symnoise_ray.statistics.win_rate import win_rate
from symnoise_ray.sweep.choice import choose
from symnoise_ray.sweep.pairs import judge_pair, spent_on_pairs
from symnoise_ray.sweep.rates import FEWER, SPENT, measure
from tests.sweep.played import Played, played_search, sweep

NUM_PROMPTS = 60


def skill(config: TrialConfig) -> float:
    """Better at higher learning rates, and with noise."""
    best = {1e-4: 0.3, 2e-4: 0.4, 4e-4: 0.5, 8e-4: 0.6}[config.optim.lr]
    return best + (0.1 if config.noise.type != "none" else 0.0)


class Counting:
    """A source of judges that counts pairs and fails after so many."""

    def __init__(self, fails_after: int = 10**9, calls: int = 0) -> None:
        self.asked, self.fails_after, self.calls = 0, fails_after, calls
        self.name, self.identity = "counting", {"type": "reference"}

    def judge(self, pairs: Sequence[Pair] | None = None) -> Any:
        """Itself, or its verdicts on pairs."""
        return self if pairs is None else self._verdicts(pairs)

    def _verdicts(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        self.asked += 1
        if self.asked > self.fails_after:
            yield from ((n, Verdict(None, "status 500")) for n in range(len(pairs)))
            return
        for number, verdict in ReferenceJudge().judge(pairs):
            yield number, verdict._replace(usage=Usage(self.calls, 0, 0))


class Searched:
    """A sweep whose twelve trials (three arms, four learning rates) are done."""

    def __init__(self, folder: Path, opponents: int = 4, **values: Any) -> None:
        search = {"sampler": "grid", "opponents": opponents}
        self.plans = SweepPlans(sweep(search=search, **values), folder / "played")
        self.results = played_search(self.plans, Played(skill, NUM_PROMPTS))
        self.by_arm: dict[str, list[TrialResult]] = {}
        for result in self.results:
            self.by_arm.setdefault(result.arm, []).append(result)

    def judged(self) -> list[Path]:
        """The files of the pairs that were judged."""
        return sorted(self.plans.directory.rglob("preferences-against-*"))

    @property
    def judges(self) -> JudgeSource:
        """Where its trials get their judge from."""
        point = dict(self.plans.sweep.baselines[0])
        return JudgeSource.of_sweep(self.plans.config(point).judge, self.plans.directory)

    def measure(self, judges: Any = None, allows: Any = lambda number: True) -> Any:
        """Its trials with the win rates that settings are chosen by."""
        return measure(self.by_arm, self.plans, judges or self.judges, allows)


@pytest.fixture
def searched(tmp_path: Path) -> Searched:
    return Searched(tmp_path)


def test_a_win_rate_is_the_mean_over_all_trials_of_the_reference(searched: Searched) -> None:
    measured = searched.measure()
    plain = [result.trial for result in searched.by_arm["none"]]
    assert sorted(measured.opponents) == plain
    (trial, *_) = measured.by_arm["symnoise"]
    directory = searched.plans.directory / "trials"
    config = searched.plans.config(dict(trial.params)).judge
    rates = [
        win_rate(
            judge_pair(
                directory / trial.trial, directory / each / "completions.jsonl",
                searched.judges, config,
            )
        ).win_rate
        for each in plain
    ]  # fmt: skip
    assert trial.win_rate == pytest.approx(sum(rates) / 4)
    assert trial.get("standard_error") < searched.by_arm["symnoise"][0].get("standard_error")


def test_two_trials_of_the_reference_meet_once_and_count_for_both(searched: Searched) -> None:
    judges = Counting()
    measured = searched.measure(judges)
    # 8 noisy trials meet 3 more opponents; of the 6 pairs of plain ones 3 were judged before.
    assert judges.asked == len(searched.judged()) == 8 * 3 + 3
    assert judges.asked == most_pairs(searched.plans.sweep)
    plain = [trial.win_rate for trial in measured.by_arm["none"]]
    assert sum(plain) / 4 == pytest.approx(0.5), "what one wins, the other loses; itself is a tie"


def test_nothing_is_judged_twice_when_a_sweep_goes_on(searched: Searched) -> None:
    first, again = searched.measure(), Counting()
    assert searched.measure(again) == first
    assert again.asked == 0


def test_the_best_trials_of_the_reference_are_the_opponents(tmp_path: Path) -> None:
    searched = Searched(tmp_path, opponents=2)
    plain = sorted(searched.by_arm["none"], key=lambda trial: -(trial.win_rate or 0))
    assert searched.measure().opponents == tuple(trial.trial for trial in plain[:2])


def test_with_one_opponent_the_verdicts_of_the_trials_stand(tmp_path: Path) -> None:
    searched = Searched(tmp_path, opponents=1)
    judges = Counting()
    measured = searched.measure(judges)
    assert (judges.asked, measured.opponents) == (0, ())
    assert measured.by_arm == searched.by_arm
    assert most_pairs(searched.plans.sweep) == 0


def test_a_trial_that_is_far_behind_and_was_judged_in_part_stays_as_it_is(
    searched: Searched,
) -> None:
    best, *others, last = searched.by_arm["neftune"]
    cut = last.values | {"win_rate": 0.05, "standard_error": 0.01, "stopped_early": True}
    searched.by_arm["neftune"] = [best, *others, TrialResult(**{**vars(last), "values": cut})]
    measured = searched.measure()
    assert measured.by_arm["neftune"][-1].win_rate == 0.05
    assert measured.by_arm["neftune"][0].win_rate != best.win_rate


def test_a_judge_that_fails_leaves_the_opponents_that_it_judged_and_is_told(
    searched: Searched,
) -> None:
    measured = searched.measure(Counting(fails_after=12))
    assert len(measured.opponents) == 1
    assert measured.remark.startswith("the win rates are over 1 of 4 trials of the reference")
    assert "status 500" in measured.remark
    mute: Any = Counting(fails_after=0)
    choices = choose(searched.results, searched.plans, mute)
    assert {choice.note for choice in choices.values()} == {""}, "no verdict is withheld for it"
    assert {choice.remark for choice in choices.values()} == {measured.remark}


def test_the_budget_decides_how_many_opponents_there_are(searched: Searched) -> None:
    asked: list[int] = []

    def allows(number: int) -> bool:
        asked.append(number)
        return len(asked) < 2

    measured = searched.measure(allows=allows)
    assert len(measured.opponents) == 1
    assert measured.remark == FEWER.format(1, 4, SPENT)
    # The best plain trial meets all but itself; it met the first baseline before.
    assert asked[0] == 2 * NUM_PROMPTS * 10, "verdicts: every prompt in both orders"


def test_what_pairs_cost_is_written_down(searched: Searched) -> None:
    searched.measure(Counting(calls=3))
    spent = spent_on_pairs(searched.plans.directory)
    assert len(spent) == len(searched.judged())
    assert 0 < sum(each["calls"] for each in spent) <= 3 * 2 * NUM_PROMPTS * len(spent)
    (path, *_) = sorted(searched.plans.directory.rglob("usage-against-*.json"))
    assert set(read_json(path)) == {"calls", "input_tokens", "output_tokens"}


def test_answers_in_a_file_are_no_opponent(tmp_path: Path) -> None:
    """Whatever trials are judged against, settings are chosen by who wins over the reference."""
    published = tmp_path / "published.jsonl"
    answers = Played(lambda config: 0.5, NUM_PROMPTS).answers("published", TrialConfig())
    write_lines(answers, published)
    searched = Searched(tmp_path, trial={"judge": {"reference": str(published)}})
    measured = searched.measure()
    assert len(measured.opponents) == 4
    # 8 noisy trials meet 4 opponents, and the plain ones each other.
    assert len(searched.judged()) == 8 * 4 + 6 == most_pairs(searched.plans.sweep)
