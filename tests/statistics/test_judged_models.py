"""Models judged against one reference, compared with it and with each other, prompt by prompt."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.errors import DataError, JudgeError, UserError
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.preferences import Preference
from symnoise_ray.statistics.judged_models import (
    shortest_names,
    standings,
    standings_text,
    stopped_early,
)
from tests.statistics.test_published_annotations import files, preferences


def judged(scores: Sequence[float], model: str = "own", answer: str = "the") -> list[Preference]:
    """One preference per prompt; 0 the reference is better, 1 the model."""
    return [
        Preference(n, f"Question {n}", "d", answer, "ref", model, model, "j", "", 1 + score)
        for n, score in enumerate(scores)
    ]


def drawn(rate: float, num_prompts: int = 400, seed: int = 0) -> list[float]:
    generator = np.random.default_rng(seed)
    return [float(each) for each in generator.random(num_prompts) < rate]


def test_a_model_that_wins_often_enough_is_better_than_the_reference():
    (told,) = standings({"own": judged(drawn(0.6))})
    assert told.verdict == "better"
    assert told.interval_95[0] > 0.5
    (told,) = standings({"own": judged(drawn(0.52))})
    assert told.verdict == "cannot tell yet"
    assert told.prompts_needed is not None
    assert told.prompts_needed > 400
    words = standings_text([told])
    assert words.startswith("Against the reference, on 400 prompts: whether own differs is not")
    assert f"; a gap of 3 points takes about {told.prompts_needed} prompts)" in words
    assert "One seed cannot show how much another training would differ." in words


def test_models_are_compared_prompt_by_prompt_so_that_small_gaps_show():
    """Two models that win on nearly the same prompts differ by less noise than either has."""
    first = drawn(0.5)
    second = [1.0 if n % 25 == 0 else score for n, score in enumerate(first)]
    _, _, between = standings({"first": judged(first), "second": judged(second)})
    assert (between.arm, between.over, between.verdict) == ("second", "first", "better")
    strangers = drawn(float(np.mean(second)), seed=1)
    _, _, unpaired = standings({"first": judged(first), "second": judged(strangers)})
    widths = [each.interval_95[1] - each.interval_95[0] for each in (between, unpaired)]
    assert widths[0] < widths[1] / 3


def test_all_comparisons_share_the_error_of_five_percent():
    told = standings({str(n): judged(drawn(0.55, seed=n)) for n in range(4)})
    assert len(told) == 7
    assert all(each.p_holm >= each.p_value for each in told)
    assert max(each.p_holm / each.p_value for each in told) == pytest.approx(7)


def test_only_prompts_that_all_have_verdicts_on_count():
    first, second = judged(drawn(0.6, 50)), judged(drawn(0.4, 30, seed=3))
    first[0] = first[0]._replace(preference=None)
    assert {each.num_prompts for each in standings({"a": first, "b": second})} == {29}


def test_repeated_prompts_are_one_piece_of_evidence():
    once = judged(drawn(0.6, 40))
    (alone,) = standings({"own": once})
    copies = [row._replace(item=row.item + 40 * k) for k in range(5) for row in once]
    (repeated,) = standings({"own": copies})
    assert repeated.num_prompts == 40
    assert repeated.p_value == pytest.approx(alone.p_value)


def test_a_repeated_prompt_counts_by_the_mean_of_its_verdicts():
    once = judged([1.0, 0.0] * 20)
    again = [row._replace(item=row.item + 40, preference=1.0) for row in once]
    (found,) = standings({"own": [*once, *again]})
    assert (found.num_prompts, found.win_rate) == (40, pytest.approx(0.25))


def test_models_with_different_references_or_prompts_are_refused():
    with pytest.raises(DataError, match=r"the reference's answers to 5 of 5 common prompts differ"):
        standings({"a": judged([1.0] * 5), "b": judged([1.0] * 5, answer="another")})
    other = [row._replace(dataset="other") for row in judged([1.0] * 5)]
    with pytest.raises(DataError, match=r"a, b: must share a prompt that has verdicts"):
        standings({"a": judged([1.0] * 5), "b": other})


def test_a_model_without_any_verdict_is_told_by_its_name():
    mute = [row._replace(preference=None) for row in judged([1.0] * 3)]
    with pytest.raises(JudgeError, match="b: at least one item must have a verdict, but none of 3"):
        standings({"a": judged([1.0] * 3), "b": mute})


def test_judging_that_stopped_early_has_no_verdict():
    part = [row._replace(num_items=400) for row in judged(drawn(0.8, 48))]
    with pytest.raises(DataError, match="own: judging stopped early, after 48 of 400 items"):
        standings({"own": part, "other": judged(drawn(0.6))})
    whole = [row._replace(num_items=48) for row in part]
    assert stopped_early(whole) == ""
    assert standings({"own": whole})[0].verdict == "better"


def test_files_are_named_by_the_shortest_ends_of_their_paths_that_differ():
    trials = [Path(f"runs/q/trials/{name}/preferences.jsonl") for name in ("000-none", "001-neft")]
    assert shortest_names(trials) == ["000-none/preferences.jsonl", "001-neft/preferences.jsonl"]
    assert shortest_names([*trials[:1]]) == ["preferences.jsonl"]
    assert shortest_names([Path("a/x/p"), Path("b/x/p"), Path("a/y/p")]) == [
        "a/x/p",
        "b/x/p",
        "a/y/p",
    ]
    assert shortest_names([Path("p"), Path("../p")]) == [f"{Path.cwd().name}/p", "../p"]
    with pytest.raises(UserError, match=r"each file must be given once, but a/\.\./p comes"):
        shortest_names([Path("p"), Path("q"), Path("./a/../p")])


def test_published_models_stand_in_the_order_of_their_published_rates(shared_data: Path):
    rows = {row["model"]: row for row in files(shared_data, "ae2")}
    strong, weak = "FuseChat-Llama-3.1-8B-Instruct", "alpaca-7b"
    told = standings({name: preferences(rows[name]) for name in (weak, strong)})
    assert [each.verdict for each in told] == ["worse", "better", "better"]
    gap = 2 * told[-1].win_rate - 1
    published = [rows[name]["published"]["win_rate"] / 100 for name in (strong, weak)]
    assert gap == pytest.approx(published[0] - published[1], abs=1e-3)


@pytest.fixture
def annotated(tmp_path: Path) -> Callable[[str, Sequence[float]], str]:
    """Writes a file in AlpacaEval's shape."""

    def write(name: str, scores: Sequence[float]) -> str:
        rows = [
            {"instruction": f"Q{n}", "output_1": "ref", "output_2": name, "preference": 1 + score}
            for n, score in enumerate(scores)
        ]
        (tmp_path / name).write_text(json.dumps(rows))
        return str(tmp_path / name)

    return write


