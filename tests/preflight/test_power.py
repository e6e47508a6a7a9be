"""The power that `plan` gives before anything is spent is that of the rules that decide a sweep."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import SweepConfig
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.preflight.power import Confirmation, as_lines, declaration
from symnoise_ray.preflight.variance import measured
from symnoise_ray.records.files import write_json
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.space.counts import most_confirmed
from symnoise_ray.space.trials import SweepPlans, first_point
from symnoise_ray.statistics.bootstrap import Floats
from symnoise_ray.statistics.decision import BETTER, OPEN, hopeless, rule
from symnoise_ray.statistics.looks import Look, declared_looks
from symnoise_ray.statistics.power import TYPICAL, last_half_width, power
from symnoise_ray.statistics.two_way import Spread, TwoWay

EFFECT = 0.03
GRID = [(108, 2), (108, 3), (402, 3), (805, 5)]


def tables(
    generator: np.random.Generator, num_prompts: int, num_seeds: int, gaps: list[float]
) -> list[Floats]:
    """Scores of prompts by seeds against opponents; half of every part is common to them."""

    def part(variance: float, *shape: int) -> list[Floats]:
        common, *own = generator.normal(0, np.sqrt(variance / 2), (1 + len(gaps), *shape))
        return [common + each for each in own]

    prompts = part(TYPICAL.prompts, num_prompts, 1)
    seeds = part(TYPICAL.seeds, 1, num_seeds)
    rest = part(TYPICAL.rest, num_prompts, num_seeds)
    return [0.5 + gap + a + b + c for gap, a, b, c in zip(gaps, prompts, seeds, rest, strict=True)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "gap", [0.05, *(pytest.param(other, marks=pytest.mark.slow) for other in (0.02, 0.1))]
)
@pytest.mark.parametrize(("num_prompts", "num_seeds"), GRID)
def test_power_is_that_of_whole_tables_of_scores(num_prompts: int, num_seeds: int, gap: float):
    """One opponent, one look, and a second question without a difference."""
    generator, num_replicates, better = np.random.default_rng(num_prompts + num_seeds), 1000, 0
    for _ in range(num_replicates):
        one, other = tables(generator, num_prompts, num_seeds, [gap, 0.0])
        asked = {"a": ([TwoWay(one)], 1.0, EFFECT), "b": ([TwoWay(other)], 1.0, EFFECT)}
        better += rule(asked)["a"].verdict == BETTER
    told = power(
        TYPICAL, num_prompts, [Look(num_seeds, 1.0, 1)], EFFECT,
        gap=gap, num_opponents=1, num_questions=2,
    )  # fmt: skip
    assert told.better == pytest.approx(better / num_replicates, abs=0.05)


def test_power_with_looks_and_two_opponents_is_that_of_whole_tables_of_scores():
    looks, num_prompts, num_replicates = declared_looks((3, 5, 8)), 432, 600
    generator, better, seeds = np.random.default_rng(8), 0, 0
    for _ in range(num_replicates):
        found, num_seeds = _confirmed(tables(generator, num_prompts, 8, [EFFECT, EFFECT]), looks)
        better += found == BETTER
        seeds += num_seeds
    told = power(TYPICAL, num_prompts, looks, EFFECT)
    assert told.better == pytest.approx(better / num_replicates, abs=0.05)
    assert told.mean_seeds == pytest.approx(seeds / num_replicates, abs=0.2)


def _confirmed(scores: list[Floats], looks: list[Look]) -> tuple[str, int]:
    """Verdict and seeds of a confirmation that stops once it is decided or futile."""
    verdict = OPEN
    for look in looks:
        tests = [TwoWay(table[:, : look.num_seeds]) for table in scores]
        verdict = rule({"a": (tests, look.share, EFFECT)})["a"].verdict
        expected = np.array(
            [last_half_width(t.squares, t.num_prompts, look, looks[-1], 1) for t in tests]
        )
        means, done = np.array([t.mean for t in tests]), look.num_seeds / looks[-1].num_seeds
        if verdict != OPEN or hopeless(means, expected, done, EFFECT):
            break
    return verdict, look.num_seeds


@pytest.fixture
def quickstart() -> SweepConfig:
    """The shipped sweep with three looks: one arm to confirm, against two opponents."""
    changed = ["confirm.looks=[3,5,8]", "confirm.pairs=same", "question.effect=0.03"]
    return load_sweep("quickstart", changed)[0]


def test_a_plan_counts_what_the_confirmation_trains_and_judges(
    quickstart: SweepConfig, tmp_path: Path
):
    found = Confirmation.of(quickstart, tmp_path)
    assert (found.num_prompts, found.num_units, found.is_known) == (108, 108, True)
    assert (found.num_arms, found.num_opponents, found.num_models) == (1, 2, 3)
    assert found.most_trainings == most_confirmed(quickstart) == 24
    assert found.most_calls == 3 * 8 * 108 * 2  # the arm over both opponents, and those two
    assert found.declared.mean_seeds * 3 == pytest.approx(declaration(found)["trainings_expected"])
    one_opponent = replace(found, num_opponents=1, judge_cost=0.5)
    assert (one_opponent.num_models, one_opponent.most_calls) == (2, 8 * 108 * 2)
    assert one_opponent.most_cost == 4


def test_a_plan_counts_all_pairs_where_they_are_judged(quickstart: SweepConfig, tmp_path: Path):
    same = Confirmation.of(quickstart, tmp_path)
    every = replace(same, pairs="all", judge_cost=0.5)
    assert every.most_calls == (2 * 8 * 8 + 8) * 108 * 2  # the opponents meet seed by seed
    assert every.most_cost == 68
    assert replace(every, num_opponents=1).most_calls == 8 * 8 * 108 * 2
    assert (every.most_trainings, every.declared) == (same.most_trainings, same.declared)
    note = "note: computed for confirm.pairs=same; judging all pairs finds no less"
    assert note in list(as_lines(every))
    assert note not in list(as_lines(same))


def test_the_smallest_designs_have_80_percent_power(quickstart: SweepConfig, tmp_path: Path):
    found = replace(Confirmation.of(quickstart, tmp_path), num_units=805)
    seeds, units = found.seeds_for_80(), found.units_for_80()
    assert seeds is not None
    assert units is not None
    assert found.power(seeds).better > 0.77
    assert found.power(seeds - 1).better < 0.83
    assert found.power(None, units).better == pytest.approx(0.8, abs=0.04)
    assert replace(found, num_units=20).seeds_for_80() is None
    assert replace(found, num_units=1).declared == (0, 0, 3)


def test_groups_are_the_units_of_a_verdict_on_other_groups(tmp_path: Path):
    sweep, _ = load_sweep("quickstart", ["question.population=other_groups"])
    found = Confirmation.of(sweep, tmp_path)
    assert (found.num_prompts, found.num_units, found.unit) == (108, 18, "groups")
    assert found.spread.prompts + found.spread.rest > (TYPICAL.prompts + TYPICAL.rest) / 6
    assert found.declared.better < replace(found, spread=TYPICAL, num_units=108).declared.better


def earlier(
    folder: Path, sweep: SweepConfig, spread: Spread, *, num_seeds: int = 5, population: str = "",
    schema_version: int = 2, **data: object,
) -> None:  # fmt: skip
    """What is read of an earlier sweep: a confirmed trial's settings, and results.json."""
    plan = SweepPlans(sweep, folder).confirm(first_point(sweep), 0)
    values = plan.config.model_dump(mode="json")
    values["data"] |= data
    write_json(values, folder / "trials" / plan.name / "config.json")
    of_prompts, of_seeds, rest = spread
    compared = Comparison(
        "symnoise", 0.5, (0.4, 0.6), 1.0, 1.0, 108, num_seeds, OPEN, num_groups=18,
        spread_prompts=of_prompts, spread_seeds=of_seeds, spread_rest=rest,
    )  # fmt: skip
    verdict = Verdict(
        decisions=(Decision("symnoise", OPEN, (compared, compared)),),
        population=population or sweep.question.population,
    )
    written = {"schema_version": schema_version, "verdict": asdict(verdict)}
    write_json(written, folder / "results.json")


