"""`benchmarks/judging.py` on the device: our answers and our judge against the bare model."""

from __future__ import annotations

from benchmarks.gpu_checks.step import Step


def check(step: Step) -> str:
    """Run it; it asserts equal texts and equal verdicts."""
    size = (
        ["--rounds", "2", "--items", "2"] if step.rehearse else ["--rounds", "3", "--items", "84"]
    )
    # Batches of 1 and 4 take minutes: every token is a pass of its own.
    batches = ["--batches", "16", "64"]
    figures = step.benchmark("judging.py", "--device", step.device, *size, *batches)
    judged = figures["judging"]
    ratios = [f"batch {size} {told['ratio']:.2f}" for size, told in figures["answering"].items()]
    return (
        f"answers / generate: {', '.join(ratios)}; judge / prefill {judged['ratio']:.2f}, "
        f"{judged['prompt_tokens_per_second']:.0f} prompt tokens/s"
    )
