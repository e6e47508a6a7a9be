"""DeepSpeed's stages, offloading and LoRA change where things lie, not what is learnt."""

import functools
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import nn

from symnoise_ray.config import GenerateConfig, ModelConfig, TrialConfig
from symnoise_ray.data.example import Example
from symnoise_ray.generation.answering import complete
from symnoise_ray.models import deepspeed_engine, process
from symnoise_ray.models.deepspeed_engine import (
    accumulate,
    deepspeed_config,
    gathered,
    is_sharded,
    set_lr,
    step,
)
from symnoise_ray.models.weights import DTYPES, adapt, export, load
from symnoise_ray.noise.embedding import NoisyEmbedding
from tests.conftest import PAIRS, byte_tokenizer, llama
from tests.ranks import run_ranks

pytestmark = pytest.mark.usefixtures("process_group")

LR = 1e-2
VOCABULARY = 320
NUM_ROWS = 8
NO_WEIGHT_STAYS = '{"zero_optimization": {"stage3_param_persistence_threshold": 0}}'
"""ZeRO-3 keeps small weights whole by default, and a tiny model has no others."""


class Steps(NamedTuple):
    """What three optimizer steps gave."""

    losses: list[float]
    norms: list[float]


def settings(**sections: Any) -> TrialConfig:
    """A trial; sections as dictionaries."""
    train = {"micro_batch_size": 2, "deepspeed": NO_WEIGHT_STAYS, **sections.pop("train", {})}
    return TrialConfig.model_validate({"optim": {"lr": LR}, "train": train, **sections})


def rows_of(step_number: int) -> torch.Tensor:
    """Token rows of one optimizer step, in micro-batches of two; shape (4, 2, 9)."""
    generator = torch.Generator().manual_seed(step_number)
    return torch.randint(2, VOCABULARY, (NUM_ROWS // 2, 2, 9), generator=generator)


@pytest.mark.slow
def test_deepspeed_is_imported_without_mlflow_which_can_be_imported_afterwards() -> None:
    code = """
import sys, torch
from symnoise_ray.config import TrialConfig
from symnoise_ray.models import deepspeed_engine, process
process.join_process_group(process.choose_device())
deepspeed_engine.stop(deepspeed_engine.start(torch.nn.Linear(2, 2), TrialConfig()))
assert "deepspeed" in sys.modules and "mlflow" not in sys.modules
import mlflow
"""
    alone = {name: value for name, value in os.environ.items() if name != "RANK"}
    subprocess.run([sys.executable, "-c", code], check=True, env=alone)


def three_steps(engine: Any, num_steps: int = 3) -> Steps:
    """Train on fixed rows, spread over the workers, as the training loop does."""
    world_size = dist.get_world_size()
    losses, norms = [], []
    for number in range(num_steps):
        own = rows_of(number)[dist.get_rank() :: world_size]
        set_lr(engine, LR)
        engine.train()
        total = torch.zeros(())
        for index, ids in enumerate(own):
            logits = engine(input_ids=ids, use_cache=False).logits[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
            loss = loss / (NUM_ROWS * 8)
            accumulate(engine, loss * world_size, last=index == len(own) - 1)
            total += loss.detach()
        if world_size > 1:
            dist.all_reduce(total)
        losses.append(float(total))
        norms.append(step(engine))
    return Steps(losses, norms)


class Run:
    """An engine around a model of its own; `with` releases it."""

    def __init__(self, config: TrialConfig, model: nn.Module | None = None) -> None:
        torch.manual_seed(7)  # of the adapters
        model = llama(VOCABULARY) if model is None else model
        self.model = adapt(model.to(DTYPES[config.model.dtype]), config)
        self.engine = deepspeed_engine.start(self.model, config)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        deepspeed_engine.stop(self.engine)
        del self.engine, self.model
        process.give_memory_back()


def trained(config: TrialConfig) -> Steps:
    with Run(config) as run:
        return three_steps(run.engine)


def assert_alike(steps: Steps, expected: Steps) -> None:
    """Equal within the arithmetic of fp32."""
    assert steps.losses == pytest.approx(expected.losses, rel=1e-5)
    assert steps.norms == pytest.approx(expected.norms, rel=1e-4)


@functools.cache
def unsharded(rank: int | None = None) -> Steps:
    """Training at ZeRO 0 in one process: what all others are compared with."""
    return trained(settings(lora={"rank": rank}))


@pytest.mark.parametrize(
    ("stage", "offload"),
    [
        (2, "none"),
        (3, "all"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [(1, "none"), (3, "none"), *((stage, "optimizer") for stage in (1, 2, 3))]
        ),
    ],
)
def test_sharding_and_offloading_do_not_change_training(stage: int, offload: str) -> None:
    steps = trained(settings(train={"zero_stage": stage, "offload": offload}))
    assert_alike(steps, unsharded())


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_sharding_does_not_change_the_training_of_adapters(stage: int) -> None:
    steps = trained(settings(train={"zero_stage": stage}, lora={"rank": 4}))
    assert_alike(steps, unsharded(rank=4))
    assert steps.losses[0] == pytest.approx(unsharded().losses[0], rel=1e-5)
    assert steps.losses[2] != pytest.approx(unsharded().losses[2], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "rank"),
    [
        (3, 4),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in [(0, 4), (0, None), (3, None)]),
    ],
)
def test_recomputed_activations_give_the_same_training(stage: int, rank: int | None) -> None:
    config = settings(
        train={"zero_stage": stage, "gradient_checkpointing": True}, lora={"rank": rank}
    )
    with Run(config) as run:
        calls = []
        run.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(True))
        assert_alike(three_steps(run.engine), unsharded(rank))
    assert len(calls) == 2 * 3 * NUM_ROWS / 2


