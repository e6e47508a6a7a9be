"""Scores by group: every group counts the same, however many prompts it has."""

import numpy as np
import pytest

from symnoise_ray.statistics.groups import by_group


def test_a_group_has_the_mean_of_its_prompts_by_seed_in_order_of_first_occurrence() -> None:
    scores_PS = np.array([[1.0, 0.0], [0.0, 0.5], [0.5, 1.0], [1.0, 1.0]])
    scores_GS = by_group(scores_PS, ["verbs", "animals", "verbs", "verbs"])
    assert scores_GS == pytest.approx(np.array([[2.5 / 3, 2.0 / 3], [0.0, 0.5]]))


def test_prompts_that_are_all_of_one_group_or_each_of_its_own() -> None:
    scores_PS = np.random.default_rng(0).random((7, 3))
    assert by_group(scores_PS, [""] * 7) == pytest.approx(scores_PS.mean(axis=0, keepdims=True))
    assert (by_group(scores_PS, list(range(7))) == scores_PS).all()


def test_copying_the_prompts_of_a_group_changes_nothing() -> None:
    scores_PS = np.array([[1.0], [0.0], [0.5]])
    once = by_group(scores_PS, ["a", "a", "b"])
    assert by_group(scores_PS[[0, 1, 2, 2, 2]], ["a", "a", "b", "b", "b"]) == pytest.approx(once)


def test_no_prompts_have_no_groups() -> None:
    assert by_group(np.empty((0, 3)), []).shape == (0, 3)


def test_every_prompt_needs_a_group() -> None:
    with pytest.raises(ValueError, match="shorter"):
        by_group(np.zeros((3, 2)), ["a", "b"])


def test_prompts_of_a_group_that_are_alike_are_one_piece_of_evidence() -> None:
    """Over many draws of groups, the spread between groups tells how far their mean lies off."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(8), 10).tolist()
    means, by_prompts, by_groups = [], [], []
    for _ in range(400):
        effects_P = np.repeat(rng.normal(size=8), 10)
        scores_P = effects_P + 0.5 * rng.normal(size=80)
        scores_G = by_group(scores_P[:, None], groups)[:, 0]
        means.append(scores_G.mean())
        by_prompts.append(scores_P.var(ddof=1) / 80)
        by_groups.append(scores_G.var(ddof=1) / 8)
    assert np.mean(by_groups) == pytest.approx(np.var(means), rel=0.2)
    assert np.mean(by_prompts) < 0.2 * np.var(means)
