"""What a sweep reads must be there and readable: checked in a moment, before anything starts.

In: trial configurations. Out: nothing, or one error that names the file. Reads headers, rows and
reference answers; loads neither a model nor torch.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from symnoise_ray import deepspeed_json, demo
from symnoise_ray.config import (
    TEMPLATE_NAMES,
    DataConfig,
    HarnessConfig,
    JudgeConfig,
    ModelConfig,
    SweepConfig,
    TrialConfig,
)
from symnoise_ray.errors import DataError, UserError
from symnoise_ray.records import read_completions
from symnoise_ray.rows import HELD_BACK, PRESETS, read_prompts, read_texts, read_train

HUB_SECONDS = 5.0
"""How long a connection to the hub may take to stand."""
ANSWER_SECONDS = 60.0
"""How long the hub may take to answer, on slow networks."""
DEFAULT_LENGTH = 512

PATHS = (
    "model.name",
    "data.train",
    "data.eval_prompts",
    "data.confirm_prompts",
    "data.template",
    "data.texts",
    "judge.reference",
    "judge.prompt",
    "judge.model",
    "judge.api_key_file",
    "harness.include_path",
)
"""Settings that may name a file or folder."""
_OWN_NAMES = {"demo", *PRESETS, *TEMPLATE_NAMES}


def anchor_paths(sweep: SweepConfig) -> SweepConfig:
    """Make the paths of existing files absolute: workers have other working directories."""
    trial = {
        section: {name: _anchor(f"{section}.{name}", value) for name, value in settings.items()}
        for section, settings in sweep.trial.items()
    }
    baselines = tuple(
        {name: _anchor(name, value) for name, value in point.items()} for point in sweep.baselines
    )
    parameters = {
        name: parameter.model_copy(
            update={"choices": tuple(_anchor(name, value) for value in parameter.choices)}
        )
        if parameter.choices
        else parameter
        for name, parameter in sweep.parameters.items()
    }
    return sweep.model_copy(
        update={"trial": trial, "baselines": baselines, "parameters": parameters}
    )


def _anchor(name: str, value: Any) -> Any:
    if name == "train.deepspeed" and value is not None:
        try:
            return deepspeed_json.canonical(value)  # the content, which needs no file
        except ValueError as error:
            raise UserError(str(error)) from None
    if name not in PATHS:
        return value
    if isinstance(value, dict):
        return {_anchor(name, source): weight for source, weight in value.items()}
    if isinstance(value, list | tuple):
        return [_anchor(name, source) for source in value]
    if isinstance(value, str) and value and value not in _OWN_NAMES and _exists(value):
        return str(Path(value).resolve())
    return value


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no path at all: too long, or with a null byte
        return False


def input_files(configs: Iterable[TrialConfig]) -> set[str]:
    """Files and folders that trials read, but for the judge's key."""
    found: set[str] = set()
    for config in configs:
        for section, name in (path.split(".") for path in PATHS if path != "judge.api_key_file"):
            value = getattr(getattr(config, section), name)
            names = value if isinstance(value, dict | list | tuple) else (value,)
            found |= {each for each in names if each and Path(each).is_absolute()}
    return found


def model_source(config: ModelConfig) -> str:
    """Folder or hub name that a model's name stands for."""
    return str(demo.model_dir()) if config.name == "demo" else config.name


def row_limit(data: DataConfig, context: int | None) -> int:
    """Tokens per row at most.

    Args:
        data: The trial's data.
        context: Tokens that the model takes at most, or None where there is no such number.

    Raises:
        UserError: longer rows were asked for than the model takes.
    """
    if data.max_length is not None and context is not None and data.max_length > context:
        raise UserError(
            f"data.max_length={data.max_length} must not exceed the model's context of {context} "
            "tokens; lower it, or leave it out"
        )
    return data.max_length or min(DEFAULT_LENGTH, context or DEFAULT_LENGTH)


def _check_length(data: DataConfig, model: ModelConfig) -> None:
    """The context of a model on the hub is seen when it is loaded, before the first step."""
    file = Path(model_source(model)) / "config.json"
    if file.exists():
        settings = json.loads(file.read_text(encoding="utf-8"))
        row_limit(data, settings.get("max_position_embeddings"))


