"""The share of the peak rate counts every weight, and takes a device for what it is."""

import pytest
import torch
from torch import nn

from symnoise_ray.training.meter import num_weights, peak_of


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("Quadro P4000", None),
    ],
)
def test_a_device_is_known_by_its_whole_name(name: str, rate: float | None) -> None:
    assert peak_of(name) == rate


class Params4bit(nn.Parameter):
    """Two weights in each byte, as bitsandbytes packs them into its parameter of this name."""


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
def test_weights_of_four_bits_count_as_those_that_they_pack(storage: torch.dtype) -> None:
    layer = nn.Linear(8, 6)
    plain = num_weights(layer)
    num_bytes = 8 * 6 // 2
    packed = torch.zeros(num_bytes // storage.itemsize, dtype=storage)
    layer.weight = Params4bit(packed, requires_grad=False)
    assert num_weights(layer) == plain == 8 * 6 + 6
