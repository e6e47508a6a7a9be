"""The DeepSpeed engine, and the only module that imports deepspeed.

In: a model and a `TrialConfig`. Out: an engine that adds up gradients until `step` is called, and
that leaves no memory behind when it ends. `deepspeed_config` has no effects. The optimizer is
always torch's AdamW: it updates offloaded states on the CPU too, and no kernel has to be built for
it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from symnoise_ray.config import TrialConfig, deepspeed_json

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""The states of AdamW that a checkpoint holds beside the weight."""


def deepspeed_config(config: TrialConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's settings for a trial.

    The accumulation is 1, because the training loop marks the end of each step itself: the number
    of forward passes may differ from step to step.
    """
    zero: dict[str, Any] = {"stage": config.train.zero_stage}
    on_cpu = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if config.train.offload != "none":
        zero["offload_optimizer"] = on_cpu
    if config.train.offload == "all":
        zero["offload_param"] = on_cpu
    ours = {
        "train_micro_batch_size_per_gpu": config.train.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "train_batch_size": config.train.micro_batch_size * world_size,
        "gradient_clipping": config.optim.max_grad_norm,
        "bf16": {"enabled": config.model.dtype == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
    }
    return deepspeed_json.merged(config.train.deepspeed, ours, config.deepspeed_keys())


def start(model: nn.Module, config: TrialConfig) -> Any:
    """Wrap a model for training: AdamW, the trial's ZeRO stage; frozen weights stay frozen."""
    with _without_mlflow():
        import deepspeed  # two seconds; only processes that train pay them

    # The op serves inference only, and building it needs a C++ compiler. Private name: the version
    # of deepspeed is pinned, and a test sees that the key is there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # ZeRO-3 calls names that torch is renaming, so torch would warn on every gather.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)
    optim = config.optim
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
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
    _undo_first_step(engine)
    if dist.get_world_size() == 1 and config.train.zero_stage == 0:
        # DeepSpeed would copy all gradients to and fro to reduce them over one worker.
        engine.enable_backward_allreduce = False
    return engine


@contextmanager
def _without_mlflow() -> Iterator[None]:
    """Hide mlflow while deepspeed is imported: its autotuner would import it, for two seconds.

    No worker talks to MLflow, and the autotuner is not used.
    """
    if "mlflow" in sys.modules:
        yield
        return
    sys.modules["mlflow"] = None  # type: ignore[assignment]  # so that its import fails
    try:
        yield
    finally:
        del sys.modules["mlflow"]


def _undo_first_step(engine: Any) -> None:
    """Undo the step that DeepSpeed's plain bf16 optimizer takes when it is made.

    Its gradients are zero, but it decays the weights, and it is counted as a step, which would
    change the bias correction of every later step.
    """
    for parameter, master in _masters(engine).items():
        master.data.copy_(parameter.data)
        _inner(engine).state[master]["step"].zero_()


def set_lr(engine: Any, lr: float) -> None:
    """Set the learning rate of the next step."""
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


def read_state(engine: Any) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Whole fp32 weight and moments of every trained parameter, whatever the ZeRO stage.

    All workers must take part, and all get the same tensors, which are views if the stage allows
    it.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    masters = _masters(engine)
    for name, parameter in _trained(engine):
        if engine.zero_optimization():
            values = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
            yield name, {WEIGHT: safe_get_full_fp32_param(parameter), **values}
        else:
            master = masters.get(parameter, parameter)
            state = _inner(engine).state[master]
            yield name, {WEIGHT: master.data, **{key: state[key] for key in MOMENTS}}


def num_optimizer_steps(engine: Any) -> int:
    """Number of steps that the optimizer has counted."""
    states = _inner(engine).state.values()
    return max((int(state["step"]) for state in states if "step" in state), default=0)


def write_state(
    engine: Any, states: Callable[[str], dict[str, torch.Tensor]], num_steps: int
) -> None:
    """Set the state that `read_state` gave, on a fresh engine of any stage and number of workers.

    Args:
        engine: An engine that has not stepped.
        states: Name of a parameter -> its whole fp32 weight and moments.
        num_steps: What `num_optimizer_steps` gave.
    """
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    _allocate_moments(engine, num_steps)
    masters = _masters(engine)
    for name, parameter in _trained(engine):
        values = states(name)
        if engine.zero_optimization():
            safe_set_full_fp32_param(parameter, values[WEIGHT])
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, values[key], key)
        else:
            master = masters.get(parameter, parameter)
            master.data.copy_(values[WEIGHT])
            for key in MOMENTS:
                _inner(engine).state[master][key].copy_(values[key])
        with gathered([parameter], written=True):
            parameter.data.copy_(values[WEIGHT])


def _trained(engine: Any) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]


def _inner(engine: Any) -> Any:
    """The optimizer under DeepSpeed's own."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _masters(engine: Any) -> dict[nn.Parameter, torch.Tensor]:
    """The fp32 copies that plain bf16 training updates, by parameter."""
    if engine.zero_optimization():
        return {}
    halves = getattr(engine.optimizer, "fp16_groups", [])
    wholes = getattr(engine.optimizer, "fp32_groups", [])
    pairs = zip(halves, wholes, strict=True)
    return {p: w for half, whole in pairs for p, w in zip(half, whole, strict=True)}


def _allocate_moments(engine: Any, num_steps: int) -> None:
    """Allocate the moments that the first step would allocate, so that they can be set."""
    inner = _inner(engine)
    partitions = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)
    flat = partitions or [p for group in inner.param_groups for p in group["params"]]
    for parameter in flat:
        inner.state[parameter] = {
            "step": torch.tensor(float(num_steps), device=parameter.device),
            **{key: torch.zeros_like(parameter) for key in MOMENTS},
        }
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def stop(engine: Any) -> None:
    """Release everything an engine holds, so that one process can train trial after trial.

    DeepSpeed's own `destroy` (0.19.8) keeps the module and the optimizer states alive, and with
    ZeRO-3 the hooks of all modules, in cycles through autograd that the garbage collector cannot
    see.
    """
    import deepspeed  # see start

    sharded = is_sharded(engine.module)
    optimizer, module = engine.optimizer, engine.module
    engine.destroy()
    inner = getattr(optimizer, "optimizer", optimizer)
    inner.state.clear()
    inner.param_groups.clear()
    engine.optimizer = engine.module = None
    if sharded:
        # ZeRO-3 replaces torch's linear function by one that keeps more memory in later trials.
        partition = deepspeed.runtime.zero.partition_parameters
        original = getattr(partition.InsertPostInitMethodToModuleSubClasses, "linear_bk", None)
        if original is not None:
            torch.nn.functional.linear = original
        deepspeed.runtime.zero.parameter_offload.FWD_MODULE_STACK.clear()
        vars(optimizer).clear()
        parameters, modules = list(module.parameters()), list(module.modules())
        for parameter in parameters:
            parameter.data, parameter.grad = parameter.data.new_empty(0), None
        for part in [*parameters, *modules]:
            vars(part).clear()


def is_sharded(model: nn.Module) -> bool:
    """Whether ZeRO-3 shards the weights; then all workers must run every forward pass together."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def gathered(parameters: Sequence[torch.Tensor], *, written: bool = False) -> Iterator[None]:
    """Gather these weights, to read or write them; with ZeRO-3 all workers must take part."""
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        yield
        return
    import deepspeed  # see start

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=0 if written else None):
        yield
