"""Answers by vLLM (the extra `vllm`), in the process that has trained the model.

In: tokenised prompts and the trained model in memory. Out: texts. vLLM starts once in a process,
without weights, and takes those of every trial from memory: nothing goes over the disk. Between
two trials it gives the GPU's memory back. The greedy answers are those of transformers but for
near ties, since other kernels sum in another order; draws are vLLM's own, by the seed and the
prompt's number.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from symnoise_ray.config import GenerateConfig
from symnoise_ray.errors import UserError, one_line
from symnoise_ray.generation.decoding import ends_of, seed_of, texts_of
from symnoise_ray.models.process import choose_device, give_memory_back
from symnoise_ray.models.weights import checkpoint_state

PROMPTS_AT_ONCE = 256
"""Prompts per call, between which a trial may be stopped; as many as vLLM decodes together."""
AS_LONG_AS_FITS = -1
"""Of `max_model_len`: the model's context, or as much of it as there is memory for."""
_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, which has the weights
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # this process keeps the cores that Ray gave it
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


class _Engine(NamedTuple):
    made_for: tuple[str, torch.dtype, float]
    """The model's configuration, its dtype and the share of the memory."""
    model: Any


_engines: list[_Engine] = []
"""The engine of this process, once there is one. It stays: vLLM cannot end without ending the
process group that training uses."""


def answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    numbers: Sequence[tuple[int, int]],
    config: GenerateConfig,
    *,
    longest: int,
    cancelled: Callable[[], bool],
) -> list[str]:
    """Answer tokenised prompts with the weights that the model has now.

    Args:
        model: Whole, with or without adapters, whose weights are added to the others for vLLM.
        tokenizer: Its tokenizer.
        prompts: The prompts.
        numbers: The example and the turn of each.
        config: How to answer.
        longest: Tokens of the longest prompt of all workers.
        cancelled: Asked before every `PROMPTS_AT_ONCE` prompts; if it returns true, the answers
            that are there so far are returned.

    Raises:
        UserError: vLLM is not installed, does not know the model, or has too little memory.
    """
    engine = _engine(model, config, longest + config.max_new_tokens)
    ends, texts = ends_of(model, tokenizer), list[str]()
    try:
        _wake(engine, model)
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            if cancelled():
                break
            part = slice(start, start + PROMPTS_AT_ONCE)
            asked = [{"prompt_token_ids": ids} for ids in prompts[part]]
            how = [_sampling(config, ends, number) for number in numbers[part]]
            answered = engine.generate(asked, how, use_tqdm=False)
            rows = [list(each.outputs[0].token_ids) for each in answered]
            texts += texts_of(rows, ends, tokenizer)
    finally:
        _put_to_sleep(engine)
    return texts


def _sampling(config: GenerateConfig, ends: list[int], number: tuple[int, int]) -> Any:
    import vllm

    drawn = config.temperature > 0
    return vllm.SamplingParams(
        max_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=seed_of(config.seed, *number) if drawn else None,
        repetition_penalty=config.repetition_penalty,
        stop_token_ids=ends,
        ignore_eos=True,  # it is among `ends`, which hold all
        detokenize=False,
    )


def _engine(model: Any, config: GenerateConfig, longest: int) -> Any:
    """The engine of this process, asleep, for sequences of so many tokens."""
    dtype = next(model.parameters()).dtype
    made_for = (model.config.to_json_string(use_diff=False), dtype, config.vllm_memory)
    if not _engines:
        _engines.append(_Engine(made_for, _start(model, dtype, config)))
        _put_to_sleep(_engines[0].model)
    if _engines[0].made_for != made_for:
        raise UserError(
            "generate.engine=vllm needs the same kind of model, model.dtype and "
            "generate.vllm_memory in all trials of a sweep, but they differ; use "
            "generate.engine=transformers"
        )
    engine = _engines[0].model
    if longest > (limit := engine.llm_engine.model_config.max_model_len):
        raise UserError(
            f"generate.vllm_memory={config.vllm_memory:g}: vLLM must have room for {longest} "
            f"tokens of one prompt and its answer, but has room for {limit}; choose a larger share"
        )
    return engine


def _start(model: Any, dtype: torch.dtype, config: GenerateConfig) -> Any:
    vllm = _import_vllm()
    give_memory_back()
    try:
        with tempfile.TemporaryDirectory() as folder:
            model.config.save_pretrained(folder)
            return vllm.LLM(
                model=folder,
                skip_tokenizer_init=True,
                load_format="dummy",  # the weights come from memory
                generation_config="vllm",
                dtype=dtype,
                max_model_len=AS_LONG_AS_FITS,
                gpu_memory_utilization=config.vllm_memory,
                enable_sleep_mode=_sleeps(),
                enforce_eager=choose_device().type == "cpu",  # graphs and compilation are for GPUs
                enable_prefix_caching=False,  # the cache of other weights must not be read
                distributed_executor_backend="external_launcher",  # every rank has its own
                seed=0,
            )
    except Exception as error:  # vLLM raises all kinds
        raise UserError(
            "generate.engine=vllm: vLLM must start with this model and with "
            f"generate.vllm_memory={config.vllm_memory:g} of a GPU's memory, but "
            f"{one_line(error)}; choose another share, or generate.engine=transformers"
        ) from error


def _wake(engine: Any, model: nn.Module) -> None:
    """Give vLLM its memory, and the weights of a model in this process."""
    if _sleeps():
        give_memory_back()
        engine.wake_up()
    weights = checkpoint_state(model)
    engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})


def _put_to_sleep(engine: Any) -> None:
    """Let it give its memory back: weights and cache are dropped."""
    if _sleeps():
        engine.sleep(level=2)


def _sleeps() -> bool:
    """Whether vLLM can give its memory back and take it again."""
    return choose_device().type == "cuda"


def _import_vllm() -> Any:
    """The package, with settings for an engine inside this process."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            "generate.engine=vllm needs a vLLM that fits this machine, but importing it failed: "
            f"{one_line(error, limit=200)}"
        ) from None
    logging.getLogger("vllm").setLevel(logging.CRITICAL)  # what fails is raised
    return vllm
