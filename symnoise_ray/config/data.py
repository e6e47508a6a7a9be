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
"""The names that this package has for the columns of a row."""
TEMPLATE_NAMES = ("auto", "alpaca", "vicuna", "short", "tokenizer")


class Source(Section):
    """One data set of several parts: where it lies, and which part of it is read."""

    name: str = Field(min_length=1)
    """A Hugging Face data set, by its name or by a folder that is laid out as on the hub."""
    split: str | None = Field(None, min_length=1)
    """The split to read, such as `train_sft`, or a slice of one, such as `train[:1000]`. By default
    `train`."""
    config: str | None = Field(None, min_length=1)
    """The configuration to read, also called subset, where the data set has several."""

    @classmethod
    def of(cls, given: AnySource) -> Source:
        """A source from its name alone, or as it is."""
        return given if isinstance(given, cls) else cls.model_construct(name=str(given))

    @property
    def part(self) -> tuple[str | None, str | None]:
        """The split and the configuration that are named."""
        return self.split, self.config

    @property
    def chooses(self) -> bool:
        """Whether a split or a configuration is named."""
        return self.part != (None, None)

    def __str__(self) -> str:
        """The name, with the part in brackets: `owner/set (split train_sft, config en)`."""
        named = {"split": self.split, "config": self.config}
        parts = [f"{what} {value}" for what, value in named.items() if value is not None]
        return f"{self.name} ({', '.join(parts)})" if parts else self.name


AnySource = str | Source
"""A source as it is written: its name, or a mapping with `name`, `split` and `config`."""


