"""What holds for images: their tag does not move, since all machines must run one Ray.

In: a document. Out: complaints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from symnoise_ray.launch.documents import Complaint, Document, key_of, scalars

_KEYS = {"image", "head_image", "worker_image"}
_MOVING = {"latest", "nightly", "main", "master", "dev"}


def check(document: Document) -> Iterator[Complaint]:
    """Complain about images whose tag names another image tomorrow."""
    for path, value in scalars(document.values):
        if not path or not isinstance(value, str) or not value:
            continue
        if path[-1] == "imageVersion" and value == "latest":
            text = f"'{key_of(path)}' must name one version, but got 'latest', which moves"
            yield document.at(path, text)
        if path[-1] not in _KEYS or "@sha256:" in value:
            continue
        _, colon, tag = value.rpartition("/")[2].partition(":")
        if not colon or any(part in _MOVING for part in re.split(r"[.-]", tag)):
            came = f"the tag '{tag}' moves" if colon else "it has no tag"
            text = f"'{key_of(path)}' must name one version, but {came}; name the version"
            yield document.at(path, text)
