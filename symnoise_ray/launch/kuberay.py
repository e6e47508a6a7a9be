"""What holds for Kubernetes documents around a sweep: KubeRay's objects, claims and policies.

In: a file's documents. Out: complaints. KubeRay's own fields are in `kuberay_fields.json`; pods and
other kinds are checked with Kubernetes' own schemas where kubernetes-validate is installed.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from symnoise_ray.config.faults import KeyPath
from symnoise_ray.errors import one_line
from symnoise_ray.launch.documents import Complaint, Document, hint, key_of, shown, unknown_key
from symnoise_ray.launch.shell import syntax_problem

KUBERNETES = "1.37"
"""Version of Kubernetes whose schemas are taken."""
RAY_KINDS = {"RayJob": "RayJobSpec", "RayCluster": "RayClusterSpec"}
"""Kind of a document -> kind of its `spec` in the list of fields."""

_PLAIN: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
}
_OUTPUT = re.compile(r"--output[= ]([^\s\"']+)")
_SWEEP = re.compile(r"symnoise_ray\.tune|symnoise-ray tune")
_GPUS = re.compile(r"workers\.gpus_per_worker=(?!0+(\.0*)?(\s|$))")


@cache
def _kinds() -> dict[str, dict[str, str]]:
    """KubeRay's objects: kind -> field -> its type, or the kind that it holds."""
    file = Path(__file__).with_name("kuberay_fields.json")
    kinds: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))["kinds"]
    return kinds


def check(document: Document) -> Iterator[Complaint]:
    """All complaints about one document, but for its images."""
    kind, version = document.get("kind"), str(document.get("apiVersion"))
    for key in ("apiVersion", "kind"):
        if not isinstance(document.get(key), str | None):
            yield _wrong(document, (key,), document.get(key), "text")
            return
    if not version.startswith("ray.io/"):
        yield from _kubernetes(document, (), document.values)
        yield from _claim(document)
        return
    if version != "ray.io/v1":
        yield document.at(("apiVersion",), f"apiVersion must be ray.io/v1, but got {version!r}")
    if kind not in RAY_KINDS:
        known = list(RAY_KINDS)
        text = f"kind must be {' or '.join(known)}, but got {kind!r}.{hint(kind, known)}"
        yield document.at(("kind",), text)
        return
    yield from _fields(document, ("spec",), document.get("spec"), RAY_KINDS[kind])
    cluster: KeyPath = ("spec", "rayClusterSpec") if kind == "RayJob" else ("spec",)
    yield from _dashboard(document, cluster)
    yield from _groups(document, cluster)
    yield from _output(document, cluster)
    yield from _first_room(document, cluster)


