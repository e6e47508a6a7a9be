"""What is trained on, and the prompts that are answered."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from symnoise_ray.config.section import Section

RowField = Literal[
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "dataset",
]
"""Our names of what a row holds."""
TEMPLATE_NAMES = ("auto", "alpaca", "vicuna", "short", "tokenizer")


class DataConfig(Section):
    """What is trained on, and the prompts that are answered and judged."""

    train: str | tuple[str, ...] | dict[str, float] = "demo"
    """Training rows: a JSON, JSONL or Parquet file, a folder of them, a Hugging Face data set (its
    name, or a folder it was saved to), `alpaca`, `evol-instruct`, `sharegpt` or `open-platypus`
    (the paper's data sets), or `demo`. Several sources: a list, or a mapping of source to weight.
    A weight is how often a source's rows are seen per epoch: 2 is every row twice, 0.5 a half that
    is drawn once and stays the same in all epochs and trials."""
    fields: dict[RowField, str] = Field({})
    """Columns of the training rows where they are none of the known shapes: our name -> theirs,
    such as `{instruction: question, output: answer}`; other columns are not looked at."""
    prompt_fields: dict[RowField, str] = Field({})
    """The same for `eval_prompts` and `confirm_prompts`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What a row that breaks a rule does: it ends everything, told with file and row, or it is
    left out and counted by reason."""
    eval_prompts: str | None = None
    """Rows whose prompts are answered and judged in the search; the demo's own by default."""
    confirm_prompts: str | None = None
    """Rows kept for the confirmation; by default the demo's own. `held_back` (what a sweep that
    confirms sets when there are none) keeps a seeded half of `eval_prompts` for it."""
    prompts: Literal["eval", "confirm"] = "eval"
    """Which of the two prompt sets this trial answers."""
    template: str = "auto"
    """Prompt text around a row: `alpaca`, `vicuna`, `short` (Alpaca's without the preamble),
    `tokenizer` (the tokenizer's own chat template), or a YAML file with `request`,
    `request_with_input`, `preamble` and `preamble_with_input`, where `{request}` and `{input}`
    stand for the row's; `auto` is `short` for the demo, else `alpaca` for instruction rows and
    `vicuna` for conversations."""
    max_length: int | None = Field(None, ge=8)
    """Tokens per row at most; longer rows are cut at the end. By default 512, or the model's
    context where that is shorter; more than the context is refused."""
    max_train_rows: int | None = Field(None, ge=1)
    """Use only the first so many usable training rows of every source."""
    max_eval_prompts: int | None = Field(None, ge=1)
    """Use only the first so many prompts of each prompt set."""
    texts: str | None = None
    """Plain texts, to see what fine-tuning forgets: a source of strings, or of rows with `text`, on
    which the loss per token is measured beside the clean loss."""
    num_texts: int = Field(64, ge=1)
    """Use only the first so many plain texts."""
    overlap_ngram: int = Field(13, ge=0)
    """Words in a row that a training row may not share with a judged prompt without being counted
    as overlapping; a request that is a whole prompt always is. 0 does not look."""
    drop_overlap: bool = False
    """Leave overlapping training rows out."""

    def __hash__(self) -> int:
        """Equal settings have equal hashes; Python has none for mappings."""
        return hash(json.dumps(self.model_dump(), sort_keys=True))

    @field_validator("train", mode="before")
    @classmethod
    def _sources_are_named(cls, train: Any) -> Any:
        names = [train] if isinstance(train, str) else train
        sound = isinstance(names, list | tuple | dict) and all(
            isinstance(name, str) and name for name in names
        )
        if not sound or not names or len(set(names)) < len(names):
            raise ValueError(
                "must be a source, a list of sources, or a mapping of source to weight, each "
                f"named once, but got {train!r}"
            )
        for name, weight in train.items() if isinstance(train, dict) else ():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name} must be a number > 0, but got {weight!r}")
        return train

    @field_validator("template")
    @classmethod
    def _template_is_known(cls, template: str) -> str:
        if template not in TEMPLATE_NAMES and not template.endswith((".yaml", ".yml")):
            raise ValueError(
                f"must be one of {', '.join(TEMPLATE_NAMES)}, or a file that ends in "
                f".yaml, but got {template!r}"
            )
        return template

    @model_validator(mode="after")
    def _overlap_can_be_seen(self) -> Self:
        if self.drop_overlap and not self.overlap_ngram:
            raise ValueError("data.drop_overlap needs data.overlap_ngram >= 1, but got 0")
        return self

    @model_validator(mode="after")
    def _prompts_are_known(self) -> Self:
        if self.train != "demo" and self.eval_prompts is None:
            raise ValueError(
                "data.eval_prompts must be given when data.train is not 'demo', "
                f"but got data.train={self.train!r} alone"
            )
        return self


HELD_BACK = "held_back"
"""Value of `data.confirm_prompts`: a seeded half of `eval_prompts`, kept out of the search."""
