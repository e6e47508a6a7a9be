"""What a machine sees of the shared storage, the code and the time.

In: paths. Out: plain values. Another machine may lack this package or hold another version of it,
so the file travels there as it is: it imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
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
        **code_here(),
        "time": time.time(),
    }


def code_here() -> dict[str, Any]:
    """`code` and `versions`, as `look` gives them."""
    return {"code": _code(), "versions": versions()}


def code_differences(seen: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a machine's code, in words.

    Args:
        seen: What it says of itself; see `code_here`.
        here: The same of the machine that the sweep runs on.
    """
    if seen["code"] is None:
        yield f"it must have the package {PACKAGE}, but has none; install it there"
    elif seen["code"] != here["code"]:
        yield f"its {PACKAGE} must be the same code as here, but differs; install it anew"
    for name, version in here["versions"].items():
        if seen["versions"][name] != version:
            other = seen["versions"][name] or "absent"
            yield f"its {name} must be {version} as here, but is {other}"


def code_problem(here: Mapping[str, Any]) -> str:
    """The first thing that is wrong with this machine's code; empty where all is as `here`."""
    return next(code_differences(code_here(), here), "")


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
