"""What a worker does with a trial whose model an earlier one has kept."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.generation.answering import complete
from symnoise_ray.records.files import read_lines, write_json
from symnoise_ray.records.layout import COMPLETIONS, KEPT, METRICS, MODEL, OUTCOME
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.task import run_task

pytestmark = pytest.mark.usefixtures("process_group")


def ran(config: TrialConfig, directory: Path) -> Outcome:
    """The worker's part of a trial, with its outcome written as the sweep does."""
    outcome = run_task(config, directory, report=lambda _: None, cancelled=lambda: False)
    assert outcome.status == "done", outcome.detail
    write_json(outcome.to_json(), directory / OUTCOME)
    return outcome


def answers(directory: Path) -> dict[str, Any]:
    return {row["instruction"]: row["output"] for row in read_lines(directory / COMPLETIONS)}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "settings",
    [{}, {"lora__rank": 4, "lora__merge": False}, {"model__dtype": "bf16"}],
    ids=["whole", "adapter", "bf16"],
)
def test_a_kept_model_answers_the_prompts_that_were_added_without_training(
    settings: dict[str, Any], trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    sampled = {"generate__temperature": 0.7, "train__save_model": True, **settings}
    few, all_of_them = tmp_path / "trials" / "few", tmp_path / "trials" / "all"
    before = ran(trial(data__max_eval_prompts=5, **sampled), few)
    write_json(str(few), all_of_them / KEPT)
    after = ran(trial(**sampled), all_of_them)
    assert (len(answers(few)), len(answers(all_of_them))) == (5, 12)
    assert answers(few).items() <= answers(all_of_them).items()
    assert after.summary == {**before.summary, "kept_model_of": "few"}
    assert set(after.seconds) == {"generate"}
    assert read_lines(all_of_them / METRICS) == read_lines(few / METRICS)
    assert {row["generator"] for row in read_lines(all_of_them / COMPLETIONS)} == {"all"}
    assert not (all_of_them / MODEL).exists()


class Asking:
    """Asks a model in the middle of its training, and keeps what it answers."""

    def __init__(self, config: TrialConfig) -> None:
        self.config, self.left, self.answers = config, [False, True, False], list[str]()

    def wanted(self) -> bool:
        """At the second step alone."""
        return bool(self.left) and self.left.pop(0)

    def hold(self, model: Any, tokenizer: Any, template: str, context: int | None) -> None:
        """Let it answer as an order does."""
        asked = [Example(turns=(("Name a colour.", ""),))]
        generate = self.config.generate
        (found,), _ = complete(
            model, tokenizer, asked, template, generate, context=context, generator="asked"
        )
        self.answers.append(found.output)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "settings",
    [{}, {"lora__rank": 4, "lora__dropout": 0.3}, {"generate__temperature": 0.7}],
    ids=["whole", "dropout", "sampled"],
)
def test_a_model_that_is_asked_while_it_trains_goes_on_with_the_same_bits(
    settings: dict[str, Any], trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial(noise__type="symnoise", noise__alpha=5, **settings)
    alone, asked = tmp_path / "trials" / "alone", tmp_path / "trials" / "asked"
    ran(config, alone)
    asking = Asking(config)
    run_task(config, asked, report=lambda _: None, cancelled=lambda: False, interview=asking)
    assert len(asking.answers) == 1
    assert read_lines(alone / METRICS) == read_lines(asked / METRICS)
    assert answers(alone) == answers(asked)


@pytest.mark.slow
def test_a_kept_model_that_is_gone_fails_the_trial_with_its_reason(
    trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    few, all_of_them = tmp_path / "trials" / "few", tmp_path / "trials" / "all"
    config = trial(train__save_model=True)
    ran(config, few)
    shutil.rmtree(few / MODEL)
    write_json(str(few), all_of_them / KEPT)
    outcome = run_task(config, all_of_them, report=lambda _: None, cancelled=lambda: False)
    assert outcome.status == "failed"
    assert str(few / MODEL) in outcome.reason
    assert not (all_of_them / COMPLETIONS).exists()
