"""`benchmarks/training.py` on one shape: SymNoise to clean, and the share of the matmul rate."""

from __future__ import annotations

from benchmarks.gpu_checks.step import Step


def check(step: Step, shape: str) -> str:
    """Run it; it asserts equal work, and tells of every bar whether it holds."""
    rounds = "2" if step.rehearse else "10"
    figures = step.benchmark("training.py", "--shape", shape, "--rounds", rounds)
    clean, noisy = (row["tokens_per_second"] for row in figures["steps"].values())
    bars = "; ".join(figures["bars"].values())
    return f"{clean:.0f} tokens/s clean, {noisy:.0f} with symnoise; {bars}"