def test_score_tells_the_verdict_of_one_file(
    annotated: Callable[..., str], capsys: pytest.CaptureFixture[str]
):
    file = annotated("one.json", drawn(0.7, 100))
    assert main(["score", file]) == 0
    assert "Against the reference, on 100 prompts: one.json is better" in capsys.readouterr().out
    assert main(["score", file, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "better"
    assert told["p_value"] < 0.05
    assert told["prompts_needed"] is None


def test_score_compares_several_files(
    annotated: Callable[..., str], capsys: pytest.CaptureFixture[str]
):
    one = annotated("one.json", [0.0] * 60 + [1.0] * 40)
    two = annotated("two.json", [0.0] * 30 + [1.0] * 70)
    assert main(["score", one, two]) == 0
    told = capsys.readouterr().out
    assert "two.json is better than one.json (+30.0 points in win rate, 95 % interval" in told
    assert main(["score", one, two, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scores"]["one.json"]["win_rate"] == 0.4
    (between,) = (each for each in told["comparisons"] if each["over"] == "one.json")
    assert between["difference"] == pytest.approx(0.3)
    assert between["interval_95"][0] < 0.3 < between["interval_95"][1]
    assert between["interval_95"][0] > 0


def test_score_refuses_one_file_twice(
    annotated: Callable[..., str], capsys: pytest.CaptureFixture[str]
):
    file = annotated("one.json", [1.0] * 3)
    assert main(["score", file, os.path.relpath(file)]) == 2
    error = capsys.readouterr().err
    assert "each file must be given once" in error
    assert error.count("\n") == 1


def test_score_gives_the_numbers_of_judging_that_stopped_early_but_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    part = [row._replace(num_items=805) for row in judged(drawn(0.8, 48))]
    write_lines(part, tmp_path / "part.jsonl")
    write_lines(judged(drawn(0.6)), tmp_path / "whole.jsonl")
    files = [str(tmp_path / "part.jsonl"), str(tmp_path / "whole.jsonl")]
    for given in (files[:1], files):
        assert main(["score", *given]) == 0
        told = capsys.readouterr().out
        assert "part.jsonl: judging stopped early, after 48 of 805 items" in told
        assert "judge.early=false" in told
        assert "is better" not in told
        assert ("[" in told) == (given == files), "intervals only of what was judged whole"
        assert "of 48 items: " in told
    assert main(["score", files[0], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stopped_early"] is True
    assert told["n_judged"] == told["n_total"] == 48
    assert told["win_rate"] > 0.6
    unknown = ("interval_95", "length_controlled_interval_95", "standard_error", "p_value")
    assert all(told[name] is None for name in (*unknown, "verdict", "prompts_needed"))
    assert main(["score", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparisons"] == []
    assert told["scores"]["part.jsonl"]["interval_95"] is None
    assert told["scores"]["whole.jsonl"]["interval_95"][0] > 0.5
    assert "stopped_early" not in told["scores"]["whole.jsonl"]
