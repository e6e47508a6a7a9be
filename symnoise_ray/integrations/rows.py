"""The training rows of a sweep as tokens, for trainers that take tokenised rows.

In: a trial's settings of model and data. Out: plain rows. It is what the project's own training
reads, so template, cuts, mixtures and trained answers are those of the sweep.
"""

from __future__ import annotations

from typing import Any

from symnoise_ray.config import TrialConfig
from symnoise_ray.config.loading import Document, build
from symnoise_ray.models.source import context_length
from symnoise_ray.models.tokenizer import location
from symnoise_ray.training.corpus import token_table


def training_rows(**settings: Any) -> list[dict[str, list[int]]]:
    """Every training row: `input_ids`, `attention_mask` (all 1) and `labels`, -100 on prompts.

    Args:
        settings: Sections of a trial: `model={...}` and `data={...}`.

    Raises:
        UserError: a setting is wrong, or the tokenizer cannot be read.
        DataError: the rows cannot be read, or none is left to train on.
    """
    import transformers  # half a second, which is paid where rows are made only

    config = build(TrialConfig, Document(dict(settings), {}, "training_rows"))
    shape = transformers.AutoConfig.from_pretrained(**location(config.model))
    table = token_table(config, context_length(shape), None)
    rows = map(table.row, range(len(table)))
    return [
        {
            "input_ids": [int(token) for token in row.input_ids],
            "attention_mask": [1] * len(row.input_ids),
            "labels": [int(label) for label in row.labels],
        }
        for row in rows
    ]
