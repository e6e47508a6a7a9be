"""A quick check that everything a sweep reads exists and can be read, before anything starts.

In: trial configurations. Out: nothing, or one error that names the file. It reads headers, rows and
reference answers, and loads neither a model nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from symnoise_ray.config import DataConfig, JudgeConfig, ModelConfig, SweepConfig, TrialConfig
from symnoise_ray.config.data import HELD_BACK
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.config.loading import load_sweep
from symnoise_ray.data.rows import read_prompts, read_texts, read_train
from symnoise_ray.data.tokens import row_limit
from symnoise_ray.errors import DataError, UserError, one_line
from symnoise_ray.generation.harness_tasks import task_index
from symnoise_ray.models.source import context_length, hub_config, model_source
from symnoise_ray.records.completions import read_completions
from symnoise_ray.space.check import check_sweep
from symnoise_ray.space.paths import anchor_paths, path_exists
from symnoise_ray.space.trials import SweepPlans, known_points


def _check_length(data: DataConfig, model: ModelConfig) -> None:
    """Check rows against the context of a local model; training checks that of a hub model."""
    file = Path(model_source(model)) / "config.json"
    if file.exists():
        row_limit(data, context_length(json.loads(file.read_text(encoding="utf-8"))))


def check_inputs(configs: Iterable[TrialConfig], *, judged: bool = True) -> None:
    """Check every distinct model, data set and reference of some trials.

    Args:
        configs: The trials.
        judged: Whether their answers will be judged. If not, neither gold answers nor a reference
            are needed.

    Raises:
        UserError: a model cannot be read, or is a folder that does not exist.
        DataError: a data file is missing, broken or empty, or a reference lacks an answer.
    """
    configs = list(configs)
    for data, gold in dict.fromkeys(
        (config.data, judged and needs_gold(config.judge)) for config in configs
    ):
        _check_data(data, gold)
    for model in dict.fromkeys(config.model for config in configs):
        _check_model(model, "model.name")
    for judge in dict.fromkeys(config.judge for config in configs):
        if judge.api_key_file is not None and not path_exists(judge.api_key_file):
            # The value is not shown: it may be the key.
            raise UserError("judge.api_key_file: must name the key's file, but there is none")
        if judge.type == "local":
            _check_model(ModelConfig(name=str(judge.model), revision=judge.revision), "judge.model")
    for data, model in dict.fromkeys((config.data, config.model) for config in configs):
        _check_length(data, model)
    for data, judge in dict.fromkeys((config.data, config.judge) for config in configs):
        if judged:
            _check_reference(data, judge)
    for harness in dict.fromkeys(config.harness for config in configs):
        if harness.tasks:
            task_index(harness)


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


def _check_model(config: ModelConfig, setting: str) -> None:
    """Read the headers of a local model's files, or the configuration of a model on the hub."""
    folder = Path(model_source(config))
    if not folder.exists():
        _check_hub_model(config, setting)
        return
    try:
        adapter = folder / "adapter_config.json"
        file = adapter if adapter.exists() else folder / "config.json"
        key = "base_model_name_or_path" if adapter.exists() else "model_type"
        if key not in json.loads(file.read_text(encoding="utf-8")):
            raise ValueError(f"{file.name} has no {key}")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise ValueError("it holds no *.safetensors")
        for file in weights:
            with safe_open(file, framework="numpy"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{setting}={config.name}: must be readable, but {one_line(error)}"
        ) from None


def _check_hub_model(config: ModelConfig, setting: str) -> None:
    try:
        hub_config(config)
    except Exception as error:
        # One message for every cause: no such name, no access, no network and no cached copy.
        raise UserError(
            f"{setting}={config.name}: must be {'demo, ' if setting == 'model.name' else ''}a "
            f"folder that exists, or the name of a model on the Hugging Face hub, but "
            f"{one_line(error, 200)}"
        ) from None


def _check_reference(data: DataConfig, judge: JudgeConfig) -> None:
    """A file must answer every prompt of the search; the confirmation makes its own reference."""
    if judge.reference == "baseline":
        return
    answered = {answer.requests for answer in read_completions(Path(judge.reference))}
    prompts = read_prompts(data, data.prompts, gold=needs_gold(judge)).examples
    asked = [example.requests for example in prompts]
    missing = [requests for requests in asked if requests not in answered]
    if missing:
        raise DataError(
            f"{judge.reference}: must answer every evaluation prompt, but lacks {len(missing)} of "
            f"{len(asked)}, the first being {missing[0][-1][:60]!r}"
        )


def prepare(space: str, overrides: Sequence[str]) -> SweepConfig:
    """Read and check everything that can be checked without starting anything.

    Raises:
        UserError: the search space, a data file or a model is not usable.
    """
    config, document = load_sweep(space, overrides)
    check_sweep(config, document)
    config = anchor_paths(config)
    plans = SweepPlans(config, Path())
    check_inputs(plans.config(point) for point in known_points(config))
    return config
