"""Files between the stages are whole or not there, and any text survives them."""

import json
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.errors import DataError, UserError
from symnoise_ray.records.completions import Completion, read_completions
from symnoise_ray.records.files import (
    read_json,
    read_lines,
    require_folder,
    require_writable,
    write_json,
    write_lines,
    write_text,
)
from symnoise_ray.records.metrics import Tail, timed
from symnoise_ray.records.preferences import Preference, read_annotations

HOSTILE = 'one\u2028two\u2029 \x85 \x00 \ud800 \U0001f600 "quoted" \\ \r\n \ufeff'
COMPLETION = Completion(HOSTILE, "answer " + HOSTILE, "001-symnoise", "demo", "gold")
ALPACA_EVAL = {name: value for name, value in COMPLETION._asdict().items() if name != "turns"}


def preference(item: int = 0, value: float | None = 2.0, **fields: Any) -> Preference:
    return Preference(
        **{
            "item": item,
            "instruction": HOSTILE,
            "dataset": "demo",
            "output_1": "a",
            "generator_1": "plain",
            "output_2": "b",
            "generator_2": "noisy",
            "annotator": "judge",
            "order": "trial first",
            "preference": value,
            **fields,
        }
    )


def line(**values: Any) -> str:
    return json.dumps(values) + "\n"


# Whole or not there


def test_folders_are_made_on_the_way_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_json({"win_rate": 0.5}, path)
    write_json({"win_rate": 0.6}, path)
    assert read_json(path) == {"win_rate": 0.6}
    assert [file.name for file in path.parent.iterdir()] == ["c.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json({"step": 1}, path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"step": float("nan")}, path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_lines([{"step": 1}, {"step": object()}], path)
    assert read_json(path) == {"step": 1}


def test_a_file_is_replaced_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text("old", path)
    with path.open() as reader:
        write_text("new", path)
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text("new", tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_what_could_not_be_written_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.jsonl", Path("/proc/a.jsonl")):
        with pytest.raises(UserError, match=f"--output {path}: must be a file that can be written"):
            require_writable(path, "--output")
    require_writable(tmp_path / "new" / "a.jsonl", "--output")
    require_writable(tmp_path / "file", "--output")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(UserError, match=r"judge\.cache .*file: must be a folder that can be wri"):
        require_folder(tmp_path / "file", "judge.cache")


@pytest.mark.parametrize("content", [None, "{", "caf\udce9", "[" * 100_000])
def test_json_that_cannot_be_read_is_told_with_its_file(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"a\.json: must be a readable JSON file, but"):
        read_json(path)


# Any text


def test_every_text_survives_a_file(tmp_path: Path) -> None:
    write_json({"text": HOSTILE}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == {"text": HOSTILE}
    write_lines([COMPLETION, {"text": HOSTILE}], tmp_path / "a.jsonl")
    assert read_lines(tmp_path / "a.jsonl") == [ALPACA_EVAL, {"text": HOSTILE}]


def test_completions_survive_a_file(tmp_path: Path) -> None:
    completions = [COMPLETION, COMPLETION._replace(output="")]
    write_lines(completions, tmp_path / "completions.jsonl")
    assert read_completions(tmp_path / "completions.jsonl") == completions


def test_a_single_request_has_the_keys_of_alpaca_eval_and_a_conversation_its_turns(
    tmp_path: Path,
) -> None:
    path = tmp_path / "completions.jsonl"
    write_lines([COMPLETION], path)
    assert list(read_lines(path)[0]) == ["instruction", "output", "generator", "dataset", "gold"]
    conversation = COMPLETION._replace(turns=(("first?", "yes"), ("second?", "")))
    write_lines([COMPLETION, conversation], path)
    assert {len(row) for row in read_lines(path)} == {6}, "one table has one set of columns"
    assert read_completions(path) == [COMPLETION, conversation]


@pytest.mark.parametrize("turns", [[["a"]], [["a", 1]], ["ab"], [{"a": "b"}], "ab", {"a": "b"}, 3])
def test_turns_that_are_no_pairs_are_refused(tmp_path: Path, turns: Any) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"instruction": "i", "output": "o", "turns": turns}]))
    with pytest.raises(DataError, match=r"c\.json entry 1: turns must be a list of \[request"):
        read_completions(path)


