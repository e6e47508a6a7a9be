"""Published fixtures of several tools: each is read whole, or refused for the right reason."""

import re
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import DataConfig
from symnoise_ray.data.rows import Rows, read_prompts, read_train
from symnoise_ray.errors import DataError

NO_ANSWER = "rows with nothing to train on"


def read(shared_data: Path, path: str, **settings: Any) -> Rows:
    return read_train(
        DataConfig(
            train=str(shared_data / path),
            eval_prompts=str(shared_data / "instructions" / "alpaca_200.json"),
            overlap_ngram=0,
            **settings,
        )
    )


@pytest.mark.parametrize(
    ("path", "num_rows", "num_turns", "left_out"),
    [
        ("formats/axolotl/alpaca/alpaca.json", 2, 2, {}),
        ("formats/deita_test_sft_5.parquet", 5, 78, {}),
        ("formats/llama_factory/dummy_conversation_history_910.json", 910, 911, {}),
        ("formats/llama_factory/identity.json", 91, 91, {}),
        ("formats/llama_factory/v1_sft_demo.jsonl", 500, 500, {}),
        ("instructions/alpaca_200.json", 196, 196, {NO_ANSWER: 4}),
        ("instructions/alpaca_5000.json", 4998, 4998, {NO_ANSWER: 2}),
        ("instructions/evol_instruct_200.json", 194, 194, {NO_ANSWER: 6}),
        ("instructions/openplatypus_like_232.json", 232, 232, {}),
    ],
)
def test_a_sound_file_is_read_whole(
    shared_data: Path, path: str, num_rows: int, num_turns: int, left_out: dict[str, int]
) -> None:
    rows = read(shared_data, path)
    assert len(rows.examples) == num_rows
    assert sum(len(example.turns) for example in rows.examples) == num_turns
    assert rows.left_out == left_out


@pytest.mark.parametrize(
    ("path", "told", "skipped"),
    [
        ("formats/axolotl/conversation.json", ": must hold a list .* a single object", None),
        ("formats/axolotl/conversation.missingturns.json", ": .* a single object", None),
        ("formats/axolotl/conversation.tokenized.json", ":1: .* not tokens", "1 rows"),
        ("formats/axolotl/conversation.tokenized_llama2chat.json", ":1: .* not tokens", "1 rows"),
        ("formats/llama_factory/mllm_demo.json", " row 1: .* without images", "6 rows"),
        ("formats/llama_factory/reason_tool_use_demo_50.jsonl", ":1: .* need tools", "48 rows"),
        ("formats/llama_factory/v1_dpo_demo.jsonl", ":1: .* not a preference", "10 rows"),
        (
            "instructions/sharegpt_no_assistant_20.json",
            " row 1: a conversation must have an answer to train on",
            "20 rows",
        ),
        ("text/tinystories_1000.json", " row 1: a row must be an object, but got str", "1000 rows"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused_with_the_reason(
    shared_data: Path, path: str, told: str, skipped: str | None
) -> None:
    with pytest.raises(DataError, match=re.escape(path) + told):
        read(shared_data, path)
    told = rf"but got none \({skipped} skipped: " if skipped else told
    with pytest.raises(DataError, match=told):
        read(shared_data, path, on_bad_row="skip")


def test_a_single_conversation_in_brackets_is_read_and_its_empty_turn_told(
    shared_data: Path, tmp_path: Path
) -> None:
    paths = []
    for name in ("conversation", "conversation.missingturns"):
        text = (shared_data / "formats" / "axolotl" / f"{name}.json").read_text()
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(f"[{text}]")
    (example,) = read(shared_data, str(paths[0])).examples
    assert len(example.turns) == 6
    with pytest.raises(DataError, match=r"row 1: a turn must not be empty, but turn 2 \(assist"):
        read(shared_data, str(paths[1]))


def test_the_malformed_conversations_are_told_one_by_one_or_counted_by_reason(
    shared_data: Path, tmp_path: Path
) -> None:
    path = "instructions/sharegpt_103.json"
    told = r"sharegpt_103\.json row 96: a turn must not be empty, but turn 3 \(user\) is"
    with pytest.raises(DataError, match=told):
        read(shared_data, path)
    rows = read(shared_data, path, on_bad_row="skip")
    assert len(rows.examples) == 95
    assert rows.left_out == {
        "rows skipped: a turn must not be empty": 1,
        "rows skipped: a conversation must end with an answer": 6,
        "rows skipped: a conversation must have an answer to train on": 1,
    }


def test_the_published_prompts_keep_their_inputs(shared_data: Path) -> None:
    def prompts(name: str) -> Rows:
        path = str(shared_data / "eval" / name)
        return read_prompts(DataConfig(train=path, eval_prompts=path), "eval")

    tasks = prompts("self_instruct_252.jsonl").examples
    assert len(tasks) == 252
    assert sum(bool(task.input) for task in tasks) > 100
    with pytest.raises(DataError, match=r"but got none \(80 prompts without a gold answer\)"):
        prompts("vicuna_80.jsonl")
