"""Launch files: those that are shipped pass, and one mistake in any of them is one named line."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.errors import UserError
from symnoise_ray.launch.check import check_launch_file, is_launch_file
from tests.conftest import ROOT

CLUSTERS = ROOT / "clusters"
SHIPPED = sorted(
    path.relative_to(CLUSTERS).as_posix()
    for path in CLUSTERS.rglob("*")
    if path.suffix in (".yaml", ".sbatch")
)


class Mistake(NamedTuple):
    """A text of a shipped file, what stands there instead, and what is said about it."""

    old: str
    new: str
    said: str
    """Part of the complaint."""
    line: str = ""
    """Part of the line that is named, where it is not that of the new text."""


UP = "is not a key of a file of `ray up`"
MISTAKES = {
    "aws.yaml": [
        Mistake("idle_timeout_minutes:", "idle_timeout_minute:", f"'idle_timeout_minute' {UP}"),
        Mistake("\nmax_workers: 5", "\nmax_workers: many", "type integer, but got 'many'"),
        Mistake("head_node_type: head", "head_node_type: heed", "Ray must take the file"),
        Mistake("cache_stopped_nodes", "cache_stoped_nodes", "Did you mean 'cache_stopped_nodes'?"),
        Mistake("InstanceType: m6i", "InstanceTypo: m6i", "Did you mean 'InstanceType'?"),
        Mistake("g6.12xlarge", "g6.12xlrage", "got 'g6.12xlrage'. Did you mean 'g6.12xlarge'?"),
        Mistake("MarketType: spot", "MarketType: spott", "got 'spott'. Did you mean 'spot'?"),
        Mistake("HttpTokens:", "HttpToken:", "Did you mean 'HttpTokens'?"),
        Mistake("SubnetIds: [", "SubnetId: [", "must be of type string, but got a list"),
        Mistake("    max_workers: 4\n", "", "so it must have max_workers", line="gpu_spot:"),
        Mistake("    - -v /mnt/symnoise:/mnt/symnoise\n", "", "have no -v", line="run_options:"),
        Mistake("auth:\n", "auth: # AKIA" + "ABCDEFGHIJKLMNOP\n", "must hold no secret"),
        Mistake("-py311-gpu", "-py310-gpu", "Python must be >=3.11"),
        Mistake("ray:2.60.0-py311-gpu", "ray:latest-gpu", "but the tag 'latest-gpu' moves"),
        Mistake("ray:2.60.0-py311-cpu", "ray:2.59.0-py311-cpu", "got 2.59.0; write 2.60.0"),
        Mistake("ray:2.60.0-py311-cpu", "ray", "but it has no tag", line="head_image"),
        Mistake("test -s ~/", "test -s '~/", "bash must read the command"),
        Mistake("--dashboard-host", "--dashbord-host", "must take its options, but says"),
    ],
    "gcp.yaml": [
        Mistake("    max_workers: 4", "    max_worker: 4", "Did you mean 'max_workers'?"),
        Mistake("cluster_name: symnoise-gcp\n", "", "must have 'cluster_name'", line="max_workers"),
        Mistake("  project_id: PROJECT\n", "", "'provider.project_id' must", line="provider:"),
        Mistake("machineType: n2", "machinType: n2", "Did you mean 'machineType'?"),
        Mistake("provisioningModel: SPOT\n", "provisioningModel: SPOTT\n", "Did you mean 'SPOT'?"),
        Mistake("boot: true\n", "boot: primary\n", "must be of type boolean, but got 'primary'"),
        Mistake("FILESTORE_IP:/SHARE /mnt", "/dev/sdb /mnt", "is the local disk /dev/sdb"),
    ],
    "azure.yaml": [
        Mistake("vmSize: Standard_D8s", "vmSiz: Standard_D8s", "Did you mean 'vmSize'?"),
        Mistake(
            "vmSize: Standard_D8s_v5\n", "# none\n", "must have vmSize", line="azure_arm_param"
        ),
        Mistake("priority: Spot", "priority: spot", "got 'spot'. Did you mean 'Spot'?"),
        Mistake("osDiskSize: 200", "osDiskSize: large", "must be of type int, but got 'large'"),
        Mistake(
            "resource_group: symnoise-ray\n", "\n", "must be given for azure", line="provider:"
        ),
        Mistake("imageId: /sub", "imageVersion: latest #", "must name one version"),
        Mistake(
            "  ssh_user: ubuntu\n",
            "  ssh_user: x\n  ssh_private_key: ~/k\n",
            "needs both of",
            line="ssh_private_key",
        ),
    ],
    "onprem.yaml": [
        Mistake("type: local", "type: locale", "got 'locale'. Did you mean 'local'?"),
        Mistake("- 192.0.2.12", "- 192.0.2.300", "'provider.worker_ips.1' must be an IP address"),
        Mistake(
            "min_workers: 2", "min_workers: 1", "must be 2, the number of worker_ips, but got 1"
        ),
        Mistake("- 192.0.2.12", "- 192.0.2.10", "must be listed once"),
        Mistake("RAY_enable_autoscaler_v2=0 RAY", "RAY", "must start with", line="start --head"),
        Mistake('== "2.60.0"', '== "2.61.0"', "Ray must be 2.60.0"),
        Mistake("\nauth:\n", "\nauth: {}\nauth:\n", "'auth' must be given once", line="auth:"),
    ],
    "kuberay/rayjob.yaml": [
        Mistake("backoffLimit: 0", "backofLimit: 0", "Did you mean 'backoffLimit'?"),
        Mistake("mode: token", "mode: disabled", "must ask for a token", line="dashboard-host"),
        Mistake(
            "        maxReplicas: 4\n", "", "must have maxReplicas", line="groupName: gpu-spot"
        ),
        Mistake(
            "/mnt/symnoise/runs", "/elsewhere/runs", "must lie on a volume of a claim", line="spec:"
        ),
        Mistake(" workers.max_slots=5", "", "add workers.max_slots=N", line="entrypoint:"),
        Mistake("fsGroup: 100", "fsGrup: 100", "'fsGrup' was unexpected"),
        Mistake("ray.io/v1\n", "ray.io/v1alpha1\n", "apiVersion must be ray.io/v1"),
    ],
    "kuberay/prerequisites.yaml": [
        Mistake("[ReadWriteMany]", "[ReadWriteOnce]", "must hold ReadWriteMany"),
        Mistake("storageClassName:", "storageClasName:", "'storageClasName' was unexpected"),
    ],
}


def planted(name: str, mistake: Mistake, folder: Path) -> Path:
    """A copy of a shipped file with one mistake."""
    text = (CLUSTERS / name).read_text(encoding="utf-8")
    assert mistake.old in text
    copy = folder / Path(name).name
    copy.write_text(text.replace(mistake.old, mistake.new, 1), encoding="utf-8")
    return copy


def complaints(path: Path) -> list[tuple[str, str]]:
    """The text of the line that a complaint names, and the complaint; each is one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for each in check_launch_file(path).complaints:
        match = re.fullmatch(rf"{re.escape(str(path))}:(\d+): (.+)", each)
        assert match, each
        found.append((lines[int(match[1]) - 1], match[2]))
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_usable(name: str):
    assert is_launch_file(CLUSTERS / name)
    checked = check_launch_file(CLUSTERS / name)
    assert checked.complaints == []
    assert checked.unchecked == []


