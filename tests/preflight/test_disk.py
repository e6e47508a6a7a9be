"""Room for checkpoints and kept models, forecast against what is free."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.preflight.disk import check_disk
from symnoise_ray.preflight.forecast import read_model
from symnoise_ray.preflight.memory import disk


@pytest.fixture
def kept(trial: Callable[..., TrialConfig]) -> TrialConfig:
    return trial(train__checkpoint_minutes=1, train__save_model=True)


def trials_that_fit(config: TrialConfig, folder: Path) -> int:
    """So many kept models fill what is free."""
    size = disk(read_model(config.model, None), config)["saved model"]
    return int(shutil.disk_usage(folder).free / size)


def test_a_sweep_that_fits_is_let_through(kept: TrialConfig, tmp_path: Path):
    check_disk([kept], 1, trials_that_fit(kept, tmp_path) // 2, tmp_path)


def test_kept_models_that_do_not_fit_are_one_line_with_both_sizes(
    kept: TrialConfig, tmp_path: Path
):
    number = 2 * trials_that_fit(kept, tmp_path)
    with pytest.raises(UserError, match=rf"^--output .*: must have .* GiB free .*{number} kept m"):
        check_disk([kept], 1, number, tmp_path)


def test_checkpoints_count_once_for_every_trial_that_trains(
    trial: Callable[..., TrialConfig], kept: TrialConfig, tmp_path: Path
):
    number = 2 * trials_that_fit(kept, tmp_path)
    with pytest.raises(UserError, match=rf"checkpoints of {number} trials at once"):
        check_disk([kept], number, 1, tmp_path)
    check_disk([trial(train__checkpoint_minutes=0)], number, number, tmp_path)
