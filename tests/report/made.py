"""A sweep made up for the report: its results, its trials' files, and its page."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.preferences import Preference
from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report.content import shown
from symnoise_ray.report.page import page

HOSTILE = "<script>alert(\"x\")</script> & 'a' | b\nc `d` *e* [f](g) \x00 \ud800"


def trial(number: int, arm: str, win_rate: float, **values: Any) -> dict[str, Any]:
    alpha = {} if arm == "none" else {"noise.alpha": 2.0 * number}
    return {
        "trial": f"{number:03d}-{arm}",
        "part": "search",
        "baseline": arm == "none",
        "is_reference": arm == "none",
        "status": "done",
        "kind": "",
        "reason": "",
        "arm": arm,
        "label": arm,
        "params": {"noise.type": arm, "optim.lr": 3e-3, **alpha},
        "seed": 0,
        "win_rate": win_rate,
        "interval_95": [win_rate - 0.05, win_rate + 0.07],
        "avg_length": 31.2,
        "clean_loss": 0.52,
        "first_clean_loss": 4.1,
        "noisy_loss": 0.58,
        "curvature": 0.123,
        "counts": {"rows truncated": 3},
        "seconds": dict(zip(PHASES, (0.1, 0.05, 3.1, 0.6, 0.0, 0.2, 0.3), strict=True)),
        **values,
    }


FAILED = {
    "trial": "003-gaussian",
    "part": "search",
    "baseline": False,
    "status": "failed",
    "kind": "diverged",
    "reason": "the loss is nan at step 31",
    "arm": "gaussian",
    "params": {},
    "win_rate": None,
}
COMPARISON = {
    "arm": "symnoise",
    "label": "symnoise 6.1, lr 0.0024",
    "win_rate": 0.561,
    "interval_95": [0.492, 0.634],
    "p_value": 0.1,
    "p_holm": 0.2,
    "num_prompts": 96,
    "num_seeds": 2,
    "verdict": "cannot tell yet",
    "opponent": "best",
    "against": "none, lr=0.003",
}
DECISION = {
    "arm": "symnoise",
    "label": "symnoise 6.1, lr 0.0024",
    "verdict": "cannot tell yet",
    "comparisons": [COMPARISON],
    "num_seeds": 2,
    "looks": [1, 2],
    "stopped": "last look",
    "num_trained": 4,
    "num_failed": 1,
    "seeds_needed": 13,
}
CHOICE = {
    "arm": "symnoise",
    "trial": "002-symnoise",
    "params": {"noise.alpha": 4.0},
    "method": "fit",
    "candidates": [
        {
            "trial": "002-symnoise", "label": "symnoise, alpha=4", "win_rate": 0.61,
            "standard_error": 0.031, "fitted": 0.583, "band": 0.022,
        }
    ],
    "flattered": 0.027,
}  # fmt: skip


def content(**values: Any) -> dict[str, Any]:
    """The content of a results.json."""
    results = {
        "name": "quickstart",
        "version": "0.1.0",
        "status": "partial",
        "finished": "2026-01-01T12:00:00+00:00",
        "verdict": {"sentence": "It is not decided yet.", "decisions": [DECISION]},
        "choices": [CHOICE],
        "trials": [
            trial(0, "none", 0.5),
            trial(1, "neftune", 0.44, baseline=True),
            trial(2, "symnoise", 0.61),
            FAILED,
            trial(4, "symnoise", 0.57, part="confirm"),
        ],
        "seconds": {"search": 40.1, "wall": 95.0, "by_phase": dict.fromkeys(PHASES, 2.0)},
        "tracking": {"uri": "sqlite:///runs/mlflow.db", "experiment": "symnoise_ray"},
    }
    return copy.deepcopy(results | values)


def read(content: dict[str, Any], directory: Path = Path("sweep")) -> SweepResult:
    return SweepResult.from_json(content, directory)


def results(**values: Any) -> SweepResult:
    return read(content(**values))


def rows(trials: list[dict[str, Any]]) -> list[TrialResult]:
    return [TrialResult.from_json(trial) for trial in trials]


CURVES: dict[str, list[dict[str, Any]]] = {
    "000-none": [
        {"step": 0, "clean_loss": 4.0, "curvature": 0.2},
        {"step": 10, "clean_loss": 1.0, "curvature": -0.01},
    ],
    "002-symnoise": [
        {"step": 0, "clean_loss": 4.0},
        {"step": 5, "loss": 2.0},
        {"step": 10, "clean_loss": 900.0},
    ],
}


def html(results: SweepResult, curves: Mapping[str, Sequence[Any]] = CURVES) -> str:
    """The page of one sweep."""
    return page([shown(results, curves, {})], results.name)


def write_trial(
    directory: Path, name: str, verdicts: Mapping[str, float | None], topics: int = 1
) -> None:
    """The files of a trial that answered so many prompts; their topics are taken in turn."""
    curve = [{"step": 0, "clean_loss": 4.0}, {"step": 9, "clean_loss": 2.0}]
    write_lines(curve, directory / "metrics.jsonl")
    completions = (Completion(q, f"answer {q}", name, gold=f"gold {q}") for q in verdicts)
    write_lines(completions, directory / "completions.jsonl")
    preferences = []
    for item, (text, verdict) in enumerate(verdicts.items()):
        both = (f"plain {text}", "000-none", f"answer {text}", name)
        for order in ("reference first", "trial first"):
            topic = f"topic {item % topics}"
            preferences.append(Preference(item, text, topic, *both, "judge", order, verdict))
    write_lines(preferences, directory / "preferences.jsonl")