@pytest.mark.sampled(20)
@pytest.mark.parametrize(
    ("name", "mistake"),
    [(name, mistake) for name, mistakes in MISTAKES.items() for mistake in mistakes],
    ids=lambda value: value if isinstance(value, str) else value.said,
)
def test_a_mistake_is_named_with_its_line(name: str, mistake: Mistake, tmp_path: Path):
    found = complaints(planted(name, mistake, tmp_path))
    where = mistake.line or mistake.new.strip()
    assert any(where in line and mistake.said in said for line, said in found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("minReplicas: 0", "minReplicas: 1"),
        ("replicas: 0", "replicas: 1"),
        ('num-cpus: "0"', 'num-cpus: "4"'),
    ],
)
def test_a_sweep_that_has_room_at_its_start_needs_no_number_of_trials(
    old: str, new: str, tmp_path: Path
):
    text = (CLUSTERS / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8")
    assert old in text
    text = text.replace(" workers.max_slots=5", "").replace(old, new, 1)
    path = tmp_path / "job.yaml"
    path.write_text(text.replace("gpus_per_worker=1", "gpus_per_worker=0"), encoding="utf-8")
    assert complaints(path) == []


def test_a_head_without_gpus_is_no_room_for_trials_that_need_them(tmp_path: Path):
    mistake = Mistake(" workers.max_slots=5", "", "")
    path = planted("kuberay/rayjob.yaml", mistake, tmp_path)
    path.write_text(path.read_text().replace('num-cpus: "0"', 'num-cpus: "4"'))
    ((_, said),) = complaints(path)
    assert "every worker group begins with 0" in said


def test_all_mistakes_of_a_file_are_told(tmp_path: Path):
    text = (CLUSTERS / "aws.yaml").read_text(encoding="utf-8")
    mistakes = [each for each in MISTAKES["aws.yaml"] if "type integer" not in each.said][5:9]
    for mistake in mistakes:
        text = text.replace(mistake.old, mistake.new, 1)
    (tmp_path / "many.yaml").write_text(text, encoding="utf-8")
    found = [said for _, said in complaints(tmp_path / "many.yaml")]
    assert all(any(mistake.said in said for said in found) for mistake in mistakes), found


def test_a_secret_is_never_shown(tmp_path: Path):
    secret = "hunter2" * 3
    text = (CLUSTERS / "onprem.yaml").read_text(encoding="utf-8")
    path = tmp_path / "secret.yaml"
    path.write_text(text.replace("\nauth:\n", f"\nauth:\n  ssh_password: {secret}\n"))
    found = complaints(path)
    assert {"ssh_password" in line for line, _ in found} == {True}
    assert len(found) == 2  # a secret, and a key that Ray does not know
    assert not any(secret in said for _, said in found)


RAY_JOB = "apiVersion: ray.io/v1\nkind: RayJob\n"


@pytest.mark.parametrize("key", ["apiVersion", "kind"])
def test_a_kind_that_is_no_text_is_told_with_its_line(key: str, tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(re.sub(rf"{key}: .*", f"{key}: [1]", RAY_JOB))
    assert complaints(path) == [(f"{key}: [1]", f"'{key}' must be text, but got a list")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cluster_name: [\n", "x.yaml:2: must be valid YAML, but"),
        ("provider: {type: aws}\n---\n- a list\n", "x.yaml:3: must hold a mapping, but got a list"),
        (
            f"{RAY_JOB}spec: 2024-13-45\n",
            "x.yaml:3: must be valid YAML, but the value here is no ti",
        ),
        (
            f"{RAY_JOB}spec: !!int seven\n",
            "x.yaml:3: must be valid YAML, but the value here is no i",
        ),
        (
            f"{RAY_JOB}spec: {{{{a: b}}: 3}}\n",
            "x.yaml:3: must be valid YAML, but a key must be a wo",
        ),
        (
            f"{RAY_JOB}spec: &a {{b: *a}}\n",
            "x.yaml:3: must be valid YAML, but an alias must not stan",
        ),
        (
            f"{RAY_JOB}spec: {'[' * 2000 + ']' * 2000}\n",
            "x.yaml: must be a few levels deep, but is",
        ),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(text: str, said: str, tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        check_launch_file(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda p: p.name
)
def test_a_search_space_is_no_launch_file(path: Path):
    assert not is_launch_file(path)


def test_what_is_not_installed_is_said_and_the_rest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find_spec = importlib.util.find_spec
    absent = {"botocore", "kubernetes_validate"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find_spec(name)
    )
    mistake = Mistake("region: us-west-2\n", "regoin: us-west-2\n", "Did you mean 'region'?")
    checked = check_launch_file(planted("aws.yaml", mistake, tmp_path))
    assert any("pip install boto3" in line for line in checked.unchecked)
    assert any(mistake.said in line for line in checked.complaints)
    job = check_launch_file(CLUSTERS / "kuberay" / "rayjob.yaml")
    assert any("pip install kubernetes-validate" in line for line in job.unchecked)


def test_validate_tells_mistakes_and_ends_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = planted("aws.yaml", MISTAKES["aws.yaml"][0], tmp_path)
    assert main(["validate", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert re.match(rf"error: {re.escape(str(path))}:\d+: 'idle_timeout_minute' {UP}", line)
    assert list(tmp_path.iterdir()) == [path]


def test_validate_says_in_one_line_that_a_file_is_usable(capsys: pytest.CaptureFixture[str]):
    path = CLUSTERS / "gcp.yaml"
    assert main(["validate", str(path)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    (line,) = told.out.splitlines()
    assert line.startswith(f"{path}: a file of `ray up` for gcp; usable")


def test_a_launch_file_takes_no_settings(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(CLUSTERS / "gcp.yaml"), "optim.lr=1"]) == 2
    assert "takes no key=value words" in capsys.readouterr().err
