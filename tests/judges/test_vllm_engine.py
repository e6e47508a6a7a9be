"""A judge in vLLM gives the verdicts of the same judge in transformers.

It needs vLLM: pytest -m vllm.
"""

import importlib
from pathlib import Path

import pytest

from benchmarks.judging import TINY, pairs_of, save_model
from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges import vllm_engine
from symnoise_ray.judges.local import local_judge

MOST = 2e-3
"""Preferences lie between 1 and 2, and are computed in fp32."""
CONTROL = 10
"""They must differ from each other by so many times what they may be off."""


@pytest.mark.vllm
def test_verdicts_are_those_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a GPU it is vLLM's build for CPUs, which a user of the project has no use for.
    monkeypatch.setattr(vllm_engine, "_import_vllm", lambda: importlib.import_module("vllm"))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    save_model(tmp_path, TINY)
    pairs = pairs_of(12)
    plain, fast = (
        dict(
            local_judge(
                JudgeConfig.model_validate({"type": "local", "model": str(tmp_path), **engine})
            ).judge(pairs)
        )
        for engine in ({}, {"engine": "vllm", "gpus_per_worker": 0.5})
    )
    values = {number: verdict.preference for number, verdict in plain.items()}
    assert values.keys() == fast.keys() == set(range(len(pairs)))
    assert None not in values.values()
    assert max(values.values()) - min(values.values()) > CONTROL * MOST  # type: ignore[type-var, operator]
    assert {number: verdict.preference for number, verdict in fast.items()} == pytest.approx(
        values, abs=MOST
    )