def unchecked() -> Iterator[str]:
    """What could not be checked here, and what to install for it."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        yield "pods and other kinds were not checked: pip install kubernetes-validate"


def _fields(document: Document, path: KeyPath, value: Any, kind: str) -> Iterator[Complaint]:
    """Fields that the kind does not list, and values of another type."""
    if kind in _kinds():
        yield from _object(document, path, value, _kinds()[kind], kind)
    elif kind.startswith("list of "):
        if not isinstance(value, list):
            yield _wrong(document, path, value, "a list")
            return
        inner = "string" if kind == "list of strings" else kind.removeprefix("list of ")
        for index, item in enumerate(value):
            yield from _fields(document, (*path, index), item, inner)
    elif kind == "strings by name":
        if not isinstance(value, Mapping):
            yield _wrong(document, path, value, "an object of strings")
            return
        for key, item in value.items():
            yield from _fields(document, (*path, key), item, "string")
    elif kind == "PodTemplateSpec":
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": value}
        yield from _kubernetes(document, path, template, below=1)
    elif kind.startswith("container's "):
        container = {"name": "part", kind.removeprefix("container's "): value}
        template = {"spec": {"containers": [container]}}
        whole = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        yield from _kubernetes(document, path, whole, below=5)
    elif kind in _PLAIN:
        is_number = kind in ("integer", "number")
        if not isinstance(value, _PLAIN[kind]) or (is_number and isinstance(value, bool)):
            yield _wrong(document, path, value, f"of type {kind}")
    elif value not in kind.split(" or "):
        yield _wrong(document, path, value, kind)


def _object(
    document: Document, path: KeyPath, value: Any, known: Mapping[str, str], kind: str
) -> Iterator[Complaint]:
    if not isinstance(value, Mapping):
        yield _wrong(document, path, value, "an object")
        return
    for key, child in value.items():
        if key in known:
            yield from _fields(document, (*path, key), child, known[key])
        else:
            yield unknown_key(document, (*path, key), f"KubeRay's {kind}", list(known))


def _wrong(document: Document, path: KeyPath, value: Any, wanted: str) -> Complaint:
    return document.at(path, f"'{key_of(path)}' must be {wanted}, but got {shown(path, value)}")


def _kubernetes(
    document: Document, path: KeyPath, value: Mapping[str, Any], below: int = 0
) -> Iterator[Complaint]:
    """The first mistake that Kubernetes' own schema finds; `below` parts of its path are ours."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        return
    import kubernetes_validate

    try:
        kubernetes_validate.validate(dict(value), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = (*path, *tuple(error.path)[below:])
        unexpected = re.search(r"\('([^']+)' was unexpected\)", str(error.message))
        if unexpected:
            where = (*where, unexpected[1])
        yield document.at(where, f"Kubernetes must take '{key_of(where)}', but: {error.message}")
    except Exception as error:  # a kind that it has no schema of
        yield document.at(path or ("kind",), f"Kubernetes must know it, but: {one_line(error)}")


def _claim(document: Document) -> Iterator[Complaint]:
    modes = document.items("spec", "accessModes")
    if document.get("kind") == "PersistentVolumeClaim" and "ReadWriteMany" not in modes:
        text = f"accessModes must hold ReadWriteMany, since all pods write there, but got {modes}"
        yield document.at(("spec", "accessModes"), text)


def _dashboard(document: Document, cluster: KeyPath) -> Iterator[Complaint]:
    path = (*cluster, "headGroupSpec", "rayStartParams", "dashboard-host")
    host = document.get(*path)
    has_token = document.get(*cluster, "authOptions", "mode") == "token"
    if host is not None and not str(host).startswith(("127.", "localhost")) and not has_token:
        yield document.at(
            path,
            f"a dashboard that others reach must ask for a token, but it listens on {host} without;"
            " add authOptions: {mode: token} to the cluster",
        )


def _groups(document: Document, cluster: KeyPath) -> Iterator[Complaint]:
    for index, group in enumerate(document.items(*cluster, "workerGroupSpecs")):
        path = (*cluster, "workerGroupSpecs", index)
        if isinstance(group, Mapping) and "maxReplicas" not in group:
            name = group.get("groupName", index)
            text = f"worker group '{name}' must have maxReplicas, which bounds what is rented"
            yield document.at(path, f"{text}; add it")


def _output(document: Document, cluster: KeyPath) -> Iterator[Complaint]:
    """The folder that the sweep writes to is a claim's, on the head and on all workers."""
    entrypoint = _entrypoint(document)
    if problem := syntax_problem(entrypoint):
        yield document.at(("spec", "entrypoint"), f"bash must read it, but says: {problem[1]}")
    found = _OUTPUT.search(entrypoint)
    if _SWEEP.search(entrypoint) and found is None:
        text = (
            "a sweep in pods must have --output on the shared volume, or its results go with them"
        )
        yield document.at(("spec", "entrypoint"), f"{text}; add --output FOLDER")
    if found is None:
        return
    pods: list[KeyPath] = [(*cluster, "headGroupSpec", "template", "spec")]
    groups = range(len(document.items(*cluster, "workerGroupSpecs")))
    pods += [(*cluster, "workerGroupSpecs", index, "template", "spec") for index in groups]
    for path in pods:
        if document.mapping(*path) and not _is_shared(document, path, found[1]):
            yield document.at(
                path,
                f"--output {found[1]} must lie on a volume of a claim in every pod, but here it is "
                "the pod's own disk; mount a persistentVolumeClaim there",
            )


def _first_room(document: Document, cluster: KeyPath) -> Iterator[Complaint]:
    """A sweep counts the pods that exist when it starts, unless it is told how many will come."""
    entrypoint = _entrypoint(document)
    groups = document.items(*cluster, "workerGroupSpecs")
    if not groups or not _SWEEP.search(entrypoint) or "workers.max_slots=" in entrypoint:
        return
    head = document.mapping(*cluster, "headGroupSpec", "rayStartParams")
    head_trains = str(head.get("num-cpus")) != "0" and not _GPUS.search(entrypoint)
    starts = [
        group.get("replicas") or group.get("minReplicas")
        for group in groups
        if isinstance(group, Mapping)
    ]
    if not head_trains and not any(starts):
        yield document.at(
            ("spec", "entrypoint"),
            "a sweep must have a worker pod when it starts or know how many will come, but every "
            "worker group begins with 0; add workers.max_slots=N, the trials that all pods hold",
        )


def _entrypoint(document: Document) -> str:
    return str(document.get("spec", "entrypoint") or "")


def _is_shared(document: Document, pod: KeyPath, folder: str) -> bool:
    claims = {
        volume.get("name")
        for volume in document.items(*pod, "volumes")
        if isinstance(volume, Mapping) and "persistentVolumeClaim" in volume
    }
    mounts = document.items(*pod, "containers", 0, "volumeMounts")
    return any(
        mount.get("name") in claims
        and f"{folder}/".startswith(f"{str(mount.get('mountPath')).rstrip('/')}/")
        for mount in mounts
        if isinstance(mount, Mapping)
    )
