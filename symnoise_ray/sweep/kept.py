"""Models that an earlier part of the sweep kept, which answer the prompts that were added since.

In: the plan of a trial of the confirmation. Out: the directory of the same training with fewer
answers whose model can take its place, or None: then it is trained again. The kept model answers
all prompts, also those it answered before, so that all answers of a seed come from one model.
"""

from __future__ import annotations

from pathlib import Path

from symnoise_ray.config import TrialConfig
from symnoise_ray.records.layout import MODEL
from symnoise_ray.records.results import read_result
from symnoise_ray.space.trials import TrialPlan


def kept_model(plan: TrialPlan, first: TrialPlan) -> Path | None:
    """The directory of the same training that has a model.

    Args:
        plan: The trial, on prompts that have grown.
        first: The same on those that the sweep began with.
    """
    if not _answers_as_trained(plan.config):
        return None
    folders = first.directory.parent
    for folder in (first.directory, *sorted(folders.glob(f"{first.name}-prompts*"))):
        result = read_result(folder)
        # The result is written after the model, so a model beside one is whole.
        if result is not None and result.is_done and (folder / MODEL).is_dir():
            return folder
    return None


def _answers_as_trained(config: TrialConfig) -> bool:
    """Whether a worker can load the kept model as it was when it answered.

    Weights of 4 bits are saved in another type, and a sharded model may not fit into one worker.
    """
    return config.lora.quantize == "none" and config.train.zero_stage < 3
