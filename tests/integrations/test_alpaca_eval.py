"""`symnoise-ray export --to alpaca_eval`: a sweep's answers and verdicts as AlpacaEval's own files.

They are read by our own verbs and by AlpacaEval's own leaderboard, with the same win rates.
"""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.errors import EXIT_OK, EXIT_USER
from symnoise_ray.integrations.alpaca_eval import ANNOTATION, annotation_rows
from symnoise_ray.judges.alpaca_eval import load_package
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import judge_all
from symnoise_ray.judges.protocol import Judge
from symnoise_ray.judges.reference import ReferenceJudge
from symnoise_ray.records.completions import Completion, read_completions
from symnoise_ray.records.files import read_json, write_json, write_lines
from symnoise_ray.records.layout import (
    COMPLETIONS,
    PREFERENCES,
    RESULTS,
    SWEEP,
    SweepPaths,
    preferences_against,
    trial_directory,
)
from symnoise_ray.records.preferences import Preference, read_annotations
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.statistics.win_rate import win_rate
from tests.servers.alpaca_eval import ANNOTATOR, annotating
from tests.servers.endpoint import Endpoint, serving

GOLD = ["one", "two", "three", "four", "five"]
ANSWERS = {
    "000-none": ["one", "t", "three", "f", "fi"],
    "001-symnoise": ["o", "two", "thre", "fo", "five"],
    "confirm-none-seed1000": ["one", "too", "tree", "fir", "fives"],
    "confirm-none-seed1000-setting2": ["on", "to", "trees", "fire", "five"],
    "confirm-none-seed1001": ["one", "tw", "three", "f", "six"],
    "confirm-symnoise-seed1000": ["one", "two", "thr", "four", "v"],
    "confirm-symnoise-seed1001": ["on", "two", "three", "fo", "fiv"],
}
"""Answers of the trials of a sweep to its prompts."""
MET = [
    ("000-none", "000-none"),
    ("001-symnoise", "000-none"),
    ("confirm-none-seed1000", "confirm-none-seed1000"),
    ("confirm-none-seed1000-setting2", "confirm-none-seed1000"),
    ("confirm-none-seed1001", "confirm-none-seed1001"),
    ("confirm-symnoise-seed1000", "confirm-none-seed1000"),
    ("confirm-symnoise-seed1000", "confirm-none-seed1000-setting2"),
    ("confirm-symnoise-seed1001", "confirm-none-seed1001"),
]
"""Trials, and what each was judged against; the first of several is its usual opponent."""


def answers(trial: str) -> list[Completion]:
    given = zip(ANSWERS[trial], GOLD, strict=True)
    return [Completion(f"Say {gold}.", text, trial, "saying", gold) for text, gold in given]


