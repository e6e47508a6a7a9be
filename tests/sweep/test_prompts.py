"""A sweep that goes on may have more prompts to confirm on, and everything else as it was."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import SweepConfig
from symnoise_ray.errors import UserError
from symnoise_ray.records.files import read_json, write_json
from symnoise_ray.records.layout import LOCK, RESULTS
from symnoise_ray.records.verdict import Comparison, Decision, Verdict
from symnoise_ray.space.trials import SweepPlans, known_points
from symnoise_ray.sweep.prompts import Prompts, prompts_of
from symnoise_ray.sweep.registration import departures
from symnoise_ray.sweep.resume import Past, begin, seeds_of
from tests.sweep.played import sweep

Row = dict[str, str]
PLAIN = {"noise.type": "none", "optim.lr": 1e-4}


def rows(*numbers: int, word: str = "animal") -> list[Row]:
    return [
        {"instruction": f"What does {word} {number} say?", "output": f"It says {number}."}
        for number in numbers
    ]


class Folder:
    """A folder with the files of a sweep, which are written anew between its parts."""

    def __init__(self, path: Path, **data: Any) -> None:
        self.path, self.out = path, path / "out"
        self.data: dict[str, Any] = {"overlap_ngram": 0, **data}
        self.write("train", rows(*range(20), word="machine"))
        self.write("search", rows(*range(100, 110)))

    def write(self, name: str, content: list[Row]) -> str:
        """Write one of its files; returns the path."""
        file = self.path / f"{name}.json"
        file.write_text(json.dumps(content))
        return str(file)

    def begin(self, **data: Any) -> Past:
        """Start the sweep, or go on with it."""
        own = {"train": f"{self.path}/train.json", "eval_prompts": f"{self.path}/search.json"}
        config = sweep(trial={"data": own | self.data | data})
        plans = SweepPlans(config, self.out)
        asked = prompts_of([plans.config(point) for point in known_points(config)], confirms=True)
        return begin(config, self.out, seeds_of(plans), asked)


@pytest.fixture
def own(tmp_path: Path) -> Folder:
    """A sweep whose confirmation has a file of its own, with ten prompts."""
    folder = Folder(tmp_path, confirm_prompts=f"{tmp_path}/fresh.json")
    folder.write("fresh", rows(*range(10)))
    return folder


@pytest.fixture
def held_back(tmp_path: Path) -> Folder:
    """A sweep that holds back a part of forty prompts."""
    folder = Folder(tmp_path, confirm_prompts="held_back")
    folder.write("search", rows(*range(40)))
    return folder


def asked_in(past: Past) -> Prompts:
    assert past.prompts is not None
    return past.prompts


def kept_by(folder: Folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.out.iterdir()}


@pytest.mark.parametrize(
    "larger", [rows(*range(14)), rows(12, *range(5), 11, *range(5, 10), 10, 13)]
)
def test_a_file_that_got_more_prompts_has_grown_whatever_their_order(
    larger: list[Row], own: Folder
) -> None:
    assert asked_in(own.begin()).num_grown == 0
    own.write("fresh", larger)
    past = own.begin()
    assert (past.parts, asked_in(past).num_grown) == (1, 14)
    assert asked_in(past).told.startswith("the confirmation has 14 prompts, 10 at first. Models ")
    assert departures(own.out) == (
        "part 2, before a verdict: prompts of the confirmation 10 -> 14",
    )
    again = own.begin()
    assert asked_in(again).num_grown == 14, "it has grown since it began"
    assert len(departures(own.out)) == 1, "and not once more"


def test_prompts_that_grow_after_a_verdict_are_one_more_chance_to_be_wrong(own: Folder) -> None:
    own.begin()
    told = Decision(
        "symnoise",
        "cannot tell yet",
        (Comparison("symnoise", 0.5, (0, 1), 1, 1, 9, 2, "cannot tell yet"),),
    )
    write_json({"verdict": asdict(Verdict(decisions=(told,)))}, own.out / RESULTS)
    assert own.begin().looks == 0
    own.write("fresh", rows(*range(14)))
    assert own.begin().looks == 1
    assert own.begin().looks == 1
    assert departures(own.out) == ("part 3, after a verdict: prompts of the confirmation 10 -> 14",)


def test_prompts_may_grow_again(own: Folder) -> None:
    own.begin()
    for number in (12, 15):
        own.write("fresh", rows(*range(number)))
        assert asked_in(own.begin()).num_grown == number
    own.write("fresh", rows(*range(12)))
    with pytest.raises(UserError, match=r"the 15 prompts .*, but 3 of them are gone"):
        own.begin()


def edited() -> list[Row]:
    return [{**rows(0)[0], "output": "Nothing."}, *rows(*range(1, 14))]


@pytest.mark.parametrize(
    ("content", "gone"),
    [(rows(*range(9)), 1), (rows(*range(1, 14)), 1), (edited(), 1), (rows(*range(20, 40)), 10)],
    ids=["one-gone", "one-replaced", "right-answer-edited", "others"],
)
def test_prompts_that_are_gone_or_edited_are_refused(
    content: list[Row], gone: int, own: Folder
) -> None:
    own.begin()
    before = kept_by(own)
    file = own.write("fresh", content)
    told = (
        rf"^{file}: must still hold the 10 prompts .*, but {gone} of them are gone or edited; put"
    )
    with pytest.raises(UserError, match=told):
        own.begin()
    assert kept_by(own) == before


def test_a_limit_may_be_raised_and_not_lowered(own: Folder) -> None:
    own.begin(max_confirm_prompts=4)
    assert asked_in(own.begin(max_confirm_prompts=7)).num_grown == 7
    assert asked_in(own.begin(max_confirm_prompts=None)).num_grown == 10
    assert departures(own.out)[:2] == (
        "part 2, before a verdict: trial.data.max_confirm_prompts 4 -> 7",
        "part 2, before a verdict: prompts of the confirmation 4 -> 7",
    )
    with pytest.raises(UserError, match=r"that the sweep in .* had among its first 3, but 7 of"):
        own.begin(max_confirm_prompts=3)


def test_a_limit_takes_the_first_prompts_so_others_must_stand_below_them(own: Folder) -> None:
    own.begin(max_confirm_prompts=10)
    own.write("fresh", rows(*range(20, 25), *range(10)))
    with pytest.raises(UserError, match="had among its first 10, but 5 of them are gone"):
        own.begin(max_confirm_prompts=10)
    own.write("fresh", rows(*range(10), *range(20, 25)))
    assert asked_in(own.begin(max_confirm_prompts=10)).num_grown == 0
    assert asked_in(own.begin(max_confirm_prompts=12)).num_grown == 12


def test_the_searchs_limit_holds_for_the_confirmation_until_it_has_its_own(own: Folder) -> None:
    own.begin(max_eval_prompts=5)
    assert asked_in(own.begin(max_eval_prompts=5, max_confirm_prompts=8)).num_grown == 8
    with pytest.raises(UserError, match=r"trial\.data\.max_eval_prompts is 5 there and 6 here"):
        own.begin(max_eval_prompts=6, max_confirm_prompts=8)


def test_other_files_stay_as_they_were(own: Folder) -> None:
    own.begin()
    for name, more in (("train", rows(99)), ("search", rows(99))):
        before = (own.path / f"{name}.json").read_text()
        file = own.write(name, json.loads(before) + more)
        with pytest.raises(UserError, match=f"^{file}: must be as it was when"):
            own.begin()
        Path(file).write_text(before)


def test_of_a_folder_that_got_a_file_the_prompts_are_compared(tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    folder = Folder(tmp_path, confirm_prompts=f"{tmp_path}/fresh")
    folder.write("fresh/m", rows(*range(5)))
    folder.begin()
    folder.write("fresh/a", rows(*range(5, 8)))
    assert asked_in(folder.begin()).num_grown == 8
    (tmp_path / "fresh" / "m.json").unlink()
    with pytest.raises(UserError, match=r"/fresh: must still hold the 8 prompts"):
        folder.begin()


# Prompts that are held back


def test_of_added_prompts_those_of_the_search_are_left_alone(held_back: Folder) -> None:
    first = asked_in(held_back.begin())
    held_back.write("search", rows(*range(80)))
    later = asked_in(held_back.begin())
    assert later.search == first.search
    assert later.num_unused > 0
    assert later.search_limit == len(first.search)
    assert later.num_grown + later.num_unused == 80 - len(first.search)
    assert f"; {later.num_unused} more fall to the search, which keeps those it had" in later.told
    again = asked_in(held_back.begin())
    assert again == later


def test_prompts_above_those_of_the_search_are_refused(held_back: Folder) -> None:
    held_back.begin()
    file = held_back.write("search", rows(*range(40, 80), *range(40)))
    with pytest.raises(UserError, match=f"^{file}: the search must have the .* add others below"):
        held_back.begin()


def test_a_trial_of_the_search_answers_no_prompt_that_was_added(held_back: Folder) -> None:
    held_back.begin()
    held_back.write("search", rows(*range(80)))
    limit = asked_in(held_back.begin()).search_limit
    config = SweepConfig.model_validate(read_json(held_back.out / "sweep.json"))
    plan = SweepPlans(config, held_back.out, search_prompts=limit).search(0, PLAIN)
    assert plan.config.data.max_eval_prompts == limit
    assert plan.params == PLAIN


# What cannot be told or would change the training


def test_added_prompts_that_would_drop_training_rows_are_refused(tmp_path: Path) -> None:
    folder = Folder(
        tmp_path, confirm_prompts=f"{tmp_path}/fresh.json", overlap_ngram=5, drop_overlap=True
    )
    folder.write("fresh", rows(*range(10)))
    folder.begin()
    file = folder.write("fresh", rows(*range(10)) + rows(3, word="machine"))
    with pytest.raises(UserError, match=f"^{file}: the added prompts must not overlap with train"):
        folder.begin()
    folder.write("fresh", rows(*range(12)))
    assert asked_in(folder.begin()).num_grown == 12


def test_a_sweep_that_did_not_note_its_prompts_goes_on_with_the_same_ones(own: Folder) -> None:
    own.begin()
    lock = read_json(own.out / LOCK)
    del lock["prompts"]
    (own.out / LOCK).write_text(json.dumps(lock))
    with pytest.raises(UserError, match=r"max_confirm_prompts may grow only where run\.lock\.json"):
        own.begin(max_confirm_prompts=30)
    own.write("fresh", rows(*range(12)))
    with pytest.raises(UserError, match=r"fresh\.json: must be as it was when"):
        own.begin()
    own.write("fresh", rows(*range(10)))
    assert asked_in(own.begin()).num_grown == 0
    own.write("fresh", rows(*range(12)))
    assert asked_in(own.begin()).num_grown == 12, "now it has noted them"


def test_a_file_that_holds_more_than_prompts_must_not_grow(tmp_path: Path) -> None:
    folder = Folder(tmp_path, confirm_prompts=f"{tmp_path}/train.json")
    folder.begin()
    file = folder.write("train", rows(*range(30), word="machine"))
    with pytest.raises(UserError, match=f"^{file}: must be as it was when"):
        folder.begin()


def test_a_limit_that_differs_between_trials_gives_no_common_prompts(own: Folder) -> None:
    config = SweepConfig.model_validate(
        {
            "name": "varied",
            "trial": {"data": {"max_eval_prompts": 9}},
            "parameters": {
                "data.max_confirm_prompts": {"type": "categorical", "choices": [3, 6]},
            },
            "baselines": [{"data.max_confirm_prompts": 3}],
            "search": {"num_trials": 1},
        }
    )
    configs = [SweepPlans(config, own.out).config(point) for point in known_points(config)]
    assert prompts_of(configs, confirms=True) is None
    same = prompts_of(configs, confirms=False)
    assert same is not None
    assert same.confirm == ()
