"""Sources to examples: from files, folders of them, or Hugging Face data sets.

In: sources, as `data.train` and the settings of prompts name them. Out: `Rows`: the usable
examples, and how many rows were left out for which reason. A broken file or row is an error that
names file, row and reason; with `data.on_bad_row=skip` a broken row is left out and counted.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from symnoise_ray.config import DataConfig
from symnoise_ray.config.data import HELD_BACK, AnySource
from symnoise_ray.data.example import Example
from symnoise_ray.data.formats import Fields, RowError, is_unwanted, to_example
from symnoise_ray.data.overlap import Overlap
from symnoise_ray.data.sources import locate, read_records
from symnoise_ray.data.templates import find_template
from symnoise_ray.demo import content
from symnoise_ray.errors import DataError

NOTHING_TO_TRAIN_ON = "rows with nothing to train on"
NO_GOLD = "prompts without a gold answer"
UNWANTED = "rows with the label false, which are not trained on"

HELD_OUT = "rows kept out of training"
_WEIGHT_SEED = 52002
_HELDOUT_SALT = "held out"  # so that it has nothing to do with the parts of the prompts


@dataclass(frozen=True)
class Rows:
    """Usable examples in file order; how many rows were left out, or overlap, for which reason."""

    examples: list[Example]
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Reading:
    """How the rows of a source are read.

    `gold` leaves out prompts without a right answer; `group_field` is the column of their group.
    """

    fields: Fields
    on_bad_row: Literal["error", "skip"]
    prompts: bool
    limit: int | None
    gold: bool = True
    group_field: str | None = None


def read_train(data: DataConfig) -> Rows:
    """Training rows with an answer to learn, of all sources one after the other.

    Rows without such an answer are left out and counted. Rows that overlap with the prompts are
    counted, and left out with `data.drop_overlap`. With `data.heldout_share` the rows of
    `read_heldout` are left out and counted.

    Raises:
        DataError: a source cannot be read, a row is broken, or no row is left.
        UserError: `data.template` names a file that cannot be used.
    """
    rows = _read_train(data)
    if not data.heldout_share:
        return rows
    held = _heldout(rows.examples, data.heldout_share)
    kept = [example for example in rows.examples if example.requests not in held]
    out = Counter({HELD_OUT: len(rows.examples) - len(kept)})
    return Rows(kept, rows.left_out + out)


def read_heldout(data: DataConfig) -> list[Example]:
    """The rows that `data.heldout_share` keeps out of training; none where it is 0.

    Raises:
        DataError: a source cannot be read, or all its rows ask the same.
    """
    if not data.heldout_share:
        return []
    examples = _read_train(data).examples
    held = _heldout(examples, data.heldout_share)
    return [example for example in examples if example.requests in held]


def _heldout(examples: list[Example], share: float) -> set[tuple[str, ...]]:
    """What the rows ask that are kept out: at least one request, and never all."""
    if len({example.requests for example in examples}) < 2:
        raise DataError(
            f"data.heldout_share={share:g} needs training rows that ask at least 2 different "
            "things, but they all ask the same; set it to 0"
        )
    return _last_part(examples, 1 - share, salt=_HELDOUT_SALT)


def _read_train(data: DataConfig) -> Rows:
    """All rows that teach, those that are kept out included."""
    if data.template.endswith((".yaml", ".yml")):
        find_template(data.template)
    reading = _Reading(data.fields, data.on_bad_row, prompts=False, limit=data.max_train_rows)
    overlap = Overlap(_judged(data), data.overlap_ngram) if data.overlap_ngram else None
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for source, weight in data.sources:
        rows = _usable(locate(source), reading)
        left_out += rows.left_out
        kept = rows.examples
        if overlap is not None:
            clean = [example for example in kept if example not in overlap]
            verb = "dropped" if data.drop_overlap else "kept"
            left_out[f"rows {verb} that overlap with the prompts"] += len(kept) - len(clean)
            kept = clean if data.drop_overlap else kept
        examples += _weighted(kept, weight, source)
    return Rows(examples, +left_out)


def prompt_source(data: DataConfig, part: str) -> AnySource:
    """Where the prompts of the search (`eval`) or of the confirmation (`confirm`) come from."""
    if part == "confirm" and data.confirm_prompts is None:
        return str(content.confirm_file())
    if part == "confirm" and data.confirm_prompts not in (None, HELD_BACK):
        return data.confirm_prompts
    return data.eval_prompts or str(content.eval_file())


def read_prompts(data: DataConfig, part: str, *, gold: bool = True) -> Rows:
    """Prompts of the search (`eval`) or of the confirmation (`confirm`).

    Args:
        data: The settings that name the sources of the prompts.
        part: `eval` or `confirm`.
        gold: Whether prompts without a known right answer are left out and counted; only the
            offline judge needs the right answer.

    Raises:
        DataError: the source cannot be read, a row is broken, or no prompt is left.
    """
    reading = _Reading(
        data.prompt_fields,
        data.on_bad_row,
        prompts=True,
        limit=None,
        gold=gold,
        group_field=data.group_field,
    )
    rows = _usable(prompt_source(data, part), reading)
    examples = rows.examples
    if data.confirm_prompts == HELD_BACK:
        examples = _part(examples, part, data.confirm_share)
    limit = data.max_eval_prompts
    if part == "confirm" and data.max_confirm_prompts is not None:
        limit = data.max_confirm_prompts
    return Rows(examples[:limit], rows.left_out)


def read_texts(source: AnySource, limit: int) -> list[str]:
    """The first `limit` plain texts of a source: strings, or rows with `text`; blank ones are
    skipped.

    Raises:
        DataError: the source cannot be read, or holds something else, or no text.
    """
    texts: list[str] = []
    for place, row in read_records(source):
        text = row.get("text") if isinstance(row, dict) else row
        if not isinstance(text, str):
            raise DataError(f"{place}: must be a text, or a row with `text`")
        if text.strip():
            texts.append(text)
        if len(texts) == limit:
            return texts
    if not texts:
        raise DataError(f"{source}: must hold at least one text, but got none")
    return texts


def _part(examples: list[Example], part: str, share: float) -> list[Example]:
    """The prompts of the search or of the confirmation, in file order.

    What a prompt asks decides alone where it belongs. So all copies of it stay together, even those
    of other groups, and prompts that are added or moved change nothing for the others. Few prompts
    may all fall on one side: the one nearest to the border is then on the other.
    """
    search = _last_part(examples, share)
    return [example for example in examples if (example.requests in search) == (part == "eval")]


def _last_part(examples: list[Example], share: float, salt: str = "") -> set[tuple[str, ...]]:
    """What is asked by those whose draw is `share` or more; at least one request, and never all."""
    draws = {example.requests: _draw(example.requests, salt) for example in examples}
    ordered = sorted(draws, key=draws.__getitem__)
    drawn = sum(draw >= share for draw in draws.values())
    number = max(1, min(drawn, len(ordered) - 1))
    return set(ordered[-number:])


def _draw(requests: tuple[str, ...], salt: str) -> float:
    """A number in [0, 1) that looks random and is the same wherever a prompt is asked."""
    digest = hashlib.sha256((salt + json.dumps(requests)).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _judged(data: DataConfig) -> list[Example]:
    """All prompts of the search and the confirmation, whichever of them a trial answers.

    So the training rows depend neither on `data.prompts` nor on the limits of the prompts.
    """
    whole = data.model_copy(update={"max_eval_prompts": None, "max_confirm_prompts": None})
    confirms = data.confirm_prompts is not None or data.eval_prompts is None
    parts = ("eval", "confirm") if confirms else ("eval",)
    return [example for part in parts for example in read_prompts(whole, part, gold=False).examples]


def _weighted(examples: list[Example], weight: float, source: AnySource) -> list[Example]:
    """Every example as often as the weight's whole part, and a fixed random share once more."""
    whole = int(weight)
    share = round((weight - whole) * len(examples))
    order = range(len(examples))
    drawn = sorted(random.Random(_WEIGHT_SEED).sample(order, share))
    chosen = examples * whole + [examples[index] for index in drawn]
    if not chosen:
        raise DataError(
            f"{source}: must leave a row to train on, but got none of {len(examples)} with weight "
            f"{weight:g}"
        )
    return chosen


