"""Offline checks of every file under clusters/: nothing here starts a machine.

Ray's own validator accepts any key below `provider` and `node_config`, so this file adds the
missing layers: key allow-lists, the clouds' own service models out of their client libraries,
Kubernetes' own schemas, the fields of KubeRay's objects, shell syntax, and the house rules
(tokens, loopback dashboard, shared storage, pinned versions, no open ports, no secrets).
Each check is shown to refuse a file with one mistake.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import ipaddress
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT

CLUSTERS = ROOT / "clusters"
SCHEMA_FILE = Path(__file__).with_name("kuberay_rayjob_schema.json")
KUBERAY_FILE = Path(__file__).with_name("kuberay_fields.json")
KUBERNETES = "1.37"
"""Version of Kubernetes whose own schemas are taken; its client package ships them."""
PLAIN_TYPES = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "strings by name": {"type": "object", "additionalProperties": {"type": "string"}},
    "list of strings": {"type": "array", "items": {"type": "string"}},
}

RAY_UP_FILES = ("aws.yaml", "gcp.yaml", "onprem.yaml")
KUBERNETES_KINDS = {
    "kuberay/rayjob.yaml": ["rayJob"],
    "kuberay/prerequisites.yaml": ["claim", "networkPolicy"],
}
SHARE = "/mnt/symnoise"
PYTHON_TAG = "py311"
PINNED = ("ray", "torch", "deepspeed", "transformers", "mlflow", "optuna")
COMMAND_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
# Only keys that Ray's providers read and that these files use.
PROVIDER_KEYS = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips"},
    "gcp": {
        "type",
        "project_id",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "use_internal_ips",
    },
    "local": {"type", "head_ip", "worker_ips", "external_head_ip"},
}
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:hf_|ghp_|sk-|xox[bap]-)[A-Za-z0-9]{16,}"
    r"|AIza[0-9A-Za-z_-]{35}"
    r"|(?i:\b(?:password|passwd|secret|api_key|access_key|auth_token|token)\b\s*[:=]\s*)"
    r"[\"']?[A-Za-z0-9+/_-]{16,}"
    r"|://[^/\s:@]+:[^/\s:@]+@"
)

Config = dict[str, Any]


class LintError(ValueError):
    """A cluster file breaks one of the rules below."""


def load(name: str) -> Config:
    """Read one `ray up` file as plain data."""
    return yaml.safe_load((CLUSTERS / name).read_text(encoding="utf-8"))


def load_documents(name: str) -> list[Config]:
    """Read all documents of one Kubernetes file."""
    return list(yaml.safe_load_all((CLUSTERS / name).read_text(encoding="utf-8")))


def require(condition: object, message: str) -> None:
    """Raise `LintError(message)` unless the condition holds."""
    if not condition:
        raise LintError(message)


def commands(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (name of the list, command) for every command of the file."""
    for name in COMMAND_LISTS:
        for command in config.get(name, []):
            yield name, command


def node_types(config: Config) -> dict[str, Config]:
    """Return the file's node types; a fixed list of machines has none."""
    return config.get("available_node_types", {})


# --- rules for `ray up` files -------------------------------------------------------------------


