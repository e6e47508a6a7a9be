"""Causal language models and tokenizers: loaded once, copied per trial, adapted, exported.

In: a `ModelConfig`. Out: a model in memory and its tokenizer; after training, a plain Hugging Face
folder. A process reads a model once and makes a copy for every trial (`Pristine`). LoRA layers are
put into the model itself, not around it, so its class, its embedding and its `generate` stay the
same. This is the only module that imports peft.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from symnoise_ray.config import LoraConfig, ModelConfig, TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.models.deepspeed_engine import gathered
from symnoise_ray.models.mapped import Pristine
from symnoise_ray.models.pretrained import DTYPES, read_pretrained
from symnoise_ray.models.shape import no_target
from symnoise_ray.models.source import context_length
from symnoise_ray.models.tokenizer import load_tokenizer, require_embeddings

log = logging.getLogger(__name__)

_ADAPTER = "default"


class Loaded(NamedTuple):
    """A model that a trial may change, its tokenizer, and the most tokens it takes, if known."""

    model: nn.Module
    tokenizer: Any
    context: int | None


def load(config: ModelConfig, *, shared: bool = False) -> Loaded:
    """A fresh copy of the model and its tokenizer.

    Args:
        config: The model.
        shared: Whether the weights may lie in memory that all processes of a machine share; it
            takes model files with the dtype of the training.

    Raises:
        UserError: the model or tokenizer cannot be read, the model has no such attention, the
            tokenizer has more words than the model has embeddings, or a file of the model has
            changed since this process read it.
    """
    pristine, tokenizer = _load_once(config)
    return Loaded(pristine.copy(shared=shared), tokenizer, context_length(pristine.model.config))


@functools.lru_cache(maxsize=2)
def _load_once(config: ModelConfig) -> tuple[Pristine, Any]:
    tokenizer = load_tokenizer(config)
    model, note = read_pretrained(config)
    if note is not None:
        log.warning(note)
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    if isinstance(embeddings, nn.Embedding):
        require_embeddings(f"model.name={config.name}", len(tokenizer), embeddings.num_embeddings)
    return Pristine(model, lambda: read_pretrained(config, as_stored=True).model), tokenizer


def may_share(config: TrialConfig, device: torch.device) -> bool:
    """Whether a trial writes to no weight of its model in the host's memory.

    It trains adapters, or the weights move to a GPU.
    """
    return config.lora.rank is not None or device.type != "cpu"


def adapt(model: nn.Module, config: TrialConfig) -> nn.Module:
    """The same model as the trial trains it: with adapters, checkpointing and compiled layers.

    Call it before the model moves to its device, because 4-bit weights are made by that move.

    Raises:
        UserError: an adapted layer does not exist, or a package, GPU or compiler is missing.
    """
    if config.lora.quantize != "none":
        _quantize(model, config)
    if config.lora.rank is not None:
        _add_lora(model, config.lora)
    if config.train.gradient_checkpointing:
        # With ZeRO-3 a recomputed layer sees its weights as other tensors: they are not compared.
        model.gradient_checkpointing_enable(  # type: ignore[operator]
            {"use_reentrant": False, "determinism_check": "none"}
        )
    if config.train.compile:
        _check_compiler()
        for layer in decoder_layers(model):
            layer.compile()
    return model


def _add_lora(model: nn.Module, config: LoraConfig) -> None:
    import peft  # a second, for trials with adapters only

    if config.target_modules != "all-linear":
        check_targets(model, config.target_modules)
    assert config.rank is not None
    model.add_adapter(  # type: ignore[operator]
        peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=(
                config.target_modules
                if isinstance(config.target_modules, str)
                else list(config.target_modules)
            ),
        ),
        adapter_name=_ADAPTER,
    )


def check_targets(model: nn.Module, names: tuple[str, ...]) -> None:
    """Refuse names in `lora.target_modules` that no linear layer of the model has.

    Raises:
        UserError: a name matches no linear layer, or one that is tied to the embedding.
    """
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    linear = {path: m for path, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    for name in names:
        found = [path for path in linear if path == name or path.endswith(f".{name}")]
        if not found:
            known = sorted({path.rsplit(".", 1)[-1] for path in linear})
            raise UserError(no_target(name, known))
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        if any(linear[path].weight is embedding.weight for path in found):
            raise UserError(
                f"lora.target_modules must not name {name!r}, because its weights are tied to the "
                "token embedding, which an adapter would leave as it is"
            )


def _quantize(model: nn.Module, config: TrialConfig) -> None:
    """Replace the linear layers except the head by 4-bit ones; the move to the GPU fills them."""
    setting = f"lora.quantize={config.lora.quantize}"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{setting} needs the package bitsandbytes (the extra qlora): pip install bitsandbytes"
        )
    if not torch.cuda.is_available():
        raise UserError(f"{setting} needs a GPU on every worker, but there is none here")
    import bitsandbytes as bnb  # an optional package

    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    for path, module in linear:
        quantized = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=DTYPES[config.model.dtype],
            quant_type=config.lora.quantize,
            device="meta",
        )
        quantized.weight = bnb.nn.Params4bit(
            module.weight.data, requires_grad=False, quant_type=config.lora.quantize
        )
        quantized.bias = module.bias
        model.set_submodule(path, quantized)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks for this name


def _check_compiler() -> None:
    wanted = [os.environ.get("CXX", "g++")]
    if torch.cuda.is_available():
        wanted = [os.environ.get("CC", "cc"), "gcc", "clang"]
    if not any(map(shutil.which, wanted)):
        raise UserError(
            f"train.compile=true needs a compiler on every worker, but none of "
            f"{', '.join(wanted)} is here; install one or set train.compile=false"
        )


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the decoder: the outermost list of as many modules as the configuration names.

    They are compiled one by one: so they share their code, and the embedding and its noise are left
    out. Empty if there is no such list.
    """
    config: Any = model.config
    count = config.get_text_config().num_hidden_layers
    lists = (list(module) for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((layers for layers in lists if len(layers) == count), [])


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run compiled layers uncompiled: decoding would compile them again for every length."""
    if not any(getattr(module, "_compiled_call_impl", None) for module in model.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def export(model: nn.Module, tokenizer: Any, folder: Path, *, merge: bool = True) -> None:
    """Write a plain Hugging Face folder: safetensors, tokenizer, generation settings.

    All workers must call it, because each may hold a share of the weights; rank 0 writes.

    Args:
        model: The trained model itself, with or without adapters, sharded or whole.
        tokenizer: Its tokenizer.
        folder: The folder to write; it is made.
        merge: Whether the adapters are added to the weights; if not, only the adapter is written,
            with the name of the model that it belongs to.
    """
    adapted = getattr(model, "_hf_peft_config_loaded", False)
    merge = merge and adapted
    state = _whole_state(model, only_adapter=adapted and not merge)
    if _rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if merge:
            state = _merged_state(model, state)
            # transformers writes the adapter alone as long as this flag says that there is one.
            model._hf_peft_config_loaded = False  # type: ignore[assignment]
        try:
            model.save_pretrained(folder, state_dict=state)  # type: ignore[operator]
        finally:
            if merge:
                model._hf_peft_config_loaded = True  # type: ignore[assignment]
        tokenizer.save_pretrained(folder)
    if dist.is_initialized():
        dist.barrier()


def checkpoint_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a whole model under the names that a file of it gives them.

    The tensors are the model's own, but for layers with adapters, which are added to a copy.
    """
    from transformers.core_model_loading import revert_weight_conversion

    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if getattr(model, "_hf_peft_config_loaded", False):
        state = _merged_state(model, state)
    found: dict[str, Tensor] = revert_weight_conversion(model, state)
    return found


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _whole_state(model: nn.Module, *, only_adapter: bool) -> dict[str, Tensor]:
    """The state dict on the CPU of rank 0, gathered weight by weight; empty on the other ranks."""
    state: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}  # tied weights stay one
    for name, tensor in model.state_dict(keep_vars=True).items():
        if only_adapter and ".lora_" not in name:
            continue
        with gathered([tensor]):
            if _rank() == 0:
                if id(tensor) not in copies:
                    copies[id(tensor)] = tensor.detach().to("cpu", copy=True)
                state[name] = copies[id(tensor)]
    return state


def _merged_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the model without adapters: W + alpha/rank * B A, computed in fp32."""
    from peft.tuners.lora import LoraLayer

    merged = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if ".lora_" not in name
    }
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        down, up = (state[f"{path}.lora_{part}.{_ADAPTER}.weight"].float() for part in "AB")
        update = up @ down * module.scaling[_ADAPTER]
        weight = merged[f"{path}.weight"]
        if getattr(module, "fan_in_fan_out", False):
            update = update.T
        merged[f"{path}.weight"] = (weight.float() + update).to(weight.dtype)
    return merged