def write(directory: Path, judge: Judge | None = None) -> Path:
    """A finished sweep, judged by nearness to the right answer or by the given judge."""
    usual: dict[str, float] = {}
    for trial, other in MET:
        place = trial_directory(directory, trial)
        write_lines(answers(trial), place / COMPLETIONS)
        judged = judge_all(judge or ReferenceJudge(), answers(trial), answers(other))
        name = preferences_against(other) if trial in usual else PREFERENCES
        write_lines(judged.preferences, place / name)
        usual.setdefault(trial, win_rate(judged.preferences).win_rate)
    trials = [
        TrialResult(
            name,
            "confirm" if "confirm" in name else "search",
            arm=name.split("-")[1],
            values={"win_rate": rate},
        )
        for name, rate in usual.items()
    ]
    stopped = TrialResult("002-symnoise", arm="symnoise", status="stopped")
    found = SweepResult(SweepPaths(directory), "small", "whole", trials=(*trials, stopped))
    write_json(SweepConfig(name="small").model_dump(mode="json"), directory / SWEEP)
    write_json(found.to_json(), directory / RESULTS)
    return directory


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a finished sweep."""
    return write(tmp_path / "sweep")


def exported(directory: Path, *words: str) -> Path:
    """The folder that the command writes."""
    folder = directory.parent / "alpaca"
    command = ["export", str(directory), "--to", "alpaca_eval", *words, "--output", str(folder)]
    assert main(command) == EXIT_OK
    return folder


def results(folder: Path) -> list[tuple[str, str]]:
    """Trial and reference of every model_outputs.json."""
    found = (
        path.relative_to(folder).parts for path in folder.glob("*/results/*/model_outputs.json")
    )
    return sorted((trial, reference) for reference, _, trial, _ in found)


# What is written


def test_every_confirmed_trial_lies_with_what_it_was_compared_with(finished: Path) -> None:
    folder = exported(finished)
    assert results(folder) == [pair for pair in MET if "confirm" in pair[0]]
    place = folder / "confirm-none-seed1000" / "results" / "confirm-symnoise-seed1000"
    assert read_json(place / "model_outputs.json")[0] == {
        "dataset": "saying",
        "instruction": "Say one.",
        "output": "one",
        "generator": "confirm-symnoise-seed1000",
    }
    outputs = read_json(folder / "confirm-none-seed1000-setting2" / "reference_outputs.json")
    assert [row["output"] for row in outputs] == ANSWERS["confirm-none-seed1000-setting2"]
    assert {row["generator"] for row in outputs} == {"confirm-none-seed1000-setting2"}


def test_the_trials_of_the_search_come_when_asked_for(finished: Path) -> None:
    assert results(exported(finished, "--all")) == MET


def test_one_arm_alone_is_written_when_asked_for(finished: Path) -> None:
    found = results(exported(finished, "--arm", "symnoise"))
    assert found == [pair for pair in MET if pair[0].startswith("confirm-symnoise")]


def preference(item: int, order: str, value: float | None, num_items: int = 0) -> Preference:
    texts = (f"Say {item}.", "", "a", "plain", "b", "trial", "judge", order)
    return Preference(item, *texts, value, num_items)


def test_an_item_in_two_orders_is_one_row_with_the_mean_of_both() -> None:
    values = {0: (2.0, 1.0), 1: (1.25, 1.5), 2: (2.0, None)}
    both = [
        preference(item, order, value)
        for item, given in values.items()
        for order, value in zip(("reference first", "trial first"), given, strict=True)
    ]
    rows = annotation_rows(both)
    assert [row["preference"] for row in rows] == [1.5, 1.375, None]
    assert [tuple(row) for row in rows] == [ANNOTATION] * 3


def test_an_item_in_one_order_keeps_its_preference() -> None:
    rows = annotation_rows(
        [preference(0, "trial first", 1.7), preference(1, "reference first", None)]
    )
    assert [row["preference"] for row in rows] == [pytest.approx(1.7, abs=1e-12), None]


def test_judging_that_stopped_early_is_not_taken_for_a_whole_set(tmp_path: Path) -> None:
    rows = annotation_rows([preference(item, "trial first", 2.0, num_items=9) for item in range(4)])
    write_json(rows, tmp_path / "annotations.json")
    assert {each.num_items for each in read_annotations(tmp_path / "annotations.json")} == {9}


def test_a_name_that_is_no_folder_becomes_one(finished: Path) -> None:
    place = trial_directory(finished, "confirm-symnoise-seed1001") / PREFERENCES
    rows = [
        each._replace(annotator="org/judge", generator_1="../up")
        for each in read_annotations(place)
    ]
    write_lines(rows, place)
    folder = exported(finished, "--arm", "symnoise")
    below = folder / "_up" / "results" / "confirm-symnoise-seed1001" / "org_judge"
    assert {row["annotator"] for row in read_json(below / "annotations.json")} == {"org/judge"}


# What reads it: our own verbs


def score(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["score", str(path), "--json"]) == EXIT_OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_score_finds_the_win_rate_of_every_trial(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(finished, "--all")
    known = {row["trial"]: row.get("win_rate") for row in read_json(finished / RESULTS)["trials"]}
    rates = set()
    for trial, reference in dict(reversed(MET)).items():
        place = folder / reference / "results" / trial / ReferenceJudge.name / "annotations.json"
        found = score(place, capsys)
        assert found["win_rate"] == pytest.approx(known[trial], abs=1e-12)
        assert (found["generator"], found["reference"]) == (trial, reference)
        assert found["n_total"] == len(GOLD)
        rates.add(found["win_rate"])
    assert len(rates) > 3, "trials with one win rate would show little"


def test_judge_reads_the_outputs(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(finished) / "confirm-none-seed1000"
    own = folder / "results" / "confirm-symnoise-seed1000" / "model_outputs.json"
    monkeypatch.setenv("SYMNOISE_TEST_JUDGE_KEY", "sk-canary-51e0c7")
    with serving() as running:
        words = ["judge.type=api", "judge.model=judge", f"judge.base_url={running.url}"]
        words += ["judge.api_key_env=SYMNOISE_TEST_JUDGE_KEY", "judge.self_check=false"]
        files = ["--reference", str(folder / "reference_outputs.json")]
        files += ["--output", str(tmp_path / "again.jsonl")]
        assert main(["judge", str(own), *files, *words]) == EXIT_OK
    again = read_annotations(tmp_path / "again.jsonl")
    assert [p.output_2 for p in again[::2]] == ANSWERS["confirm-symnoise-seed1000"]
    assert [p.output_1 for p in again[::2]] == ANSWERS["confirm-none-seed1000"]


# What reads it: AlpacaEval itself


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with annotating(monkeypatch) as running:
        yield running


def leaderboard(folder: Path, work: Path) -> dict[str, dict[str, Any]]:
    """AlpacaEval's leaderboard of all that met one reference, from the verdicts as they are."""
    load_package()
    from alpaca_eval.main import make_leaderboard

    for outputs in sorted(folder.glob("results/*/model_outputs.json")):
        known = shutil.copy(outputs.parent / ANNOTATOR / "annotations.json", work / "known.json")
        board, _ = make_leaderboard(
            leaderboard_path=work / "leaderboard.csv",
            annotators_config=ANNOTATOR,
            all_model_outputs=outputs,
            reference_outputs=folder / "reference_outputs.json",
            is_return_instead_of_print=True,
            fn_metric="get_winrate",
            sort_by="win_rate",
            output_path=None,
            caching_path=known,
        )
    found: dict[str, dict[str, Any]] = board.to_dict(orient="index")
    return found


