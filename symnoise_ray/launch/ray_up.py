"""What holds for a file of `ray up`, beyond what Ray itself checks.

In: the file's document. Out: complaints. Ray's validator lets any key below `provider` and
`node_config` pass, rewrites the node types of fixed machines, and does not know what a sweep needs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.config.faults import KeyPath
from symnoise_ray.errors import one_line
from symnoise_ray.launch import machines
from symnoise_ray.launch.documents import Complaint, Document, hint, key_of, shown, unknown_key

KEYS = {"cluster_name", "provider", "available_node_types", "head_start_ray_commands"}
"""Keys at the top of a file of `ray up`, none of which a search space has."""

_EVERY = {"type", "use_internal_ips", "cache_stopped_nodes", "disable_launch_config_check"}
_MANAGED = {"disable_node_updaters", "foreground_node_launch", "worker_liveness_check"}


class _Keys(NamedTuple):
    required: set[str]
    optional: set[str]

    @property
    def known(self) -> list[str]:
        return sorted({*_EVERY, *_MANAGED, *self.required, *self.optional})


PROVIDERS = {
    "aws": _Keys(
        {"region"},
        {"availability_zone", "security_group", "key_pair", "aws_credentials", "cloudwatch"},
    ),
    "gcp": _Keys({"project_id", "region", "availability_zone"}, {"gcp_credentials"}),
    "azure": _Keys(
        {"location", "resource_group"},
        {
            *("subscription_id", "tags", "unique_id", "subnet_mask", "availability_zone"),
            *("msi_name", "msi_resource_group", "use_external_head_ip"),
        },
    ),
    "local": _Keys({"head_ip", "worker_ips"}, {"external_head_ip"}),
}
"""Provider -> the keys that Ray 2.60 reads of it, found in its source."""


def check(document: Document) -> Iterator[Complaint]:
    """All complaints about a file of `ray up`, but for its commands and images."""
    schema = list(_schema(document))
    yield from schema
    provider = list(_provider(document))
    yield from provider
    if not schema and not provider:
        yield from _prepare(document)
    if _kind(document) == "local":
        yield from _fixed_machines(document)
    if _kind(document) == "azure":
        yield from _azure_keys(document)
    yield from _node_types(document)


def unchecked(document: Document) -> Iterator[str]:
    """What could not be checked here, and what to install for it."""
    kind = _kind(document)
    if package := machines.missing_package(kind):
        yield f"node_config was not checked: pip install {package} describes what {kind} takes"
    elif kind not in PROVIDERS:
        yield f"the keys of provider and node_config were not checked: no list for {kind!r}"


def _kind(document: Document) -> str:
    return str(document.get("provider", "type"))


def _schema(document: Document) -> Iterator[Complaint]:
    """Ray's own schema, all mistakes at once."""
    import jsonschema

    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    values = dict(document.values)
    if _kind(document) == "local":
        # Ray takes this key of fixed machines away before it looks at its schema.
        values.pop("min_workers", None)
    for error in jsonschema.Draft7Validator(schema).iter_errors(values):
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = list(error.schema["properties"])
            for key in error.instance:
                if key not in known:
                    where = f"a file of `ray up`{f' at {key_of(path)}' if path else ''}"
                    yield unknown_key(document, (*path, key), where, known)
        elif error.validator == "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            yield document.at(path, f"{key_of(path)} must have '{missing}'; add it")
        else:
            wanted = f"{error.validator} {error.validator_value}"
            got = shown(path, error.instance)
            yield document.at(path, f"'{key_of(path)}' must be of {wanted}, but got {got}")


def _prepare(document: Document) -> Iterator[Complaint]:
    """The two functions that `ray up` runs before it contacts a provider."""
    import copy

    import click
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            validate_config(prepare_config(copy.deepcopy(document.values)))
    except (Exception, click.exceptions.Exit) as error:
        text = one_line(error)
        key = next((k for k in re.findall(r"`(\w+)`", text) if k in document.values), None)
        yield document.at((key,) if key else (), f"Ray must take the file, but says: {text}")


