"""The benchmarks run and give what they promise; what they measure is never a test."""

import json
import math
import subprocess
import sys

from tests.conftest import ROOT

RATIOS = {
    "forward_vs_copy",
    "forward_vs_naive",
    "forward_vs_hook",
    "step_ratio",
    "step_ratio_concat",
    "step_ratio_answer_head",
    "memory_ratio",
    "noise_share",
}


def test_the_noise_benchmark_gives_every_ratio_with_its_spread() -> None:
    script = str(ROOT / "benchmarks" / "noise.py")
    command = [sys.executable, script, "--tiny", "--rounds", "2", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures.keys() > RATIOS
    assert figures["spread"].keys() >= RATIOS
    for name, (low, high) in figures["spread"].items():
        assert all(math.isfinite(value) and value > 0 for value in (figures[name], low, high)), name
        assert low <= high, name
    rows = [row for table in figures["forward"].values() for row in table.values()]
    assert all(value > 0 for row in rows for value in row.values())
    assert len(rows) >= 12
    assert figures["bars"].keys() < figures.keys()
    assert figures["settings"]["torch_threads"] == 1