@pytest.mark.skipif(
    importlib.util.find_spec("alpaca_eval") is None, reason="the extra alpaca-eval is not installed"
)
def test_alpaca_evals_own_leaderboard_has_the_win_rates_of_the_sweep(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    config = JudgeConfig(type="alpaca_eval", model=ANNOTATOR)
    directory = write(tmp_path / "sweep", make_judge(config, tmp_path))
    reference = "confirm-none-seed1000"
    folder = exported(directory) / reference
    asked = len(endpoint.requests)
    assert asked > 20
    board = leaderboard(folder, tmp_path)
    assert len(endpoint.requests) == asked, "the verdicts were there"
    assert set(board) == {trial for trial, other in MET if other == reference}
    for trial, row in board.items():
        ours = win_rate(read_annotations(trial_directory(directory, trial) / PREFERENCES))
        assert row["win_rate"] == pytest.approx(100 * ours.win_rate, abs=1e-9)
        assert row["standard_error"] == pytest.approx(100 * ours.standard_error, abs=1e-9)
        counts = (ours.n_total, ours.n_wins, ours.n_wins_reference, ours.n_draws)
        names = ("n_total", "n_wins", "n_wins_base", "n_draws")
        assert tuple(row[name] for name in names) == counts
    assert len({row["win_rate"] for row in board.values()}) == 3


# What is refused


def refused(directory: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a refusal, which creates nothing."""
    before = sorted(directory.parent.rglob("*"))
    given = words if "--output" in words else (*words, "--output", str(directory.parent / "new"))
    command = ["export", str(directory), "--to", "alpaca_eval", *given]
    assert main(command) == EXIT_USER
    assert sorted(directory.parent.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_folder_that_holds_something_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for there, came in ((finished, f"holds {RESULTS}"), (finished / SWEEP, "is a file")):
        line = refused(finished, capsys, "--output", str(there))
        assert line == (
            f"error: --output {there}: must be a new or an empty folder, but {came}; name another "
            "one"
        )


def test_a_sweep_that_did_not_come_to_its_end_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "must be the directory of a sweep" in refused(finished / "absent", capsys)
    (finished / RESULTS).unlink()
    line = refused(finished, capsys)
    assert "must be a sweep that has come to its end, but it was interrupted or runs now" in line


def test_a_sweep_without_a_confirmation_asks_for_its_search(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_json(finished / RESULTS)
    found["trials"] = [row for row in found["trials"] if row["part"] == "search"]
    write_json(found, finished / RESULTS)
    for name in {trial for trial, _ in MET if "confirm" in trial}:
        shutil.rmtree(trial_directory(finished, name))
    line = refused(finished, capsys)
    assert line.endswith("of the confirmation, but has none; give --all for those of the search")
    assert len(results(exported(finished, "--all"))) == 2


def test_an_arm_that_is_not_there_is_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(finished, capsys, "--arm", "neftune")
    assert line.endswith("--arm must be one of none, symnoise, but got 'neftune'")


def test_prompts_that_alpaca_eval_has_no_form_for_are_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trial_directory(finished, "confirm-none-seed1001") / COMPLETIONS
    first, second, *rest = read_completions(path)
    write_lines([first, second._replace(turns=(("Hello.", "Yes?"),)), *rest], path)
    assert refused(finished, capsys) == (
        "error: --to alpaca_eval: every prompt must be a single request, as in AlpacaEval, but "
        "'Say two.' of confirm-none-seed1001 is the end of a conversation"
    )
    write_lines([first, first, *rest], path)
    assert refused(finished, capsys) == (
        "error: --to alpaca_eval: every instruction must come once, since AlpacaEval joins answers "
        "by it, but 'Say one.' comes 2 times in confirm-none-seed1001"
    )


def test_a_folder_must_be_named_and_trainers_know_no_search(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(finished), "--to", "alpaca_eval"]) == EXIT_USER
    assert "so --output must name one" in capsys.readouterr().err
    assert main(["export", str(finished), "--to", "trl", "--all"]) == EXIT_USER
    assert "--all has a meaning for --to alpaca_eval only" in capsys.readouterr().err
