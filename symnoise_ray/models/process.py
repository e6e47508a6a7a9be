"""One process of a group of workers: its device, its process group, its memory.

In: the variables that Ray Train or torchrun set. Out: a device, and a process group.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket

import torch
import torch.distributed as dist


def choose_device() -> torch.device:
    """This rank's GPU where Ray Train or torch gives one, else the CPU."""
    if torch.cuda.is_available():
        if not dist.is_initialized():  # under Ray Train the worker has chosen its GPU already
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def join_process_group(device: torch.device) -> None:
    """Join the group that Ray Train or torchrun set up, or form a group of one."""
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def give_memory_back() -> None:
    """Collect garbage and return free memory to the system, after the last reference is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library: the memory stays with the process and is used again
