"""Settings that name files: made absolute, and listed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from symnoise_ray.config import TEMPLATE_NAMES, SweepConfig, TrialConfig, deepspeed_json
from symnoise_ray.config.data import Source
from symnoise_ray.data.sources import PRESETS
from symnoise_ray.errors import UserError

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
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return {**value, "name": _anchor(name, value["name"])}  # a source with its parts
    if isinstance(value, dict):
        return {_anchor(name, source): weight for source, weight in value.items()}
    if isinstance(value, list | tuple):
        return [_anchor(name, source) for source in value]
    if isinstance(value, str) and value and value not in _OWN_NAMES and path_exists(value):
        return str(Path(value).resolve())
    return value


def path_exists(path: str) -> bool:
    """Whether a text names a file or folder."""
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
            values = value if isinstance(value, dict | list | tuple) else (value,)
            names = [Source.of(each).name for each in values if each]
            found |= {each for each in names if Path(each).is_absolute()}
    return found
