"""Verdicts are read from our files and AlpacaEval's, and from log-probabilities."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.errors import DataError
from symnoise_ray.judges.judging import is_switched
from symnoise_ray.judges.logprobs import log_probability_preference
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.preferences import Preference, read_annotations, verdict
from symnoise_ray.statistics.length_control import _GAMED_COLUMNS, read_gamed

ROW: dict[str, Any] = {
    "instruction": "Name a colour.",
    "output_1": "red",
    "generator_1": "davinci",
    "dataset": "koala",
    "output_2": "green",
    "generator_2": "ours",
    "annotator": "alpaca_eval_gpt4",
    "raw_completion": "M",
}


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_annotations_of_alpaca_eval_are_read_as_they_are(tmp_path: Path) -> None:
    values = [1, 2.0, 1.25, 0, 1.5, None, -1, math.nan, 7]
    rows = [{**ROW, "preference": value, "price_per_example": 0.1} for value in values]
    read = read_annotations(write(tmp_path / "annotations.json", rows))
    assert [p.preference for p in read] == [1, 2, 1.25, 1.5, 1.5, None, None, None, None]
    assert [p.item for p in read] == list(range(9)), "a repeated prompt is an item of its own"
    assert read[0].generator_1 == "davinci"
    assert read[0].dataset == "koala"


def test_our_own_preferences_are_read_back(tmp_path: Path) -> None:
    texts = ("Say so.", "", "a\u2028b", "plain", "c", "noisy", "reference")
    written = [
        Preference(item, *texts, order, value)
        for item in (4, 2)
        for order, value in (("reference first", 1.5), ("trial first", None))
    ]
    write_lines(written, tmp_path / "preferences.jsonl")
    assert read_annotations(tmp_path / "preferences.jsonl") == written


def test_rows_of_alpaca_eval_may_stand_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({**ROW, "preference": value}) for value in (1, 2)))
    assert [(p.item, p.preference) for p in read_annotations(path)] == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "at least one preference"),
        ([{**ROW}], "entry 1: must have instruction, output_1, output_2 and preference"),
        ([{**ROW, "preference": 1}, "?"], "entry 2: must have"),
        ([{**ROW, "preference": 1, "output_1": None}], "entry 1: .* must be text"),
        ([{**ROW, "preference": "2"}], "entry 1: preference must be a number, but is '2'"),
        ([{**ROW, "preference": True}], "entry 1: preference must be a number, but is True"),
        ([{**ROW, "preference": 1, "item": "a"}], "entry 1: item must be a whole number"),
        ([{**ROW, "preference": 1, "num_items": 1.5}], "entry 1: num_items must be a whole number"),
    ],
)
def test_a_row_that_is_no_verdict_is_refused(tmp_path: Path, rows: list[object], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_annotations(write(tmp_path / "annotations.json", rows))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be readable preferences"):
        read_annotations(tmp_path / "missing.json")
    for broken in ("[{", "[" * 100_000, '{"a":' * 100_000):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(DataError, match="must be readable preferences"):
            read_annotations(tmp_path / "broken.json")


OURS = {**ROW, "item": 0, "order": "reference first", "preference": 2}


@pytest.mark.parametrize("changed", [{}, {"preference": 1}, {"order": "", "preference": 1}])
def test_a_verdict_that_comes_twice_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    first = {**OURS, "order": changed.get("order", OURS["order"])}
    rows = [first, {**OURS, "item": 1}, {**first, **changed}]
    with pytest.raises(DataError, match=r"entry 3: item 0 .* must come once, .* in entry 1"):
        read_annotations(write(tmp_path / "twice.json", rows))


@pytest.mark.parametrize("name", ["instruction", "output_1", "output_2", "dataset", "generator_2"])
def test_an_item_that_is_another_in_its_other_order_is_refused(tmp_path: Path, name: str) -> None:
    rows = [OURS, {**OURS, "order": "trial first", name: "another"}]
    with pytest.raises(DataError, match=rf"entry 2: item 0 must have the {name} of entry 1"):
        read_annotations(write(tmp_path / "two.json", rows))


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([{"generator_2": "theirs"}], "generator_2 is 'ours', 'theirs'; .* by generator_2"),
        ([{"generator_1": "gpt4"}], "generator_1 is 'davinci', 'gpt4'; .* by generator_1"),
        (
            [{"generator_1": "ours", "generator_2": "davinci"}],
            "generator_2 is 'ours', 'davinci'; split",
        ),
        (
            [{"generator_2": f"model {n}"} for n in range(9)],
            "generator_2 is 'ours', 'model 0', 'model 1' and 7 more; split",
        ),
    ],
    ids=["models", "references", "both orders", "many"],
)
def test_several_models_in_one_file_of_alpaca_eval_are_refused(
    tmp_path: Path, others: list[dict[str, Any]], told: str
) -> None:
    rows = [{**ROW, "preference": 2}, *({**ROW, "preference": 1, **other} for other in others)]
    path = write(tmp_path / "several.json", rows)
    with pytest.raises(DataError, match=rf"several\.json: .* one model against one .* {told}"):
        read_annotations(path)


def test_answers_whose_generators_are_not_told_are_those_of_one_model(tmp_path: Path) -> None:
    unnamed = {name: value for name, value in ROW.items() if not name.startswith("generator")}
    rows = [{**row, "preference": 2} for row in (ROW, unnamed, {**ROW, "generator_1": None})]
    assert len(read_annotations(write(tmp_path / "some.json", rows))) == 3
    assert len(read_annotations(write(tmp_path / "none.json", rows[1:2] * 2))) == 2


def test_where_rows_have_an_item_each_may_have_a_reference_of_its_own(tmp_path: Path) -> None:
    """As answers that several people wrote: the items say that it is one set."""
    rows = [OURS, {**OURS, "item": 1, "generator_1": "another author"}]
    assert len(read_annotations(write(tmp_path / "authors.json", rows))) == 2


def test_a_score_names_both_sides_where_they_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**ROW, "preference": value} for value in (1, 2, 2)]
    named = str(write(tmp_path / "named.json", rows))
    turned = {"generator_1": "ours", "generator_2": "davinci"}
    reversed_ = str(write(tmp_path / "reversed.json", [{**row, **turned} for row in rows]))
    unnamed = str(write(tmp_path / "unnamed.json", [{**row, "generator_1": ""} for row in rows]))

    def told(*arguments: str) -> str:
        assert main(["score", *arguments]) == 0
        return capsys.readouterr().out

    assert told(named).splitlines()[0] == "generator_2 'ours' against generator_1 'davinci'"
    assert told(reversed_).splitlines()[0] == "generator_2 'davinci' against generator_1 'ours'"
    assert "generator" not in told(unnamed)
    several = told(named, unnamed)
    assert several.count("generator_2 'ours' against generator_1 'davinci'\n") == 1
    for path, sides in ((named, ("ours", "davinci")), (unnamed, ("ours", None))):
        score = json.loads(told(path, "--json"))
        assert (score["generator"], score["reference"]) == sides
        assert score["n_total"] == 3
    scores = json.loads(told(named, unnamed, "--json"))["scores"]
    assert [score["generator"] for score in scores.values()] == ["ours", "ours"]


def test_judging_that_stopped_early_says_how_many_items_there_are(tmp_path: Path) -> None:
    texts = ("Say so.", "", "a", "plain", "b", "noisy", "judge", "reference first")
    stopped = [Preference(item, *texts, 2.0, num_items=805) for item in (3, 8)]
    write_lines(stopped, tmp_path / "preferences.jsonl")
    assert read_annotations(tmp_path / "preferences.jsonl") == stopped
    whole = [preference._replace(num_items=0) for preference in stopped]
    write_lines(whole, tmp_path / "preferences.jsonl")
    assert "num_items" not in (tmp_path / "preferences.jsonl").read_text()
    assert read_annotations(tmp_path / "preferences.jsonl") == whole


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (0, 1.5),
        (1, 1.0),
        (1.0001, 1.0001),
        (2, 2.0),
        (2.0001, None),
        (0.5, None),
        (math.inf, None),
        pytest.param(10**400, None, id="huge"),
        pytest.param(-(10**400), None, id="hugely negative"),
    ],
)
def test_an_old_tie_is_a_tie_and_what_is_outside_is_none(stored: float, read: float | None) -> None:
    assert verdict(stored) == read


# Log-probabilities


def test_a_preference_is_the_expectation_of_the_verdict() -> None:
    prefer = log_probability_preference
    assert prefer(math.log(0.3), math.log(0.6)) == pytest.approx(2 - 0.3 / 0.9)
    assert prefer(math.log(0.3), math.log(0.6), switched=True) == pytest.approx(1 + 0.3 / 0.9)
    assert prefer(-1.0, -1.0) == 1.5


def test_a_token_that_is_missing_never_comes() -> None:
    assert log_probability_preference(-0.1, None) == 1.0
    assert log_probability_preference(None, -0.1) == 2.0
    assert log_probability_preference(None, -0.1, switched=True) == 1.0
    assert log_probability_preference(None, None) is None
    assert log_probability_preference(-5000.0, 0.0) == 2.0


def test_the_order_is_a_fair_function_of_the_prompt_and_the_seed() -> None:
    prompts = [f"question {number}" for number in range(2000)]
    switched = [is_switched(prompt) for prompt in prompts]
    assert switched == [is_switched(prompt) for prompt in prompts]
    assert 900 < sum(switched) < 1100
    assert switched != [is_switched(prompt, seed=1) for prompt in prompts]


# AlpacaEval's gamed rows


def test_gamed_rows_are_read_with_each_prompts_difficulty(tmp_path: Path) -> None:
    path = tmp_path / "df_gamed.csv"
    path.write_text(
        "model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
        "verbose,0,0.75,-1.5,0.25,False\nverbose,1,0.5,-2,-0.5,False\nconcise,0,0.1,1,0.25,False\n"
        "concise,1,0.2,0.5,-0.5,False\n"
    )
    difficulty, gamed = read_gamed(path)
    assert difficulty.tolist() == [0.25, -0.5]
    assert gamed.scores.tolist() == [0.75, 0.5, 0.1, 0.2]
    assert gamed.std_deltas.tolist() == [-1.5, -2, 1, 0.5]
    assert np.array_equal(gamed.difficulty, [0.25, -0.5, 0.25, -0.5])


@pytest.mark.parametrize(
    "text", ["", "index,preference\n0,1\n", "index\n", "PK\x00", f'index,"{"x" * 200_000}"\n']
)
def test_another_file_is_not_taken_for_the_gamed_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(DataError, match=r"other\.csv: must (be Alpaca|hold at least one)"):
        read_gamed(tmp_path / "other.csv")


@pytest.mark.parametrize("row", ["0,7,1,0", "0,-1,1,0", "0,nan,1,0", "0,0.5,inf,0", "0,0.5,1,nan"])
def test_gamed_rows_outside_their_range_are_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "gamed.csv").write_text(f"{','.join(_GAMED_COLUMNS)}\n1,0.5,1,0.1\n{row}\n")
    with pytest.raises(DataError, match=r"gamed\.csv row 2: must have .* within 0 to 1"):
        read_gamed(tmp_path / "gamed.csv")


@pytest.mark.parametrize("index", ["0.2", "nan", "1e400"])
def test_gamed_rows_need_the_number_of_their_prompt(tmp_path: Path, index: str) -> None:
    (tmp_path / "gamed.csv").write_text(f"{','.join(_GAMED_COLUMNS)}\n{index},0.5,1,0.1\n")
    with pytest.raises(DataError, match=r"gamed\.csv row 1: must have a whole index"):
        read_gamed(tmp_path / "gamed.csv")
