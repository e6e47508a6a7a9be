"""What is wrong with a setting, in one plain sentence, with the name that was probably meant.

In: an error of pydantic, or an unknown name. Out: text. The words are those of a YAML file, without
Python's types.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from symnoise_ray.config.redaction import may_be_secret

KeyPath = tuple[str | int, ...]

_KINDS = {
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping, such as {name: value}",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "missing": "must be given",
    "choice": "must be a number, text, true, false or null",
    "scalar": "must be a number, text, true or false",
}
_SHAPES = {
    "Parameter": (
        "must be a mapping, such as {type: float, low: 1e-5, high: 1e-3, log: true} or "
        "{type: categorical, choices: [1, 2]}"
    ),
}
_OTHER_NAMES = {
    "learning_rate": "lr",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "clip": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
    "steps": "max_steps",
    "batch_size": "global_batch_size",
    "train_batch_size": "global_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "r": "rank",
    "lora_r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "noise_alpha": "alpha",
    "neftune_noise_alpha": "alpha",
    "noise_type": "type",
    "path": "name",
    "model_name_or_path": "name",
    "dataset": "train",
    "eval": "eval_prompts",
    "prompts_file": "eval_prompts",
    "max_tokens": "max_new_tokens",
    "bf16": "dtype",
    "n_trials": "num_trials",
    "trials": "num_trials",
    "algorithm": "sampler",
}
"""What other programs call a setting -> its name here."""


def explain(error: Mapping[str, Any], model: type[BaseModel], prefix: KeyPath) -> str:
    """A mistake that pydantic found, without its place.

    Args:
        error: One of `ValidationError.errors()`.
        model: What was validated.
        prefix: The path from the document to the model.
    """
    path, kind = setting_path(error), error["type"]
    key = ".".join(map(str, path)) or "settings"
    if _is_any_scalar(error):
        kind = "choice" if "choices" in path else "scalar"
    if kind == "extra_forbidden":
        return f"'{key}' is not a setting.{_meant(key, path, model)}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = _KINDS.get(kind) or _literal(message, kind) or message
    if kind in ("model_type", "model_attributes_type"):
        message = _SHAPES.get(error["ctx"]["class_name"]) or "must be a mapping of its settings"
    given = error.get("input")
    hidden = kind in ("value_error", "missing") or may_be_secret((*prefix, *path))
    shown = "" if hidden or isinstance(given, BaseModel) else f", but got {_written(given)}"
    if isinstance(given, dict | list | tuple):
        shown = ""
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def setting_path(error: Mapping[str, Any]) -> KeyPath:
    """The path of the setting: pydantic adds the member of a union that it tried."""
    path: KeyPath = tuple(error["loc"])
    kept = [part for part in path if not re.search(r"[\[\]'(]", str(part))]
    kept = [part for part in kept if part not in ("tuple", "str", "dict", "list")]
    return tuple(kept[:-1] if _is_any_scalar(error) else kept)


def _is_any_scalar(error: Mapping[str, Any]) -> bool:
    """Whether any single value may stand there; the first kind that pydantic tries is `bool`."""
    return bool(error["loc"]) and error["loc"][-1] == "bool" and error["type"].startswith("bool")


def _literal(message: str, kind: str) -> str | None:
    """The allowed values, as they are written."""
    if kind != "literal_error":
        return None
    return message.replace("Input should be", "must be").replace("'", "")


def _written(value: Any) -> str:
    """A value as a person would write it in YAML; booleans and null are small there."""
    words = {True: "true", False: "false", None: "null"}
    if value is None or isinstance(value, bool):
        return words[value]
    return repr(value)


def _meant(key: str, path: KeyPath, model: type[BaseModel]) -> str:
    """The nearest setting; of a dotted key, where it stands in a file."""
    last = str(path[-1])
    section, _, name = last.partition(".")
    fields = fields_at(model, path[:-1])
    if name and section in fields:
        return f" A dotted key has no place here: write `{section}: {{{name}: ...}}`."
    return nearest(last, fields)


def nearest(name: str, known: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or the list of known names."""
    section, _, word = name.rpartition(".")
    if other := _OTHER_NAMES.get(word):
        here = f"{section}.{other}" if section else other
        same = [here] if here in known else [each for each in known if each.endswith(f".{other}")]
        if len(same) == 1:
            return f" Did you mean '{same[0]}'?"
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f" Did you mean '{close[0]}'?"
    return f" Known here: {', '.join(sorted(known))}." if known else ""


def fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Names of the settings of the section that a path leads to."""
    for part in path:
        if not isinstance(part, str) or part not in model.model_fields:
            continue  # a key of a dict field: the section below it decides
        candidates = [model.model_fields[part].annotation]
        candidates += [inner for arg in candidates for inner in get_args(arg)]
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if sections:
            model = sections[0]
    return list(model.model_fields)
