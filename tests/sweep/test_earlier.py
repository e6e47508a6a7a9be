"""What earlier sweeps of a folder have confirmed on, read from whatever lies there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import DataConfig, SweepConfig
from symnoise_ray.records.files import write_json
from symnoise_ray.sweep.earlier import used_prompts, used_seeds
from symnoise_ray.sweep.resume import begin

FILES = {"/data/prompts.jsonl": "aa", "/data/train.jsonl": "bb"}
HELD = DataConfig(train="/data/train.jsonl", eval_prompts="/data/prompts.jsonl")


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., Path]:
    """Makes a sweep as one leaves it: what it is, and directories of trials."""

    def make(
        name: str,
        seeds: tuple[int, ...] = (1000,),
        files: dict[str, str] | None = None,
        **data: Any,
    ) -> Path:
        directory = tmp_path / "runs" / name
        arms = ("none", "symnoise")
        for trial in ["000-none", *(f"confirm-{arm}-seed{n}" for arm in arms for n in seeds)]:
            (directory / "trials" / trial).mkdir(parents=True)
        sweep = SweepConfig(name="again", trial={"data": data}, baselines=({"noise.type": "none"},))
        begin(sweep, directory, {"files": files or {}})
        return directory

    return make


def prompts_file(path: Any, **settings: Any) -> dict[str, Any]:
    """The data of a sweep on prompts of a file."""
    return {"train": "/data/train.jsonl", "eval_prompts": path, **settings}


# Seeds


def test_seeds_are_those_that_other_sweeps_have_confirmed_on(earlier: Callable[..., Path]) -> None:
    own = earlier("quickstart-3", (3000,))
    earlier("quickstart", (1000, 1001))
    earlier("other", (2000,))
    earlier("searched", ())
    assert used_seeds(own.parent, own) == {1000, 1001, 2000}


def test_a_second_choice_counts_and_a_searched_trial_does_not(earlier: Callable[..., Path]) -> None:
    sweep = earlier("quickstart", ())
    for name in ("confirm-symnoise-seed1007-choice2", "004-seed8", "confirm-seed9", "seed10"):
        (sweep / "trials" / name).mkdir()
    assert used_seeds(sweep.parent, sweep.parent / "mine") == {1007}


def test_the_sweep_that_asks_is_known_by_any_of_its_paths(
    earlier: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = earlier("mine")
    monkeypatch.chdir(own.parent)
    assert used_seeds(Path(), Path("mine")) == set()
    assert used_seeds(own.parent, Path("../runs/mine")) == set()


def test_what_is_no_sweep_is_passed_over(earlier: Callable[..., Path]) -> None:
    runs = earlier("whole").parent
    (runs / "mlflow.db").write_text("")
    (runs / "foreign" / "trials" / "confirm-none-seed7").mkdir(parents=True)
    (runs / "without-trials").mkdir()
    (runs / "without-trials" / "sweep.json").write_text("{}")
    (runs / "odd" / "sweep.json").mkdir(parents=True)
    (runs / "dangling").symlink_to(runs / "gone")
    (runs / "circle").symlink_to(runs / "circle")
    assert used_seeds(runs, runs / "mine") == {1000}
    assert used_seeds(runs / "absent", runs / "absent" / "mine") == set()


def test_a_sweep_with_broken_files_still_tells_its_seeds(earlier: Callable[..., Path]) -> None:
    directory = earlier("broken")
    (directory / "sweep.json").write_text('{"name": ')
    assert used_seeds(directory.parent, directory.parent / "mine") == {1000}


# Prompts


def test_sweeps_that_confirmed_on_the_same_prompts_are_named(earlier: Callable[..., Path]) -> None:
    same = prompts_file("/data/prompts.jsonl")
    runs = earlier("quickstart-2", files=FILES, **same).parent
    earlier("quickstart", files=FILES, **same)
    earlier("only-searched", (), files=FILES, **same)
    earlier("elsewhere", files={"/data/more.jsonl": "cc"}, **prompts_file("/data/more.jsonl"))
    earlier("demo")
    assert used_prompts(runs, runs / "mine", HELD, FILES) == ["quickstart", "quickstart-2"]
    assert used_prompts(runs, runs / "quickstart", HELD, FILES) == ["quickstart-2"]
    assert used_prompts(runs, runs / "mine", DataConfig(), {}) == ["demo"]


@pytest.mark.parametrize(
    ("data", "files", "same"),
    [
        (prompts_file("/copy/p.json"), {"/copy/p.json": "aa"}, True),
        (prompts_file("/data/prompts.jsonl"), {"/data/prompts.jsonl": "dd"}, False),
        (prompts_file("/data/prompts.jsonl"), {}, True),
        (prompts_file("/data/prompts.jsonl", confirm_share=0.5), FILES, True),
        (prompts_file("/data/prompts.jsonl", confirm_prompts="held_back"), FILES, True),
        (
            prompts_file("/data/prompts.jsonl", confirm_prompts="/data/own.jsonl"),
            {**FILES, "/data/own.jsonl": "ee"},
            False,
        ),
        (
            prompts_file("/data/e.jsonl", confirm_prompts="/data/prompts.jsonl"),
            {**FILES, "/data/e.jsonl": "ee"},
            True,
        ),
        (prompts_file("/folder"), {"/folder/a.json": "aa", "/folder/b.json": "ff"}, True),
        (prompts_file("/folder"), {"/folder-2/a.json": "aa"}, False),
        (prompts_file({"name": "/data/prompts.jsonl"}), FILES, True),
        (prompts_file({"name": "/data/prompts.jsonl", "split": "test"}), FILES, False),
    ],
    ids=[
        *("a copy", "edited", "not known", "another share", "said"),
        *("a file of its own", "the file of its own", "in a folder", "in another folder"),
        *("named with its parts", "another split"),
    ],
)
def test_prompts_are_the_same_if_their_contents_are(
    earlier: Callable[..., Path], data: dict[str, Any], files: dict[str, str], same: bool
) -> None:
    runs = earlier("before", files=files, **data).parent
    assert used_prompts(runs, runs / "mine", HELD, FILES) == (["before"] if same else [])


def test_a_data_set_of_the_hub_is_known_by_its_name(earlier: Callable[..., Path]) -> None:
    runs = earlier("before", **prompts_file("org/questions")).parent
    for name, found in (("org/questions", ["before"]), ("org/others", [])):
        data = DataConfig(train="/data/train.jsonl", eval_prompts=name)
        assert used_prompts(runs, runs / "mine", data, {}) == found


def test_files_below_the_working_directory_are_found(earlier: Callable[..., Path]) -> None:
    """run.lock.json names them without it, since that of a job is another copy each time."""
    here = f"{Path.cwd()}/p.jsonl"
    runs = earlier("before", files={here: "aa"}, **prompts_file(here)).parent
    assert used_prompts(runs, runs / "mine", HELD, FILES) == ["before"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sweep.json", '{"name": '),
        ("sweep.json", "[]"),
        ("sweep.json", "{}"),
        ("sweep.json", '{"trial": {"data": {"eval_prompts": 7}}}'),
        ("sweep.json", '{"trial": 3}'),
    ],
)
def test_a_broken_sweep_is_passed_over(earlier: Callable[..., Path], name: str, text: str) -> None:
    directory = earlier("broken")
    (directory / name).write_text(text)
    runs = directory.parent
    assert used_prompts(runs, runs / "mine", HELD, FILES) == []
    assert used_prompts(runs, runs / "mine", DataConfig(), {}) == []


@pytest.mark.parametrize("text", ['{"files": ', "[]", '{"files": [1], "directory": 3}', None])
def test_without_digests_the_name_of_the_file_decides(
    earlier: Callable[..., Path], text: str | None
) -> None:
    directory = earlier("before", files=FILES, **prompts_file("/data/prompts.jsonl"))
    lock = directory / "run.lock.json"
    lock.unlink() if text is None else lock.write_text(text)
    assert used_prompts(directory.parent, directory.parent / "mine", HELD, FILES) == ["before"]


def test_a_sweep_of_an_older_form_is_understood(earlier: Callable[..., Path]) -> None:
    """Only the sources of its prompts are read, so that keys that went away do no harm."""
    directory = earlier("before")
    data = {**prompts_file("/data/prompts.jsonl"), "gone": 1}
    write_json({"trial": {"data": data, "older": {}}}, directory / "sweep.json")
    runs = directory.parent
    assert used_prompts(runs, runs / "mine", HELD, FILES) == ["before"]