def check_ray_schema(config: Config) -> None:
    """Run the two functions that `ray up` itself runs before it contacts a provider."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def check_provider_keys(config: Config) -> None:
    """Refuse keys under `provider` that Ray would ignore in silence."""
    provider = config["provider"]
    require(provider["type"] in PROVIDER_KEYS, f"no allow-list for provider {provider['type']!r}")
    unknown = sorted(set(provider) - PROVIDER_KEYS[provider["type"]])
    require(not unknown, f"unknown provider keys: {unknown}")


def check_machines(config: Config) -> None:
    """Fixed machines: addresses are addresses, differ, and are all wanted at all times."""
    if config["provider"]["type"] != "local":
        return
    head, workers = config["provider"]["head_ip"], config["provider"]["worker_ips"]
    for address in (head, *workers):
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise LintError(f"not an IP address: {address!r}") from error
    require(workers, "worker_ips is empty")
    require(len({head, *workers}) == 1 + len(workers), "an address is listed twice")
    for bound in ("min_workers", "max_workers"):
        require(config.get(bound) == len(workers), f"{bound} must equal the number of worker_ips")


def check_node_types(config: Config) -> None:
    """The head has no GPU and is never spot; GPU types are bounded and scale from zero."""
    types = node_types(config)
    if not types:
        start = " ".join(config["head_start_ray_commands"])
        require("--num-gpus=0" in start, "the head must be started with --num-gpus=0")
        return
    for name, node in types.items():
        is_head = name == config["head_node_type"]
        gpus = node["resources"].get("GPU")
        if is_head:
            require(gpus == 0, "the head must declare GPU: 0")
            require(not is_spot(node), "the head must not be a spot machine")
        elif gpus:
            require("max_workers" in node, f"GPU node type {name} has no max_workers")
            require(node.get("min_workers") == 0, f"GPU node type {name} must scale from zero")
        market = "spot" if is_spot(node) else "on-demand"
        require(node.get("labels", {}).get("market") == market, f"{name} must be labelled {market}")
    check_fallback(config)


def is_spot(node: Config) -> bool:
    """Tell whether a node type of AWS or Google rents spot machines."""
    node_config = node["node_config"]
    scheduling = node_config.get("scheduling", [{}])[0]
    return (
        node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or scheduling.get("provisioningModel") == "SPOT"
    )


def check_fallback(config: Config) -> None:
    """Spot comes first, a smaller on-demand type stands behind it, and the sum is reachable."""
    workers = {k: v for k, v in node_types(config).items() if k != config["head_node_type"]}
    spot = [node for node in workers.values() if is_spot(node)]
    fallback = [node for node in workers.values() if not is_spot(node)]
    require(spot and fallback, "a spot type and an on-demand fallback are both needed")
    require(
        min(n["priority"] for n in spot) > max(n["priority"] for n in fallback),
        "spot must have a higher priority than its fallback",
    )
    total = [sum(n["max_workers"] for n in group) for group in (spot, fallback)]
    require(total[0] > total[1], "the on-demand fallback must be smaller than spot")
    require(sum(total) == config["max_workers"], "max_workers must be the sum over node types")


def check_network(config: Config) -> None:
    """No public address, and none of Ray's defaults that would open one."""
    kind = config["provider"]["type"]
    if kind == "local":
        return
    require(config["provider"].get("use_internal_ips") is True, "use_internal_ips must be true")
    for name, node in node_types(config).items():
        node_config = node["node_config"]
        if kind == "aws":
            # Without it Ray makes a security group that admits SSH from anywhere.
            require(node_config.get("SecurityGroupIds"), f"{name} names no SecurityGroupIds")
            require(node_config.get("IamInstanceProfile"), f"{name} names no IamInstanceProfile")
        else:
            # Without it Ray adds an interface with external NAT.
            interfaces = node_config.get("networkInterfaces")
            require(interfaces, f"{name} names no networkInterfaces")
            exposed = any("accessConfigs" in interface for interface in interfaces)
            require(not exposed, f"{name} asks for a public address")


def check_ray_start(config: Config) -> None:
    """Every `ray start` uses tokens; the head's dashboard listens on loopback only."""
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in config[name] if "ray start" in command]
        require(len(starts) == 1, f"{name} needs exactly one ray start")
        command = starts[0]
        require("RAY_AUTH_MODE=token ray start" in command, f"{name}: RAY_AUTH_MODE=token missing")
        if name.startswith("head"):
            require("--dashboard-host=127.0.0.1" in command, "dashboard-host must be 127.0.0.1")
            config_flag = "--autoscaling-config=~/ray_bootstrap_config.yaml"
            require(config_flag in command, f"{name}: {config_flag} missing")
        else:
            require("--address=$RAY_HEAD_IP:6379" in command, f"{name}: $RAY_HEAD_IP missing")


def check_ray_options(config: Config) -> None:
    """Ray's own command line parses every `ray start`, without running it."""
    import click
    from ray.scripts.scripts import start

    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[name]:
            _, found, options = command.partition("ray start ")
            if found:
                try:
                    start.make_context("start", shlex.split(options))
                except click.UsageError as error:
                    raise LintError(f"{name}: {error.format_message()}") from error


def check_setup(config: Config) -> None:
    """Ray's default commands are all overridden, and the project's pins are what is installed."""
    for name in COMMAND_LISTS:
        require(name in config, f"{name} is not overridden")
    setup = "\n".join(config["setup_commands"])
    mounts = config["file_mounts"]
    require("requirements.txt" in mounts.values(), "requirements.txt is not synced")
    target = next(remote for remote, local in mounts.items() if local == "requirements.txt")
    require(f"pip install --no-cache-dir -r {target}" in setup, f"{target} is not installed")
    require(mounts.get("~/.ray/auth_token"), "the token file is not synced")


def check_storage(config: Config) -> None:
    """The share is mounted on every machine, visible in its container, and tried for writing."""
    host = "\n".join(config["initialization_commands"])
    require(re.search(rf"mount -t \S+ -o \S+ \S+:\S+ {SHARE}\b", host), f"{SHARE} is never mounted")
    probe = f"probe={SHARE}/runs/"
    require(any(c.startswith(probe) for c in config["setup_commands"]), "the share is never tried")
    for name, node in node_types(config).items():
        # A type's own list would replace the common one and lose the mount.
        require("initialization_commands" not in node, f"{name} replaces initialization_commands")
    if "docker" in config:
        options = config["docker"].get("run_options", [])
        require(f"-v {SHARE}:{SHARE}" in options, f"{SHARE} is not in the container")


