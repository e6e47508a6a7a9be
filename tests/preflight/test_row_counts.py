"""What is foretold of rows and prompts is what training and generation read."""

from collections.abc import Callable

from symnoise_ray.config import TrialConfig
from symnoise_ray.models.shape import read_shape
from symnoise_ray.preflight.row_counts import read_rows
from symnoise_ray.training.corpus import token_table


def test_rows_and_tokens_are_those_of_training(trial: Callable[..., TrialConfig]):
    config = trial()
    table = token_table(config, None, None)
    rows = read_rows(config, read_shape(config.model), None)
    assert rows.num_rows == len(table)
    assert rows.num_tokens == sum(table.lengths)
    assert rows.longest == max(table.lengths)
    assert rows.num_answer_tokens == sum(table.num_answer_tokens)
    assert rows.unknown == ()


def test_rows_in_place_of_the_data_are_as_long_as_they_may_be(trial: Callable[..., TrialConfig]):
    config = trial(data__max_length=100)
    rows = read_rows(config, read_shape(config.model), 7)
    assert (rows.num_rows, rows.longest, rows.longest_prompt) == (7, 100, 100)
    assert rows.num_tokens is None
    assert rows.unknown == ("tokens, because the data was not read; every row counts as 100",)
