"""What a trial and a sweep are: frozen, complete, strictly checked descriptions.

In: YAML 1.2 text and `key=value` overrides. Out: `TrialConfig` and `SweepConfig`.
A `TrialConfig` holds every setting that can change a trial's result. An unknown key is refused
with the file, the line and the nearest known name. The wing imports neither torch nor ray, so a
check takes milliseconds.
"""

from symnoise_ray.config.data import TEMPLATE_NAMES, DataConfig, RowField
from symnoise_ray.config.generate import AnswersConfig, GenerateConfig
from symnoise_ray.config.harness import HarnessConfig
from symnoise_ray.config.judge import JudgeConfig
from symnoise_ray.config.model import LoraConfig, ModelConfig
from symnoise_ray.config.noise import NoiseConfig, NoiseType
from symnoise_ray.config.section import Section
from symnoise_ray.config.sweep import (
    BudgetConfig,
    ConfirmConfig,
    Parameter,
    QuestionConfig,
    SearchConfig,
    SweepConfig,
    TrackingConfig,
    WorkersConfig,
)
from symnoise_ray.config.train import OptimConfig, TrainConfig
from symnoise_ray.config.trial import TrialConfig

__all__ = [
    "TEMPLATE_NAMES",
    "AnswersConfig",
    "BudgetConfig",
    "ConfirmConfig",
    "DataConfig",
    "GenerateConfig",
    "HarnessConfig",
    "JudgeConfig",
    "LoraConfig",
    "ModelConfig",
    "NoiseConfig",
    "NoiseType",
    "OptimConfig",
    "Parameter",
    "QuestionConfig",
    "RowField",
    "SearchConfig",
    "Section",
    "SweepConfig",
    "TrackingConfig",
    "TrainConfig",
    "TrialConfig",
    "WorkersConfig",
]