def check_shell(config: Config) -> None:
    """`bash -n` parses every command: quotes and brackets close."""
    for name, command in commands(config):
        result = subprocess.run(
            ["bash", "-n"], input=command, text=True, capture_output=True, check=False, timeout=300
        )
        require(result.returncode == 0, f"{name}: bash cannot parse {command!r}: {result.stderr}")


@cache
def run_instances() -> Any:
    """The shape of EC2's RunInstances that botocore ships."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


def check_aws_model(config: Config) -> None:
    """Check each node_config against the RunInstances shape that botocore ships."""
    from botocore.validate import ParamValidator

    shape = run_instances()
    for name, node in node_types(config).items():
        # Ray resolves SubnetIds itself: it is the one key that the API does not know.
        call = {k: v for k, v in node["node_config"].items() if k != "SubnetIds"}
        report = ParamValidator().validate({**call, "MinCount": 1, "MaxCount": 1}, shape)
        require(not report.has_errors(), f"{name}: {report.generate_report()}")
        wrong = list(unlisted_enums(call, shape, name))
        require(not wrong, f"not a value that EC2 lists: {wrong}")


def unlisted_enums(value: Any, shape: Any, where: str) -> Iterator[str]:
    """Yield values outside a shape's enum, which botocore's own validator lets pass."""
    if shape.type_name == "structure":
        for key, child in value.items():
            yield from unlisted_enums(child, shape.members[key], f"{where}.{key}")
    elif shape.type_name == "list":
        for child in value:
            yield from unlisted_enums(child, shape.member, where)
    elif getattr(shape, "enum", []) and value not in shape.enum:
        yield f"{where}={value}"


@cache
def compute_schemas() -> Config:
    """The schemas of Compute Engine that Google's client ships."""
    spec = importlib.util.find_spec("googleapiclient")
    assert spec is not None
    assert spec.origin is not None
    document = Path(spec.origin).parent / "discovery_cache" / "documents" / "compute.v1.json"
    return json.loads(document.read_text(encoding="utf-8"))["schemas"]


def check_gcp_model(config: Config) -> None:
    """Check each node_config against the Instance schema that Google's client ships."""
    schemas = compute_schemas()
    for name, node in node_types(config).items():
        instance = dict(node["node_config"])
        if "scheduling" in instance:
            # Ray's files hold this object in a list of one entry.
            require(len(instance["scheduling"]) == 1, f"{name}: scheduling must have one entry")
            instance["scheduling"] = instance["scheduling"][0]
        wrong = list(unknown_fields(instance, {"$ref": "Instance"}, schemas, name))
        require(not wrong, f"not in the compute API: {wrong}")


def unknown_fields(value: Any, schema: Config, schemas: Config, where: str) -> Iterator[str]:
    """Yield the places where a value differs from a discovery document's schema."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        if not isinstance(value, dict):
            yield f"{where}: not an object"
            return
        for key, child in value.items():
            if key in schema["properties"]:
                inner = schema["properties"][key]
                yield from unknown_fields(child, inner, schemas, f"{where}.{key}")
            else:
                yield f"{where}.{key}"
    elif kind == "array":
        for child in value:
            yield from unknown_fields(child, schema["items"], schemas, where)
    elif kind == "boolean" and not isinstance(value, bool):
        yield f"{where}={value!r}: not a boolean"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}={value}"


# --- rules for every file -----------------------------------------------------------------------


def check_text(text: str) -> None:
    """No secret, no moving tag, no rule that opens a machine to the world."""
    found = SECRET.search(text)
    require(found is None, f"looks like a secret: {found[0][:12] if found else ''}...")
    require("0.0.0.0/0" not in text and "::/0" not in text, "a rule admits the whole internet")
    require(not re.search(r":latest\b", text), "an image tag moves: latest")
    require("nightly" not in re.sub(r"(?m)#.*$", "", text), "a nightly build is installed")


def check_versions(text: str, requirements: str | None = None) -> None:
    """All Ray versions in a file are the installed one, and all pins agree with the project's."""
    installed = importlib.metadata.version("ray")
    named = re.findall(
        r"(?:ray:|symnoise-ray:|rayVersion: |__version__ == \")(\d+\.\d+\.\d+)", text
    )
    require(named, "the file names no Ray version")
    require(set(named) == {installed}, f"Ray {sorted(set(named))}, installed is {installed}")
    tags = re.findall(r"ray:\d+\.\d+\.\d+(\S*)", text)
    allowed = {f"-{PYTHON_TAG}-{kind}" for kind in ("cpu", "gpu", "$kind", "${KIND}")}
    require(set(tags) <= allowed, f"image tags outside {sorted(allowed)}: {tags}")
    ours = pins(text)
    theirs = pins(requirements) if requirements is not None else {}
    for name, versions in ours.items():
        require(len(versions) == 1, f"{name} is pinned to several versions: {sorted(versions)}")
        if name in theirs:
            require(versions == theirs[name], f"{name} differs from requirements.txt")


