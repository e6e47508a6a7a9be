"""Ray Train's process group for torch, set up without torch in the processes that only look on.

In: a worker group. Out: ranks that have joined one group, by Ray Train's own functions. Its
`TorchConfig` imports torch in the driver and in every controller, two seconds of CPU each; here
only the ranks import it. The names with an underscore are private: the version of ray is pinned.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psutil
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig

SHUTDOWN_SECONDS = 5.0


@dataclass
class LazyTorchConfig(BackendConfig):  # type: ignore[misc]
    """What `TorchConfig` says of a group on GPUs (NCCL) or CPUs (Gloo)."""

    timeout_s: int
    """Seconds after which a collective operation fails."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What sets the group up."""
        return _LazyTorchBackend


class _LazyTorchBackend(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True
    """As torch's: NCCL needs the ranks of one machine to see each other's GPUs."""

    def on_start(self, worker_group: Any, backend_config: LazyTorchConfig) -> None:
        """Let all ranks join one group."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        on_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        backend = "nccl" if on_gpus else "gloo"
        worker_group.execute(_join, address, port, backend, backend_config.timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: LazyTorchConfig) -> None:
        """Leave the group; a rank that hangs is not waited for."""
        import ray

        ray.wait(
            worker_group.execute_async(_leave, len(worker_group) > 1),
            num_returns=len(worker_group),
            timeout=SHUTDOWN_SECONDS,
        )


def _join(address: str, port: int, backend: str, timeout_s: int) -> None:
    """In a rank."""
    import ray
    import ray.train
    from ray.train.torch import config  # torch

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    if backend == "gloo" and (interface := interface_of(ray.util.get_node_ip_address())):
        # Left to itself Gloo takes the address of the machine's name, which Debian and Ubuntu map
        # to 127.0.1.1: no rank of another machine reaches that.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    config._set_torch_distributed_env_vars()
    context = ray.train.get_context()
    config._setup_torch_process_group(
        backend, context.get_world_rank(), context.get_world_size(), "env://", timeout_s
    )


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has an address, or None."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return str(name)
    return None


def _leave(destroy: bool) -> None:
    """In a rank."""
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=destroy)
