"""A quick check that everything a sweep reads exists and can be read, before anything starts.

In: trial configurations. Out: nothing, or one error that names the file. It reads headers, rows and
reference answers, and loads no weights; torch only for models that need it to be understood. Every
command that trains asks the same list, so that what one accepts, the others start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from symnoise_ray.config import (
    DataConfig,
    JudgeConfig,
    ModelConfig,
    SweepConfig,
    TrialConfig,
    WorkersConfig,
)
from symnoise_ray.config.data import HELD_BACK
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.data.rows import read_prompts, read_texts, read_train
from symnoise_ray.data.tokens import row_limit
from symnoise_ray.errors import DataError
from symnoise_ray.generation.harness_tasks import task_index
from symnoise_ray.generation.room import prompt_room
from symnoise_ray.generation.vllm_package import require_vllm
from symnoise_ray.judges.self_check import check_settings
from symnoise_ray.models.folder import look
from symnoise_ray.preflight.prompts import asked_prompts, check_prompts
from symnoise_ray.preflight.resources import require_machine
from symnoise_ray.records.completions import read_completions
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.paths import read_space
from symnoise_ray.space.trials import SweepPlans, known_points
from symnoise_ray.training.schedule import require_even_split

Part = TypeVar("Part", bound=tuple[Any, ...])


def check_inputs(
    configs: Iterable[TrialConfig], workers: WorkersConfig | None = None, *, judged: bool = True
) -> tuple[str, ...]:
    """The checks of every command that trains: of settings together, data, models and judges.

    Args:
        configs: The trials.
        workers: What runs each of them, in a sweep; None for one process.
        judged: Whether their answers will be judged. If not, neither gold answers nor a reference
            are needed.

    Returns:
        What a person should know though it is no mistake, a line each.

    Raises:
        UserError: a model is not usable, settings do not go together, or the machine is too small.
        DataError: a data file is missing, broken or empty, or a reference lacks an answer.
    """
    configs = list(configs)
    if workers is not None:
        for batch, judge in _distinct(configs, lambda c: (c.train.global_batch_size, c.judge)):
            require_even_split(batch, workers.num_workers)
            require_machine(workers, judge)
    for data, gold in _distinct(configs, lambda c: (c.data, judged and needs_gold(c.judge))):
        _check_data(data, gold)
    for (judge,) in _distinct(configs, lambda c: (c.judge,)):
        check_settings(judge)
    notes = _check_models(configs) + check_prompts(configs, judged=judged)
    for data, model, judge in _distinct(configs, lambda c: (c.data, c.model, c.judge)):
        if judged:
            _check_reference(data, model, judge)
    for (generate,) in _distinct(configs, lambda c: (c.generate,)):
        require_vllm(generate)
    for (harness,) in _distinct(configs, lambda c: (c.harness,)):
        if harness.tasks:
            task_index(harness)
    return notes


def _distinct(configs: Iterable[TrialConfig], parts: Callable[[TrialConfig], Part]) -> list[Part]:
    """Different parts of trials, each once, in their order."""
    return list(dict.fromkeys(map(parts, configs)))


def _check_models(configs: list[TrialConfig]) -> tuple[str, ...]:
    """Every model with all that is asked of it, and the models of local judges."""
    notes: list[str] = []
    for (model,) in _distinct(configs, lambda c: (c.model,)):
        own = [config for config in configs if config.model == model]
        found = look(model, dict.fromkeys(config.lora for config in own))
        notes += found.notes
        for data, generate in _distinct(own, lambda c: (c.data, c.generate)):
            row_limit(data, found.context)
            prompt_room(generate, found.context)
    for (judge,) in _distinct(configs, lambda c: (c.judge,)):
        if judge.type == "local":
            judging = ModelConfig(name=str(judge.model), revision=judge.revision)
            notes += look(judging, setting="judge.model").notes
    return tuple(notes)


def _check_data(data: DataConfig, gold: bool) -> None:
    read_train(data)
    read_prompts(data, "eval", gold=gold)
    if data.texts is not None:
        read_texts(data.texts, data.num_texts)
    if data.confirm_prompts is not None:
        rows = read_prompts(data, "confirm", gold=gold)
        if data.confirm_prompts == HELD_BACK and len(rows.examples) < 2:
            raise DataError(
                f"{data.eval_prompts}: must leave at least 2 prompts for the confirmation, but "
                f"data.confirm_share and the limits of prompts leave {len(rows.examples)}; add "
                "prompts or raise them"
            )


def _check_reference(data: DataConfig, model: ModelConfig, judge: JudgeConfig) -> None:
    """A file must answer every prompt of the search; the confirmation makes its own reference."""
    if judge.reference == "baseline":
        return
    answered = {answer.requests for answer in read_completions(Path(judge.reference))}
    prompts = asked_prompts(data, model, data.prompts, gold=needs_gold(judge)).examples
    asked = [example.requests for example in prompts]
    missing = [requests for requests in asked if requests not in answered]
    if missing:
        raise DataError(
            f"{judge.reference}: must answer every evaluation prompt, but lacks {len(missing)} of "
            f"{len(asked)}, the first being {missing[0][-1][:60]!r}"
        )


def prepare(space: str, overrides: Sequence[str]) -> SweepConfig:
    """Read and check everything that can be checked without starting anything.

    What a person should know though it is no mistake goes to the standard error.

    Raises:
        UserError: the search space, a data file or a model is not usable.
    """
    config, document = read_space(space, overrides)
    check_sweep(config, document)
    plans = SweepPlans(config, Path())
    for note in check_inputs(map(plans.config, known_points(config)), config.workers):
        print(note, file=sys.stderr)
    return config
