"""However a trial is cut into pieces, it is the same trial: one loss curve for all settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.training.loop import train
from tests.ranks import run_ranks, start_ranks

Trial = Callable[..., TrialConfig]

PLAIN = {"train__packing": "off", "train__micro_batch_size": 8}
COMMON = {
    "noise__type": "symnoise",
    "noise__alpha": 5,
    "train__global_batch_size": 8,
    "train__max_steps": 4,
    "train__num_evals": 1,
}
"""Noise that would tell any difference in lengths, samples or order."""
WAYS: dict[str, dict[str, Any]] = {
    "micro-batches of 2": {"train__micro_batch_size": 2},
    "a pair in one batch": {"noise__execution": "concat"},
    "packed": {"train__packing": "on"},
    "packed micro-batches of 1": {"train__packing": "on", "train__micro_batch_size": 1},
    "packed, a pair in one batch": {"train__packing": "on", "noise__execution": "concat"},
    "ZeRO 1": {"train__zero_stage": 1},
    "ZeRO 2": {"train__zero_stage": 2},
    "ZeRO 3": {"train__zero_stage": 3},
    "ZeRO 3, packed, together": {
        "train__zero_stage": 3,
        "train__packing": "on",
        "noise__execution": "concat",
    },
    "activations recomputed": {"train__gradient_checkpointing": True},
}


def curve(records: list[dict[str, Any]]) -> list[float]:
    """All that is measured, in order."""
    return [value for record in records for value in record.values()]


def run(config: TrialConfig) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    train(config, records.append).release()
    return records


UNCUT: list[dict[str, Any]] = []
"""Records of the trial that is cut into nothing, once it has been trained."""


@pytest.fixture
def uncut(trial: Trial, process_group: None) -> list[dict[str, Any]]:
    """The trial in one micro-batch, unpacked; trained once, as it is the same for all ways."""
    if not UNCUT:
        UNCUT.extend(run(trial(**COMMON, **PLAIN)))
    return UNCUT


@pytest.mark.sampled(3)
@pytest.mark.parametrize("way", WAYS)
def test_one_worker_trains_alike(trial: Trial, uncut: list[dict[str, Any]], way: str) -> None:
    got = run(trial(**COMMON, **{**PLAIN, **WAYS[way]}))
    assert curve(got) == pytest.approx(curve(uncut), rel=2e-4, abs=1e-4)
    assert curve(got)[:5] == pytest.approx(curve(uncut)[:5], rel=1e-5, abs=1e-5)


SCRIPT = """
import json, os, sys
from pathlib import Path
from symnoise_ray.config import TrialConfig
from symnoise_ray.training.loop import train

own = Path(sys.argv[1]) / f"{os.environ['RANK']}.json"
for text in json.loads(own.read_text()):
    records = []
    train(TrialConfig.model_validate_json(text), records.append).release()
    print(json.dumps(records), flush=True)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")
def test_two_workers_train_like_one(trial: Trial, tmp_path: Path) -> None:
    expected = run(trial(**COMMON, **PLAIN))
    ways = [
        {},
        {"train__micro_batch_size": 1},
        {"noise__execution": "concat"},
        {"train__packing": "on"},
        *({"train__zero_stage": stage, "train__packing": "on"} for stage in (1, 2, 3)),
        {"train__zero_stage": 3, "train__micro_batch_size": 1},
    ]
    configs = [trial(**COMMON, **{**PLAIN, **way}).model_dump_json() for way in ways]
    for rank in range(2):
        (tmp_path / f"{rank}.json").write_text(json.dumps(configs))
    told = run_ranks(SCRIPT, tmp_path)[0]
    lines = [line for line in told.splitlines() if line.startswith("[{")]
    for way, line in zip(ways, lines, strict=True):
        got = curve(json.loads(line))
        assert got == pytest.approx(curve(expected), rel=2e-4, abs=1e-4), way


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")
def test_workers_measure_rows_that_do_not_divide_among_them(trial: Trial, tmp_path: Path) -> None:
    uneven = {"train__micro_batch_size": 1, "train__num_clean_rows": 3, "train__max_steps": 1}
    alone = trial(**{**COMMON, **uneven})
    configs = [alone, trial(**{**COMMON, **uneven, "train__zero_stage": 3})]
    for rank in range(2):
        texts = [config.model_dump_json() for config in configs]
        (tmp_path / f"{rank}.json").write_text(json.dumps(texts))
    told = run_ranks(SCRIPT, tmp_path)[0]
    found = [json.loads(line) for line in told.splitlines() if line.startswith("[{")]
    assert len(found) == len(configs)
    for records in found:
        assert curve(records) == pytest.approx(curve(run(alone)), rel=2e-4, abs=1e-4)


@pytest.mark.slow
def test_workers_that_were_told_different_trials_do_not_start(trial: Trial, tmp_path: Path) -> None:
    for rank, lr in enumerate((1e-3, 2e-3)):
        config = trial(**COMMON, optim__lr=lr).model_dump_json()
        (tmp_path / f"{rank}.json").write_text(json.dumps([config]))
    for worker in start_ranks(SCRIPT, tmp_path):
        told = worker.communicate(timeout=1200)[0]
        assert worker.returncode != 0
        assert "all workers must have the same configuration" in told
        assert "clean_loss" not in told
