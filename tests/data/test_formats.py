"""Every known shape of a row becomes the same example; every other is refused by a rule."""

from typing import Any

import pytest

from symnoise_ray.data.example import Example
from symnoise_ray.data.formats import RowError, to_example

CHAT = Example((("One?", "1"), ("Two?", "2")), system="Be brief.")


def messages(*turns: tuple[str, str], **extra: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **extra}


def sharegpt(*turns: tuple[str, str], **extra: Any) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **extra}


@pytest.mark.parametrize(
    "row",
    [
        messages(
            ("system", "Be brief."),
            ("user", "One?"),
            ("assistant", "1"),
            ("user", "Two?"),
            ("assistant", "2"),
        ),
        sharegpt(
            ("system", "Be brief."),
            ("human", "One?"),
            ("gpt", "1"),
            ("human", "Two?"),
            ("gpt", "2"),
        ),
        sharegpt(
            ("user", "One?"), ("chatgpt", "1"), ("human", "Two?"), ("bard", "2"), system="Be brief."
        ),
        {
            "instruction": "Two?",
            "output": "2",
            "history": [["One?", "1"]],
            "system": "Be brief.",
        },
        messages(
            ("system", "Be brief."),
            ("user", "One?"),
            ("assistant", "1"),
            ("user", "Two?"),
            ("assistant", "2"),
            prompt="not looked at",
            tools=[],
            images=None,
        ),
    ],
    ids=["messages", "sharegpt", "aliases-and-system-column", "alpaca-history", "more-columns"],
)
def test_a_conversation_is_the_same_in_every_shape(row: dict[str, Any]) -> None:
    assert to_example(row) == CHAT


def test_an_instruction_keeps_its_input_and_data_set() -> None:
    row = {"instruction": "Translate.", "input": "cat", "output": "chat", "dataset": "words"}
    assert to_example(row) == Example((("Translate.", "chat"),), input="cat", dataset="words")


def test_prompt_and_completion_are_text_or_messages() -> None:
    assert to_example({"prompt": "One?", "completion": "1"}) == Example((("One?", "1"),))
    row = {
        "prompt": messages(("user", "One?"), ("assistant", "1"), ("user", "Two?"))["messages"],
        "completion": [{"role": "assistant", "content": "2"}],
    }
    assert to_example(row) == Example((("One?", "1"), ("Two?", "2")), trained=(False, True))


def test_content_may_be_a_list_of_text_parts() -> None:
    row = messages(("user", "x"), ("assistant", "y"))
    row["messages"][0]["content"] = [
        {"type": "text", "text": "On"},
        {"type": "text", "value": "e?"},
    ]
    assert to_example(row) == Example((("One?", "y"),))


@pytest.mark.parametrize("key", ["loss_weight", "weight", "train"])
@pytest.mark.parametrize("off", [0, 0.0, False])
def test_an_answer_may_be_kept_out_of_the_loss(key: str, off: Any) -> None:
    row = sharegpt(("human", "One?"), ("gpt", "1"), ("human", "Two?"), ("gpt", "2"))
    row["conversations"][0][key] = off
    row["conversations"][1][key] = off
    row["conversations"][3][key] = None
    assert to_example(row).trained == (False, True)
    row["conversations"][3][key] = off
    assert to_example(row).trained == (False, False)
    assert not to_example(row).teaches
    row["conversations"][1][key] = row["conversations"][3][key] = 1
    assert to_example(row).trained == ()


@pytest.mark.parametrize(
    ("turn", "weight", "told"),
    [(1, 0.5, "a loss weight must be 0 or 1, but turn 2 has 0.5"), (0, 1, "only answers")],
)
def test_a_loss_weight_that_cannot_be_kept_is_refused(turn: int, weight: float, told: str) -> None:
    row = messages(("user", "One?"), ("assistant", "1"))
    row["messages"][turn]["weight"] = weight
    with pytest.raises(RowError, match=told):
        to_example(row)


# Fields

CHATS = messages(("user", "One?"), ("assistant", "1"))["messages"]


def test_fields_name_the_columns_of_any_other_shape() -> None:
    row = {"question": "One?", "answer": "1", "chosen": "x", "image": "y"}
    fields: Any = {"instruction": "question", "output": "answer"}
    assert to_example(row, fields) == Example((("One?", "1"),))
    assert to_example({"chat": CHATS}, {"messages": "chat"}) == Example((("One?", "1"),))
    assert to_example({"q": "One?"}, {"instruction": "q"}, prompt=True) == Example((("One?", ""),))


