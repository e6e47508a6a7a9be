"""vLLM against transformers: equal verdicts of a local judge, equal answers of a trial, then speed.

A rehearsal takes transformers twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_checks.step import Step
from benchmarks.judging import TINY, Sizes, pairs_of, save_model
from symnoise_ray.config import JudgeConfig, TrialConfig
from symnoise_ray.judges.local import local_judge
from symnoise_ray.judges.protocol import Pair
from symnoise_ray.records.completions import read_completions
from symnoise_ray.records.layout import COMPLETIONS
from symnoise_ray.workers.task import run_task

NUM_ITEMS = 84
MOST = 2e-3
"""Preferences lie between 1 and 2, are rounded to 4 digits, and are computed in fp32."""
CONTROL = 10
"""Preferences must differ from each other by so many times what the engines differ."""
SHARED = 0.99
"""At least so many greedy answers are equal; other kernels may turn a near tie. In fp32: the logits
of bf16 tie so often that a long answer hardly survives another order of summation."""


def check(step: Step) -> str:
    """Judge the same pairs, and answer the same prompts, with both."""
    judging = check_verdicts(step)
    return f"{judging}; {check_answers(step)}"


def check_verdicts(step: Step) -> str:
    """Judge the same pairs with both."""
    save_model(step.scratch, TINY if step.rehearse else Sizes())
    pairs = pairs_of(4 if step.rehearse else NUM_ITEMS)
    engine = "transformers" if step.rehearse else "vllm"
    # vLLM comes first: it may start processes, before this one has touched the GPU.
    fast = judged(step, pairs, {"engine": engine, "gpus_per_worker": 0.5})
    plain = judged(step, pairs, {"engine": "transformers"})
    assert plain["preferences"].keys() == fast["preferences"].keys() == set(range(len(pairs)))
    values = plain["preferences"].values()
    off = max(abs(fast["preferences"][n] - plain["preferences"][n]) for n in plain["preferences"])
    spread = max(values) - min(values)
    seconds = [plain["seconds"], fast["seconds"]]
    step.note(off=off, spread=spread, seconds_transformers_and_fast=seconds)
    assert spread > CONTROL * off, f"all preferences are alike: they spread over {spread:.2g}"
    assert off <= MOST, f"a preference is off by {off:.2g}, at most {MOST:g} may be"
    return (
        f"{engine}: {len(pairs)} verdicts off by {off:.1g} at most, in {fast['seconds']:.1f} s "
        f"against {plain['seconds']:.1f} s"
    )


def check_answers(step: Step) -> str:
    """Train and answer with both, and once more with vLLM, which then is warm."""
    engine = "transformers" if step.rehearse else "vllm"
    plain, slow = answered(step, "transformers", "plain")
    first, cold = answered(step, engine, "first")
    again, warm = answered(step, engine, "again")
    share = sum(a == b for a, b in zip(plain, first, strict=True)) / len(plain)
    seconds = {"transformers": slow, "fast_with_start": cold, "fast": warm}
    step.note(answers=len(plain), share_of_equal_answers=share, answering_seconds=seconds)
    assert first == again, "a warm engine with equal weights must give equal answers"
    assert share >= SHARED, f"{share:.1%} of the greedy answers are equal, not {SHARED:.0%}"
    return f"{share:.0%} of {len(plain)} answers equal, in {warm:.1f} s against {slow:.1f} s"


def answered(step: Step, engine: str, name: str) -> tuple[Sequence[str], float]:
    """Answers of a trial of two steps, and the seconds of answering."""
    folder = Path(step.scratch) / f"answers-{name}"
    folder.mkdir()
    config = TrialConfig.model_validate(
        {
            "model": {"name": str(step.scratch), "dtype": "fp32"},
            "data": {"train": "demo"} | ({"max_eval_prompts": 8} if step.rehearse else {}),
            "train": {"max_steps": 2, "global_batch_size": 8, "micro_batch_size": 8},
            "generate": {
                "engine": engine,
                "batch_size": 64,
                "max_new_tokens": 4 if step.rehearse else 128,
            },
        }
    )
    outcome = run_task(config, folder, report=lambda record: None, cancelled=lambda: False)
    assert outcome.status == "done", f"{outcome.reason}\n{outcome.detail}"
    texts = [each.output for each in read_completions(folder / COMPLETIONS)]
    return texts, outcome.seconds["generate"]


def judged(step: Step, pairs: list[Pair], settings: dict[str, Any]) -> dict[str, Any]:
    """Preferences by number of the pair, and the seconds without loading, warm."""
    judge = local_judge(JudgeConfig(type="local", model=str(step.scratch), **settings))
    list(judge.judge(pairs[:4]))
    began = time.monotonic()
    verdicts = dict(judge.judge(pairs))
    seconds = time.monotonic() - began
    found: dict[int, float] = {}
    for number, verdict in verdicts.items():
        assert verdict.preference is not None, f"pair {number}: {verdict.reason}"
        found[number] = verdict.preference
    return {"preferences": found, "seconds": seconds}