def test_the_embeddings_hook_sees_whole_rows_under_zero_3() -> None:
    config = settings(
        train={"zero_stage": 3}, noise={"type": "symnoise", "alpha": 5}, model={"dtype": "fp32"}
    )
    with Run(config) as run:
        embedding = run.model.get_input_embeddings()
        expected = llama(VOCABULARY).get_input_embeddings().weight
        assert embedding.weight.numel() == 0
        seen = []
        embedding.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
        noisy = NoisyEmbedding(run.model, config.noise, seed=0)
        ids = rows_of(0)[0]
        run.engine(input_ids=ids)
        noisy.remove()
    torch.testing.assert_close(seen[0], expected[ids])


def test_bf16_trains_in_every_place() -> None:
    expected = trained(settings(model={"dtype": "bf16"}, train={"zero_stage": 1}))
    assert expected.losses == pytest.approx(unsharded().losses, rel=2e-2)
    for train in ({"zero_stage": 2, "offload": "optimizer"}, {"zero_stage": 3, "offload": "all"}):
        steps = trained(settings(model={"dtype": "bf16"}, train=train))
        assert steps.losses == pytest.approx(expected.losses, rel=1e-5)


def test_only_adapters_are_trained() -> None:
    before = llama(VOCABULARY).state_dict()
    with Run(settings(lora={"rank": 4, "target_modules": ["q_proj", "v_proj"]})) as run:
        trainable = {n for n, p in run.model.named_parameters() if p.requires_grad}
        optimized = [p for group in run.engine.optimizer.param_groups for p in group["params"]]
        assert len(trainable) == len(optimized) == 2 * 2 * 2
        assert all("lora_" in name for name in trainable)
        three_steps(run.engine)
        after = {n.replace(".base_layer", ""): p for n, p in run.model.state_dict().items()}
        assert all(torch.equal(after[name], weight) for name, weight in before.items())
        ups = [p for name, p in run.model.named_parameters() if "lora_B" in name]
        assert len(ups) == 4
        assert all(up.abs().sum() > 0 for up in ups)


@pytest.mark.slow
def test_no_weights_stay_when_a_sharded_engine_stops() -> None:
    def bytes_alive() -> int:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def train(**train: Any) -> None:
        with Run(settings(train={"zero_stage": 3, **train}, lora={"rank": 2})) as run:
            three_steps(run.engine, num_steps=1)

    linear = torch.nn.functional.linear
    train()  # what is made once stays
    assert torch.nn.functional.linear is linear, "later trials run torch's own"
    before = bytes_alive()
    train()
    train(deepspeed=None)
    assert bytes_alive() == before


