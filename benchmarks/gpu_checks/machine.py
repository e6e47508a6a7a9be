"""The machine: versions, processor, and the GPU's name, driver and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Any

import psutil
import torch

from benchmarks.gpu_checks.step import Step

PACKAGES = (
    *("torch", "transformers", "deepspeed", "ray", "peft", "optuna", "mlflow", "accelerate"),
    *("numpy", "triton", "bitsandbytes", "flash-attn", "vllm"),
)
GIB = 2**30


def check(step: Step) -> str:
    """Note what the figures are taken with."""
    step.note(
        versions={"python": platform.python_version(), **{n: version(n) for n in PACKAGES}},
        processor=platform.processor() or platform.machine(),
        cores=os.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / GIB, 1),
        load_average=os.getloadavg()[0],
        gpu=gpu() if torch.cuda.is_available() else None,
    )
    found = step.figures["gpu"]
    told = f"{found['name']}, {found['memory_gib']} GiB, driver {found['driver']}" if found else (
        "no GPU"
    )  # fmt: skip
    return f"{told}; torch {torch.__version__}, {os.cpu_count()} cores"


def version(package: str) -> str | None:
    """Version of a package; None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def gpu() -> dict[str, Any]:
    """The first GPU that torch sees, and what torch was built with."""
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "name": properties.name,
        "memory_gib": round(total / GIB, 1),
        "free_gib": round(free / GIB, 1),
        "capability": list(torch.cuda.get_device_capability(0)),
        "count": torch.cuda.device_count(),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": str(torch.cuda.nccl.version()) if torch.distributed.is_nccl_available() else None,
    }


def driver() -> str | None:
    """Version of NVIDIA's driver; None where nvidia-smi is missing or does not say."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    lines = run.stdout.split()
    return lines[0] if run.returncode == 0 and lines else None
