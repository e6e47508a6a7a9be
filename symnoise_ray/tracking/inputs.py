"""What a trial trains on and answers, as MLflow's data sets: a name, a digest, a source.

In: a trial's configuration. Out: plain values, one for each source. Two trials that use the same
rows have the same digest.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from symnoise_ray.config import DataConfig
from symnoise_ray.config.data import HELD_BACK, AnySource, Source
from symnoise_ray.data.rows import prompt_source
from symnoise_ray.data.sources import locate
from symnoise_ray.records.files import contents

TRAINING, EVALUATION = "training", "evaluation"
"""Contexts of data sets, in MLflow's words."""
_DIGITS = 8  # of a digest, as MLflow's own data sets have


def data_inputs(data: DataConfig, parts: tuple[str, ...]) -> list[dict[str, str]]:
    """The sources of training rows, and of the prompts of the search or the confirmation.

    Args:
        data: Of the trial.
        parts: Of the prompts: `eval`, `confirm`, or both.
    """
    rows = {"max_train_rows": data.max_train_rows}
    if isinstance(data.train, dict):
        rows |= {"weights": data.train}  # type: ignore[dict-item]
    found = [_described(locate(source), "", TRAINING, rows) for source, _ in data.sources]
    for part in parts:
        held_back = data.confirm_prompts == HELD_BACK
        word = {"eval": "search", "confirm": "confirmation"}[part] if held_back else ""
        choice = {"max_eval_prompts": data.max_eval_prompts}
        if held_back:
            choice |= {"part": part, "share": data.confirm_share}  # type: ignore[dict-item]
        found.append(_described(prompt_source(data, part), word, EVALUATION, choice))
    return found


def _described(given: AnySource, part: str, context: str, choice: dict[str, Any]) -> dict[str, str]:
    """One data set; `choice` are the settings that decide which of its rows are used."""
    whole = Source.of(given)
    source, path = whole.name, Path(whole.name)
    local = path.exists()
    name = str(whole.model_copy(update={"name": path.name if local else source}))
    if whole.chooses:
        choice = {**choice, "split": whole.split, "config": whole.config}
    used = json.dumps([_content(source), choice], sort_keys=True)
    return {
        "name": f"{name} ({part} part)" if part else name,
        "digest": hashlib.sha256(used.encode()).hexdigest()[:_DIGITS],
        "source_type": "local" if local else "hugging_face",
        "source": json.dumps({"uri": source} if local else {"path": source}),
        "context": context,
    }


def _content(source: str) -> list[str]:
    """Hashes of a source's files; of a data set on the hub its name, which is all there is here."""
    path = Path(source)
    if not path.exists():
        return [source]
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stamps = tuple((str(file), file.stat().st_mtime_ns) for file in files)
    return list(_hashes(source, stamps))


@cache
def _hashes(source: str, _stamps: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """Hashed once for all trials of a sweep, and again where a file was edited."""
    return tuple(contents([source]).values())
