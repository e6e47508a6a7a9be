"""What a machine sees of the shared storage, the code and the time.

In: paths. Out: plain values. Another machine may lack this package or hold another version of it,
so the file travels there as it is: it imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "symnoise_ray"
PACKAGES = ("ray", "torch", "deepspeed", "transformers", "optuna", "mlflow", "numpy", "sacrebleu")
"""Packages whose versions can change a number."""


def look(written: str, answer: str, inputs: Sequence[str]) -> dict[str, Any]:
    """Look at this machine.

    Args:
        written: A file that another machine wrote.
        answer: A file to write beside it, with the same content.
        inputs: Files and folders that trials read.

    Returns:
        `problem`, which says why the storage is not shared, or is empty; `missing`, the inputs that
        are not here; `code`, a digest of the package, None without it; `versions`, None for a
        package that is absent; and `time`, in seconds since 1970.
    """
    problem = ""
    try:
        Path(answer).write_text(Path(written).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
    return {
        "problem": problem,
        "missing": [path for path in inputs if not Path(path).exists()],
        "code": _code(),
        "versions": versions(),
        "time": time.time(),
    }


def versions() -> dict[str, str | None]:
    """The versions of Python and of `PACKAGES` on this machine."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _code() -> str | None:
    """A digest of the names and contents of the package's modules; None without the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
