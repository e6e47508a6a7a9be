"""What a cloud's own description of its machines says about a `node_config`.

In: the `node_config` of a node type. Out: the paths below it that are wrong, and why. No cloud is
asked: EC2's model lies in botocore, Compute Engine's in google-api-python-client, and what Ray
takes for Azure in Ray.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from symnoise_ray.config.faults import KeyPath
from symnoise_ray.launch.documents import hint, key_of, shown

Finding = tuple[KeyPath, str]

MODELS = {"aws": "botocore", "gcp": "googleapiclient", "azure": "ray"}
"""Provider -> module that describes its machines."""
PACKAGES = {"botocore": "boto3", "googleapiclient": "google-api-python-client", "ray": "ray"}

_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "int": (int,),
    "long": (int,),
    "boolean": (bool,),
    "bool": (bool,),
    "double": (int, float),
    "float": (int, float),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
}
_AZURE_ENUMS = {
    "priority": ["Regular", "Low", "Spot"],
    "evictionPolicy": ["Deallocate", "Delete"],
}
"""Values of two parameters that Ray hands to Azure unread."""
_AZURE_OWN_OF_RAY = {
    *("vmName", "vmTags", "vmCount", "provisionPublicIp", "msi", "nsg", "subnet"),
    *("adminUsername", "publicKey", "zones"),
}
"""Parameters of Ray's template that Ray itself overwrites."""


def missing_package(provider: str) -> str | None:
    """The package that would describe a provider's machines but is not installed, or None."""
    module = MODELS.get(provider)
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return PACKAGES[module]


def findings(provider: str, node_config: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong in a `node_config`, by path; nothing where no model is at hand."""
    if missing_package(provider):
        return
    if provider == "aws":
        # Ray resolves SubnetIds itself: it is the one key that the API does not know.
        call = {key: value for key, value in node_config.items() if key != "SubnetIds"}
        yield from _aws({**call, "MinCount": 1, "MaxCount": 1}, _run_instances(), ())
    elif provider == "gcp":
        yield from _gcp_instance(node_config)
    elif provider == "azure":
        yield from _azure(node_config)


def _is(kind: str, value: Any) -> bool:
    wanted = _SCALARS.get(kind)
    return wanted is None or (
        isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
    )


def _other_kind(kind: str, path: KeyPath, value: Any) -> Finding:
    return path, f"'{key_of(path)}' must be of type {kind}, but got {shown(path, value)}"


def _unlisted(path: KeyPath, value: Any, known: list[str], lister: str) -> Finding:
    return path, (
        f"'{key_of(path)}' must be a value that {lister} lists, but got {shown(path, value)}."
        f"{hint(value, known)}"
    )


def _unknown(path: KeyPath, lister: str, known: list[str]) -> Finding:
    return path, f"'{key_of(path)}' is not a key of {lister}.{hint(path[-1], known)}"


@cache
def _run_instances() -> Any:
    """The shape of EC2's RunInstances."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


def _aws(value: Any, shape: Any, path: KeyPath) -> Iterator[Finding]:
    kind = shape.type_name
    if kind == "structure" and isinstance(value, Mapping):
        for name in shape.required_members:
            if name not in value:
                yield path, f"'{key_of((*path, name))}' must be given: EC2 needs it; add it"
        for key, child in value.items():
            if key in shape.members:
                yield from _aws(child, shape.members[key], (*path, key))
            else:
                yield _unknown((*path, key), f"EC2's {shape.name}", list(shape.members))
    elif kind == "list" and isinstance(value, list):
        for index, child in enumerate(value):
            yield from _aws(child, shape.member, (*path, index))
    elif kind in ("structure", "list"):
        yield _other_kind("object" if kind == "structure" else "array", path, value)
    elif not _is(kind, value):
        yield _other_kind(kind, path, value)
    elif getattr(shape, "enum", []) and value not in shape.enum:
        yield _unlisted(path, value, shape.enum, f"botocore for {shape.name}")


@cache
def _compute_schemas() -> dict[str, Any]:
    """The schemas of Compute Engine."""
    spec = importlib.util.find_spec("googleapiclient")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "discovery_cache" / "documents" / "compute.v1.json"
    schemas: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["schemas"]
    return schemas


def _gcp_instance(node_config: Mapping[str, Any]) -> Iterator[Finding]:
    instance = dict(node_config)
    scheduling = instance.get("scheduling")
    if isinstance(scheduling, list):
        # Ray's own files hold this object in a list of one entry.
        del instance["scheduling"]
        for index, entry in enumerate(scheduling):
            yield from _gcp(entry, {"$ref": "Scheduling"}, ("scheduling", index))
    yield from _gcp(instance, {"$ref": "Instance"}, ())


def _gcp(value: Any, schema: Mapping[str, Any], path: KeyPath) -> Iterator[Finding]:
    name = schema.get("$ref", "")
    schema = _compute_schemas()[name] if name else schema
    kind = schema.get("type", "any")
    if kind == "string" and schema.get("format") in ("int64", "uint64") and _is("int", value):
        return  # a large whole number, which JSON carries as text
    if not _is(kind, value):
        yield _other_kind(kind, path, value)
    elif kind == "object" and "properties" in schema:
        known = schema["properties"]
        for key, child in value.items():
            if key in known:
                yield from _gcp(child, known[key], (*path, key))
            else:
                where = f"Compute Engine's {name or 'object'}"
                yield _unknown((*path, key), where, list(known))
    elif kind == "array":
        for index, child in enumerate(value):
            yield from _gcp(child, schema["items"], (*path, index))
    elif "enum" in schema and value not in schema["enum"]:
        yield _unlisted(path, value, schema["enum"], "Compute Engine")


@cache
def _azure_parameters() -> dict[str, str]:
    """Name -> type of what Ray's template of a machine takes."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "autoscaler" / "_private" / "_azure"
    template = json.loads((folder / "azure-vm-template.json").read_text(encoding="utf-8"))
    kinds = {name: each["type"] for name, each in template["parameters"].items()}
    own = {name: kind for name, kind in kinds.items() if name not in _AZURE_OWN_OF_RAY}
    # Ray reads this one itself and puts zones in its place.
    return own | {"availability_zone": "any"}


def _azure(node_config: Mapping[str, Any]) -> Iterator[Finding]:
    known = ["azure_arm_parameters", "tags"]
    for key in node_config:
        if key not in known:
            yield _unknown((key,), "a node_config of Azure", known)
    given = node_config.get("azure_arm_parameters")
    if not isinstance(given, Mapping):
        yield (), "node_config must have azure_arm_parameters, a mapping with vmSize; add it"
        return
    if "vmSize" not in given:
        yield ("azure_arm_parameters",), "azure_arm_parameters must have vmSize; add it"
    parameters = _azure_parameters()
    for key, value in given.items():
        path = ("azure_arm_parameters", key)
        if key not in parameters:
            yield _unknown(path, "Ray's template for Azure", list(parameters))
        elif not _is(parameters[key], value):
            yield _other_kind(parameters[key], path, value)
        elif key in _AZURE_ENUMS and value not in _AZURE_ENUMS[key]:
            yield _unlisted(path, value, _AZURE_ENUMS[key], "Azure")
