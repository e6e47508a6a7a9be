"""What holds for the commands of a `ray up` file: bash reads them, and machines share a folder.

In: the file's document. Out: complaints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from symnoise_ray.config.faults import KeyPath
from symnoise_ray.launch.documents import Complaint, Document
from symnoise_ray.launch.shell import (
    asks_for_token,
    open_dashboard,
    option_problem,
    starts,
    syntax_problem,
)

_LISTS = (
    *("initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)
_OF_ALL = ("initialization_commands", "setup_commands")
_MOUNTED = re.compile(r"\bmountpoint -q (?P<checked>[^\s;|&)]+)")
_MOUNT = re.compile(
    r"\bmount (?:-\S+ (?:[\w,.=]+ )?)*(?P<source>[^\s-]\S*) (?P<target>/[^\s;|&)]*)"
)
_FUSE = re.compile(
    r"\b(?:gcsfuse|s3fs|goofys|blobfuse2|mount-s3)\b[^;|&\n]* (?P<target>/[^\s;|&)]*)"
)
_LOCAL_SOURCE = ("/dev/", "tmpfs", "overlay")


class _Command(NamedTuple):
    path: KeyPath
    text: str


def check(document: Document) -> Iterator[Complaint]:
    """All complaints about the commands of a file of `ray up`."""
    script = "\n".join(each.text for each in _commands(document))
    for command in _commands(document):
        if problem := syntax_problem(command.text):
            yield document.at(command.path, f"bash must read the command, but says: {problem[1]}")
            continue
        for _, options in starts(command.text):
            yield from _start(document, command, options, script)
    yield from _storage(document)


def _commands(document: Document) -> Iterator[_Command]:
    """The commands of the file, with those of its node types."""
    places: list[KeyPath] = [(name,) for name in _LISTS]
    for node in document.mapping("available_node_types"):
        places += [("available_node_types", node, name) for name in _LISTS]
    for place in places:
        for index, text in enumerate(document.items(*place)):
            if isinstance(text, str):
                yield _Command((*place, index), text)


def _start(document: Document, command: _Command, options: str, script: str) -> Iterator[Complaint]:
    if problem := option_problem(options):
        text = f"`ray start` must take its options, but says: {problem}"
        yield document.at(command.path, text)
    address = open_dashboard(options)
    if address and not asks_for_token(script):
        yield document.at(
            command.path,
            f"a dashboard that others reach must ask for a token, but it listens on {address} "
            "without; write --dashboard-host=127.0.0.1, or RAY_AUTH_MODE=token before `ray start`",
        )


def _storage(document: Document) -> Iterator[Complaint]:
    """All machines write to one shared folder, which is also inside their containers."""
    if not document.get("max_workers") and not document.items("provider", "worker_ips"):
        return
    folders = set()
    for place in _OF_ALL:
        for index, text in enumerate(document.items(place)):
            found = _folders(str(text))
            folders |= {folder for folder, _ in found}
            for folder, source in found:
                if source.startswith(_LOCAL_SOURCE):
                    yield document.at(
                        (place, index),
                        f"all machines must share the folder of runs, but {folder} is the local "
                        f"disk {source}; mount shared storage there",
                    )
    if not folders:
        yield document.at(
            ("initialization_commands",),
            "all machines must share the folder of runs, but no command mounts one; mount it in "
            "initialization_commands, or check it there with `mountpoint -q FOLDER`",
        )
        return
    yield from _replaced(document)
    yield from _in_container(document, folders)


def _folders(command: str) -> list[tuple[str, str]]:
    """The folders that a command mounts or finds mounted, each with its source where it is told."""
    mounted = [(match["target"], match["source"]) for match in _MOUNT.finditer(command)]
    names = {folder for folder, _ in mounted}
    checked = [match["checked"] for match in _MOUNTED.finditer(command)]
    checked += [match["target"] for match in _FUSE.finditer(command)]
    return mounted + [(folder, "") for folder in checked if folder not in names]


def _replaced(document: Document) -> Iterator[Complaint]:
    for node in document.mapping("available_node_types"):
        place = ("available_node_types", node, "initialization_commands")
        own = document.items(*place)
        if document.get(*place) is not None and not any(_folders(str(text)) for text in own):
            yield document.at(
                place,
                f"node type '{node}' must mount the shared folder too, but its own "
                "initialization_commands replace the common ones; repeat the mount in them",
            )


def _in_container(document: Document, folders: set[str]) -> Iterator[Complaint]:
    docker = document.mapping("docker")
    if not any(docker.get(key) for key in ("image", "head_image", "worker_image")):
        return
    options = " ".join(map(str, document.items("docker", "run_options")))
    if not any(folder in options for folder in folders):
        names = ", ".join(sorted(folders))
        yield document.at(
            ("docker", "run_options") if "run_options" in docker else ("docker",),
            f"the shared folder {names} must be in the containers, but run_options have no -v for "
            f"it; add '-v {min(folders)}:{min(folders)}'",
        )