class DataConfig(Section):
    """What is trained on, and the prompts that are answered and judged."""

    train: AnySource | tuple[AnySource, ...] | dict[str, float] = "demo"
    """Where the training rows come from: a JSON, JSONL, CSV, TSV or Parquet file, or such a file
    compressed as .gz, .bz2, .lz4 or .zst; a folder of such files; a Hugging Face data set, by its
    name or by its folder; `alpaca`, `evol-instruct`, `sharegpt` or `open-platypus`, the data sets
    of the NEFTune paper; or `demo`, the rows that come with the package. `{name: OWNER/SET, split:
    train_sft, config: en}` takes another split than `train`, or one configuration of several. Give
    several sources as a list, or as a mapping of source to weight. A weight above 0 says how often
    a source's rows are seen per epoch: 2 takes every row twice; 0.5 takes one half, which is drawn
    once and is the same in all epochs and trials."""
    fields: dict[RowField, str] = Field({})
    """Names of the columns of the training rows, for rows of none of the known shapes: the
    package's name -> the file's name, such as `{instruction: question, output: answer}`. All other
    columns are then ignored. Empty: the shape of the rows is recognised."""
    prompt_fields: dict[RowField, str] = Field({})
    """The same for the rows of `eval_prompts` and `confirm_prompts`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What happens to a row or a prompt that breaks a rule, or that the tokenizer's chat template
    cannot render. `error`: the command ends, and its message names the file and the row. `skip`: it
    is left out, of the prompts for all trials, and such rows are counted by reason."""
    eval_prompts: AnySource | None = None
    """Where the prompts of the search come from, one source of the kinds of `train`, or
    `alpaca-eval`, the 805 prompts of AlpacaEval. Every model answers them, and the judge compares
    the answers. By default the demo's prompts; it must be given where `train` is not `demo`."""
    confirm_prompts: AnySource | None = None
    """Where the prompts of the confirmation come from. By default the demo's prompts for the demo.
    `held_back` keeps a part of `eval_prompts` for the confirmation, by `confirm_share`; a sweep
    that confirms sets it where `eval_prompts` is given and this is not."""
    confirm_share: float = Field(0.75, gt=0, lt=1)
    """Share of the different prompts that `confirm_prompts: held_back` keeps for the confirmation,
    between 0 and 1; the search has the others. The verdict rests on the confirmation alone, so it
    gets most. A hash of a prompt decides where it belongs, so the share is met about, and prompts
    that are added later move no other."""
    group_field: str | None = Field(None, min_length=1)
    """Column of the prompts' rows that names a prompt's group, such as its topic or its source; it
    is the `dataset` of completions.jsonl and preferences.jsonl. By default the column `dataset`, as
    in AlpacaEval's rows, and no group where there is none."""
    prompts: Literal["eval", "confirm"] = "eval"
    """Which prompts this trial answers: those of the search or those of the confirmation. A sweep
    sets it."""
    template: str = "auto"
    """Text around a row: `alpaca`; `vicuna`; `short` (Alpaca's headers without its preamble);
    `tokenizer` (the chat template of the tokenizer; answers begin with their thoughts in `<think>`
    tags where those of most training rows do); or a YAML file with the keys `request`,
    `request_with_input`, `preamble` and `preamble_with_input`, in which `{request}` and `{input}`
    stand for the texts of the row. `auto` takes `short` for the demo, else `alpaca` for
    instructions and `vicuna` for conversations."""
    max_length: int | None = Field(None, ge=8)
    """Most tokens per row, at least 8; a longer row is cut at its end. By default 512, or the
    model's context where that is shorter. More than the model's context is refused."""
    heldout_share: float = Field(0.0, ge=0, lt=1)
    """Share of the training rows, from 0 to below 1, that are kept out of training to see how much
    a model overfits: whenever the clean loss is measured, so is the loss on at most
    `train.num_clean_rows` of them, and on as many right answers to the prompts of the search. A
    hash of what a row asks decides, so the share is met about, the rows are the same in all trials,
    and rows that ask the same stay together. 0 keeps none out and measures neither."""
    max_train_rows: int | None = Field(None, ge=1)
    """Use only the first so many usable training rows of every source. By default all are used."""
    max_eval_prompts: int | None = Field(None, ge=1)
    """Use only the first so many prompts of the search, and of the confirmation. By default all
    are used."""
    max_confirm_prompts: int | None = Field(None, ge=1)
    """Use only the first so many prompts of the confirmation. By default as many as
    `max_eval_prompts` says. A sweep that goes on may have a larger number."""
    texts: AnySource | None = None
    """Where plain texts come from that show what fine-tuning forgets: strings, or rows with a
    column `text`. The loss per token on these texts is measured whenever the clean loss is. By
    default none is measured."""
    num_texts: int = Field(64, ge=1)
    """Use only the first so many plain texts of `texts`."""
    overlap_ngram: int = Field(13, ge=0)
    """A training row overlaps with a judged prompt if they share so many words in a row, or if its
    request is the whole prompt. Overlapping rows are counted. 0 does not look for them."""
    drop_overlap: bool = False
    """Leave out the training rows that overlap with a judged prompt."""

    def __hash__(self) -> int:
        """Equal settings have equal hashes; Python has none for mappings."""
        return hash(json.dumps(self.model_dump(), sort_keys=True))

    @field_validator("train", mode="before")
    @classmethod
    def _sources_are_named(cls, train: Any) -> Any:
        if isinstance(train, list | tuple):
            train = [_source(each) for each in train]
        elif isinstance(train, dict) and isinstance(train.get("name"), str):
            train = _source(train)
        names = [train] if isinstance(train, AnySource) else train
        sound = isinstance(names, list | tuple | dict) and all(
            isinstance(name, AnySource) and name != "" for name in names
        )
        if not sound or not names or len(set(map(repr, names))) < len(names):
            raise ValueError(
                "must be a source, a list of sources, or a mapping of source to weight, each "
                f"named once, but got {train!r}"
            )
        for name, weight in train.items() if isinstance(train, dict) else ():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {name} must be a number > 0, but got {weight!r}")
        return train

    @field_validator("eval_prompts", "confirm_prompts", "texts", mode="before")
    @classmethod
    def _source_is_named(cls, given: Any) -> Any:
        return _source(given)

    @property
    def sources(self) -> list[tuple[AnySource, float]]:
        """Sources of the training rows with their weights; those of a mapping are sorted, since
        its order does not matter."""
        if isinstance(self.train, dict):
            return sorted(self.train.items())
        named = [self.train] if isinstance(self.train, AnySource) else self.train
        return [(source, 1.0) for source in named]

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
                f"but got data.train={self._shown()} alone"
            )
        return self

    def _shown(self) -> str:
        return str(self.train) if isinstance(self.train, Source) else repr(self.train)


def _source(given: Any) -> Any:
    """A mapping as the source that it describes; anything else as it is."""
    if not isinstance(given, dict):
        return given
    known = all(key in Source.model_fields for key in given)
    texts = all(value is None or (isinstance(value, str) and value) for value in given.values())
    if not known or not texts or given.get("name") is None:
        raise ValueError(
            "a source must have a name, and may have a split and a config, all of them text, but "
            f"got {given!r}"
        )
    return Source(**given)


HELD_BACK = "held_back"
"""Value of `data.confirm_prompts`: a fixed part of `eval_prompts`, kept out of the search."""