def pins(text: str) -> dict[str, set[str]]:
    """Collect `name==version` and `name[extra]==version` of a text."""
    found: dict[str, set[str]] = {}
    pattern = r"(?m)\b([A-Za-z][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([0-9][A-Za-z0-9.+]*)"
    for name, version in re.findall(pattern, text):
        found.setdefault(name.lower(), set()).add(version)
    return found


# --- rules for the Kubernetes files -------------------------------------------------------------


def check_kubernetes_schema(document: Config, kind: str) -> None:
    """Validate one document against the reduced schema, which refuses unknown keys."""
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.validate(document, {**schema, "$ref": f"#/$defs/{kind}"})


@cache
def kuberay_kinds() -> Config:
    """KubeRay's own objects: kind -> field -> its type, or the kind that it holds."""
    return json.loads(KUBERAY_FILE.read_text(encoding="utf-8"))["kinds"]


def check_definitions(document: Config) -> None:
    """Validate a document against Kubernetes' own schemas; KubeRay adds its own around them."""
    if document["kind"] == "RayJob":
        check_kuberay_kind(document["spec"], "RayJobSpec", "spec")
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def check_kuberay_kind(value: Any, kind: str, where: str) -> None:
    """Refuse fields that the kind does not list, values of another type, and wrong pods."""
    kinds = kuberay_kinds()
    if kind in PLAIN_TYPES:
        jsonschema.validate(value, PLAIN_TYPES[kind])
    elif kind.startswith("list of "):
        require(isinstance(value, list), f"{where}: not a list")
        for item in value:
            check_kuberay_kind(item, kind.removeprefix("list of "), where)
    elif kind in kinds:
        require(isinstance(value, dict), f"{where}: not an object")
        for name, child in value.items():
            require(name in kinds[kind], f"{where}.{name}: not a field of KubeRay's {kind}")
            check_kuberay_kind(child, kinds[kind][name], f"{where}.{name}")
    elif kind == "PodTemplateSpec":
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": value}
        kubernetes_validate.validate(template, KUBERNETES, strict=True)
    elif kind.startswith("container's "):
        part = {kind.removeprefix("container's "): value}
        spec = {"containers": [{"name": "part", **part}]}
        check_kuberay_kind({"spec": spec}, "PodTemplateSpec", where)
    else:
        require(value in kind.split(" or "), f"{where}={value}: not {kind}")


def pod_specs(job: Config) -> dict[str, Config]:
    """Return the pod specs of head, worker groups and submitter by name."""
    cluster = job["spec"]["rayClusterSpec"]
    specs = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    for group in cluster["workerGroupSpecs"]:
        specs[group["groupName"]] = group["template"]["spec"]
    specs["submitter"] = job["spec"]["submitterPodTemplate"]["spec"]
    return specs


def check_pods(job: Config) -> None:
    """Sizes are guaranteed, the share is on head and workers, the head has no GPU."""
    for name, spec in pod_specs(job).items():
        container = spec["containers"][0]
        sizes = container["resources"]
        require(sizes["requests"] == sizes["limits"], f"{name}: requests differ from limits")
        has_gpu = "nvidia.com/gpu" in sizes["limits"]
        require(has_gpu == name.startswith("gpu-"), f"{name}: wrong use of GPUs")
        expected = f"{PYTHON_TAG}-{'gpu' if has_gpu else 'cpu'}"
        require(container["image"].endswith(expected), f"{name}: image is not {expected}")
        if name != "submitter":
            mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", [])}
            require(SHARE in mounts, f"{name}: {SHARE} is not mounted")
            volumes = {v["name"]: v for v in spec.get("volumes", [])}
            claim = volumes.get(mounts[SHARE], {}).get("persistentVolumeClaim", {})
            require(claim.get("claimName") == "symnoise-runs", f"{name}: {SHARE} is not the claim")


def check_job(job: Config) -> None:
    """The driver gets time to stop, writes to the share, and is not retried by the operator."""
    spec = job["spec"]
    require(f"--output {SHARE}/" in spec["entrypoint"], "the output is not on the share")
    environment = yaml.safe_load(spec["runtimeEnvYAML"]).get("env_vars", {})
    require("RAY_JOB_STOP_WAIT_TIME_S" in environment, "RAY_JOB_STOP_WAIT_TIME_S is not set")
    require(spec["backoffLimit"] == 0, "two attempts may overlap: backoffLimit must be 0")
    head = spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    require(head["num-cpus"] == "0", "the head must offer no CPUs")
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    for group in groups:
        require(group["minReplicas"] == 0, f"{group['groupName']} must scale from zero")
    by_market = {group["labels"]["market"]: group for group in groups}
    require(set(by_market) == {"spot", "on-demand"}, "spot and on-demand are both needed")
    spot, fallback = by_market["spot"], by_market["on-demand"]
    require(spot["priority"] > fallback["priority"], "spot must have the higher priority")
    require(spot["maxReplicas"] > fallback["maxReplicas"], "the fallback must be smaller")


