"""House rules of every file under clusters/: nothing here starts a machine.

What holds for anybody's launch file is in `symnoise_ray/launch/`. These are the further rules of
the files that are shipped: spot with a fallback, tokens, loopback dashboards, shared storage that
is tried, no public address, pins that agree. Each check is shown to refuse a file with one mistake.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from symnoise_ray.launch.texts import check_text
from tests.conftest import ROOT

CLUSTERS = ROOT / "clusters"
SCHEMA_FILE = Path(__file__).with_name("kuberay_rayjob_schema.json")

RAY_UP_FILES = ("aws.yaml", "azure.yaml", "gcp.yaml", "onprem.yaml")
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


def node_types(config: Config) -> dict[str, Config]:
    """Return the file's node types; a fixed list of machines has none."""
    return config.get("available_node_types", {})


# --- rules for `ray up` files -------------------------------------------------------------------


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
    """Tell whether a node type of AWS, Azure or Google rents spot machines."""
    node_config = node["node_config"]
    scheduling = node_config.get("scheduling", [{}])[0]
    return (
        node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or scheduling.get("provisioningModel") == "SPOT"
        or node_config.get("azure_arm_parameters", {}).get("priority") == "Spot"
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
    head_is_open = config["provider"].get("use_external_head_ip", False)
    require(not head_is_open, "use_external_head_ip must not be set")
    for name, node in node_types(config).items():
        node_config = node["node_config"]
        if kind == "aws":
            # Without it Ray makes a security group that admits SSH from anywhere.
            require(node_config.get("SecurityGroupIds"), f"{name} names no SecurityGroupIds")
            require(node_config.get("IamInstanceProfile"), f"{name} names no IamInstanceProfile")
        elif kind == "gcp":
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


# --- rules for every file -----------------------------------------------------------------------


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
    check_node_types,
    check_network,
    check_ray_start,
    check_setup,
    check_storage,
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


@pytest.mark.parametrize("name", [*RAY_UP_FILES, "kuberay/rayjob.yaml", "kuberay/Dockerfile"])
def test_versions_agree_with_the_installed_ray(name: str) -> None:
    check_versions((CLUSTERS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*RAY_UP_FILES, "kuberay/rayjob.yaml", "kuberay/Dockerfile"])
def test_versions_agree_with_the_project(name: str) -> None:
    check_versions((CLUSTERS / name).read_text(encoding="utf-8"), requirements_text())


def test_the_recipe_of_the_images_keeps_the_rules_of_launch_files() -> None:
    text = (CLUSTERS / "kuberay" / "Dockerfile").read_text(encoding="utf-8")
    assert list(check_text(text)) == []
    assert len(list(check_text(text.replace("2.60.0", "2.59.0")))) > 0


def test_project_pins_what_the_clusters_install() -> None:
    pinned = pins(requirements_text())
    for name in PINNED:
        assert len(pinned.get(name, ())) == 1, f"{name} needs exactly one == pin"
    assert pinned["ray"] == {importlib.metadata.version("ray")}


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
    (check_network, "azure.yaml", "provider/use_external_head_ip", True, "use_external_head_ip"),
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
]


@pytest.mark.parametrize(("rule", "name", "path", "value", "message"), MISTAKES)
def test_rule_refuses_a_mistake(
    rule: Callable[[Config], None], name: str, path: str, value: Any, message: str
) -> None:
    with pytest.raises((LintError, jsonschema.ValidationError, ValueError), match=message):
        rule(mutated(load(name), path, value))


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
