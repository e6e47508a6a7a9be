"""Settings that name files: made absolute when they are read, and listed.

A path in a file begins at the file's folder; if nothing is there, at the working directory. One of
an override begins at the working directory. `~` and `$NAME` stand for what they do in a shell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.config import (
    TEMPLATE_NAMES,
    JudgeConfig,
    SweepConfig,
    TrialConfig,
    deepspeed_json,
)
from symnoise_ray.config.data import HELD_BACK, Source
from symnoise_ray.config.loading import Document, load_judge, load_sweep, load_trial
from symnoise_ray.data.sources import FILE_SUFFIXES, PRESETS
from symnoise_ray.errors import UserError

KEY_FILE = "judge.api_key_file"
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
    KEY_FILE,
    "harness.include_path",
)
"""Settings that may name a file or folder."""
_CONTENT = "train.deepspeed"
"""A setting that names a file whose content takes its place."""
_OWN_NAMES = {"demo", "baseline", HELD_BACK, *PRESETS, *TEMPLATE_NAMES}
_SUFFIXES = {*FILE_SUFFIXES, ".yml"}


def read_space(space: str, overrides: Sequence[str]) -> tuple[SweepConfig, Document]:
    """A search space as `load_sweep` reads it, with absolute paths: workers have other folders."""
    return load_sweep(space, overrides, anchor_sweep)


def read_trial(path: Path | None, overrides: Sequence[str]) -> TrialConfig:
    """A trial as `load_trial` reads it, with absolute paths."""
    return load_trial(path, overrides, anchor_trial)


def read_judge(overrides: Sequence[str]) -> JudgeConfig:
    """A judge as `load_judge` reads it, with absolute paths."""
    return load_judge(overrides, anchor_trial)


def anchor_sweep(values: dict[str, Any], folder: Path) -> None:
    """Make the paths in a search space's values absolute, in place.

    Args:
        values: As they stand in the file: what is no mapping or list is left to later checks.
        folder: Where relative paths begin.

    Raises:
        UserError: a path has a variable that the environment does not have.
    """
    if isinstance(trial := values.get("trial"), dict):
        anchor_trial(trial, folder)
    baselines = values.get("baselines")
    for point in baselines if isinstance(baselines, list) else ():
        for name in point if isinstance(point, dict) else ():
            point[name] = _anchor(name, point[name], folder)
    parameters = values.get("parameters")
    for name, parameter in parameters.items() if isinstance(parameters, dict) else ():
        if isinstance(parameter, dict) and isinstance(parameter.get("choices"), list):
            parameter["choices"] = [_anchor(name, each, folder) for each in parameter["choices"]]


def anchor_trial(values: dict[str, Any], folder: Path) -> None:
    """Make the paths in a trial's values absolute, in place; see `anchor_sweep`."""
    for section, settings in values.items():
        for key in settings if isinstance(settings, dict) else ():
            settings[key] = _anchor(f"{section}.{key}", settings[key], folder)


def _anchor(name: str, value: Any, folder: Path) -> Any:
    if name == _CONTENT and isinstance(value, str) and not value.lstrip().startswith("{"):
        return _content(_absolute(name, value, folder))
    if name not in PATHS:
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return {**value, "name": _anchor(name, value["name"], folder)}  # a source with its parts
    if isinstance(value, dict):
        return {_anchor(name, source, folder): weight for source, weight in value.items()}
    if isinstance(value, list):
        return [_anchor(name, source, folder) for source in value]
    if isinstance(value, str) and value and value not in _OWN_NAMES:
        return _absolute(name, value, folder)
    return value


def _content(path: str) -> str:
    """The content of a DeepSpeed file; of one that cannot be read, its path, to be refused."""
    try:
        return deepspeed_json.canonical(path)
    except ValueError:
        return path


def _absolute(name: str, text: str, folder: Path) -> str:
    """The absolute path of what exists, or of what can only be a path; a hub's name as it is."""
    given = os.path.expandvars(os.path.expanduser(text))
    variable = re.search(r"\$\{?(\w+)", given)
    if variable and name != KEY_FILE and not path_exists(given):
        raise UserError(
            f"{name}={text}: the environment must have the variable {variable[1]}, but has not"
        )
    for place in (folder / given, Path(given)):
        if path_exists(str(place)):
            return str(place.resolve())
    looks_like_one = given.startswith(("/", "./", "../")) or Path(given).suffix in _SUFFIXES
    if name == KEY_FILE or not looks_like_one:
        return given
    return os.path.abspath(folder / given)


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
        for section, name in (path.split(".") for path in PATHS if path != KEY_FILE):
            value = getattr(getattr(config, section), name)
            values = value if isinstance(value, dict | list | tuple) else (value,)
            names = [Source.of(each).name for each in values if each]
            found |= {each for each in names if Path(each).is_absolute()}
    return found
