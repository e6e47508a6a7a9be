"""The confirmation's comparisons come from the files that its trials left."""

from pathlib import Path

import numpy as np
import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.confirm import comparisons
from symnoise_ray.plans import TrialPlan
from symnoise_ray.records import Preference, write_json, write_lines

TEXTS = ("", "r" * 50, "plain")


def confirmed(
    folder: Path, name: str, scores: list[float | None], status: str = "done"
) -> TrialPlan:
    """A trial that ended, with these verdicts on answers that are the longer the better."""
    directory = folder / name
    write_json({"status": status}, directory / "trial.json")
    rows = [
        Preference(
            item, f"question {item}", *TEXTS, "t" * int(40 + 20 * (score or 0) + item % 7),
            "noisy", "judge", "one", None if score is None else 1 + score,
        )
        for item, score in enumerate(scores)
    ]  # fmt: skip
    write_lines(rows, directory / "preferences.jsonl")
    return TrialPlan(name, TrialConfig(), directory, directory / "reference.jsonl", {}, "confirm")


def some_scores(seed: int, count: int = 40) -> list[float | None]:
    return [float(score) for score in np.random.default_rng(seed).choice([0, 0.5, 1], size=count)]


def test_seeds_are_paired_on_the_prompts_that_all_of_them_answered(tmp_path: Path) -> None:
    first, second = some_scores(1), some_scores(2)
    second[3] = None
    plans = [confirmed(tmp_path, "a", first), confirmed(tmp_path, "b", second)]
    (found,) = comparisons({"none": [], "symnoise": plans})
    both = [s for pair in zip(first, second, strict=True) if None not in pair for s in pair]
    assert found.win_rate == pytest.approx(np.mean(both))
    assert (found.arm, found.num_prompts, found.num_seeds) == ("symnoise", 39, 2)


def test_a_comparison_names_the_win_rate_at_equal_lengths(tmp_path: Path) -> None:
    scores = [0.0 if score == 0 else 1.0 for score in some_scores(3, 90)]
    plans = [confirmed(tmp_path, "a", list(scores)), confirmed(tmp_path, "b", list(scores))]
    (found,) = comparisons({"symnoise": plans})
    assert found.length_controlled_win_rate is not None
    assert found.length_controlled_interval_95 is not None
    low, high = found.length_controlled_interval_95
    assert low <= found.length_controlled_win_rate <= high
    assert found.length_controlled_win_rate < found.win_rate - 0.05, "length explains the wins"


def test_a_seed_that_failed_and_an_arm_without_any_are_left_out(tmp_path: Path) -> None:
    good = confirmed(tmp_path, "a", some_scores(4))
    failed = confirmed(tmp_path, "b", some_scores(5), status="failed")
    never = confirmed(tmp_path, "c", [None] * 40)
    found = comparisons({"symnoise": [good, failed], "neftune": [failed], "bernoulli": [never]})
    assert [(c.arm, c.num_seeds) for c in found] == [("symnoise", 1)]
