"""What a sweep found is read from its files, whether it came to its end or not."""

import json
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import pytest

import symnoise_ray
from symnoise_ray.cli.main import main
from symnoise_ray.errors import DataError, UserError
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import RESULT, RESULTS, SWEEP, SweepPaths
from symnoise_ray.records.results import SweepResult, TrialResult, read_result
from symnoise_ray.records.verdict import Candidate, Choice, Comparison, Decision, Verdict

DONE = TrialResult(
    "001-symnoise",
    arm="symnoise",
    label="symnoise 5",
    params={"noise.type": "symnoise", "noise.alpha": 5.0},
    counts={"rows truncated": 2},
    seconds={"train": 1.5},
    values={"win_rate": 0.6, "interval_95": [0.5, 0.7], "clean_loss": 0.25},
)
FAILED = TrialResult(
    "002-gaussian",
    arm="gaussian",
    status="failed",
    kind="diverged",
    reason="the loss is nan",
    detail="Traceback ...",
)
COMPARISON = Comparison("symnoise", 0.6, (0.5, 0.7), 0.04, 0.08, 40, 3, "cannot tell yet")
DECISION = Decision("symnoise", "cannot tell yet", (COMPARISON,), looks=(3,), seeds_needed=8)
CHOICE = Choice(
    "symnoise", "001-symnoise", {"noise.alpha": 5.0}, "fit",
    (Candidate("001-symnoise", "alpha=5", 0.6, 0.05, 0.58, 0.04),), 0.02,
)  # fmt: skip


def sweep(directory: Path, **values: Any) -> SweepResult:
    return SweepResult(
        SweepPaths(directory), "small", "partial", Verdict("So it is.", 1, (DECISION,)),
        choices=(CHOICE,), departures=("part 2: more",), trials=(DONE, FAILED),
        seconds={"wall": 9.5}, by_phase={"train": 1.5},
        tracking_uri="sqlite:///mlflow.db", experiment="e", **values,
    )  # fmt: skip


def write_begun(directory: Path) -> None:
    """What a sweep writes before its first trial."""
    tracking = {"uri": None, "experiment": "symnoise_ray"}
    write_json({"name": "small", "tracking": tracking}, directory / SWEEP)


@pytest.mark.parametrize("trial", [DONE, FAILED], ids=lambda trial: trial.status)
def test_a_trial_is_read_as_it_was_written(trial: TrialResult, tmp_path: Path):
    assert read_result(tmp_path) is None
    write_json(trial.to_json(), tmp_path / RESULT)
    assert read_result(tmp_path) == trial


def test_a_trial_gives_what_was_measured_by_name():
    assert (DONE["clean_loss"], DONE.get("curvature")) == (0.25, None)
    assert (DONE.win_rate, DONE.interval_95, FAILED.win_rate) == (0.6, (0.5, 0.7), None)
    with pytest.raises(KeyError, match="curvature"):
        DONE["curvature"]


def test_results_cannot_be_changed():
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'status'"):
        DONE.status = "failed"  # type: ignore[misc]


def test_a_whole_sweep_is_loaded_as_it_was_written(tmp_path: Path):
    written = sweep(tmp_path)
    write_json(written.to_json(), tmp_path / RESULTS)
    loaded = symnoise_ray.load(tmp_path)
    assert loaded.verdict == written.verdict
    assert (loaded.choices, loaded.departures) == ((CHOICE,), ("part 2: more",))
    assert written.to_json()["schema_version"] == 2
    assert loaded.trials[0] == DONE
    assert loaded.trials[1].detail == "", "tracebacks stay in the trial's own file"
    assert loaded.to_json() == written.to_json()
    assert loaded.paths.trial("001-symnoise") == tmp_path / "trials" / "001-symnoise"


def test_results_of_an_earlier_version_have_comparisons_without_decisions(tmp_path: Path):
    content = sweep(tmp_path).to_json()
    old = {"sentence": "So it is.", "looks": 2, "comparisons": [asdict(COMPARISON)]}
    write_json(content | {"verdict": old}, tmp_path / RESULTS)
    verdict = symnoise_ray.load(tmp_path).verdict
    assert (verdict.sentence, verdict.looks) == ("So it is.", 2)
    assert verdict.comparisons == (COMPARISON,)
    assert [(each.arm, each.verdict) for each in verdict.decisions] == [
        ("symnoise", "cannot tell yet")
    ]


def test_a_verdict_is_decided_once_every_arm_is():
    better = Decision("neftune", "better", (COMPARISON,))
    assert Verdict(decisions=(better,)).is_decided
    assert not Verdict(decisions=(better, DECISION)).is_decided
    assert not Verdict().is_decided


