"""The DeepSpeed engine, and the only module that imports deepspeed.

In: a model and a `TrialConfig`. Out: an engine that accumulates until it is told to step, and
leaves no memory behind when it ends. `deepspeed_config` is pure.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from symnoise_ray.config import TrialConfig

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")


def deepspeed_config(config: TrialConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's settings for a trial.

    Accumulation is 1 here, because the training loop marks the end of each step itself: the
    number of micro-batches times the copies of a pair may differ from step to step.
    """
    return {
        "train_micro_batch_size_per_gpu": config.train.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "train_batch_size": config.train.micro_batch_size * world_size,
        "gradient_clipping": config.optim.max_grad_norm,
        "bf16": {"enabled": config.model.dtype == "bf16"},
        "zero_optimization": {"stage": config.train.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**62,
    }


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


def start(model: nn.Module, config: TrialConfig) -> Any:
    """Wrap a model for training with AdamW and the asked ZeRO stage."""
    import deepspeed  # two seconds; only processes that train pay them

    # The op serves inference only, and building it needs a C++ compiler. Private name: the version
    # of deepspeed is pinned, and a test sees that the key is there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optim = config.optim
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=optim.lr,
        betas=optim.betas,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(config, dist.get_world_size()),
        dist_init_required=False,
    )
    return engine


def set_lr(engine: Any, lr: float) -> None:
    """Set the learning rate of the coming step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr


def accumulate(engine: Any, loss: torch.Tensor, *, last: bool) -> None:
    """Backward pass of one micro-batch; the last one of a step reduces over the workers."""
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss, scale_wrt_gas=False)


def step(engine: Any) -> float:
    """Clip, update the weights, and clear the gradients; returns the norm before clipping."""
    own = None
    if engine.get_global_grad_norm() is None:  # plain fp32 at stage 0 measures none
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        own = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    norm = engine.get_global_grad_norm()
    if norm is not None:
        return float(norm)
    assert own is not None
    return float(own)


def stop(engine: Any) -> None:
    """Release everything an engine holds, so that one process can train trial after trial.

    `destroy` of DeepSpeed 0.19.8 keeps the module and the optimizer states alive.
    """
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    engine.destroy()
    optimizer.state.clear()
    optimizer.param_groups.clear()
    engine.optimizer = engine.module = None


def give_memory_back() -> None:
    """Collect garbage and return free memory to the system; call after the last reference fell."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library: the memory stays with the process and is used again
