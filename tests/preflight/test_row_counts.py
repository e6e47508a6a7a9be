"""What is foretold of rows and prompts is what training and generation read."""

import shutil
from collections.abc import Callable
from pathlib import Path

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.rows import read_prompts
from symnoise_ray.data.tokens import tokenise_prompt
from symnoise_ray.models.shape import read_shape
from symnoise_ray.models.tokenizer import load_tokenizer
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
