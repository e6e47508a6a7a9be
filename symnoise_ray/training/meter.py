"""Speed and memory of a training: tokens per second, peak memory, share of the peak rate.

In: a model, a device, and the number of tokens that passed through the model. Out: a few rates for
the records. A token counts once per copy of its row; padding does not count.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Self

import torch
from torch import nn

PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
}
"""Part of a device's name -> its dense bf16 rate in operations per second, from the vendor's data
sheets. The first part that the name contains counts."""

_GIB = 2**30


class Meter:
    """Measures the block it surrounds."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.seconds = 0.0

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._began = time.monotonic()
        return self

    def __exit__(self, *_error: object) -> None:
        self.seconds = time.monotonic() - self._began

    def rates(self, num_tokens: int) -> dict[str, float]:
        """Rates over all workers; call it after the block.

        Returns:
            tokens_per_second; peak_memory_gib of this worker's GPU, or of its process on the CPU;
            and, for a known GPU in bf16, flops_utilization: 6 operations per weight and token (4
            where weights are frozen, as with adapters) over the peak rate (PaLM, arXiv 2204.02311,
            without its term for attention).
        """
        rates = {"tokens_per_second": num_tokens / self.seconds, "peak_memory_gib": self._memory()}
        peak = self._peak()
        if peak is not None:
            rates["flops_utilization"] = rates["tokens_per_second"] * self._flops() / peak
        return rates

    def _memory(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _GIB
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB

    def _peak(self) -> float | None:
        """The rate of all workers' GPUs; None on the CPU, for fp32, and for unknown devices."""
        if self.device.type != "cuda" or self.model.dtype != torch.bfloat16:
            return None
        name = torch.cuda.get_device_name(self.device)
        peak = peak_of(name)
        return None if peak is None else peak * torch.distributed.get_world_size()

    def _flops(self) -> float:
        """Operations per token, without those of the embedding, which is looked up."""
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        tied = self.model.get_output_embeddings()  # type: ignore[operator]
        looked_up = 0 if tied is None or tied.weight is embedding.weight else num_weights(embedding)
        frozen = all(not p.requires_grad for p in embedding.parameters())
        return (4 if frozen else 6) * (num_weights(self.model) - looked_up)


def peak_of(name: str) -> float | None:
    """The peak rate of one device in operations per second; None of an unknown one."""
    return next((rate for part, rate in PEAK_FLOPS.items() if part in name), None)


def num_weights(module: nn.Module) -> int:
    """Weights, sharded ones counted whole, and of 4-bit ones both that a byte holds.

    Source: peft's count, `PeftModel.get_nb_trainable_parameters`.
    """
    return sum(
        int(getattr(p, "ds_numel", p.numel())) * (2 * p.element_size() if _is_packed(p) else 1)
        for p in module.parameters()
    )


def _is_packed(parameter: nn.Parameter) -> bool:
    # By its name: the package need not be there.
    return type(parameter).__name__ == "Params4bit"
