"""What is foretold of rows and prompts is what training and generation read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.rows import read_prompts
from symnoise_ray.data.tokens import tokenise_prompt
from symnoise_ray.generation import answering
from symnoise_ray.judges.prompt import find_prompt
from symnoise_ray.judges.protocol import Pair
from symnoise_ray.models.shape import read_shape
from symnoise_ray.models.tokenizer import load_tokenizer
from symnoise_ray.preflight.forecast import QUESTION_TOKENS, Options, forecast
from symnoise_ray.preflight.row_counts import read_rows
from symnoise_ray.training.corpus import token_table


def require_rows_of_training(config: TrialConfig) -> None:
    """Compare with the rows of training, which transformers' own tokenizer makes."""
    table = token_table(config, None, None)
    rows = read_rows(config, read_shape(config.model), None)
    assert rows.num_rows == len(table)
    assert rows.num_tokens == sum(table.lengths)
    assert rows.longest == max(table.lengths)
    assert rows.num_answer_tokens == sum(table.num_answer_tokens)
    shares = zip(table.num_answer_tokens, table.lengths, strict=True)
    assert rows.answer_share == max(answer / length for answer, length in shares)
    prompts = read_prompts(config.data, "eval", gold=False).examples
    tokenizer = load_tokenizer(config.model)
    lengths = [len(tokenise_prompt(one, tokenizer, config.data.template)) for one in prompts]
    assert (rows.num_prompts, rows.longest_prompt) == (len(prompts), max(lengths))
    assert rows.unknown == ()


def test_rows_and_tokens_are_those_of_training(
    tiny_model_dir_with_pad: Path, trial: Callable[..., TrialConfig]
):
    for model in ("demo", str(tiny_model_dir_with_pad)):
        require_rows_of_training(trial(model__name=model))


def test_rows_of_a_chat_template_are_those_of_training(
    tiny_model_dir: Path, trial: Callable[..., TrialConfig], tmp_path: Path
):
    folder = tmp_path / "chatty"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    require_rows_of_training(trial(model__name=str(folder), data__template="tokenizer"))


def test_rows_of_a_published_model_are_those_of_training(
    shared_data: Path, trial: Callable[..., TrialConfig]
):
    folders = [file.parent for file in sorted(shared_data.glob("models/*/config.json"))]
    assert folders
    rows = str(shared_data / "instructions" / "alpaca_200.json")
    for folder in folders:
        names = {"model__name": str(folder), "data__train": rows, "data__eval_prompts": rows}
        require_rows_of_training(trial(**names, data__template="alpaca", data__max_length=256))


def test_rows_in_place_of_the_data_are_as_long_as_they_may_be(trial: Callable[..., TrialConfig]):
    config = trial(data__max_length=100)
    rows = read_rows(config, read_shape(config.model), 7)
    assert (rows.num_rows, rows.longest, rows.longest_prompt) == (7, 100, 100)
    assert rows.num_tokens is None
    assert rows.unknown == ("tokens, because the data was not read; every row counts as 100",)


# Prompts in turns

TALKS = [
    {"turns": ["Name a colour that you like.", "And another one, if you please.", "And a third?"]},
    {"turns": ["Say hello. " * 9]},
]
ANSWER_TOKENS = 24


@pytest.fixture
def talking(trial: Callable[..., TrialConfig], tmp_path: Path) -> Callable[..., TrialConfig]:
    """Makes trials with those prompts, judged by an endpoint at 1 per token that it reads."""
    prompts = tmp_path / "talks.jsonl"
    prompts.write_text("".join(json.dumps(talk) + "\n" for talk in TALKS))

    def make(**more: Any) -> TrialConfig:
        judge = {"judge__type": "api", "judge__model": "m", "judge__price_input": 1e6}
        generate = {"generate__max_new_tokens": ANSWER_TOKENS}
        return trial(data__eval_prompts=str(prompts), **judge, **generate, **more)

    return make


def answered(
    config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], list[answering.Completion]]:
    """Lengths of all that a model reads which gives the longest answers, and its completions."""
    read: list[int] = []
    tokenizer = load_tokenizer(config.model)
    assert len(tokenizer("z" * ANSWER_TOKENS)["input_ids"]) == ANSWER_TOKENS

    def answers(_model: Any, _tokenizer: Any, prompts: list[list[int]], *_: Any) -> list[str]:
        read.extend(map(len, prompts))
        return ["z" * ANSWER_TOKENS for _ in prompts]

    monkeypatch.setattr(answering, "_answers", answers)
    asked = read_prompts(config.data, "eval", gold=False).examples
    template, settings = config.data.template, config.generate
    told, _ = answering.complete(
        None, tokenizer, asked, template, settings, context=None, generator="long"
    )
    return read, told


def test_no_prompt_in_turns_is_longer_than_foretold(
    talking: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = talking()
    read, _ = answered(config, monkeypatch)
    rows = read_rows(config, read_shape(config.model), None)
    assert max(read) <= rows.longest_prompt <= max(read) + 2 * len("Yes."), "two stand-ins"


def test_no_conversation_costs_more_to_judge_than_foretold(
    talking: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = talking()
    _, told = answered(config, monkeypatch)
    tokenizer = load_tokenizer(config.model)
    need = forecast(config, 1, Options())
    assert need.judge_cost is not None
    assert need.judge_calls is not None
    each = need.judge_cost / need.judge_calls - QUESTION_TOKENS
    for one in told:
        pair = Pair(one.instruction, one.output, one.output, "", one.turns, one.turns)
        pieces = find_prompt("pairwise").user_pieces(pair)
        texts = [piece.text for piece in pieces if piece.filled]
        assert sum(len(tokenizer(text)["input_ids"]) for text in texts) <= each


def test_a_long_single_request_is_read_once_beside_short_conversations(
    talking: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"turns": ["Say hello. " * 99]}) + '\n{"turns": ["a", "b"]}\n')
    config = talking()
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"eval_prompts": str(long)})}
    )
    rows = read_rows(config, read_shape(config.model), None)
    assert rows.longest_judged == rows.longest_prompt > 3 * 99


def test_earlier_answers_count_where_the_model_has_no_tokenizer_here(
    talking: Callable[..., TrialConfig], tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "untold"
    shutil.copytree(tiny_model_dir, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    config = talking(model__name=str(folder))
    rows = read_rows(config, read_shape(config.model), None)
    assert rows.num_prompts == len(TALKS)
    assert rows.longest_prompt == 96 + 2 * ANSWER_TOKENS
    assert rows.longest_judged == 3 * 96 + 2 * 2 * ANSWER_TOKENS


def test_earlier_answers_that_are_not_known_yet_are_not_empty_for_a_chat_template(
    talking: Callable[..., TrialConfig], tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if not message.content %}{{ raise_exception('empty') }}"
        "{% endif %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    config = talking(model__name=str(folder), data__template="tokenizer")
    assert read_rows(config, read_shape(config.model), None).num_prompts == len(TALKS)