def check_policy(documents: list[Config], job: Config) -> None:
    """The network policy selects every pod of the sweep."""
    policy = next(d for d in documents if d["kind"] == "NetworkPolicy")
    wanted = policy["spec"]["podSelector"]["matchLabels"].items()
    cluster = job["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], job["spec"]["submitterPodTemplate"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    for template in templates:
        labels = template["metadata"]["labels"].items()
        require(wanted <= labels, f"the network policy misses a pod labelled {dict(labels)}")


# --- tests: the shipped files pass --------------------------------------------------------------

RULES: tuple[Callable[[Config], None], ...] = (
    check_ray_schema,
    check_provider_keys,
    check_machines,
    check_node_types,
    check_network,
    check_ray_start,
    check_ray_options,
    check_setup,
    check_storage,
    check_shell,
)


def cluster_files() -> list[str]:
    """Return the paths of all YAML files below clusters/."""
    return sorted(path.relative_to(CLUSTERS).as_posix() for path in CLUSTERS.rglob("*.yaml"))


def requirements_text() -> str:
    """Return the project's pins."""
    return (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_every_file_has_a_validator() -> None:
    found = cluster_files()
    assert len(found) >= 4
    assert set(found) == {*RAY_UP_FILES, *KUBERNETES_KINDS}
    assert not list(CLUSTERS.rglob("*.yml")), "use .yaml, which the glob above finds"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", RAY_UP_FILES)
def test_ray_up_file_keeps_the_rule(name: str, rule: Callable[[Config], None]) -> None:
    rule(load(name))


@pytest.mark.parametrize("name", [*RAY_UP_FILES, *KUBERNETES_KINDS, "kuberay/Dockerfile"])
def test_text_is_safe(name: str) -> None:
    check_text((CLUSTERS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*RAY_UP_FILES, "kuberay/rayjob.yaml", "kuberay/Dockerfile"])
def test_versions_agree_with_the_installed_ray(name: str) -> None:
    check_versions((CLUSTERS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*RAY_UP_FILES, "kuberay/rayjob.yaml", "kuberay/Dockerfile"])
def test_versions_agree_with_the_project(name: str) -> None:
    check_versions((CLUSTERS / name).read_text(encoding="utf-8"), requirements_text())


def test_project_pins_what_the_clusters_install() -> None:
    pinned = pins(requirements_text())
    for name in PINNED:
        assert len(pinned.get(name, ())) == 1, f"{name} needs exactly one == pin"
    assert pinned["ray"] == {importlib.metadata.version("ray")}


def test_aws_node_configs_fit_the_service_model() -> None:
    check_aws_model(load("aws.yaml"))


def test_gcp_node_configs_fit_the_discovery_document() -> None:
    check_gcp_model(load("gcp.yaml"))


@pytest.mark.parametrize("name", KUBERNETES_KINDS)
def test_kubernetes_documents_fit_the_schema(name: str) -> None:
    documents = load_documents(name)
    assert len(documents) == len(KUBERNETES_KINDS[name])
    for document, kind in zip(documents, KUBERNETES_KINDS[name], strict=True):
        check_kubernetes_schema(document, kind)


def test_schema_closes_every_object() -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    open_objects = [s for s in walk(schema["$defs"]) if s.get("type") == "object"]
    assert len(open_objects) > 20
    for item in open_objects:
        # Either a fixed set of fields, or a map whose values are strings (labels, selectors).
        assert item["additionalProperties"] in (False, {"type": "string"})


def walk(value: Any) -> Iterator[Config]:
    """Yield every mapping inside a nested value."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from walk(child)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child)


def test_rayjob_keeps_the_rules() -> None:
    (job,) = load_documents("kuberay/rayjob.yaml")
    check_pods(job)
    check_job(job)
    check_policy(load_documents("kuberay/prerequisites.yaml"), job)


@pytest.mark.parametrize("name", KUBERNETES_KINDS)
def test_documents_fit_kubernetes_and_kuberay(name: str) -> None:
    for document in load_documents(name):
        check_definitions(document)


# --- tests: a file with one mistake is refused --------------------------------------------------

DELETE = object()


def mutated(config: Config, path: str, value: Any) -> Config:
    """Copy a config and set, or delete, the value at a path such as `a/0/b`."""
    # Through JSON, so that YAML aliases become separate objects and one change stays one change.
    result = json.loads(json.dumps(config))
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    target = result
    for part in parents:
        target = target[part]
    if value is DELETE:
        del target[last]
    else:
        target[last] = value
    return result


HEAD_START, WORKER_START = "head_start_ray_commands/1", "worker_start_ray_commands/1"
SPOT, SPOT_NODE = "available_node_types/gpu_spot", "available_node_types/gpu_spot/node_config"
START = "RAY_AUTH_MODE=token ray start --head --autoscaling-config=~/ray_bootstrap_config.yaml"
MISTAKES: list[tuple[Callable[[Config], None], str, str, Any, str]] = [
    (check_ray_schema, "aws.yaml", "idle_timeout_minute", 5, "idle_timeout_minute"),
    (check_ray_schema, "gcp.yaml", f"{SPOT}/max_worker", 4, "max_worker"),
    (check_ray_schema, "aws.yaml", "head_node_type", "heed", "head_node_type"),
    (check_ray_schema, "onprem.yaml", "setup_command", [], "setup_command"),
    (check_provider_keys, "aws.yaml", "provider/cache_stoped_nodes", True, "cache_stoped_nodes"),
    (check_provider_keys, "gcp.yaml", "provider/zone", "us-central1-a", "zone"),
    (check_provider_keys, "onprem.yaml", "provider/workers_ips", [], "workers_ips"),
    (check_provider_keys, "onprem.yaml", "provider/type", "azure", "no allow-list"),
    (check_machines, "onprem.yaml", "provider/worker_ips/0", "192.0.2.300", "not an IP address"),
    (check_machines, "onprem.yaml", "provider/worker_ips", ["192.0.2.11"], "min_workers"),
    (check_machines, "onprem.yaml", "provider/worker_ips/0", "192.0.2.10", "listed twice"),
    (check_machines, "onprem.yaml", "min_workers", 1, "min_workers must equal"),
    (check_node_types, "onprem.yaml", HEAD_START, START, "num-gpus=0"),
    (check_node_types, "aws.yaml", "available_node_types/head/resources/GPU", 1, "GPU: 0"),
    (check_node_types, "aws.yaml", f"{SPOT}/max_workers", DELETE, "has no max_workers"),
    (check_node_types, "gcp.yaml", f"{SPOT}/min_workers", 1, "scale from zero"),
    (check_node_types, "gcp.yaml", f"{SPOT}/labels/market", "on-demand", "labelled spot"),
    (check_node_types, "aws.yaml", f"{SPOT}/priority", -1, "higher priority"),
    (check_node_types, "aws.yaml", "max_workers", 4, "sum over node types"),
    (
        check_node_types,
        "aws.yaml",
        "available_node_types/head/node_config/InstanceMarketOptions",
        {"MarketType": "spot"},
        "must not be a spot",
    ),
    (check_network, "aws.yaml", f"{SPOT_NODE}/SecurityGroupIds", DELETE, "SecurityGroupIds"),
    (check_network, "aws.yaml", "provider/use_internal_ips", False, "use_internal_ips"),
    (check_network, "gcp.yaml", f"{SPOT_NODE}/networkInterfaces", DELETE, "networkInterfaces"),
    (
        check_network,
        "gcp.yaml",
        f"{SPOT_NODE}/networkInterfaces/0/accessConfigs",
        [{"type": "ONE_TO_ONE_NAT"}],
        "public address",
    ),
    (check_ray_start, "aws.yaml", HEAD_START, START, "dashboard-host"),
    (check_ray_start, "gcp.yaml", HEAD_START, f"{START} --dashboard-host=::", "dashboard-host"),
    (check_ray_start, "onprem.yaml", WORKER_START, "ray start --address=x", "RAY_AUTH_MODE"),
    (check_ray_start, "gcp.yaml", WORKER_START, "ray stop", "exactly one"),
    (check_ray_options, "aws.yaml", HEAD_START, f"{START} --dashbord-host=x", "dashbord-host"),
    (check_ray_options, "gcp.yaml", WORKER_START, "ray start --num-gpus=many", "num-gpus"),
    (check_setup, "aws.yaml", "setup_commands", DELETE, "not overridden"),
    (check_setup, "gcp.yaml", "setup_commands/2", "true", "is not installed"),
    (check_setup, "onprem.yaml", "file_mounts", {"~/r.txt": "requirements.txt"}, "not installed"),
    (check_setup, "gcp.yaml", "file_mounts", {}, "requirements.txt is not synced"),
    (
        check_setup,
        "gcp.yaml",
        "file_mounts",
        {"~/symnoise-ray/requirements.txt": "requirements.txt"},
        "token file",
    ),
    (check_storage, "aws.yaml", "initialization_commands/2", "true", "never mounted"),
    (check_storage, "gcp.yaml", "setup_commands/1", "true", "never tried"),
    (check_storage, "gcp.yaml", "docker/run_options", [], "not in the container"),
    (check_storage, "aws.yaml", f"{SPOT}/initialization_commands", [], "replaces"),
    (check_shell, "onprem.yaml", "setup_commands/0", "echo 'open", "bash cannot parse"),
    (check_shell, "aws.yaml", HEAD_START, "if true; then ray start", "bash cannot parse"),
]


@pytest.mark.parametrize(("rule", "name", "path", "value", "message"), MISTAKES)
def test_rule_refuses_a_mistake(
    rule: Callable[[Config], None], name: str, path: str, value: Any, message: str
) -> None:
    with pytest.raises((LintError, jsonschema.ValidationError, ValueError), match=message):
        rule(mutated(load(name), path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{SPOT_NODE}/InstanceTypo", "g6.12xlarge", "InstanceTypo"),
        (f"{SPOT_NODE}/InstanceType", "g6.12xlrage", "InstanceType=g6.12xlrage"),
        (f"{SPOT_NODE}/InstanceMarketOptions", {"MarketType": "spott"}, "MarketType=spott"),
        (f"{SPOT_NODE}/MetadataOptions", {"HttpToken": "required"}, "HttpToken"),
    ],
)
def test_aws_model_refuses_a_mistake(path: str, value: Any, message: str) -> None:
    with pytest.raises(LintError, match=message):
        check_aws_model(mutated(load("aws.yaml"), path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{SPOT_NODE}/machinType", "g2-standard-48", "machinType"),
        (f"{SPOT_NODE}/scheduling/0/provisioningModel", "SPOTT", "provisioningModel=SPOTT"),
        (f"{SPOT_NODE}/disks/0/initializeParams/diskSize", 200, "initializeParams.diskSize"),
        (f"{SPOT_NODE}/disks/0/boot", "yes", "not a boolean"),
    ],
)
def test_gcp_model_refuses_a_mistake(path: str, value: Any, message: str) -> None:
    with pytest.raises(LintError, match=message):
        check_gcp_model(mutated(load("gcp.yaml"), path, value))


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("aws_key: AKIA" + "ABCDEFGHIJKLMNOP", "looks like a secret"),
        ("password: " + "hunter2hunter2hunter2", "looks like a secret"),
        ("uri: http://user:" + "pass@mlflow.example.com", "looks like a secret"),
        ("token=" + "0123456789abcdef0123", "looks like a secret"),
        ("CidrIp: 0.0.0.0/0", "whole internet"),
        ("image: rayproject/ray:latest", "latest"),
        ("image: rayproject/ray:nightly", "nightly"),
    ],
)
def test_text_check_refuses_a_mistake(addition: str, message: str) -> None:
    text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8")
    with pytest.raises(LintError, match=message):
        check_text(f"{text}\n{addition}\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2.60.0-py311-cpu", "2.59.0-py311-cpu", r"2\.59\.0"),
        ("2.60.0-py311-gpu", "2.60.0-py310-gpu", "image tags outside"),
        ('__version__ == "2.60.0"', '__version__ == "2.61.0"', r"2\.61\.0"),
        ("pip install --no-cache-dir 'boto3", "pip install 'boto3==1.0.0' 'boto3", "several"),
    ],
)
def test_version_check_refuses_a_mistake(old: str, new: str, message: str) -> None:
    text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(LintError, match=message):
        check_versions(text.replace(old, new))


def test_version_check_compares_with_the_project() -> None:
    text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8")
    with pytest.raises(LintError, match="boto3 differs"):
        check_versions(text, "boto3==0.0.1\n")


CLUSTER = "spec/rayClusterSpec"
HEAD_SPEC = f"{CLUSTER}/headGroupSpec/template/spec"
GROUP = f"{CLUSTER}/workerGroupSpecs/0"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec/shutdownAfterJobFinish", True, "shutdownAfterJobFinish"),
        ("spec/backofLimit", 0, "backofLimit"),
        (f"{CLUSTER}/authOptions/mode", "disabled", "token"),
        (f"{CLUSTER}/authOptions", DELETE, "authOptions"),
        (f"{CLUSTER}/headGroupSpec/serviceType", "LoadBalancer", "ClusterIP"),
        (f"{CLUSTER}/headGroupSpec/serviceType", "NodePort", "ClusterIP"),
        (f"{GROUP}/maxReplica", 4, "maxReplica"),
        (f"{GROUP}/maxReplicas", DELETE, "maxReplicas"),
        (f"{HEAD_SPEC}/containers/0/securityContext/privileged", True, "privileged"),
        (f"{HEAD_SPEC}/containers/0/resources/limits", DELETE, "limits"),
        (f"{HEAD_SPEC}/hostNetwork", True, "hostNetwork"),
        ("apiVersion", "ray.io/v1alpha1", "ray.io/v1"),
    ],
)
def test_schema_refuses_a_mistake(path: str, value: Any, message: str) -> None:
    (job,) = load_documents("kuberay/rayjob.yaml")
    with pytest.raises(jsonschema.ValidationError, match=message):
        check_kubernetes_schema(mutated(job, path, value), "rayJob")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec/backofLimit", 0, "backofLimit: not a field of KubeRay's RayJobSpec"),
        ("spec/backoffLimit", "none", "not of type 'integer'"),
        (f"{CLUSTER}/authOptions/mode", "tokens", "mode=tokens: not disabled or token"),
        (f"{CLUSTER}/autoscalerOptions/version", "v3", "version=v3: not v1 or v2"),
        (f"{CLUSTER}/autoscalerOptions/resources/limit", {}, "'limit' was unexpected"),
        (f"{CLUSTER}/headGroupSpec/rayStartParams/num-cpus", 0, "not of type 'string'"),
        (f"{CLUSTER}/workerGroupSpecs", {}, "workerGroupSpecs: not a list"),
        (f"{CLUSTER}/headGroupSpec", [], "headGroupSpec: not an object"),
        (f"{GROUP}/maxReplica", 1, "maxReplica: not a field of KubeRay's WorkerGroupSpec"),
        (f"{GROUP}/template/spec/containers/0/imagePull", "Always", "imagePull"),
        (f"{HEAD_SPEC}/tolerations", [{"key": 1}], "not of type 'string'"),
        ("spec/submitterPodTemplate/spec/restartPolicy", ["Never"], "not of type 'string'"),
    ],
)
def test_definitions_refuse_a_mistake(path: str, value: Any, message: str) -> None:
    (job,) = load_documents("kuberay/rayjob.yaml")
    with pytest.raises((LintError, jsonschema.ValidationError), match=message):
        check_definitions(mutated(job, path, value))


@pytest.mark.parametrize(
    ("index", "path", "value"),
    [(0, "spec/storageClasName", "nfs"), (1, "spec/ingress/1/port", 8265)],
)
def test_kubernetes_refuses_a_mistake(index: int, path: str, value: Any) -> None:
    document = load_documents("kuberay/prerequisites.yaml")[index]
    with pytest.raises(jsonschema.ValidationError, match="was unexpected"):
        check_definitions(mutated(document, path, value))


@pytest.mark.parametrize(
    ("index", "kind", "path", "value", "message"),
    [
        (0, "claim", "spec/accessModes", ["ReadWriteOnce"], "ReadWriteMany"),
        (0, "claim", "spec/storageClasName", "nfs", "storageClasName"),
        (1, "networkPolicy", "spec/ingress/1/port", 8265, "'port' was unexpected"),
    ],
)
def test_prerequisites_schema_refuses_a_mistake(
    index: int, kind: str, path: str, value: Any, message: str
) -> None:
    document = load_documents("kuberay/prerequisites.yaml")[index]
    with pytest.raises(jsonschema.ValidationError, match=message):
        check_kubernetes_schema(mutated(document, path, value), kind)


@pytest.mark.parametrize(
    ("rule", "path", "value", "message"),
    [
        (check_pods, f"{HEAD_SPEC}/containers/0/resources/limits/cpu", "8", "requests differ"),
        (check_pods, f"{HEAD_SPEC}/volumes/0/persistentVolumeClaim/claimName", "x", "the claim"),
        (check_pods, f"{GROUP}/template/spec/containers/0/volumeMounts/0", DELETE, "not mounted"),
        (check_pods, f"{HEAD_SPEC}/containers/0/image", "ray:2.60.0-py311-gpu", "image is not"),
        (check_job, "spec/backoffLimit", 3, "backoffLimit must be 0"),
        (check_job, "spec/entrypoint", "python -m symnoise_ray.tune", "not on the share"),
        (check_job, "spec/runtimeEnvYAML", "env_vars: {}", "RAY_JOB_STOP_WAIT_TIME_S"),
        (check_job, f"{CLUSTER}/headGroupSpec/rayStartParams/num-cpus", "4", "no CPUs"),
        (check_job, f"{GROUP}/minReplicas", 1, "scale from zero"),
        (check_job, f"{GROUP}/labels/market", "on-demand", "both needed"),
    ],
)
def test_rayjob_rule_refuses_a_mistake(
    rule: Callable[[Config], None], path: str, value: Any, message: str
) -> None:
    (job,) = load_documents("kuberay/rayjob.yaml")
    with pytest.raises(LintError, match=message):
        rule(mutated(job, path, value))


def test_policy_check_refuses_an_unlabelled_pod() -> None:
    (job,) = load_documents("kuberay/rayjob.yaml")
    path = f"{GROUP}/template/metadata/labels/app"
    with pytest.raises(LintError, match="misses a pod"):
        check_policy(
            load_documents("kuberay/prerequisites.yaml"), mutated(job, path, "something-else")
        )