def test_earlier_sweeps_of_the_same_kind_say_how_much_scores_differ(
    quickstart: SweepConfig, tmp_path: Path
):
    seen = Spread(0.01, 0.0004, 0.1)
    earlier(tmp_path / "a", quickstart, seen)
    earlier(tmp_path / "b", quickstart, seen._replace(prompts=0.03), num_seeds=9)
    earlier(tmp_path / "other-data", quickstart, TYPICAL, train="other.json")
    earlier(tmp_path / "groups", quickstart, TYPICAL, population="other_groups")
    earlier(tmp_path / "old", quickstart, TYPICAL, schema_version=1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text("[")
    found = Confirmation.of(quickstart, tmp_path)
    assert found.spread.prompts == pytest.approx((0.01 * 4 + 0.03 * 8) / 12)
    assert found.spread.rest == pytest.approx(0.1)
    assert 0.0004 < found.spread.seeds < 0.0012, "12 degrees of freedom leave it uncertain"
    assert "measured by a, b in" in found.source
    assert "13 seeds" in found.source
    told = declaration(found)["assumed"]
    assert told["spread_prompts"] == found.spread.prompts


def test_without_earlier_sweeps_the_variance_is_a_typical_one(
    quickstart: SweepConfig, tmp_path: Path
):
    config = SweepPlans(quickstart, tmp_path).config(first_point(quickstart))
    assert measured(tmp_path / "absent", config, "these_groups") is None
    earlier(tmp_path / "two-seeds", quickstart, TYPICAL, num_seeds=2)
    assert measured(tmp_path, config, "these_groups") is None
    found = Confirmation.of(quickstart, tmp_path / "absent")
    assert found.spread == TYPICAL
    assert "typical" in found.source


def lines_of(text: str) -> Iterator[str]:
    return iter(text.split("confirmation:\n")[1].splitlines())


def test_plan_gives_the_power_as_text_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    asked = ["quickstart", "question.effect=0.03", "confirm.looks=[3,5,8]"]
    assert main(["plan", *asked]) == 0
    text = list(lines_of(capsys.readouterr().out))
    assert len(text) <= 10
    assert text[0] == "  chance that a true gain of 3 points is found, by seeds at the last look:"
    assert text[1].split() == ["seeds", "3", "5", "8", "12", "16"]
    assert text[2].split()[:2] == ["108", "prompts"]
    assert main(["plan", *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["confirmation"]
    assert told["trainings_most"] == 24
    assert len(told["curve"]) == 15
    rates = {(row["prompts"], row["seeds"]): row["power"] for row in told["curve"]}
    assert rates[108, 8] == told["power"] < rates[432, 8] < rates[432, 16]
    assert told["seeds_for_80"] is None
    assert told["prompts_for_80"] > 432
    assert main(["plan", "quickstart", "confirm.arms=0", "--json"]) == 0
    assert "confirmation" not in json.loads(capsys.readouterr().out)


def test_plan_says_when_it_does_not_know_the_prompts(capsys: pytest.CaptureFixture[str]):
    given = ["data.train=alpaca", "data.eval_prompts=some/prompts", "--rows", "100"]
    assert main(["plan", "quickstart", *given]) == 0
    text = capsys.readouterr().out
    assert "not known: the prompts, which do not lie here; 604 are assumed" in text
    assert main(["plan", "quickstart", *given, "data.confirm_prompts=other/prompts"]) == 0
    text = capsys.readouterr().out
    assert "not known: the prompts, which do not lie here; 805 are assumed" in text
    assert "805 prompts" in text


def test_the_confirmations_own_limit_of_prompts_is_counted(tmp_path: Path):
    for setting, number in (("max_eval_prompts=24", 24), ("max_confirm_prompts=60", 60)):
        sweep, _ = load_sweep("quickstart", ["data.max_eval_prompts=24", f"data.{setting}"])
        found = Confirmation.of(sweep, tmp_path)
        assert (found.num_prompts, found.num_units) == (number, number)
