"""Whether the storage of a sweep has room for what its trials write.

In: the trials' configurations, and the sweep's directory. Out: nothing, or one error with both
sizes. Checkpoints and kept models count; records, answers and tokenised rows are small beside them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import UserError
from symnoise_ray.models.source import model_source
from symnoise_ray.preflight.forecast import read_model
from symnoise_ray.preflight.memory import GIB, disk


def check_disk(
    configs: Iterable[TrialConfig], num_slots: int, num_trials: int, directory: Path
) -> None:
    """Compare the forecast with the free space.

    Args:
        configs: Trials; of each kind of file the largest counts. An adapter's trials are left out,
            since its files do not say how large its base is.
        num_slots: Trials that train at once, each with its checkpoints.
        num_trials: Trials that are still to come, each with its model where that is kept.
        directory: Where they write; it exists.

    Raises:
        UserError: there is too little space.
    """
    needs = [
        disk(read_model(config.model, None), config)
        for config in {(each.model, each.train, each.lora): each for each in configs}.values()
        if not (Path(model_source(config.model)) / "adapter_config.json").exists()
    ]
    checkpoints = num_slots * _largest(needs, "checkpoints while one is written")
    models = num_trials * _largest(needs, "saved model")
    free = shutil.disk_usage(directory).free
    if checkpoints + models > free:
        raise UserError(
            f"--output {directory}: must have {_size(checkpoints + models)} free (checkpoints of "
            f"{num_slots} trials at once {_size(checkpoints)}, {num_trials} kept models "
            f"{_size(models)}), but has {_size(free)}; choose other storage, or set "
            "train.checkpoint_minutes=0 or train.save_model=false"
        )


def _largest(needs: list[dict[str, float]], kind: str) -> float:
    return max((need[kind] for need in needs), default=0.0)


def _size(size: float) -> str:
    return f"{size / GIB:.3g} GiB"