def _provider(document: Document) -> Iterator[Complaint]:
    kind = _kind(document)
    from ray.autoscaler._private.providers import _NODE_PROVIDERS

    if not document.mapping("provider"):
        return  # the schema says so
    if kind not in _NODE_PROVIDERS:
        text = f"'provider.type' must be a provider of Ray, but got {kind!r}."
        yield document.at(("provider", "type"), text + hint(kind, list(_NODE_PROVIDERS)))
    if kind not in PROVIDERS:
        return
    keys, given = PROVIDERS[kind], document.mapping("provider")
    if kind == "local" and "coordinator_address" in given:
        return  # machines that somebody else's server hands out
    for key in given:
        if key not in keys.known:
            yield unknown_key(document, ("provider", key), f"Ray's provider {kind}", keys.known)
    for key in sorted(keys.required - set(given)):
        text = f"'provider.{key}' must be given for {kind}, but is missing; add it"
        yield document.at(("provider",), text)


def _fixed_machines(document: Document) -> Iterator[Complaint]:
    """Addresses are addresses and differ, and all machines are wanted at all times."""
    head, workers = document.get("provider", "head_ip"), document.items("provider", "worker_ips")
    listed: dict[str, KeyPath] = {}
    places: list[tuple[KeyPath, Any]] = [(("provider", "head_ip"), head)] if head else []
    places += [(("provider", "worker_ips", index), each) for index, each in enumerate(workers)]
    for path, address in places:
        if not _is_host(str(address)):
            text = f"'{key_of(path)}' must be an IP address or a host name, but got {address!r}"
            yield document.at(path, text)
        if str(address) in listed:
            yield document.at(path, f"a machine must be listed once, but {address} comes again")
        listed[str(address)] = path
    if not workers and "coordinator_address" not in document.mapping("provider"):
        text = "'provider.worker_ips' must list the workers; without any, use `ray start --head`"
        yield document.at(("provider", "worker_ips"), text)
    for bound in ("min_workers", "max_workers"):
        given = document.get(bound)
        if workers and given is not None and given != len(workers):
            text = f"'{bound}' must be {len(workers)}, the number of worker_ips, but got {given!r}"
            yield document.at((bound,), text)
    yield from _autoscaler_of_fixed_machines(document)


def _autoscaler_of_fixed_machines(document: Document) -> Iterator[Complaint]:
    """Ray's second autoscaler, which `ray up` chooses, has no way to start fixed machines."""
    for index, command in enumerate(document.items("head_start_ray_commands")):
        if "ray start" in str(command) and "RAY_enable_autoscaler_v2=0" not in str(command):
            yield document.at(
                ("head_start_ray_commands", index),
                "the head of fixed machines must start with RAY_enable_autoscaler_v2=0, or no "
                "worker ever joins; write it before `ray start`",
            )


def _is_host(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        label = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
        is_name = re.fullmatch(rf"{label}(?:\.{label})*", address) is not None
        # Digits and dots alone are an address with a mistake.
        return is_name and re.search("[A-Za-z]", address) is not None
    return True


def _azure_keys(document: Document) -> Iterator[Complaint]:
    keys = ("ssh_private_key", "ssh_public_key")
    given = [key for key in keys if document.get("auth", key)]
    if len(given) == 1:
        text = f"Ray needs both of {' and '.join(keys)}, or neither; only {given[0]} came"
        yield document.at(("auth", given[0]), text)


def _node_types(document: Document) -> Iterator[Complaint]:
    """GPU machines are bounded, and `node_config` is what the cloud takes."""
    for name in document.mapping("available_node_types"):
        path = ("available_node_types", name)
        node = document.mapping(*path)
        gpus = document.get(*path, "resources", "GPU")
        if gpus and name != document.get("head_node_type") and "max_workers" not in node:
            yield document.at(
                path,
                f"node type '{name}' has GPUs, so it must have max_workers, which bounds what is "
                "rented; add it",
            )
        for below, text in machines.findings(
            _kind(document), document.mapping(*path, "node_config")
        ):
            yield document.at((*path, "node_config", *below), f"node_config: {text}")
