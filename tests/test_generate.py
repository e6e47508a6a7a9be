"""Answers do not depend on how prompts are batched, and what was cut is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from symnoise_ray.config import GenerateConfig, ModelConfig, TrialConfig
from symnoise_ray.errors import DataError
from symnoise_ray.generate import answer_alone, complete
from symnoise_ray.model import Loaded, load
from symnoise_ray.prompts import Example
from symnoise_ray.records import Completion
from symnoise_ray.tokens import tokenise_prompt
from tests.conftest import PAIRS

pytestmark = pytest.mark.usefixtures("process_group")

EXAMPLES = [Example((pair,), dataset=f"set {i}") for i, pair in enumerate(PAIRS)]


@pytest.fixture(params=["without-pad", "with-pad"])
def loaded(request: Any, tiny_model_dir: Path, tiny_model_dir_with_pad: Path) -> Loaded:
    """The tiny model and its tokenizer, with and without a token for padding."""
    folder = tiny_model_dir if request.param == "without-pad" else tiny_model_dir_with_pad
    return load(ModelConfig(name=str(folder)))


def answers(
    loaded: Loaded, examples: list[Example] = EXAMPLES, **settings: Any
) -> list[Completion]:
    """The model's answers with 12 tokens each."""
    config = GenerateConfig.model_validate({"max_new_tokens": 12, "batch_size": 5, **settings})
    completions, counts = complete(
        loaded.model,
        loaded.tokenizer,
        examples,
        "short",
        config,
        context=loaded.context,
        generator="tiny",
    )
    assert not counts
    return completions


def test_prompts_answered_together_are_answered_as_one_by_one(loaded: Loaded) -> None:
    alone = answers(loaded, batch_size=1)
    assert len({completion.output for completion in alone}) > 3
    for batch_size in (2, 5, 50):
        assert answers(loaded, batch_size=batch_size) == alone


def test_answers_come_in_the_order_of_the_prompts_with_what_is_known_of_them(
    loaded: Loaded,
) -> None:
    completions = answers(loaded)
    assert [c.instruction for c in completions] == [e.instruction for e in EXAMPLES]
    assert [c.gold for c in completions] == [e.gold for e in EXAMPLES]
    assert [c.dataset for c in completions] == [e.dataset for e in EXAMPLES]
    assert {c.generator for c in completions} == {"tiny"}
    assert answers(loaded, EXAMPLES[::-1]) == completions[::-1]


def test_the_same_model_gives_the_same_answers(loaded: Loaded) -> None:
    first = answers(loaded)
    torch.manual_seed(99)
    loaded.model.train()
    assert answers(loaded) == first


def test_an_answer_ends_at_the_end_token_and_has_no_space_around_it(loaded: Loaded) -> None:
    for completion in answers(loaded, max_new_tokens=40):
        assert "</s>" not in completion.output
        assert completion.output == completion.output.strip()


def test_a_model_that_ends_at_once_gives_empty_answers(loaded: Loaded) -> None:
    end = loaded.tokenizer.eos_token_id
    with torch.no_grad():
        loaded.model.lm_head.weight.zero_()
        loaded.model.model.norm.weight.zero_()
    assert end == 0  # of equal logits the first wins
    assert {completion.output for completion in answers(loaded)} == {""}


def test_a_repetition_penalty_changes_answers(loaded: Loaded) -> None:
    assert answers(loaded, repetition_penalty=2.0) != answers(loaded)


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted(loaded: Loaded) -> None:
    long = Example((("Look! " * 60 + "Name a colour.", "green"),))
    room = 160 - 12
    prompt = tokenise_prompt(long, loaded.tokenizer, "short")
    assert len(prompt) > room
    config = GenerateConfig(max_new_tokens=12, batch_size=4)
    completions, counts = complete(
        loaded.model,
        loaded.tokenizer,
        [EXAMPLES[0], long, EXAMPLES[1]],
        "short",
        config,
        context=loaded.context,
        generator="tiny",
    )
    assert counts == {"prompts truncated": 1}
    assert completions[1].instruction == long.instruction
    ids = torch.tensor([prompt[-room:]])
    output = loaded.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
    )
    text = loaded.tokenizer.decode(output[0, room:], skip_special_tokens=True)
    assert completions[1].output == text.strip()


@pytest.mark.parametrize("max_new_tokens", [160, 1000])
def test_no_room_for_a_prompt_is_an_error(loaded: Loaded, max_new_tokens: int) -> None:
    with pytest.raises(DataError, match=r"smaller than the model's context of 160, but got 1"):
        answers(loaded, max_new_tokens=max_new_tokens)


def test_a_model_without_a_limit_takes_prompts_whole(loaded: Loaded) -> None:
    completions = answers(Loaded(loaded.model, loaded.tokenizer, None))
    assert completions == answers(loaded)


def test_there_is_a_chance_to_stop_before_every_batch(loaded: Loaded) -> None:
    asked = []
    complete(
        loaded.model,
        loaded.tokenizer,
        EXAMPLES,
        "short",
        GenerateConfig(max_new_tokens=2, batch_size=5),
        context=None,
        generator="tiny",
        between_batches=lambda: asked.append(True),
    )
    assert len(asked) == 3


def test_a_model_on_disk_answers_a_trials_prompts(trial: Callable[..., TrialConfig]) -> None:
    config = trial()
    completions, counts = answer_alone(config, config.model, generator="alone")
    assert [c.instruction for c in completions] == [pair[0] for pair in PAIRS]
    assert {c.generator for c in completions} == {"alone"}
    assert not counts
