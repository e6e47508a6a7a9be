"""Files become examples; what is broken is told with file and row, what is empty is counted."""

import gzip
import json
import lzma
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from symnoise_ray.config import DataConfig
from symnoise_ray.config.data import HELD_BACK
from symnoise_ray.data.example import Example
from symnoise_ray.data.rows import read_prompts, read_train
from symnoise_ray.data.sources import PRESETS
from symnoise_ray.demo import content
from symnoise_ray.errors import DataError, UserError

ROWS = [
    {"instruction": "Say hi.", "input": "", "output": "Hi."},
    {"instruction": "Translate.", "input": "cat", "output": "chat", "dataset": "words"},
]
EXAMPLES = [
    Example((("Say hi.", "Hi."),)),
    Example((("Translate.", "chat"),), input="cat", dataset="words"),
]


def data(path: Path, **settings: Any) -> DataConfig:
    """Settings that read training rows and prompts from one file, where all would overlap."""
    defaults = {"train": str(path), "eval_prompts": str(path), "overlap_ngram": 0}
    return DataConfig.model_validate({**defaults, **settings})


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes bytes, text, or rows as JSON lines."""

    def write(content: bytes | str | list[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# Alpaca rows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2)),
        ("rows.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        ("rows.json", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("rows.txt", "\n\n".join(json.dumps(row) for row in ROWS) + "\n\n"),
        ("rows.jsonl", "\r\n".join(json.dumps(row) for row in ROWS) + "\r\n"),
        ("rows.json", json.dumps(ROWS, indent=2).replace("\n", "\r\n")),
        ("rows.json", "\ufeff" + json.dumps(ROWS)),
        ("rows.jsonl", "\ufeff" + "\n".join(json.dumps(row) for row in ROWS)),
        ("rows.json", "\n  " + json.dumps(ROWS)),
    ],
    ids=[
        "list",
        "indented",
        "lines",
        "lines-named-json",
        "blank-lines",
        "crlf-lines",
        "crlf-list",
        "bom-list",
        "bom-lines",
        "leading-space",
    ],
)
def test_alpaca_rows_are_read_whatever_their_form(
    file: Callable[..., Path], name: str, text: str
) -> None:
    assert read_train(data(file(text, name))).examples == EXAMPLES


def test_an_input_may_be_absent_or_null(file: Callable[..., Path]) -> None:
    rows = [{"instruction": "A", "output": "B"}, {"instruction": "A", "input": None, "output": "B"}]
    assert read_train(data(file(rows))).examples == [Example((("A", "B"),))] * 2


def test_fields_that_are_not_known_are_of_no_harm(file: Callable[..., Path]) -> None:
    path = file([{**ROWS[0], "id": 7, "text": None}])
    assert read_train(data(path)).examples == EXAMPLES[:1]


def test_a_line_separator_inside_a_text_does_not_end_the_row(file: Callable[..., Path]) -> None:
    text = "one\u2028two\u2029three\x85four\x0cfive"
    rows = [{"instruction": text, "output": text}]
    path = file("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows * 2))
    # A form feed must be escaped in JSON, and json.dumps does so; the others may stand raw.
    assert read_train(data(path)).examples == [Example(((text, text),))] * 2


# Conversations


def test_conversations_keep_their_turns_and_system_message(
    messages_file: Callable[..., Path],
) -> None:
    path = messages_file(
        [
            [("user", "Hi."), ("assistant", "Hello.")],
            [
                ("system", "Be brief."),
                ("user", "One?"),
                ("assistant", "1"),
                ("user", "Two?"),
                ("assistant", "2"),
            ],
        ]
    )
    assert read_train(data(path)).examples == [
        Example((("Hi.", "Hello."),)),
        Example((("One?", "1"), ("Two?", "2")), system="Be brief."),
    ]


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        (["user"], "a conversation must have an answer to train on, but got user"),
        (["assistant", "user"], "must start with the user, but got assistant, user"),
        (["user", "assistant", "user"], "must end with an answer, but got user, assistant, user"),
        (["user", "user", "assistant"], "must take turns, but turn 2 is user again"),
        (["user", "assistant", "assistant"], "must take turns, but turn 3 is assistant again"),
        (["user", "system", "assistant"], "a system message must come first and once"),
        (["system", "system", "user", "assistant"], "a system message must come first and once"),
        (["user", "bot"], "a role must be one of user, human, .* but turn 2 has 'bot'"),
        (["user", "tool", "assistant"], "must not call tools, but turn 2 does"),
        (["system"], "must have turns, but got none"),
        ([], "must have turns, but got none"),
    ],
)
def test_turns_must_alternate_and_end_with_an_answer(
    messages_file: Callable[..., Path], roles: list[str], told: str
) -> None:
    sound = [("user", "Hi."), ("assistant", "Hello.")]
    path = messages_file([sound, [(role, "text") for role in roles]])
    with pytest.raises(DataError, match=rf"chats\.jsonl:2: .*{told}.* \(data\.on_bad_row=skip"):
        read_train(data(path))
    rows = read_train(data(path, on_bad_row="skip"))
    assert rows.examples == [Example((("Hi.", "Hello."),))]
    ((reason, count),) = rows.left_out.items()
    assert reason.startswith("rows skipped: ")
    assert count == 1


# Broken rows and files


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1]", r"rows\.jsonl:2: a row must be an object, but got list"),
        ('"text"', r"rows\.jsonl:2: a row must be an object, but got str"),
        ("{}", r"rows\.jsonl:2: a row must have .* but its keys are none"),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}',
            r"rows\.jsonl:2: a row must have one answer, not a preference between two, but it has "
            r"chosen, rejected",
        ),
        ('{"instruction": "a"}', r":2: a row must have .* keys are instruction"),
        ('{"instruction": 5, "output": "b"}', r":2: instruction must be text, but got int"),
        ('{"instruction": "a", "output": null}', r":2: output must be text, but got NoneType"),
        (
            '{"instruction": "a", "input": ["b"], "output": "c"}',
            r":2: input must be text, but got list",
        ),
        ('{"messages": {}}', r":2: messages must be a list of objects"),
        ('{"messages": ["a"]}', r":2: messages must be a list of objects"),
        ('{"messages": [{"role": "user"}]}', r":2: content must be text, but turn 1 has NoneType"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            r":2: content must be text alone, but turn 1 has a part of type image",
        ),
        ('{"messages": [{"content": "a"}]}', r":2: a role must be one of .* but turn 1 has None"),
        ('{"instruction": "a", ', r":2: a line must be one JSON object, but .* at column \d+"),
        ("nonsense", r":2: a line must be one JSON object, but .* at column 1"),
        (
            '{"instruction": "a", "output": ' + "9" * 5000 + "}",
            r":2: output must be text, but got Decimal",
        ),
        ("[" * 100_000, r":2: a line must be one JSON object, but it is nested too deeply"),
        # Half a surrogate pair is valid JSON but no text: no tokenizer takes it.
        ('{"instruction": "a", "output": "\\ud83d"}', r"rows\.jsonl:2: .*output"),
    ],
)
def test_a_broken_row_is_told_with_file_and_line(
    file: Callable[..., Path], row: str, message: str
) -> None:
    path = file(json.dumps(ROWS[0]) + "\n" + row + "\n")
    with pytest.raises(DataError, match=message):
        read_train(data(path))


def test_a_broken_row_of_a_list_is_told_by_its_number(file: Callable[..., Path]) -> None:
    path = file(json.dumps([*ROWS, {"text": "x"}]), "rows.json")
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))} row 3: a row must have"):
        read_train(data(path))


def test_a_list_that_is_nested_too_deeply_is_told(file: Callable[..., Path]) -> None:
    with pytest.raises(
        DataError, match=r"rows\.json: must be a list of rows, but it is nested too"
    ):
        read_train(data(file("[" * 100_000, "rows.json")))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_number_of_any_length_breaks_no_more_than_its_row(
    file: Callable[..., Path], name: str
) -> None:
    number = "9" * 5000
    rows = [
        json.dumps(ROWS[0])[:-1] + f', "id": {number}' + "}",
        '{"instruction": "a", "output": ' + number + "}",
    ]
    text = "\n".join(rows) if name.endswith("l") else f"[{','.join(rows)}]"
    found = read_train(data(file(text, name), on_bad_row="skip"))
    assert found.examples == EXAMPLES[:1]
    assert found.left_out == {"rows skipped: output must be text": 1}


def test_a_broken_list_is_told_with_its_line(file: Callable[..., Path]) -> None:
    path = file('[\n{"instruction": "a", "output": "b"},\n{"instruction" "a"}\n]', "rows.json")
    with pytest.raises(DataError, match=r"rows\.json:3: must be valid JSON, but Expecting ':'"):
        read_train(data(path))


def test_a_file_that_is_not_utf_8_is_told(file: Callable[..., Path]) -> None:
    path = file(b'{"instruction": "caf\xe9", "output": "b"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl: must be readable UTF-8 text, but"):
        read_train(data(path))


@pytest.mark.parametrize("name", ["./absent", "absent.json", "/absent/rows"])
def test_a_missing_file_is_told(name: str) -> None:
    with pytest.raises(DataError, match=rf"{re.escape(name)}: the data file must exist"):
        read_train(DataConfig(train=name, eval_prompts=name))


@pytest.mark.parametrize("text", ["", "\n\n", "[]", " [ ] "])
def test_an_empty_file_is_an_error(file: Callable[..., Path], text: str) -> None:
    with pytest.raises(DataError, match="must hold at least one row with an answer, but got none"):
        read_train(data(file(text)))


def test_only_the_offline_judge_needs_gold_answers(file: Callable[..., Path]) -> None:
    prompts = file([{"turns": ["One?", "Two?"]}, {"turns": ["Three?"]}])
    rows = read_prompts(data(prompts), "eval", gold=False)
    assert rows.examples == [Example((("One?", ""), ("Two?", ""))), Example((("Three?", ""),))]
    assert rows.left_out == {}
    with pytest.raises(DataError, match="2 prompts without a gold answer"):
        read_prompts(data(prompts), "eval")


def test_rows_without_an_answer_are_counted(file: Callable[..., Path]) -> None:
    empty = [{"instruction": "a", "output": answer} for answer in ("", " \n")]
    path = file([empty[0], *ROWS, empty[1]])
    rows = read_train(data(path))
    assert rows.examples == EXAMPLES
    assert rows.left_out == {"rows with nothing to train on": 2}
    assert read_prompts(data(path), "eval").left_out == {"prompts without a gold answer": 2}


def test_no_row_with_an_answer_is_an_error(file: Callable[..., Path]) -> None:
    path = file([{"instruction": "a", "output": ""}])
    with pytest.raises(DataError, match="must hold at least one row with an answer, but got none"):
        read_train(data(path))


# Parts and limits


def prompts_of(config: DataConfig, part: str) -> list[str]:
    return [example.instruction for example in read_prompts(config, part).examples]


@pytest.fixture
def numbered(file: Callable[..., Path]) -> Callable[[int], Path]:
    """A file of numbered prompts."""

    def write(count: int) -> Path:
        return file([{"instruction": f"{i:03d}", "output": "x"} for i in range(count)])

    return write


@pytest.mark.parametrize("share", [0.02, 0.5, 0.75, 0.98])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_the_parts_of_held_back_prompts_are_disjoint_cover_all_and_are_never_empty(
    numbered: Callable[[int], Path], count: int, share: float
) -> None:
    config = data(numbered(count), confirm_prompts=HELD_BACK, confirm_share=share)
    confirm, search = prompts_of(config, "confirm"), prompts_of(config, "eval")
    assert sorted(search + confirm) == [f"{i:03d}" for i in range(count)]
    assert search
    assert confirm
    assert search == sorted(search)
    assert confirm == sorted(confirm)


@pytest.mark.parametrize("share", [None, 0.2, 0.5])
def test_the_confirmation_has_three_quarters_of_the_prompts_or_another_share(
    numbered: Callable[[int], Path], share: float | None
) -> None:
    given = {} if share is None else {"confirm_share": share}
    config = data(numbered(2000), confirm_prompts=HELD_BACK, **given)
    assert len(prompts_of(config, "confirm")) == pytest.approx(2000 * (share or 0.75), abs=60)


def test_a_larger_share_takes_prompts_from_the_search_and_gives_it_none(
    numbered: Callable[[int], Path],
) -> None:
    path = numbered(200)
    searched = [
        set(prompts_of(data(path, confirm_prompts=HELD_BACK, confirm_share=share), "eval"))
        for share in (0.9, 0.75, 0.3)
    ]
    assert searched[0] < searched[1] < searched[2]


def test_a_share_is_between_none_and_all(numbered: Callable[[int], Path]) -> None:
    for share in (0, 1, -0.5, 1.5):
        with pytest.raises(ValidationError, match="confirm_share"):
            data(numbered(4), confirm_share=share)


def test_the_parts_do_not_depend_on_who_asks_first_or_how_often(
    numbered: Callable[[int], Path],
) -> None:
    config = data(numbered(40), confirm_prompts=HELD_BACK)
    first = prompts_of(config, "eval"), prompts_of(config, "confirm")
    assert (prompts_of(config, "eval"), prompts_of(config, "confirm")) == first
    assert first[0] != [f"{i:03d}" for i in range(len(first[0]))]


def test_prompts_that_are_added_or_moved_leave_the_others_where_they_are(
    file: Callable[..., Path],
) -> None:
    rows = [{"instruction": f"{i:03d}", "output": "x"} for i in range(60)]
    before = data(file(rows[20:]), confirm_prompts=HELD_BACK)
    known = {part: set(prompts_of(before, part)) for part in ("eval", "confirm")}
    after = data(file(rows[::-1], "more.jsonl"), confirm_prompts=HELD_BACK)
    for part, prompts in known.items():
        assert prompts < set(prompts_of(after, part))


def test_answers_and_what_a_prompt_lacks_do_not_decide_its_part(file: Callable[..., Path]) -> None:
    rows = [{"instruction": f"{i:03d}", "output": "x" * (i % 3)} for i in range(60)]
    config = data(file(rows), confirm_prompts=HELD_BACK)
    for part in ("eval", "confirm"):
        answered = prompts_of(config, part)
        asked = [e.instruction for e in read_prompts(config, part, gold=False).examples]
        assert answered == [prompt for prompt in asked if int(prompt) % 3]


def test_copies_of_a_prompt_stay_in_one_part_even_in_different_groups(
    file: Callable[..., Path],
) -> None:
    asked = [
        {"instruction": f"{i % 40:02d}", "output": "x", "dataset": f"set {i // 80}"}
        for i in range(120)
    ]
    config = data(file(asked), confirm_prompts=HELD_BACK)
    search, confirm = prompts_of(config, "eval"), prompts_of(config, "confirm")
    assert not set(search) & set(confirm)
    assert len(search) == 3 * len(set(search))
    assert len(search) + len(confirm) == 120


def test_without_held_back_the_search_answers_all_prompts(
    numbered: Callable[[int], Path], file: Callable[..., Path]
) -> None:
    confirm = file(ROWS, "confirm.jsonl")
    config = data(numbered(6), confirm_prompts=str(confirm))
    assert len(prompts_of(config, "eval")) == 6
    assert read_prompts(config, "confirm").examples == EXAMPLES


def test_limits_take_the_first_rows(numbered: Callable[[int], Path]) -> None:
    config = data(numbered(9), max_train_rows=4, max_eval_prompts=2)
    assert [e.instruction for e in read_train(config).examples] == ["000", "001", "002", "003"]
    assert prompts_of(config, "eval") == ["000", "001"]


def test_a_limit_counts_usable_rows_and_does_not_mend_the_parts(
    file: Callable[..., Path], numbered: Callable[[int], Path]
) -> None:
    path = file([{"instruction": "a", "output": ""}, *ROWS])
    assert read_train(data(path, max_train_rows=1)).examples == EXAMPLES[:1]
    whole = data(numbered(40), confirm_prompts=HELD_BACK)
    limited = whole.model_copy(update={"max_eval_prompts": 3})
    for part in ("eval", "confirm"):
        assert prompts_of(limited, part) == prompts_of(whole, part)[:3]
    own = limited.model_copy(update={"max_confirm_prompts": 7})
    assert prompts_of(own, "eval") == prompts_of(whole, "eval")[:3]
    assert prompts_of(own, "confirm") == prompts_of(whole, "confirm")[:7]


def test_an_examples_digest_tells_every_text_of_it() -> None:
    first, second = EXAMPLES
    others = [
        replace(second, input="dog"),
        replace(second, dataset=""),
        replace(second, system="Be brief."),
        replace(second, turns=(("Translate.", "chien"),)),
    ]
    assert len({example.digest for example in (first, second, *others)}) == 6
    assert replace(second).digest == second.digest


# Groups


def groups_of(config: DataConfig) -> list[str]:
    return [example.dataset for example in read_prompts(config, "eval", gold=False).examples]


@pytest.mark.parametrize(
    ("rows", "settings", "groups"),
    [
        (ROWS, {}, ["", "words"]),
        ([{**row, "topic": "small"} for row in ROWS], {"group_field": "topic"}, ["small"] * 2),
        ([{"turns": ["One?"], "category": 7}], {"group_field": "category"}, ["7"]),
        (
            [{"messages": [{"role": "user", "content": "Hi."}], "t": "x"}],
            {"group_field": "t"},
            ["x"],
        ),
        (
            [{"question": "Why?", "kind": "science"}],
            {"group_field": "kind", "prompt_fields": {"instruction": "question"}},
            ["science"],
        ),
    ],
    ids=["dataset", "another column", "a number", "chat", "renamed columns"],
)
def test_a_prompt_has_the_group_that_a_column_names(
    file: Callable[..., Path], rows: list[Any], settings: dict[str, Any], groups: list[str]
) -> None:
    assert groups_of(data(file(rows), **settings)) == groups


def test_the_demos_prompts_have_their_topics_as_groups() -> None:
    groups = groups_of(DataConfig())
    assert {"opposite", "plural"} < set(groups)
    assert groups_of(DataConfig(group_field="dataset")) == groups


def test_training_rows_need_no_group(file: Callable[..., Path]) -> None:
    prompts = file([{"instruction": "Why?", "output": "So.", "topic": "x"}], "prompts.jsonl")
    config = data(prompts, train=str(file(ROWS)), group_field="topic")
    assert read_train(config).examples == EXAMPLES


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"instruction": "a", "output": "b"},
            "takes a prompt's group from the column topic, but a row has only instruction, output; "
            "name one of them, or leave the setting out",
        ),
        (
            {"instruction": "a", "output": "b", "topic": None},
            "from the column topic, and it must be text or a number, but it is None",
        ),
        ({"instruction": "a", "output": "b", "topic": " "}, "text or a number, but it is ' '"),
        ({"instruction": "a", "output": "b", "topic": ["x"]}, r"a number, but it is \['x'\]"),
    ],
)
def test_a_prompt_without_a_group_is_told_with_file_and_line(
    file: Callable[..., Path], row: dict[str, Any], told: str
) -> None:
    path = file([{"instruction": "a", "output": "b", "topic": "x"}, row])
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: data\.group_field .*{told} \(data\.on"):
        groups_of(data(path, group_field="topic"))
    assert groups_of(data(path, group_field="topic", on_bad_row="skip")) == ["x"]


def test_the_demo_has_training_rows_and_two_sets_of_prompts() -> None:
    config = DataConfig()
    assert len(read_train(config).examples) > 100
    search, confirm = prompts_of(config, "eval"), prompts_of(config, "confirm")
    assert content.eval_file() != content.confirm_file()
    assert search != confirm
    for part in ("eval", "confirm"):
        assert all(example.gold for example in read_prompts(config, part).examples)


# Other files and folders

WHOLE_ROWS = [{"dataset": None, **row} for row in ROWS]


def test_parquet_is_read_whatever_its_name(tmp_path: Path) -> None:
    for name in ("rows.parquet", "rows.data"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(WHOLE_ROWS), tmp_path / name)
        assert read_train(data(tmp_path / name)).examples == EXAMPLES


def test_a_broken_parquet_file_is_told(file: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"rows\.parquet: must be a readable file, but .*arquet"):
        read_train(data(file(b"PAR1 and no more", "rows.parquet")))


def test_a_broken_row_of_parquet_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [ROWS[0], {"instruction": "a", "input": "", "output": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=r"rows\.parquet row 2: output must be text, but got None"):
        read_train(data(path))


def test_a_folder_is_read_file_by_file_in_the_order_of_names(
    file: Callable[..., Path], tmp_path: Path
) -> None:
    file(json.dumps(ROWS[1:]), "b.json")
    file(ROWS[:1], "a.jsonl")
    file("not data", "README.md")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[:1]), tmp_path / "c.parquet")
    assert read_train(data(tmp_path)).examples == [*EXAMPLES, EXAMPLES[0]]


def test_a_folder_without_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold \.json, .*, \.parquet files or a saved"):
        read_train(data(tmp_path))


def test_a_saved_data_set_is_read_and_its_split_train_of_several(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(WHOLE_ROWS)
    whole.save_to_disk(tmp_path / "one")
    assert read_train(data(tmp_path / "one")).examples == EXAMPLES
    datasets.DatasetDict(train=whole, test=whole).save_to_disk(tmp_path / "splits")
    assert read_train(data(tmp_path / "splits")).examples == EXAMPLES
    datasets.DatasetDict(test=whole).save_to_disk(tmp_path / "test")
    with pytest.raises(DataError, match="must have a split train, but got test"):
        read_train(data(tmp_path / "test"))
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="one: must be a whole saved data set, but"):
        read_train(data(tmp_path / "one"))


def test_a_single_object_is_no_list_of_rows(file: Callable[..., Path]) -> None:
    path = file(json.dumps(ROWS[0], indent=1), "rows.json")
    with pytest.raises(DataError, match=r"one object a line, but got a single object over several"):
        read_train(data(path))
    assert read_train(data(file(json.dumps(ROWS[0])))).examples == EXAMPLES[:1]


def test_a_data_set_of_the_hub_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    names = [*PRESETS, "some-owner/data-v1.0"]
    code = (
        "from symnoise_ray.config import DataConfig\n"
        "from symnoise_ray.errors import DataError\n"
        "from symnoise_ray.data.rows import read_train\n"
        f"for name in {names}:\n"
        "    try: read_train(DataConfig(train=name, eval_prompts=name, overlap_ngram=0))\n"
        "    except DataError as error: print(error)"
    )
    hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **hub}
    )
    told = run.stdout.splitlines()
    for name, line in zip(names, told, strict=True):
        hub_name = PRESETS[name][0] if name in PRESETS else name
        assert line.startswith(f"{hub_name}: must be a file or folder that exists")
        assert "offline" in line


def test_a_file_goes_before_a_preset_of_its_name(
    file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(ROWS, "alpaca")
    monkeypatch.chdir(tmp_path)
    assert read_train(data(Path("alpaca"))).examples == EXAMPLES


# Tables and compressed files

TABLE = 'instruction,input,output\n"Say hi.",,Hi.\nTranslate.,cat,chat\n'
FROM_TABLE = [EXAMPLES[0], replace(EXAMPLES[1], dataset="")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", TABLE),
        ("rows.CSV", "\ufeff" + TABLE.replace("\n", "\r\n")),
        ("rows.csv", TABLE.replace("\nTr", "\n\nTr")),
        ("rows.tsv", TABLE.replace(",", "\t")),
    ],
    ids=["csv", "bom and crlf", "a blank line", "tsv"],
)
def test_a_table_is_read_by_the_names_in_its_first_line(
    file: Callable[..., Path], name: str, text: str
) -> None:
    assert read_train(data(file(text, name))).examples == FROM_TABLE


def test_every_cell_of_a_table_is_text_of_any_length(file: Callable[..., Path]) -> None:
    long = 'a "quoted" line, with a comma\n' * 10_000
    quoted = long.replace('"', '""')
    path = file(f'prompt,completion\n007,"{quoted}"\nIs it?,NA\n', "rows.csv")
    assert read_train(data(path)).examples == [
        Example((("007", long),)),
        Example((("Is it?", "NA"),)),
    ]


def test_a_broken_row_of_a_table_is_told_with_its_first_line_or_skipped(
    file: Callable[..., Path],
) -> None:
    path = file('prompt,completion\n"one\n two",b\nonly\n', "rows.csv")
    told = r"rows\.csv:4: a row must have one cell for each column .* but it has 1 for 2 \(data\.on"
    with pytest.raises(DataError, match=told):
        read_train(data(path))
    rows = read_train(data(path, on_bad_row="skip"))
    assert rows.examples == [Example((("one\n two", "b"),))]
    assert rows.left_out.total() == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('prompt,completion\na,"b\n', r"rows\.csv:2: must be a valid table, but unexpected end"),
        ("prompt,prompt\na,b\n", r"rows\.csv:1: the columns must have different names, but are"),
        ("q,a\n1,2\n", r"rows\.csv:2: a row must have .* but its keys are a, q"),
    ],
)
def test_a_table_that_will_not_do_is_told(file: Callable[..., Path], text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_train(data(file(text, "rows.csv")))


PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


def packed(path: Path, text: str, codec: str) -> Path:
    with pyarrow.output_stream(str(path), compression=codec) as stream:
        stream.write(text.encode())
    return path


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize(
    ("name", "text", "examples"),
    [
        ("rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS), EXAMPLES),
        ("rows.json", json.dumps(ROWS), EXAMPLES),
        ("rows.csv", TABLE, FROM_TABLE),
    ],
    ids=["lines", "list", "table"],
)
def test_a_compressed_file_is_read_as_what_it_holds(
    tmp_path: Path, name: str, text: str, examples: list[Example], suffix: str
) -> None:
    path = packed(tmp_path / (name + suffix), text, PACKED[suffix])
    assert read_train(data(path)).examples == examples
    assert read_train(data(tmp_path)).examples == examples, "by its folder"


def test_a_compressed_file_may_have_another_name_and_several_parts(tmp_path: Path) -> None:
    parts = [gzip.compress(json.dumps(row).encode() + b"\n") for row in ROWS]
    (tmp_path / "rows").write_bytes(b"".join(parts))
    assert read_train(data(tmp_path / "rows")).examples == EXAMPLES


def test_a_broken_row_of_a_compressed_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = packed(tmp_path / "rows.jsonl.zst", json.dumps(ROWS[0]) + "\nnonsense\n", "zstd")
    with pytest.raises(DataError, match=r"rows\.jsonl\.zst:2: a line must be one JSON object"):
        read_train(data(path))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(json.dumps(ROWS).encode())[:-20], "must be a readable file, but .*runcated"),
        (b"PK\x03\x04 and so on", "must be a data file, but is a zip archive; unpack it first"),
        (lzma.compress(b"[]"), "must be a data file, but is an xz file; unpack it first"),
    ],
    ids=["cut off", "zip", "xz"],
)
def test_a_file_that_cannot_be_unpacked_is_told(
    file: Callable[..., Path], content: bytes, told: str
) -> None:
    with pytest.raises(DataError, match=rf"rows\.json\.gz: {told}"):
        read_train(data(file(content, "rows.json.gz")))


@pytest.mark.parametrize("name", ["absent.csv", "absent.jsonl.gz", "absent.json.zst", "absent.zip"])
def test_a_missing_table_or_compressed_file_is_no_name_of_the_hub(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: the data file must exist"):
        read_train(DataConfig(train=name, eval_prompts=name))


# Splits and configurations


def line(number: int) -> str:
    return json.dumps({"instruction": f"Number {number}?", "output": str(number)}) + "\n"


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as a data set on the hub: two configurations, of which one has splits."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "chats"
    files = {
        "en/sft-1.jsonl": line(1) + line(2),
        "en/gen-1.jsonl": line(3),
        "de/train.jsonl": line(4),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  default: true\n  data_files:\n"
        "  - {split: train_sft, path: en/sft-*}\n  - {split: train_gen, path: en/gen-*}\n"
        "- config_name: de\n  data_files: de/*.jsonl\n---\nTalks.\n"
    )
    return folder


def golds(train: Any, prompts: Path, **settings: Any) -> list[str]:
    config = data(prompts, train=train, **settings)
    return [example.gold for example in read_train(config).examples]


def test_a_split_and_a_configuration_are_named_beside_the_data_set(
    hub_folder: Path, file: Callable[..., Path]
) -> None:
    prompts = file(ROWS)

    def of(**part: str) -> Any:
        return {"name": str(hub_folder), **part}

    assert golds(of(split="train_sft"), prompts) == ["1", "2"]
    assert golds(of(split="train_sft[:1]"), prompts) == ["1"]
    assert golds(of(config="en", split="train_gen"), prompts) == ["3"]
    assert golds(of(config="de"), prompts) == ["4"]
    both = [of(split="train_gen"), str(prompts), of(split="train_sft")]
    assert golds(both, prompts) == ["3", "Hi.", "chat", "1", "2"]
    config = data(prompts, eval_prompts=of(split="train_gen"), confirm_prompts=of(config="de"))
    assert prompts_of(config, "eval") == ["Number 3?"]
    assert prompts_of(config, "confirm") == ["Number 4?"]
    assert DataConfig.model_validate_json(config.model_dump_json()) == config
    assert len({config, data(prompts, eval_prompts=of(split="train_sft"))}) == 2


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"split": "test"}, r"chats \(split test\): must be a split .* but .*test.*train_sft"),
        ({"config": "fr"}, r"chats \(config fr\): must be a split and a configuration .* but .*fr"),
    ],
)
def test_a_part_that_is_not_there_is_told_with_those_that_are(
    hub_folder: Path, file: Callable[..., Path], part: dict[str, str], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        golds({"name": str(hub_folder), **part}, file(ROWS))


def test_a_row_of_a_split_is_told_with_its_data_set_and_number(
    hub_folder: Path, file: Callable[..., Path]
) -> None:
    (hub_folder / "de" / "train.jsonl").write_text('{"instruction": "a", "output": null}\n')
    with pytest.raises(DataError, match=r"chats \(config de\) row 1: output must be text"):
        golds({"name": str(hub_folder), "config": "de"}, file(ROWS))


def test_a_folder_laid_out_as_on_the_hub_needs_no_split_if_it_has_train(
    tmp_path: Path, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    for split, number in (("train", 1), ("test", 2)):
        (folder / f"{split}-00000-of-00001.jsonl").write_text(line(number))
    assert golds(str(tmp_path / "set"), file(ROWS)) == ["1"]
    assert golds({"name": str(tmp_path / "set"), "split": "test"}, file(ROWS)) == ["2"]


def test_a_split_of_a_saved_data_set_is_named_too(
    tmp_path: Path, file: Callable[..., Path]
) -> None:
    whole = datasets.Dataset.from_list(WHOLE_ROWS)
    datasets.DatasetDict(train=whole, more=whole.select([1])).save_to_disk(tmp_path / "splits")
    prompts = file(ROWS)
    assert golds({"name": str(tmp_path / "splits"), "split": "more"}, prompts) == ["chat"]
    with pytest.raises(DataError, match="must have a split less, but got train, more"):
        golds({"name": str(tmp_path / "splits"), "split": "less"}, prompts)
    with pytest.raises(DataError, match="a data set that was saved has no configurations"):
        golds({"name": str(tmp_path / "splits"), "config": "en"}, prompts)


def test_a_single_file_has_no_splits(file: Callable[..., Path]) -> None:
    path = file(ROWS)
    told = r"\(split train\): a single file has neither splits nor configurations"
    for name in (str(path), "sharegpt"):
        with pytest.raises(DataError, match=told):
            golds({"name": name, "split": "train"}, path)
    assert golds({"name": str(path)}, path) == ["Hi.", "chat"]


# Several sources


def sources(train: Any, prompts: Path, **settings: Any) -> list[str]:
    """Training requests of several sources."""
    config = data(prompts, train=train, **settings)
    return [example.instruction for example in read_train(config).examples]


@pytest.fixture
def two(file: Callable[..., Path]) -> tuple[Path, Path]:
    """Two files, of 4 and 10 rows."""

    def write(name: str, count: int) -> Path:
        rows = [{"instruction": f"{name}{i}", "output": "x"} for i in range(count)]
        return file(rows, f"{name}.jsonl")

    return write("a", 4), write("b", 10)


def test_a_list_of_sources_is_read_one_after_the_other(two: tuple[Path, Path]) -> None:
    a, b = two
    both = sources([str(b), str(a)], a)
    assert both == [*(f"b{i}" for i in range(10)), *(f"a{i}" for i in range(4))]
    assert sources([str(a), "demo"], a)[:4] == both[10:]
    assert sources([str(a), str(b)], a, max_train_rows=2) == ["a0", "a1", "b0", "b1"]


def test_a_weight_is_how_often_rows_are_seen_per_epoch(two: tuple[Path, Path]) -> None:
    a, b = two
    drawn = sources({str(b): 0.5, str(a): 2}, a)
    assert drawn[:8] == [f"a{i}" for i in range(4)] * 2
    half = drawn[8:]
    assert len(set(half)) == 5
    assert half == sorted(half)
    assert sources({str(a): 2, str(b): 0.5}, a) == drawn
    assert len(sources({str(a): 1.25}, a)) == 5
    with pytest.raises(DataError, match=r"a\.jsonl: must leave a row .* none of 4 with weight 0.1"):
        sources({str(a): 0.1}, a)


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (5, "a source, a list of sources, or a mapping"),
        ([], "a source, a list of sources, or a mapping"),
        ("", "each named once"),
        (["a.json", "a.json"], "each named once"),
        (["a.json", 3], "a source, a list of sources, or a mapping"),
        ({"a.json": 0}, "the weight of a.json must be a number > 0, but got 0"),
        ({"a.json": None}, "the weight of a.json must be a number > 0, but got None"),
        (
            {"name": "a", "splt": "b"},
            "a source must have a name, and may have a split and a config",
        ),
        ({"name": "a", "split": 3}, "all of them text, but got"),
        ([{"split": "b"}], "a source must have a name"),
        ([{"name": "a"}, {"name": "a"}], "each named once"),
        ({"a.json": True}, "the weight of a.json must be a number > 0, but got True"),
    ],
)
def test_sources_that_make_no_sense_are_refused(train: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataConfig(train=train, eval_prompts="a.json")


def test_settings_with_mappings_can_be_told_apart_and_kept(two: tuple[Path, Path]) -> None:
    a, b = two
    first = data(a, train={str(a): 1, str(b): 2}, fields={"instruction": "q", "output": "a"})
    again = DataConfig.model_validate_json(first.model_dump_json())
    turned = data(a, train={str(b): 2, str(a): 1}, fields={"output": "a", "instruction": "q"})
    assert first == again == turned
    assert len({first, again, turned, data(a)}) == 2


# Fields


def test_fields_are_given_apart_for_rows_and_prompts(file: Callable[..., Path]) -> None:
    train = file([{"question": "One?", "answer": "1"}], "train.jsonl")
    prompts = file([{"q": "Two?", "gold": "2"}], "prompts.jsonl")
    config = data(
        prompts,
        train=str(train),
        fields={"instruction": "question", "output": "answer"},
        prompt_fields={"instruction": "q", "output": "gold"},
    )
    assert read_train(config).examples == [Example((("One?", "1"),))]
    assert read_prompts(config, "eval").examples == [Example((("Two?", "2"),))]
    wrong = config.model_copy(update={"fields": {"output": "answr", "instruction": "question"}})
    with pytest.raises(DataError, match=r"train\.jsonl:1: data\.fields takes output from the"):
        read_train(wrong)
    swapped = config.model_copy(update={"prompt_fields": config.fields})
    with pytest.raises(DataError, match=r"prompts\.jsonl:1: data\.prompt_fields takes instruction"):
        read_prompts(swapped, "eval")


def test_a_row_of_no_known_shape_is_refused_with_the_setting_for_its_columns(
    file: Callable[..., Path],
) -> None:
    config = data(file([{"q": "One?", "gold": "1"}]))
    with pytest.raises(DataError, match=r"; data\.fields names other columns, but its keys are"):
        read_train(config.model_copy(update={"overlap_ngram": 0}))
    with pytest.raises(DataError, match=r"; data\.prompt_fields names other columns, but its keys"):
        read_prompts(config, "eval")


def test_a_field_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="instruktion"):
        data(Path("a.json"), fields={"instruktion": "q"})


# Rows that are left out


def test_broken_lines_and_rows_are_counted_by_reason_when_asked(file: Callable[..., Path]) -> None:
    broken = ["nonsense", '{"a": ', "[" * 100_000]
    lines = [json.dumps(ROWS[0]), *broken, "[]", '{"instruction": 1, "output": "b"}']
    rows = read_train(data(file("\n".join(lines)), on_bad_row="skip"))
    assert rows.examples == EXAMPLES[:1]
    assert rows.left_out == {
        "rows skipped: a line must be one JSON object": 3,
        "rows skipped: a row must be an object": 1,
        "rows skipped: instruction must be text": 1,
    }


def test_when_all_rows_are_skipped_the_reasons_are_told(file: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"but got none \(2 rows skipped: a line must be one JSON"):
        read_train(data(file("x\ny\n"), on_bad_row="skip"))


def test_a_conversation_without_a_trained_answer_is_counted(file: Callable[..., Path]) -> None:
    chat = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 0}]
    rows = read_train(data(file([{"conversations": chat}, *ROWS])))
    assert rows.examples == EXAMPLES
    assert rows.left_out == {"rows with nothing to train on": 1}


CHAT = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}]
TALK = [{"from": "human", "value": "Say hi."}, {"from": "gpt", "value": "Hi."}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": TALK},
        {"prompt": "Say hi.", "completion": "Hi."},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"instruction": "Say hi.", "output": "Hi."},
    ],
    ids=["messages", "conversations", "text", "two lists of messages", "instruction"],
)
@pytest.mark.parametrize(
    ("column", "wanted", "unwanted"),
    [("label", True, False), ("kto_tag", True, False), ("label", "True", "False")],
)
def test_an_answer_that_a_label_rejects_is_counted_and_never_trained_on(
    file: Callable[..., Path], row: dict[str, Any], column: str, wanted: Any, unwanted: Any
) -> None:
    rows = read_train(data(file([{**row, column: wanted}, {**row, column: unwanted}])))
    assert [(each.instruction, each.gold) for each in rows.examples] == [("Say hi.", "Hi.")]
    assert rows.examples[0].teaches
    assert rows.left_out == {"rows with the label false, which are not trained on": 1}


def test_a_file_of_rejected_answers_alone_is_refused(file: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"but got none \(2 rows with the label false, which are"):
        read_train(data(file([{"messages": CHAT, "label": False}] * 2)))


def test_a_label_of_another_meaning_is_hidden_by_naming_the_columns(
    file: Callable[..., Path],
) -> None:
    path = file([{"messages": CHAT, "label": False}])
    assert len(read_train(data(path, fields={"messages": "messages"})).examples) == 1
    assert len(read_train(data(file([{"messages": CHAT, "label": 0}]))).examples) == 1


def test_a_rejected_answer_is_no_gold_answer_of_its_prompt(file: Callable[..., Path]) -> None:
    path = file([{"messages": CHAT, "label": False}, {"messages": CHAT, "label": True}])
    prompts = read_prompts(data(path), "eval", gold=False).examples
    assert [(each.instruction, each.gold) for each in prompts] == [
        ("Say hi.", ""),
        ("Say hi.", "Hi."),
    ]


def test_overlapping_rows_are_counted_and_dropped_when_asked(file: Callable[..., Path]) -> None:
    prompts = file(ROWS[:1], "prompts.jsonl")
    config = data(prompts, train=str(file(ROWS)), overlap_ngram=13)
    kept = read_train(config)
    assert kept.examples == EXAMPLES
    assert kept.left_out == {"rows kept that overlap with the prompts": 1}
    dropped = read_train(config.model_copy(update={"drop_overlap": True}))
    assert dropped.examples == EXAMPLES[1:]
    assert dropped.left_out == {"rows dropped that overlap with the prompts": 1}
    assert not read_train(config.model_copy(update={"overlap_ngram": 0})).left_out


def test_the_prompts_of_the_confirmation_count_as_judged_too(file: Callable[..., Path]) -> None:
    search = file([{"instruction": "a", "output": "b"}, ROWS[0]], "search.jsonl")
    confirm = file(ROWS[1:], "confirm.jsonl")
    config = data(search, train=str(file(ROWS)), confirm_prompts=str(confirm), overlap_ngram=13)
    for part in ("eval", "confirm"):
        rows = read_train(config.model_copy(update={"prompts": part, "max_eval_prompts": 1}))
        assert rows.left_out == {"rows kept that overlap with the prompts": 2}


def test_no_row_left_beside_the_overlap_is_an_error(file: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="must leave a row to train on, but got none of 0"):
        read_train(data(file(ROWS), overlap_ngram=13, drop_overlap=True))
    with pytest.raises(ValueError, match=r"drop_overlap needs data\.overlap_ngram >= 1"):
        data(file(ROWS), drop_overlap=True)


def test_the_demos_rows_do_not_overlap_with_its_prompts() -> None:
    assert not read_train(DataConfig()).left_out


# Templates in files


def test_a_template_file_is_checked_with_the_data(file: Callable[..., Path]) -> None:
    template = file("request: '{question}'\nrequest_with_input: x\n", "form.yaml")
    with pytest.raises(UserError, match=r"request: must hold \{request\} once .* but got question"):
        read_train(data(file(ROWS), template=str(template)))
    with pytest.raises(UserError, match=r"data\.template=absent\.yaml: must be a readable file"):
        read_train(data(file(ROWS), template="absent.yaml"))
    with pytest.raises(ValueError, match=r"template\n  .*must be one of auto, .* but got 'alpca'"):
        data(file(ROWS), template="alpca")
