"""The local judge in vLLM against the same judge in transformers: equal verdicts, then speed.

The project uses vLLM for judging; answers come from transformers (`answering`). A rehearsal takes
transformers twice.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu_checks.step import Step
from benchmarks.judging import TINY, Sizes, pairs_of, save_model
from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.local import local_judge
from symnoise_ray.judges.protocol import Pair

NUM_ITEMS = 84
MOST = 2e-3
"""Preferences lie between 1 and 2, are rounded to 4 digits, and are computed in fp32."""
CONTROL = 10
"""Preferences must differ from each other by so many times what the engines differ."""


def check(step: Step) -> str:
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
