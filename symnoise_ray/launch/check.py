"""One launch file, all its mistakes: what `symnoise-ray validate FILE` prints.

In: a file of `ray up`, KubeRay or Slurm. Out: lines about what is wrong, and what was not checked.
Which kind it is shows in its suffix or in its keys, so that a search space is never taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from symnoise_ray.errors import UserError
from symnoise_ray.launch import images, kuberay, ray_up, ray_up_commands, slurm, texts
from symnoise_ray.launch.documents import Complaint, Document, read_documents

_SLURM_SUFFIX = ".sbatch"
_YAML_SUFFIXES = (".yaml", ".yml")
_TOP_KEY = re.compile(r"^([A-Za-z_]+):", re.MULTILINE)


class Checked(NamedTuple):
    """What was found in a launch file."""

    what: str
    """What the file launches, in words."""
    complaints: list[str]
    """`file:line: what must hold, what came, what to do`, by line."""
    unchecked: list[str]
    """What could not be checked, and which package would."""


def is_launch_file(path: Path) -> bool:
    """Whether a file is a launch file; a search space has none of their keys."""
    if path.suffix == _SLURM_SUFFIX:
        return path.is_file()
    if path.suffix not in _YAML_SUFFIXES or not path.is_file():
        return False
    keys = set(_TOP_KEY.findall(path.read_text(encoding="utf-8", errors="replace")))
    return bool(keys & ray_up.KEYS) or "apiVersion" in keys


def check_launch_file(path: Path) -> Checked:
    """Find every mistake of a launch file.

    Raises:
        UserError: the file cannot be read as text or as YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: must be readable UTF-8 text, but {error}") from None
    found, unchecked = list(texts.check_text(text)), list[str]()
    if path.suffix == _SLURM_SUFFIX:
        what = "a batch script for Slurm"
        found += slurm.check(text)
    else:
        documents = read_documents(text, str(path))
        kinds = sorted({_kind(document) for document in documents})
        what = " and ".join(kinds)
        for document in documents:
            found += _of_document(document)
            unchecked += _unchecked(document)
    lines = [f"{path}:{each.line}: {each.text}" for each in sorted(set(found))]
    return Checked(what, lines, sorted(set(unchecked)))


def _is_ray_up(document: Document) -> bool:
    return "apiVersion" not in document.values


def _kind(document: Document) -> str:
    if _is_ray_up(document):
        return f"a file of `ray up` for {document.get('provider', 'type')}"
    return f"a {document.get('kind')} of Kubernetes"


def _of_document(document: Document) -> Iterator[Complaint]:
    yield from document.repeated
    yield from images.check(document)
    if _is_ray_up(document):
        yield from ray_up.check(document)
        yield from ray_up_commands.check(document)
    else:
        yield from kuberay.check(document)


def _unchecked(document: Document) -> Iterator[str]:
    yield from ray_up.unchecked(document) if _is_ray_up(document) else kuberay.unchecked()
