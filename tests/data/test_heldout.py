"""Rows that are kept out of training: a fixed share by what they ask, whole, disjoint, counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import DataConfig
from symnoise_ray.data.rows import HELD_OUT, read_heldout, read_prompts, read_train
from symnoise_ray.errors import DataError


def data(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> DataConfig:
    """Settings that read these training rows."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {"eval_prompts": str(file), "overlap_ngram": 0}
    return DataConfig.model_validate({"train": str(file), **prompts, **settings})


def rows(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"Say {n}.", "output": str(n)} for n in range(count)]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_about_the_share_is_kept_out_and_the_rest_is_trained_on(
    tmp_path: Path, share: float
) -> None:
    config = data(tmp_path, rows(400), heldout_share=share)
    trained, held = read_train(config), read_heldout(config)
    assert len(held) == pytest.approx(400 * share, rel=0.25)
    assert len(trained.examples) + len(held) == 400
    assert not {row.requests for row in trained.examples} & {row.requests for row in held}
    assert trained.left_out == {HELD_OUT: len(held)}


def test_by_default_every_row_is_trained_on(tmp_path: Path) -> None:
    config = data(tmp_path, rows(20))
    assert len(read_train(config).examples) == 20
    assert read_heldout(config) == []
    assert HELD_OUT not in read_train(config).left_out


def test_rows_that_ask_the_same_stay_together_wherever_they_stand(tmp_path: Path) -> None:
    once = rows(40)
    again = [{**row, "output": f"{row['output']}!"} for row in reversed(once)]
    config = data(tmp_path, once + again, heldout_share=0.3)
    held = read_heldout(config)
    assert len(held) == 2 * len({row.requests for row in held})
    alone = {row.requests for row in read_heldout(data(tmp_path, once, heldout_share=0.3))}
    assert {row.requests for row in held} == alone


def test_a_row_that_counts_twice_is_kept_out_twice(tmp_path: Path) -> None:
    config = data(tmp_path, rows(40), heldout_share=0.3)
    weighted = config.model_copy(update={"train": {config.train: 2.0}})
    assert len(read_heldout(weighted)) == 2 * len(read_heldout(config))
    assert len(read_train(weighted).examples) == 2 * len(read_train(config).examples)


def test_the_parts_of_the_prompts_are_other_ones(tmp_path: Path) -> None:
    """Else rows kept out and prompts held back would be the same ones, of one file."""
    settings = {"heldout_share": 0.5, "confirm_prompts": "held_back", "confirm_share": 0.5}
    config = data(tmp_path, rows(200), **settings)
    held = {row.requests for row in read_heldout(config)}
    asked = {row.requests for row in read_prompts(config, "eval").examples}
    assert 0.3 < len(held & asked) / len(asked) < 0.7


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_of_two_questions_one_is_kept_out_whatever_the_share(tmp_path: Path, share: float) -> None:
    config = data(tmp_path, rows(2), heldout_share=share)
    assert len(read_heldout(config)) == len(read_train(config).examples) == 1


def test_rows_that_all_ask_the_same_cannot_be_parted(tmp_path: Path) -> None:
    config = data(tmp_path, rows(1) * 3, heldout_share=0.5)
    with pytest.raises(
        DataError, match=r"heldout_share=0\.5 needs .* 2 different things, but they"
    ):
        read_train(config)