def test_preferences_survive_a_file(tmp_path: Path) -> None:
    preferences = [preference(0), preference(1, None), preference(2, 1.5, output_1=HOSTILE)]
    write_lines(preferences, tmp_path / "preferences.jsonl")
    assert read_annotations(tmp_path / "preferences.jsonl") == preferences


# Lines


def test_lines_of_a_missing_or_empty_file_are_none(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "absent.jsonl") == []
    (tmp_path / "a.jsonl").write_text("")
    assert read_lines(tmp_path / "a.jsonl") == []


def test_a_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line(step=1) + '{"step": 2}')
    assert read_lines(path) == [{"step": 1}]


# A growing file


def test_a_tail_gives_each_step_once_as_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.new() == []
    path.write_text(line(step=0, loss=2.5) + line(step=1, loss=2.0))
    assert tail.new() == [{"step": 0, "loss": 2.5}, {"step": 1, "loss": 2.0}]
    assert tail.new() == []
    with path.open("a") as file:
        file.write(line(step=2, loss=1.5))
    assert tail.new() == [{"step": 2, "loss": 1.5}]


def test_a_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    whole = line(step=1, text="\u00e9\u2028").encode()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert tail.new() == []
    path.write_bytes(whole)
    assert tail.new() == [{"step": 1, "text": "\u00e9\u2028"}]


def test_a_tail_follows_a_file_that_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    path.write_text("".join(line(step=step) for step in range(4)))
    assert len(tail.new()) == 4
    path.write_text(line(step=0) + line(step=1))
    assert tail.new() == []
    path.write_text("".join(line(step=step) for step in range(6)))
    assert tail.new() == [{"step": 4}, {"step": 5}]


def test_a_tail_follows_a_file_that_started_over_and_outgrew_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    path.write_text(line(step=0, loss=2.123456) + line(step=1, loss=2.0))
    tail.new()
    path.unlink()
    path.write_text("".join(line(step=step, loss=2.0) for step in range(4)))
    assert [record["step"] for record in tail.new()] == [2, 3]


# AlpacaEval model outputs


def test_model_outputs_are_read_in_both_shapes(tmp_path: Path) -> None:
    rows = [
        {"instruction": "a", "output": "b", "generator": "m", "dataset": "d"},
        {"instruction": "c", "output": "d", "extra": [1]},
    ]
    expected = [Completion("a", "b", "m", "d"), Completion("c", "d", "outputs")]
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps(rows, indent=1))
    assert read_completions(path) == expected
    path.write_text("\n" + "\n".join(json.dumps(row) for row in rows))
    assert read_completions(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"outputs\.json: must be readable model outputs, but"),
        ("[{]", r"outputs\.json: must be readable model outputs, but"),
        ("[" * 100_000, r"outputs\.json: must be readable model outputs, but"),
        ("[]", r"outputs\.json: must hold at least one model output, but got none"),
        ("", r"outputs\.json: must hold at least one model output, but got none"),
        ('[{"instruction": "a"}]', r"outputs\.json entry 1: must have instruction and output"),
        ('[{"instruction": "a", "output": "b"}, 3]', r"entry 2: must have instruction and output"),
        ('[{"instruction": "a", "output": null}]', r"entry 1: .*output"),
    ],
)
def test_model_outputs_that_cannot_be_read_are_told(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "outputs.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_completions(path)


# Time


def test_the_time_of_a_block_is_added_even_when_it_fails() -> None:
    seconds = {"train": 100.0}
    with timed(seconds, "train"):
        pass
    with pytest.raises(KeyError, match="load"), timed(seconds, "load"):
        raise KeyError("load")
    assert 100.0 < seconds["train"] < 101.0
    assert 0.0 <= seconds["load"] < 1.0
