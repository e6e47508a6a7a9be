"""A trial's result, as its own file and results.json hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from symnoise_ray.records.layout import RESULT


def read_result(directory: Path) -> dict[str, Any] | None:
    """A trial's result, once it has one."""
    path = directory / RESULT
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
