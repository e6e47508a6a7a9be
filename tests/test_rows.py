"""Files become examples; what is broken is told with file and row, what is empty is counted."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray import demo
from symnoise_ray.config import DataConfig
from symnoise_ray.errors import DataError
from symnoise_ray.prompts import Example
from symnoise_ray.rows import HELD_BACK, read_prompts, read_train

ROWS = [
    {"instruction": "Say hi.", "input": "", "output": "Hi."},
    {"instruction": "Translate.", "input": "cat", "output": "chat", "dataset": "words"},
]
EXAMPLES = [
    Example((("Say hi.", "Hi."),)),
    Example((("Translate.", "chat"),), input="cat", dataset="words"),
]


def data(train: Path, **settings: Any) -> DataConfig:
    """Settings that read training rows and prompts from one file."""
    return DataConfig(train=str(train), eval_prompts=str(train), **settings)


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
        (["user"], "got user"),
        (["assistant", "user"], "got assistant, user"),
        (["user", "assistant", "user"], "got user, assistant, user"),
        (["user", "user", "assistant"], "got user, user, assistant"),
        (["user", "system", "assistant"], "got user, system, assistant"),
        (["user", "bot"], "got user, bot"),
        (["system"], "got none"),
        ([], "got none"),
    ],
)
def test_turns_must_alternate_and_end_with_an_answer(
    messages_file: Callable[..., Path], roles: list[str], told: str
) -> None:
    sound = [("user", "Hi."), ("assistant", "Hello.")]
    path = messages_file([sound, [(role, "text") for role in roles]])
    with pytest.raises(DataError, match=rf"chats\.jsonl:2: messages must alternate.*but {told}$"):
        read_train(data(path))


# Broken rows and files


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1]", r"rows\.jsonl:2: a row must be an object, but got list"),
        ('"text"', r"rows\.jsonl:2: a row must be an object, but got str"),
        ("{}", r"rows\.jsonl:2: a row must have .* but its keys are none"),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}',
            r"rows\.jsonl:2: a row must have `instruction` and `output`, or `messages`, but its "
            r"keys are chosen, prompt, rejected",
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
        ('{"messages": [{"role": "user"}]}', r":2: every message must have content as text"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            r":2: every message must have content as text",
        ),
        ('{"messages": [{"content": "a"}]}', r":2: every message must have role as text"),
        ('{"instruction": "a", ', r":2: must be one JSON object a line, but .* at column \d+"),
        ("nonsense", r":2: must be one JSON object a line, but .* at column 1"),
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


@pytest.mark.parametrize("count", [2, 3, 40, 41])
def test_the_halves_of_held_back_prompts_are_disjoint_and_cover_all(
    numbered: Callable[[int], Path], count: int
) -> None:
    config = data(numbered(count), confirm_prompts=HELD_BACK)
    confirm, search = prompts_of(config, "confirm"), prompts_of(config, "eval")
    assert not set(search) & set(confirm)
    assert sorted(search + confirm) == [f"{i:03d}" for i in range(count)]
    assert len(search) - len(confirm) in (0, 1)
    assert search == sorted(search)
    assert confirm == sorted(confirm)


def test_the_halves_do_not_depend_on_who_asks_first_or_how_often(
    numbered: Callable[[int], Path],
) -> None:
    config = data(numbered(20), confirm_prompts=HELD_BACK)
    first = prompts_of(config, "eval"), prompts_of(config, "confirm")
    assert (prompts_of(config, "eval"), prompts_of(config, "confirm")) == first
    assert first[0] != [f"{i:03d}" for i in range(10)]


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


def test_a_limit_counts_usable_rows_and_does_not_mend_the_halves(
    file: Callable[..., Path], numbered: Callable[[int], Path]
) -> None:
    path = file([{"instruction": "a", "output": ""}, *ROWS])
    assert read_train(data(path, max_train_rows=1)).examples == EXAMPLES[:1]
    whole = data(numbered(20), confirm_prompts=HELD_BACK)
    limited = whole.model_copy(update={"max_eval_prompts": 3})
    for part in ("eval", "confirm"):
        assert prompts_of(limited, part) == prompts_of(whole, part)[:3]


def test_the_demo_has_training_rows_and_two_sets_of_prompts() -> None:
    config = DataConfig()
    assert len(read_train(config).examples) > 100
    search, confirm = prompts_of(config, "eval"), prompts_of(config, "confirm")
    assert demo.eval_file() != demo.confirm_file()
    assert search != confirm
    for part in ("eval", "confirm"):
        assert all(example.gold for example in read_prompts(config, part).examples)


@pytest.mark.parametrize(
    ("path", "minimum"),
    [("instructions/alpaca_200.json", 190), ("instructions/evol_instruct_200.json", 190)],
)
def test_published_instruction_data_is_read(shared_data: Path, path: str, minimum: int) -> None:
    assert len(read_train(data(shared_data / path)).examples) >= minimum