def test_a_column_that_is_missing_is_told() -> None:
    with pytest.raises(RowError, match=r"from the column answr, but a row has only answer, q"):
        to_example({"q": "1", "answer": "2"}, {"instruction": "q", "output": "answr"})
    with pytest.raises(RowError, match=r"but its keys are output$"):
        to_example({"a": "2"}, {"output": "a"})


# Prompts


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "One?"},
        {"prompt": "One?"},
        {"turns": ["One?"], "category": "generic"},
        {"messages": [{"role": "user", "content": "One?"}]},
        {"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": ""}]},
    ],
)
def test_a_prompt_may_lack_its_answer_but_a_training_row_may_not(row: dict[str, Any]) -> None:
    assert to_example(row, prompt=True) == Example((("One?", ""),))
    with pytest.raises(RowError, match=r"a row must have|an answer to train on|must not be empty"):
        to_example(row)


def test_self_instruct_tasks_keep_their_input() -> None:
    row = {"instruction": "Translate.", "instances": [{"input": "cat", "output": "chat"}]}
    assert to_example(row, prompt=True) == Example((("Translate.", "chat"),), input="cat")
    row["instances"] = row["instances"] * 2  # type: ignore[operator]
    with pytest.raises(RowError, match="instances must be a list of one object"):
        to_example(row)


def test_questions_in_turns_have_open_answers_and_the_last_reference_is_gold() -> None:
    row = {"turns": ["One?", "Two?"], "reference": ["1", "2"]}
    example = to_example(row, prompt=True)
    assert example == Example((("One?", ""), ("Two?", "2")))
    assert to_example({"turns": ["One?", "Two?"]}, prompt=True).gold == ""


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([], "turns must be a list of questions"),
        ("One?", "turns must be a list of questions"),
        (["One?", " "], "a turn must not be empty"),
        (["One?", 2], "turns must be text, but got int"),
    ],
)
def test_turns_that_are_no_questions_are_refused(turns: Any, told: str) -> None:
    with pytest.raises(RowError, match=told):
        to_example({"turns": turns}, prompt=True)


def test_a_prompt_with_earlier_turns_needs_no_answer() -> None:
    row = {"instruction": "Two?", "output": "", "history": [["One?", "1"]]}
    assert to_example(row, prompt=True) == Example((("One?", "1"), ("Two?", "")))


# What is refused


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "not a preference .* chosen, rejected"),
        ({**messages(("user", "a"), ("assistant", "b")), "images": ["x.jpg"]}, "without images"),
        ({**messages(("user", "a"), ("assistant", "b")), "tools": '[{"name": "f"}]'}, "need tools"),
        ({"input_ids": [1], "labels": [1]}, "must be text, not tokens"),
        (sharegpt(("human", "a"), ("function_call", "b")), "must not call tools, but turn 2"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]}, "call tools"),
        (sharegpt(("human", "a"), ("gpt", " \n")), r"must not be empty, but turn 2 \(assistant\)"),
        (sharegpt(("human", ""), ("gpt", "b")), r"must not be empty, but turn 1 \(user\)"),
        ({"instruction": "a", "output": "b", "history": [["c", ""]]}, "empty, but history"),
        ({"instruction": "a", "output": " ", "history": [["c", "d"]]}, "not be empty, but output"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "history must be a list of"),
        ({"instruction": "a", "output": "b", "history": {}}, "history must be .* but got dict"),
        ({"instruction": "a", "output": "b", "history": [[1, "c"]]}, "history must be text"),
        ({"prompt": [], "completion": "b"}, "completion must be messages where prompt is"),
        ({"prompt": ["a"], "completion": []}, "must be a list of objects"),
        ({"text": "plain"}, "but its keys are text"),
        ([], "a row must be an object, but got list"),
    ],
)
def test_what_a_shape_has_no_place_for_is_refused(row: Any, told: str) -> None:
    with pytest.raises(RowError, match=told) as caught:
        to_example(row)
    assert str(caught.value).startswith(caught.value.rule)


def test_the_rule_is_the_same_for_rows_that_break_it_in_their_own_ways() -> None:
    rules = set()
    for turns in ([("user", "a"), ("user", "b")], [("user", "a"), *[("assistant", "b")] * 2]):
        with pytest.raises(RowError, match="take turns, but turn") as caught:
            to_example(messages(*turns))
        rules.add(caught.value.rule)
    assert rules == {"user and assistant must take turns"}