def test_the_chosen_win_rate_is_the_fitted_one_where_there_is_a_fit():
    assert CHOICE.win_rate == 0.58
    raw = replace(CHOICE, candidates=(Candidate("001-symnoise", "alpha=5", 0.6, 0.05),))
    assert raw.win_rate == 0.6


def test_an_arm_is_ranked_by_the_better_three_quarters_of_its_trials():
    rates = (0.9, 0.5, 0.6, 0.1)
    tried = tuple(Candidate(f"{n:03d}", "", rate, 0.05) for n, rate in enumerate(rates))
    assert replace(CHOICE, candidates=tried).rank_rate == pytest.approx((0.9 + 0.6 + 0.5) / 3)
    assert replace(CHOICE, candidates=tried[:1]).rank_rate == 0.9


def test_a_sweep_without_its_end_is_loaded_with_the_trials_that_ended(tmp_path: Path):
    write_begun(tmp_path)
    for trial in (FAILED, DONE):
        write_json(trial.to_json(), tmp_path / "trials" / trial.trial / RESULT)
    (tmp_path / "trials" / "003-none").mkdir()
    loaded = symnoise_ray.load(str(tmp_path))
    assert loaded.status == "interrupted"
    assert loaded.trials == (DONE, FAILED)
    assert loaded.verdict.comparisons == ()
    assert "gives no verdict" in loaded.verdict.sentence
    assert loaded.tracking_uri == f"sqlite:///{tmp_path.parent / 'mlflow.db'}"


def test_a_sweep_without_its_end_knows_its_question(tmp_path: Path):
    question = {"treatment": "lora.rank", "reference": 8, "effect": 0.05, "population": "x"}
    tracking = {"uri": None, "experiment": "symnoise_ray"}
    content = {"name": "small", "tracking": tracking, "question": question}
    write_json(content, tmp_path / SWEEP)
    for trial in (replace(DONE, arm="rank-16"), replace(FAILED, arm="rank-8", is_reference=True)):
        write_json(trial.to_json(), tmp_path / "trials" / trial.trial / RESULT)
    verdict = symnoise_ray.load(str(tmp_path)).verdict
    assert (verdict.treatment, verdict.reference) == ("lora.rank", "rank-8")
    assert (verdict.effect, verdict.population) == (0.05, "x")
    assert verdict.sentence.startswith("The sweep was interrupted")


def test_a_verdict_from_before_the_newest_trials_is_not_given(tmp_path: Path):
    write_json(sweep(tmp_path).to_json(), tmp_path / RESULTS)
    newer = TrialResult("003-neftune", values={"win_rate": 0.5})
    write_json(newer.to_json(), tmp_path / "trials" / newer.trial / RESULT)
    loaded = symnoise_ray.load(tmp_path)
    assert [trial.trial for trial in loaded.trials] == [
        *(t.trial for t in (DONE, FAILED)),
        newer.trial,
    ]
    assert (loaded.status, loaded.comparisons) == ("interrupted", ())


def test_a_table_has_a_row_per_trial_and_a_column_per_value(tmp_path: Path):
    table = sweep(tmp_path).to_pandas().set_index("trial")
    assert list(table.index) == ["001-symnoise", "002-gaussian"]
    row = table.loc["001-symnoise"]
    assert (row["noise.alpha"], row["clean_loss"], row["seconds/train"]) == (5.0, 0.25, 1.5)
    assert (row["interval_95_low"], row["interval_95_high"]) == (0.5, 0.7)
    assert table.loc["002-gaussian", "reason"] == "the loss is nan"


def test_a_folder_without_a_sweep_and_a_broken_file_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"must be the directory of a sweep, but holds neither"):
        symnoise_ray.load(tmp_path)
    (tmp_path / RESULTS).write_text("{")
    with pytest.raises(DataError, match=r"results\.json: must be a readable JSON file"):
        symnoise_ray.load(tmp_path)


@pytest.mark.parametrize("verb", ["report", "sync", "verdict", "card"])
def test_results_that_were_lost_are_told_and_not_taken_for_an_interruption(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_begun(tmp_path)
    journal = {"kind": "file", "run": "small", "time_ms": 1, "path": RESULTS}
    (tmp_path / "journal.jsonl").write_text(json.dumps(journal) + "\n")
    before = sorted(tmp_path.iterdir())
    assert main([verb, str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told == (
        f"error: {tmp_path}/{RESULTS}: must be there, since the sweep has come to its end, but is "
        "gone; the command that ran the sweep writes it again with --resume\n"
    )
    assert sorted(tmp_path.iterdir()) == before