def check_inputs(configs: Iterable[TrialConfig]) -> None:
    """Check every distinct model, data set and reference of some trials.

    Raises:
        UserError: a model cannot be read, or is a folder that does not exist.
        DataError: a data file is missing, broken or empty, or a reference lacks an answer.
    """
    configs = list(configs)
    for data, gold in dict.fromkeys((config.data, needs_gold(config.judge)) for config in configs):
        _check_data(data, gold)
    for model in dict.fromkeys(config.model for config in configs):
        _check_model(model, "model.name")
    for judge in dict.fromkeys(config.judge for config in configs):
        if judge.api_key_file is not None and not _exists(judge.api_key_file):
            # The value is not shown: it may be the key.
            raise UserError("judge.api_key_file: must name the key's file, but there is none")
        if judge.type == "local":
            _check_model(ModelConfig(name=str(judge.model), revision=judge.revision), "judge.model")
    for data, model in dict.fromkeys((config.data, config.model) for config in configs):
        _check_length(data, model)
    for data, judge in dict.fromkeys((config.data, config.judge) for config in configs):
        _check_reference(data, judge)
    for harness in dict.fromkeys(config.harness for config in configs):
        if harness.tasks:
            task_index(harness)


def needs_gold(judge: JudgeConfig) -> bool:
    """Whether a judge compares with the right answer, so that prompts without one are no use."""
    return judge.type == "reference"


def _check_data(data: DataConfig, gold: bool) -> None:
    read_train(data)
    read_prompts(data, "eval", gold=gold)
    if data.texts is not None:
        read_texts(data.texts, data.num_texts)
    if data.confirm_prompts is not None:
        rows = read_prompts(data, "confirm", gold=gold)
        if data.confirm_prompts == HELD_BACK and len(rows.examples) < 2:
            raise DataError(
                f"{data.eval_prompts}: must hold at least 4 prompts when half of them are held "
                "back for the confirmation"
            )


def _check_model(config: ModelConfig, setting: str) -> None:
    """Read the headers of a local model's files, or the configuration of one on the hub."""
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
        reason = " ".join(str(error).split())
        raise UserError(f"{setting}={config.name}: must be readable, but {reason}") from None


def hub_config(config: ModelConfig) -> Path:
    """The config.json of a model on the hub, or the cached one where the hub cannot be reached.

    Raises:
        OSError, ValueError: no such name, no access, or no connection and no cached copy.
    """
    import huggingface_hub  # a third of a second, for hub names only

    name, file, revision = config.name, "config.json", config.revision
    url = huggingface_hub.hf_hub_url(name, file, revision=revision)
    try:
        # Left to itself the library would try for half a minute where there is no network. Any
        # answer will do, and a slow one as well: only the connection must stand soon.
        seconds = (HUB_SECONDS, ANSWER_SECONDS, ANSWER_SECONDS, HUB_SECONDS)
        huggingface_hub.get_session().head(url, timeout=seconds)
    except Exception as error:  # no name, no route, no answer, offline by choice
        cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        if not isinstance(cached, str):
            raise OSError(f"it is not cached, and the hub cannot be reached: {error}") from None
        return Path(cached)
    return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))


def _check_hub_model(config: ModelConfig, setting: str) -> None:
    try:
        hub_config(config)
    except Exception as error:
        # Every cause (no such name, no network and no cached copy, no access) is told alike.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{setting}={config.name}: must be {'demo, ' if setting == 'model.name' else ''}a "
            f"folder that exists, or the name of a model on the Hugging Face hub, but {reason}"
        ) from None


def _check_reference(data: DataConfig, judge: JudgeConfig) -> None:
    """A file must answer what the search asks; the confirmation answers its prompts itself."""
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


def task_index(config: HarnessConfig) -> Any:
    """lm_eval's `TaskManager`, which knows all the tasks that are asked for.

    The user's own folder alone, where it holds them: to read all that come with lm_eval takes ten
    seconds, once per process.

    Raises:
        UserError: lm_eval is missing, or does not know a task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "harness.tasks needs the package lm_eval (the extra harness): pip install 'lm_eval[hf]'"
        )
    from lm_eval.tasks import TaskManager  # an optional package, and seconds

    folder = config.include_path
    if folder is not None:
        if not any(Path(folder).glob("**/*.yaml")):
            raise UserError(
                f"harness.include_path={folder}: must be a folder with task files (*.yaml), but "
                "there is none"
            )
        own = TaskManager(include_path=folder, include_defaults=False)
        if set(config.tasks) <= set(own.all_subtasks):  # a group may name tasks of others
            return own
    index = _all_tasks(folder)
    for name in config.tasks:
        if name not in index.all_tasks:
            near = difflib.get_close_matches(name, index.all_tasks, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UserError(
                f"harness.tasks: must be tasks or groups that lm_eval knows, but got {name!r}{hint}"
            )
    return index


@functools.lru_cache(maxsize=2)
def _all_tasks(folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager  # see task_index

    return TaskManager(include_path=folder)
