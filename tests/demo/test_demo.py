"""The embedded demo: its files, its rows, its tokenizer and its model are as promised."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from symnoise_ray.demo import build, content, tasks, world
from symnoise_ray.demo import prose as documents

FILES = {
    "train": content.train_file(),
    "eval": content.eval_file(),
    "confirm": content.confirm_file(),
}


def _rows(name: str) -> list[tasks.Row]:
    return [json.loads(line) for line in FILES[name].read_text(encoding="utf-8").splitlines()]


def _pairs(name: str) -> set[tuple[str, str]]:
    return {(row["instruction"], row["input"]) for row in _rows(name)}


def _prompt(row: tasks.Row) -> str:
    given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
    return f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    """Return what the build wrote down about itself."""
    built: dict[str, Any] = json.loads((content.model_dir() / "build.json").read_text("utf-8"))
    return built


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return the committed tokenizer."""
    return AutoTokenizer.from_pretrained(content.model_dir())


@pytest.fixture(scope="module")
def model() -> Any:
    """Return the committed model."""
    return AutoModelForCausalLM.from_pretrained(content.model_dir())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread, as the build does, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "least"), [("train", 512), ("eval", 96), ("confirm", 96)])
def test_sets_are_large_and_balanced(name: str, least: int) -> None:
    families = Counter(row["dataset"] for row in _rows(name))
    assert families.total() >= least
    assert len(families) >= 12
    assert len(set(families.values())) == 1


def test_sets_share_no_prompt() -> None:
    pairs = {name: _pairs(name) for name in FILES}
    together = pairs["train"] | pairs["eval"] | pairs["confirm"]
    assert len(together) == sum(len(_rows(name)) for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_rows_have_gold_and_fit(name: str, tokenizer: Any) -> None:
    for row in _rows(name):
        assert row.keys() == {"instruction", "input", "output", "dataset"}
        assert row["output"].strip() == row["output"] != ""
        tokens = tokenizer(f"<s>{_prompt(row)}{row['output']}</s>")["input_ids"]
        assert len(tokens) < 128


def test_answers_are_unambiguous() -> None:
    gold: dict[tuple[str, str], str] = {}
    for name in FILES:
        for row in _rows(name):
            asked = row["instruction"], row["input"]
            assert gold.setdefault(asked, row["output"]) == row["output"]
    many = tasks.row_sets(seed=1)["train"]
    for row in many:
        asked = row["instruction"], row["input"]
        assert gold.setdefault(asked, row["output"]) == row["output"]


def test_rows_regenerate_byte_for_byte(tmp_path: Path) -> None:
    build.write_data(tmp_path)
    for name, committed in FILES.items():
        assert (tmp_path / f"{name}.jsonl").read_bytes() == committed.read_bytes()


def test_prose_never_uses_the_instruction_format() -> None:
    rng = Random(0)
    asks = {row["instruction"] for name in FILES for row in _rows(name)}
    prose = "\n".join(documents.document(rng) for _ in range(2000))
    assert "###" not in prose
    assert "?" not in prose
    assert not [ask for ask in asks if ask in prose]


def test_every_topic_is_told_and_asked() -> None:
    assert documents.PROSE.keys() == world.TOPICS.keys()
    assert [family.topic for family in tasks.FAMILIES] == list(world.TOPICS)


def test_unknown_topic_is_refused() -> None:
    family = tasks.Family("weather", "{word}", ("What is the weather?",))
    with pytest.raises(KeyError, match="weather"):
        next(family.rows(Random(0)))


def test_model_is_small(model: Any, record: dict[str, Any]) -> None:
    count = sum(weight.numel() for weight in model.parameters())
    assert count == record["parameters"]
    assert 300_000 <= count <= 1_500_000
    assert (content.model_dir() / "model.safetensors").stat().st_size <= 3_000_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.max_position_embeddings == 256


def test_tokenizer_round_trips(tokenizer: Any) -> None:
    for text in (_prompt(_rows("eval")[0]), " The goose says honk.\n", "naïve 123 {x} ünï \t"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_special_tokens_are_distinct(tokenizer: Any, model: Any) -> None:
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<s>",
        "</s>",
        "<pad>",
    )
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(ids) == 3
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.usefixtures("one_thread")
def test_held_out_loss_is_recorded(model: Any, tokenizer: Any, record: dict[str, Any]) -> None:
    loss = build.held_out_loss(model, tokenizer)
    assert loss == pytest.approx(record["held_out_loss"], rel=build.TOLERANCE)


def test_record_says_how_it_was_built(record: dict[str, Any]) -> None:
    assert (record["seed"], record["steps"]) == (build.SEED, build.STEPS)
    assert record["versions"].keys() == {"torch", "transformers", "tokenizers"}


@pytest.mark.rebuild
@pytest.mark.usefixtures("one_thread")
def test_rebuild_agrees_with_the_committed_demo() -> None:
    assert build.differences(content.model_dir().parent) == []
