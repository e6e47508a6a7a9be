"""Machines of a small cluster that are network namespaces of this one.

Each has an address of its own and runs its own `ray start`. A switch, which is a namespace as well,
joins them, so nothing of the cluster can be seen from outside. Files are shared. It takes root and
iproute2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.conftest import ROOT

PORT = 6379
RAY = (sys.executable, "-m", "ray.scripts.scripts")
START_TRIES = 3
"""Ray gives a node 30 s to start, which are too few on a busy machine."""
COMMAND_SECONDS = 150
"""A command that starts a node whose raylet died meanwhile waits for a quarter of an hour."""


def why_not() -> str:
    """Why there can be no namespaces here; empty where there can."""
    name = f"sym{secrets.token_hex(2)}"
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "switch", "type", "bridge")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"network namespaces need root and iproute2: {said.strip()}"
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Machine:
    """One namespace, at the end of a cable whose other end is a port of the switch."""

    def __init__(self, cluster: Cluster, name: str, number: int) -> None:
        self.cluster, self.name = cluster, name
        self.space = f"{cluster.stem}-{name}"
        self.address = f"{cluster.network}.{number}"
        self.port = f"port{number}"
        _ip("netns", "add", self.space)
        _ip("-n", self.space, "link", "set", "lo", "up")
        cable = ("link", "add", self.port, "type", "veth", "peer", "name", "eth0")
        _ip("-n", cluster.switch, *cable, "netns", self.space)
        _ip("-n", self.space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.space, "link", "set", "eth0", "up")
        _ip("-n", cluster.switch, "link", "set", self.port, "master", "switch", "up")

    def start(
        self, command: Sequence[str], log: Path | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a command on the machine; its output goes to a file."""
        inside = ["ip", "netns", "exec", self.space, *command]
        with open(log or os.devnull, "ab") as file:
            environment = {**self.cluster.environment, **variables}
            return subprocess.Popen(
                inside, cwd=self.cluster.folder, env=environment, stdout=file, stderr=file
            )

    def ray(self, *words: str, around: Sequence[str] = (), **variables: str) -> int:
        """Run a command of Ray's to its end; `around` stands before it."""
        log = self.cluster.folder / f"ray-{self.name}.log"
        running = self.start([*around, *RAY, *words], log, **variables)
        try:
            return running.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            return running.wait()

    def start_ray(self, cpus: int, around: Sequence[str] = (), **variables: str) -> None:
        """Join the cluster with so many CPUs; the first machine is its head."""
        head = self is self.cluster.head
        where = [f"--port={PORT}"] if head else [f"--address={self.cluster.address}"]
        words = [
            "start", *(["--head", "--include-dashboard=false"] if head else []), *where,
            f"--node-ip-address={self.address}", f"--num-cpus={cpus}",
            "--object-store-memory=80000000", "--disable-usage-stats",
        ]  # fmt: skip
        for left in reversed(range(START_TRIES)):
            if self.ray(*words, around=around, **variables) == 0:
                return
            self.end()
            assert left, (self.cluster.folder / f"ray-{self.name}.log").read_text()

    def processes(self, *names: str) -> list[psutil.Process]:
        """What runs on the machine, or only processes whose names begin so."""
        run = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True)
        found = []
        for pid in run.stdout.split():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(pid))
                if process.name().startswith(names or ""):
                    found.append(process)
        return found

    def end(self, *names: str) -> None:
        """Kill them; all of them is a machine without power."""
        ended = self.processes(*names)
        for process in ended:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(ended, timeout=20)

    def leave(self) -> None:
        """Take it away in good order: Ray forgets it at once."""
        raylets = self.processes("raylet")
        for process in raylets:
            process.terminate()
        psutil.wait_procs(raylets, timeout=20)
        self.end()

    def cut(self) -> None:
        """Pull the cable."""
        _ip("-n", self.cluster.switch, "link", "set", self.port, "down")

    def mend(self) -> None:
        """Put it back."""
        _ip("-n", self.cluster.switch, "link", "set", self.port, "up")

    def slow(self, rate: str) -> None:
        """Let so much pass, such as `2mbit`, in either direction."""
        bucket = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
        for space, end in ((self.space, "eth0"), (self.cluster.switch, self.port)):
            words = ["tc", "-n", space, "qdisc", "replace", "dev", end, *bucket]
            subprocess.run(words, check=True, capture_output=True, text=True)

    def remove(self) -> None:
        """Switch it off, and take it away."""
        self.end()
        _ip("netns", "del", self.space)


class Cluster:
    """A switch and its machines; the first that is added is the head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stem = f"sym{os.getpid()}{secrets.token_hex(1)}"
        self.switch = f"{self.stem}-switch"
        # Ray's socket paths must stay under 107 characters, so its folder is a short one.
        self._ray_folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        # Ray looks at all processes here for one at its head's address, other clusters' too.
        self.network = f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
        self.machines: dict[str, Machine] = {}
        self.environment = self._environment()
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "switch", "up")

    def _environment(self) -> dict[str, str]:
        """That of every process: a token of the cluster's own, and where the package lies."""
        token = self.folder / "home" / ".ray" / "auth_token"
        token.parent.mkdir(parents=True)
        token.write_text(secrets.token_hex(32))
        kept = {name: value for name, value in os.environ.items() if "RAY_A" not in name}
        return kept | {
            "HOME": str(self.folder / "home"),
            "RAY_AUTH_MODE": "token",
            "RAY_TMPDIR": self._ray_folder.name,
            "PYTHONPATH": str(ROOT),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
        }

    @property
    def head(self) -> Machine:
        """The machine that the others join."""
        return next(iter(self.machines.values()))

    @property
    def address(self) -> str:
        """Where the head's Ray answers."""
        return f"{self.head.address}:{PORT}"

    def add(
        self, name: str, cpus: int = 1, around: Sequence[str] = (), **variables: str
    ) -> Machine:
        """A new machine that has joined."""
        self.machines[name] = machine = Machine(self, name, len(self.machines) + 1)
        machine.start_ray(cpus, around, **variables)
        return machine

    def tune(
        self, space: str, *words: str, output: str = "out", name: str = "tune"
    ) -> subprocess.Popen[bytes]:
        """Start a sweep on the head; what it says is in the file NAME.log."""
        (self.folder / f"{name}.yaml").write_text(space)
        command = [
            sys.executable, "-m", "symnoise_ray.tune", f"{name}.yaml", *words, "--output", output
        ]  # fmt: skip
        return self.head.start(command, self.log(name), RAY_ADDRESS=self.address)

    def log(self, name: str = "tune") -> Path:
        """What a sweep says."""
        return self.folder / f"{name}.log"

    def close(self) -> None:
        """Leave nothing running."""
        for machine in self.machines.values():
            machine.remove()
        _ip("netns", "del", self.switch)
        self._ray_folder.cleanup()


def until(happened: Callable[[], object], sweep: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for something while a sweep runs; a sweep that ends first is a failure."""
    deadline = time.monotonic() + 900
    while not happened():
        assert sweep.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
