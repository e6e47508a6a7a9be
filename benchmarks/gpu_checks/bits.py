"""The noise of every type on the GPU against the CPU's.

In: rows that are padded, packed and full. Out: words that are equal bit for bit; signs and uniform
numbers that are equal; normal numbers that differ by one unit in the last place at most, because
their inverse distribution function is computed by each device's own library.

Shape letters: B rows, L positions, D embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_checks.step import Step
from symnoise_ray.config import NoiseConfig
from symnoise_ray.noise.embedding import draw_noise
from symnoise_ray.noise.philox import BLOCK, random_words, words_in_torch
from symnoise_ray.noise.types import GAUSSIAN, NOISES, adds_noise

ALPHA = 5.0
LARGEST = 2**32 - 1
"""Of seeds, and a sample's number that needs more than 31 bits."""


def check(step: Step) -> str:
    """Compare words, noise and scales; note how many numbers were compared and how many differ."""
    batches = places(4, 64) if step.rehearse else places(4, 1024)
    width = 96 if step.rehearse else 2048
    for name, (sample_BL, position_BL) in batches.items():
        for number, seed in ((1, 0), (10**6, LARGEST)):
            assert_equal_words(step, sample_BL, position_BL, number, seed)
        for noise_type in filter(adds_noise, NOISES):
            config = NoiseConfig(type=noise_type, alpha=ALPHA)
            found = compare(step, sample_BL, position_BL, width, config)
            step.note(**{f"{noise_type}, {name}": found})
    tables = list(step.figures.values())
    compared, differ = (sum(table[key] for table in tables) for key in ("numbers", "differ"))
    return f"{compared:,} numbers of {len(tables)} cases: {differ:,} differ, by 1 ulp at most"


def places(rows: int, length: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Samples and positions (B, L) of full, left-padded and packed rows."""
    position_BL = torch.arange(length).repeat(rows, 1)
    sample_BL = torch.arange(rows)[:, None].repeat(1, length)
    pad_B1 = torch.arange(rows)[:, None] * length // (2 * rows)
    real_BL = position_BL >= pad_B1
    half = length // 2
    packed_BL = torch.where(position_BL < half, 2 * sample_BL, 2 * sample_BL + LARGEST)
    return {
        "full": (sample_BL, position_BL),
        "padded": (
            torch.where(real_BL, sample_BL, -1),
            torch.where(real_BL, position_BL - pad_B1, 0),
        ),
        "packed": (packed_BL, position_BL % half),
    }


def assert_equal_words(
    step: Step, sample_BL: Tensor, position_BL: Tensor, number: int, seed: int
) -> None:
    """numpy's words are those of torch on the device, bit for bit."""
    settings: dict[str, Any] = {"step": number, "draw": 1, "seed": seed}
    on_cpu = random_words(sample_BL, position_BL, 2 * BLOCK, **settings)
    place = (sample_BL.to(step.device), position_BL.to(step.device))
    words = words_in_torch(*place, 2, **settings)
    assert torch.equal(words.cpu(), on_cpu), f"other random words at step {number}, seed {seed}"


def compare(
    step: Step, sample_BL: Tensor, position_BL: Tensor, width: int, config: NoiseConfig
) -> dict[str, Any]:
    """Both devices' noise and scale of one batch."""
    cpu_BLD, scale_BL1 = draw_noise(sample_BL, position_BL, 3, 1, width, config, 7)
    place = (sample_BL.to(step.device), position_BL.to(step.device))
    drawn = draw_noise(*place, 3, 1, width, config, 7)
    noise_BLD, device_scale_BL1 = (x.cpu() for x in drawn)
    differ = int((noise_BLD != cpu_BLD).sum())
    allowed_BLD = torch.finfo(torch.float32).eps * cpu_BLD.abs()
    assert bool(((noise_BLD - cpu_BLD).abs() <= allowed_BLD).all()), f"{config.type} differs"
    if NOISES[config.type].law is not GAUSSIAN:
        assert differ == 0, f"{differ} numbers of {config.type} differ"
    torch.testing.assert_close(device_scale_BL1, scale_BL1, rtol=3e-7, atol=0)
    assert float(cpu_BLD.abs().max()) > 0, f"{config.type} is no noise"
    return {"numbers": cpu_BLD.numel(), "differ": differ}