def test_a_users_deepspeed_settings_lie_under_the_trials() -> None:
    given = {
        "zero_optimization": {
            "stage": "auto",
            "reduce_bucket_size": 1000,
            "sub_group_size": "auto",
        },
        "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
        "scheduler": {"params": {"warmup_num_steps": "auto"}},
        "train_batch_size": "auto",
        "steps_per_print": 10,
        "wall_clock_breakdown": False,
    }
    config = settings(train={"zero_stage": 3, "offload": "all", "deepspeed": given})
    plain = settings(train={"zero_stage": 3, "offload": "all", "deepspeed": None})
    expected = deepspeed_config(plain, world_size=4)
    assert expected["train_batch_size"] == 8
    expected["zero_optimization"]["reduce_bucket_size"] = 1000
    assert deepspeed_config(config, world_size=4) == expected | {"wall_clock_breakdown": False}


@pytest.mark.slow
@pytest.mark.nightly
def test_compiled_layers_train_alike_with_noise_and_answer() -> None:
    train = {"compile": True, "zero_stage": 1}
    for rank in (None, 4):
        assert_alike(trained(settings(train=train, lora={"rank": rank})), unsharded(rank))


# Two processes

TOGETHER = {
    "unsharded": settings(),
    "zero-3": settings(train={"zero_stage": 3}),
    "adapters": settings(train={"zero_stage": 3, "offload": "all"}, lora={"rank": 4}),
}
EXAMPLES = [Example((pair,)) for pair in PAIRS[:5]]


def answers(model: nn.Module) -> list[str]:
    """Answers in batches of two; five prompts leave one of two workers without a second batch."""
    config = GenerateConfig(max_new_tokens=8, batch_size=2)
    completions, _ = complete(
        model, byte_tokenizer(), EXAMPLES, "short", config, context=160, generator="two"
    )
    return [completion.output for completion in completions]


def work_together(folder: Path) -> None:
    """One of two processes: train, answer, export, and write down what came of it."""
    process.join_process_group(process.choose_device())
    for name, config in TOGETHER.items():
        with Run(config) as run:
            steps = three_steps(run.engine)
            run.engine.eval()
            with torch.no_grad():
                logits = run.model(input_ids=rows_of(9)[0]).logits
            found = {"steps": steps, "answers": answers(run.model), "logits": logits.tolist()}
            found["sharded"] = is_sharded(run.model)
            export(run.model, byte_tokenizer(), folder / name)
            assert (
                folder / name / "model.safetensors"
            ).exists()  # on every rank: it was waited for
        (folder / f"{name}-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes over gloo left behind."""
    folder = tmp_path_factory.mktemp("together")
    code = (
        "import sys, pathlib, tests.models.test_deepspeed_engine as t\n"
        "t.work_together(pathlib.Path(sys.argv[1]))"
    )
    run_ranks(code, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_two_workers_train_answer_and_export_like_one(name: str, together: Path) -> None:
    first, second = (json.loads((together / f"{name}-{rank}.json").read_text()) for rank in "01")
    assert first["sharded"] == (name != "unsharded")
    assert first["steps"] == second["steps"]
    assert_alike(Steps(*first["steps"]), unsharded(TOGETHER[name].lora.rank))
    reloaded = load(ModelConfig(name=str(together / name))).model
    with torch.no_grad():
        logits = reloaded(input_ids=rows_of(9)[0]).logits
    torch.testing.assert_close(torch.tensor(first["logits"]), logits, rtol=1e-5, atol=1e-5)
    assert first["answers"] == second["answers"] == answers(reloaded)
    assert len(set(first["answers"])) > 1


def test_whole_weights_can_be_read_while_gathered() -> None:
    with Run(settings(train={"zero_stage": 3})) as run:
        weight = run.model.get_input_embeddings().weight
        with gathered([weight]):
            assert torch.equal(weight, llama(VOCABULARY).get_input_embeddings().weight)
        assert weight.numel() == 0
