"""`benchmarks/noise.py` on the device: what noise costs."""

from __future__ import annotations

from benchmarks.gpu_checks.step import Step


def check(step: Step) -> str:
    """Run it; it asserts equal losses and gradients, and tells of every bar whether it holds."""
    rounds = "2" if step.rehearse else "10"
    figures = step.benchmark("noise.py", "--device", step.device, "--rounds", rounds)
    return "; ".join(figures["bars"].values())
