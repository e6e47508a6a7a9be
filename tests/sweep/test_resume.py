"""Going on with a sweep: what may be different from its first part, and what must not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import JudgeConfig, SweepConfig
from symnoise_ray.errors import UserError
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.sweep import resume
from symnoise_ray.sweep.mend import mend
from symnoise_ray.sweep.resume import FREE, Past, begin

VALUES: dict[str, Any] = {
    "name": "again",
    "trial": {"train": {"num_epochs": 3}, "judge": {"type": "api", "model": "m", "max_calls": 10}},
    "parameters": {
        "noise.type": {"type": "categorical", "choices": ["symnoise", "neftune"]},
        "noise.alpha": {"type": "float", "low": 1, "high": 10},
    },
    "baselines": [{"noise.type": "none"}],
    "search": {"num_trials": 4},
    "confirm": {"arms": 1, "looks": [2]},
}
SEEDS: dict[str, Any] = {"files": {}}


def sweep(**changes: Any) -> SweepConfig:
    """The sweep with other values at dotted paths, `__` standing for the dot."""
    values = SweepConfig.model_validate(VALUES).model_dump(mode="json")
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = values
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = value
    return SweepConfig.model_validate(values)


def test_the_first_part_writes_what_it_is_and_later_ones_count_themselves(tmp_path: Path):
    assert begin(sweep(), tmp_path, {**SEEDS, "search_seed": 0}) == Past()
    lock = read_json(tmp_path / "run.lock.json")
    assert lock["search_seed"] == 0
    assert {"torch", "ray", "python"} <= set(lock["versions"])
    assert begin(sweep(), tmp_path, SEEDS) == Past(parts=1)
    assert begin(sweep(), tmp_path, SEEDS) == Past(parts=2)
    assert len(read_json(tmp_path / "run.lock.json")["resumed"]) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("workers__max_slots", 3),
        ("tracking__uri", "http://elsewhere"),
        ("trial__judge__max_calls", 500),
        ("trial__judge__concurrency", 2),
        ("search__num_trials", 9),
        ("confirm__looks", [2, 5]),
        ("confirm__arms", 2),
        ("parameters__noise.alpha", {"type": "float", "low": 2, "high": 5}),
    ],
)
def test_resources_limits_and_size_may_change(path: str, value: Any, tmp_path: Path):
    begin(sweep(), tmp_path, SEEDS)
    changed = sweep(**{path: value})
    begin(changed, tmp_path, SEEDS)
    (part,) = read_json(tmp_path / "run.lock.json")["resumed"]
    names = {path.replace("__", "."), *(f"parameters.noise.alpha.{end}" for end in ("low", "high"))}
    assert part["changed"]
    assert set(part["changed"]) <= names
    assert read_json(tmp_path / "sweep.json") == changed.model_dump(mode="json")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("name", "other", "name is again there and other here"),
        ("trial__train__num_epochs", 4, r"trial\.train\.num_epochs is 3 there and 4 here"),
        ("trial__train__max_steps", 9, r"trial\.train\.max_steps is None there and 9 here"),
        ("trial__judge__model", "n", r"trial\.judge\.model is m"),
        ("search__num_trials", 3, r"search\.num_trials is 4 there and 3 here"),
        ("search__sampler", "random", r"search\.sampler"),
        ("search__seed", 1, r"search\.seed"),
        ("confirm__arms", 0, r"confirm\.arms is 1"),
        ("confirm__looks", [3], r"confirm\.looks is \[2\] there and \[3\] here"),
        ("question__effect", 0.05, r"question\.effect is 0\.03 there"),
        ("question__reference", "neftune", r"question\.reference is none there"),
        ("baselines", [{"noise.type": "none", "optim.lr": 0.1}], "baselines is"),
        ("parameters__noise.alpha", {"type": "float", "low": 0.5, "high": 10}, r"alpha\.low is 1"),
        (
            "parameters__noise.type",
            {"type": "categorical", "choices": ["symnoise"]},
            r"noise\.type\.choices",
        ),
    ],
)
def test_what_decides_a_trials_numbers_may_not_change(
    path: str, value: Any, told: str, tmp_path: Path
):
    begin(sweep(), tmp_path, SEEDS)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UserError, match=rf"--resume goes on with the sweep .*{told}"):
        begin(sweep(**{path: value}), tmp_path, SEEDS)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_limits_that_may_change_are_settings():
    judge = [name.removeprefix("trial.judge.") for name in FREE if name.startswith("trial.judge.")]
    assert len(judge) > 10
    assert set(judge) <= set(JudgeConfig.model_fields)


def test_a_confirmation_cannot_be_added_since_its_prompts_were_not_held_back(tmp_path: Path):
    begin(sweep(confirm={"arms": 0}), tmp_path, SEEDS)
    with pytest.raises(UserError, match=r"confirm\.arms is 0 there and 1 here"):
        begin(sweep(confirm={"arms": 1}), tmp_path, SEEDS)


def test_a_sweep_of_a_version_that_did_not_know_a_setting_goes_on(tmp_path: Path):
    begin(sweep(), tmp_path, SEEDS)
    before = json.loads((tmp_path / "sweep.json").read_text())
    del before["search"]["opponents"]
    (tmp_path / "sweep.json").write_text(json.dumps(before))
    assert begin(sweep(), tmp_path, SEEDS).parts == 1
    part = json.loads((tmp_path / "run.lock.json").read_text())["resumed"][0]
    assert part["changed"] == {"search.opponents": [None, 4]}


def test_a_job_that_is_submitted_again_runs_in_another_copy_of_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number, digest in ((1, "a"), (2, "a"), (3, "b")):
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        monkeypatch.chdir(copy)
        config = sweep(trial__data={"train": [f"{copy}/rows.json"]})
        if digest == "a":
            seeds = {"files": {f"{copy}/rows.json": digest}}
            assert begin(config, tmp_path / "out", seeds) == Past(parts=number - 1)
        else:
            with pytest.raises(UserError, match=r"copy-3/rows\.json: must be as it was when"):
                begin(config, tmp_path / "out", {"files": {f"{copy}/rows.json": digest}})


def test_other_versions_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begin(sweep(), tmp_path, SEEDS)
    monkeypatch.setattr(resume.platform, "python_version", lambda: "9.9")
    (told,) = begin(sweep(), tmp_path, SEEDS).other_versions
    assert told.startswith("python 3.")
    assert told.endswith("-> 9.9")


@pytest.mark.parametrize("version", [1, 2])
def test_only_a_sweep_that_grows_after_a_verdict_takes_another_look(version: int, tmp_path: Path):
    told = Comparison("symnoise", 0.6, (0.5, 0.7), 0.04, 0.08, 40, 3, "cannot tell yet")
    verdict = (
        {"comparisons": [asdict(told)]}
        if version == 1
        else asdict(Verdict(decisions=(Decision("symnoise", "cannot tell yet", (told,)),)))
    )
    begin(sweep(), tmp_path, SEEDS)
    assert begin(sweep(search__num_trials=5), tmp_path, SEEDS).looks == 0, "no verdict yet"
    write_json({"verdict": verdict}, tmp_path / "results.json")
    assert begin(sweep(search__num_trials=5), tmp_path, SEEDS).looks == 0, "nothing grew"
    assert begin(sweep(search__num_trials=6), tmp_path, SEEDS).looks == 1
    assert begin(sweep(search__num_trials=7), tmp_path, SEEDS).looks == 1, "after the same verdict"
    write_json({"verdict": verdict, "parts": 5}, tmp_path / "results.json")
    assert begin(sweep(search__num_trials=7, confirm__looks=[2, 9]), tmp_path, SEEDS).looks == 2


@pytest.mark.parametrize("damage", ["", "[]", '{"verdict": 7}'])
def test_results_that_cannot_be_read_may_have_held_a_verdict(damage: str, tmp_path: Path):
    begin(sweep(), tmp_path, SEEDS)
    (tmp_path / "results.json").write_text(damage)
    assert begin(sweep(search__num_trials=5), tmp_path, SEEDS).looks == 1
    assert len(mend(tmp_path)) == 1, "it is set aside"
    assert begin(sweep(search__num_trials=6), tmp_path, SEEDS).looks == 1, "and not forgotten"


@pytest.mark.parametrize("name", ["sweep.json", "run.lock.json", "design.json", "confirm.json"])
@pytest.mark.parametrize("damage", ["", "{", "[]", "\x00"])
def test_what_nothing_else_could_tell_is_named_with_the_way_on(
    name: str, damage: str, tmp_path: Path
):
    begin(sweep(), tmp_path, SEEDS)
    (tmp_path / name).write_text(damage)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    told = rf"{name}: must be .*put a copy of it back, or start anew without --resume"
    with pytest.raises(UserError, match=told):
        begin(sweep(), tmp_path, SEEDS)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
