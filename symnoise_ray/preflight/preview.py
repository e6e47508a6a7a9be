"""A preview of training rows, with the trained tokens marked, and what is left out counted.

In: a trial's model and data. Out: a `Preview`, and its text for people. Reads the tokenizer and the
length limit of the model, but not its weights. The rows are decoded from the tokens of training.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.config import DataConfig, ModelConfig, TrialConfig
from symnoise_ray.config.loading import find_space, parse_override, read_yaml
from symnoise_ray.data.prompts import sayable
from symnoise_ray.data.rows import read_prompts, read_train
from symnoise_ray.data.templates import CHAT, choose_template
from symnoise_ray.data.tokens import IGNORE_INDEX, TokenRow, row_limit, tokenise
from symnoise_ray.models.source import context_length, model_source, plain_config
from symnoise_ray.models.tokenizer import load_encoder, load_tokenizer, location
from symnoise_ray.preflight.prompts import parts
from symnoise_ray.report.words import printable
from symnoise_ray.space.trials import settings

COLOUR = ("\x1b[32m", "\x1b[0m")
BRACKETS = ("[[", "]]")


class Span(NamedTuple):
    """Neighbouring tokens of one kind, as text."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Shown:
    """One row: its lengths in tokens, and its text in spans."""

    num_tokens: int
    num_trained: int
    spans: list[Span]


@dataclass(frozen=True)
class Preview:
    """The first rows, and numbers of all of them; lengths are in tokens after cutting."""

    template: str
    num_rows: int
    median_length: float
    max_length: int
    length_limit: int
    overlap_ngram: int
    counts: Counter[str]
    rows: list[Shown]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        rows = [
            {**asdict(row), "spans": [span._asdict() for span in row.spans]} for row in self.rows
        ]
        return {**asdict(self), "counts": dict(self.counts), "rows": rows}


def rows_to_show(source: str | None, overrides: Sequence[str]) -> TrialConfig:
    """The settings of the rows to show, as `settings` reads them; prompts need not be named.

    Without prompts there is nothing that the rows could overlap with.

    Raises:
        UserError: there is no such file, or a setting is wrong.
    """
    data = _data_settings(source, overrides)
    prompts = data.get("eval_prompts") or data.get("drop_overlap")
    if data.get("train", "demo") != "demo" and not prompts:
        overrides = ["data.eval_prompts=none", *overrides, "data.overlap_ngram=0"]
    return settings(source, overrides)


def _data_settings(source: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """The section `data` as it is written in a trial or a space, unchecked, with the overrides."""
    values: Any = {}
    if source is not None:
        path = find_space(source)
        values = read_yaml(path.read_text("utf-8", "replace"), str(path)).values
        values = values.get("trial", values)
    written = values.get("data") if isinstance(values, dict) else None
    found = dict(written) if isinstance(written, dict) else {}
    for override in overrides:
        (section, *rest), value = parse_override(override)
        if section == "data" and rest:
            found[rest[0]] = value
    return found


def preview(config: TrialConfig, num_rows: int) -> Preview:
    """Read and tokenise all training rows as training does, and keep the first few.

    Raises:
        UserError, DataError: the data, the template or the tokenizer cannot be used.
    """
    rows = read_train(config.data)
    template = choose_template(config.data.template, config.data.train, rows.examples)
    load = load_tokenizer if template in CHAT else load_encoder
    tokenizer = load(config.model)
    limit = row_limit(config.data, _context(config.model))
    tokens = tokenise(rows.examples, tokenizer, template, limit, config.data.on_bad_row)
    lengths = [len(row.input_ids) for row in tokens.rows]
    return Preview(
        template=template,
        num_rows=len(lengths),
        median_length=statistics.median(lengths),
        max_length=max(lengths),
        length_limit=limit,
        overlap_ngram=config.data.overlap_ngram,
        counts=rows.left_out + tokens.counts + _unsayable(config.data, tokenizer, template),
        rows=[_shown(row, tokenizer) for row in tokens.rows[:num_rows]],
    )


def _unsayable(data: DataConfig, tokenizer: Any, template: str) -> Counter[str]:
    """The prompts that a chat template cannot say, counted by reason.

    Raises:
        DataError: there is one, and `data.on_bad_row` refuses it.
    """
    found: Counter[str] = Counter()
    if template in CHAT and (data.eval_prompts is not None or data.train == "demo"):
        for part in parts(data):
            prompts = read_prompts(data, part, gold=False).examples
            found += sayable(prompts, tokenizer, template, data.on_bad_row).left_out
    return found


def _context(config: ModelConfig) -> int | None:
    """The longest sequence of the model, or None where its configuration does not say."""
    held = plain_config(Path(model_source(config)))
    if held is not None:
        return context_length(held)
    import transformers  # see load_tokenizer

    return context_length(transformers.AutoConfig.from_pretrained(**location(config)))


def _shown(row: TokenRow, tokenizer: Any) -> Shown:
    pairs = zip(row.input_ids, row.labels, strict=True)
    spans = [
        Span(tokenizer.decode([token for token, _ in group]), trained)
        for trained, group in itertools.groupby(pairs, lambda pair: pair[1] != IGNORE_INDEX)
    ]
    return Shown(len(row.input_ids), row.num_answer_tokens, spans)


def as_text(preview: Preview, *, colour: bool) -> str:
    """Numbers first, then the rows; trained text is green, or in [[ ]] without colour."""
    lines = [
        f"template: {preview.template}",
        f"rows: {preview.num_rows}",
        f"tokens per row: median {preview.median_length:g}, longest {preview.max_length}, "
        f"cut at {preview.length_limit}",
        *(() if preview.overlap_ngram else ("overlap with prompts: not looked for",)),
        *(f"counted: {number} {what}" for what, number in preview.counts.items()),
    ]
    begin, end = COLOUR if colour else BRACKETS
    for number, row in enumerate(preview.rows, 1):
        lines += ["", f"row {number}: {row.num_tokens} tokens, {row.num_trained} trained on"]
        texts = [(printable(span.text), span.trained) for span in row.spans]
        lines.append("".join(f"{begin}{text}{end}" if marked else text for text, marked in texts))
    return "\n".join(lines)