def _usable(source: AnySource, reading: _Reading) -> Rows:
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for place, row in read_records(source):
        if not reading.prompts and is_unwanted(row, reading.fields):
            left_out[UNWANTED] += 1
            continue
        try:
            example = replace(_example(row, reading), place=place)
        except RowError as error:
            if reading.on_bad_row == "error":
                raise DataError(error.at(place)) from None
            left_out[error.counted("prompts" if reading.prompts else "rows")] += 1
            continue
        judged = not reading.gold or example.gold.strip()
        if not (judged if reading.prompts else example.teaches):
            kind = NO_GOLD if reading.prompts else NOTHING_TO_TRAIN_ON
            left_out[kind] += 1
        elif reading.limit is None or len(examples) < reading.limit:
            examples.append(example)
    if not examples:
        why = "; ".join(f"{count} {what}" for what, count in left_out.items())
        raise DataError(
            f"{source}: must hold at least one row with an answer, but got none"
            + (f" ({why})" if why else "")
            + ("; only judge.type=reference needs gold answers" if left_out[NO_GOLD] else "")
        )
    return Rows(examples, left_out)


def _example(row: Any, reading: _Reading) -> Example:
    if isinstance(row, RowError):
        raise row
    example = to_example(row, reading.fields, prompt=reading.prompts)
    if reading.prompts and is_unwanted(row, reading.fields):
        example = replace(example, turns=(*example.turns[:-1], (example.turns[-1][0], "")))
    if reading.group_field is None:
        return example
    return replace(example, dataset=_group(row, reading.group_field))


def _group(row: dict[str, Any], column: str) -> str:
    """The name of a prompt's group, from its row as the file holds it."""
    rule = f"data.group_field takes a prompt's group from the column {column}"
    if column not in row:
        keys = ", ".join(sorted(map(str, row)))
        raise RowError(rule, f"a row has only {keys}; name one of them, or leave the setting out")
    value = row[column]
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise RowError(f"{rule}, and it must be text or a number", f"it is {value!r}")
    return str(value)
