"""The loss on rows that are not trained on, beside the clean loss on rows that are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.data.rows import read_heldout, read_prompts, read_train
from symnoise_ray.data.tokens import tokenise
from symnoise_ray.models.weights import load
from symnoise_ray.preflight.forecast import Options, forecast
from symnoise_ray.training.corpus import further_tables
from symnoise_ray.training.loop import train
from tests.conftest import PAIRS
from tests.data.test_prompts import MARKS, NO_SYSTEM
from tests.noise.helpers import answer_loss, padded

pytestmark = pytest.mark.usefixtures("process_group")

Trial = Callable[..., TrialConfig]

SHARE: dict[str, Any] = {"data__heldout_share": 0.4, "train__probe_alpha": 0}


def run(config: TrialConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records and summary of one training; the model is given up."""
    records: list[dict[str, Any]] = []
    trained = train(config, records.append)
    trained.release()
    return records, trained.summary


def loss_by_hand(config: TrialConfig, examples: list[Example]) -> float:
    """Mean loss per answer token of the untrained model."""
    model, tokenizer, _ = load(config.model)
    rows = tokenise(examples, tokenizer, config.data.template, config.data.max_length).rows
    batch = padded(rows, list(range(len(rows))))
    with torch.no_grad():
        return float(answer_loss(model, batch, torch.zeros(()))) / batch.count


def test_every_loss_is_that_of_its_own_rows(trial: Trial) -> None:
    config = trial(**SHARE, train__max_steps=1, train__num_clean_rows=100)
    first, *_ = run(config)[0]
    prompts = read_prompts(config.data, "eval").examples
    expected = {
        "clean_loss": read_train(config.data).examples,
        "heldout_loss": read_heldout(config.data),
        "gold_loss": prompts,
    }
    assert len({len(examples) for examples in expected.values()}) > 1
    for name, examples in expected.items():
        assert first[name] == pytest.approx(loss_by_hand(config, examples), rel=1e-5), name
    assert len({round(first[name], 4) for name in expected}) == 3


def test_rows_that_the_template_cannot_say_are_left_out_of_what_is_measured_too(
    trial: Trial, tiny_model_dir: Path, tmp_path: Path
) -> None:
    model, file = tmp_path / "chatty", tmp_path / "rows.json"
    shutil.copytree(tiny_model_dir, model)
    (model / "chat_template.jinja").write_text(NO_SYSTEM + MARKS)
    rows = [
        {"instruction": asked, "output": answer, "system": "Be brief." * (number % 3 == 0)}
        for number, (asked, answer) in enumerate(PAIRS)
    ]
    file.write_text(json.dumps(rows))
    given = {"model__name": str(model), "data__train": str(file), "data__eval_prompts": str(file)}
    given |= {"data__template": "tokenizer", "data__on_bad_row": "skip"}
    config = trial(**SHARE, **given, train__num_clean_rows=100)
    held = read_heldout(config.data)
    told = [example for example in held if not example.system]
    assert 0 < len(told) < len(held)
    tables = further_tables(config, "tokenizer", None)
    assert len(tables["heldout_loss"]) == len(told)
    assert len(tables["gold_loss"]) == len(PAIRS) - len(PAIRS) // 3


def test_training_lowers_the_loss_on_its_rows_more_than_on_the_others(trial: Trial) -> None:
    records, summary = run(trial(**SHARE, train__max_steps=30))
    first, last = records[0], records[-1]
    assert summary["heldout_loss"] == last["heldout_loss"]
    assert summary["gold_loss"] == last["gold_loss"]
    gap = {name: first[name] - last[name] for name in ("clean_loss", "heldout_loss")}
    assert gap["clean_loss"] > gap["heldout_loss"] + 0.5


def test_rows_kept_out_are_no_rows_of_training_or_forecast(trial: Trial) -> None:
    config = trial(**SHARE, train__max_steps=None, train__num_epochs=2)
    _, summary = run(config)
    need = forecast(config, 1, Options())
    kept = len(read_train(config.data).examples)
    assert summary["num_train_rows"] == need.rows.num_rows == kept < 12
    assert summary["num_steps"] == need.num_steps


def test_without_a_share_neither_is_measured(trial: Trial) -> None:
    records, _ = run(trial(train__max_steps=1))
    assert not any({"heldout_loss", "gold_loss"} & set(record) for record in records)


def test_no_more_rows_are_measured_than_of_the_clean_loss(trial: Trial) -> None:
    config = trial(**SHARE, train__num_clean_rows=2)
    tables = further_tables(config, config.data.template, None)
    assert {name: len(table) for name, table in tables.items()} == {
        "heldout_loss": 2,
        "gold_loss": 2,
    }


def test_of_a_conversation_only_the_last_right_answer_counts(trial: Trial, tmp_path: Path) -> None:
    """Earlier answers of a prompt are empty, since the model gives them itself."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"turns": ["Say hello.", "Name a colour."], "reference": ["", "green"]}')
    config = trial(**SHARE, data__eval_prompts=str(file))
    table = further_tables(config, config.data.template, None)["gold_loss"]
    talk = Example((("Say hello.", ""), ("Name a colour.", "green")))
    _, tokenizer, _ = load(config.model)
    counted = [
        tokenise([example], tokenizer, config.data.template, 512).rows[0].num_answer_tokens
        for example in (replace(talk, trained=(False, True)), talk)
    ]
    assert table.num_answer_tokens == counted[:1]
    assert counted[0] < counted[1]
