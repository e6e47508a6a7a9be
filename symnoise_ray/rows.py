"""Files to examples: from JSON, JSONL, Parquet, folders of them, or Hugging Face data sets.

In: sources as `data.train` and its kin name them. Out: `Rows`, the usable examples and what
happened to the others. A broken file or row is an error with file, row and reason, or with
`data.on_bad_row=skip` a broken row is counted by reason; nothing is left out uncounted.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from symnoise_ray import demo
from symnoise_ray.config import DataConfig
from symnoise_ray.errors import DataError
from symnoise_ray.formats import Fields, RowError, to_example
from symnoise_ray.overlap import Overlap
from symnoise_ray.prompts import Example, find_template

HELD_BACK = "held_back"
"""Value of `data.confirm_prompts`: a seeded half of `eval_prompts`, kept out of the search."""

PRESETS: dict[str, tuple[str, str | None]] = {
    "alpaca": ("tatsu-lab/alpaca", None),
    "evol-instruct": ("WizardLMTeam/WizardLM_evol_instruct_70k", None),
    # Vicuna's own split was never published; this is the community's reconstruction of it.
    "sharegpt": (
        "anon8231489123/ShareGPT_Vicuna_unfiltered",
        "ShareGPT_V3_unfiltered_cleaned_split.json",
    ),
    "open-platypus": ("garage-bAInd/Open-Platypus", None),
}
"""The NEFTune paper's data sets -> Hugging Face data set, and the file where it has many."""

FILE_SUFFIXES = (".json", ".jsonl", ".parquet")
"""What is read of a folder, in the order of the names."""
OTHER_SUFFIXES = (".txt", ".csv", ".tsv", ".yaml", ".arrow", ".gz", ".zip", ".zst")
HUB_SECONDS = 5.0
SKIPPING = "data.on_bad_row=skip leaves such rows out and counts them"
NOTHING_TO_TRAIN_ON = "rows with nothing to train on"

_HOLD_BACK_SEED = 805
_WEIGHT_SEED = 52002


@dataclass(frozen=True)
class Rows:
    """Usable examples in file order; how many rows were left out, or overlap, for which reason."""

    examples: list[Example]
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Reading:
    """How the rows of a source are read."""

    fields: Fields
    on_bad_row: Literal["error", "skip"]
    prompts: bool
    limit: int | None
    gold: bool = True


def read_train(data: DataConfig) -> Rows:
    """Training rows with an answer to learn, of all sources one after the other.

    Rows without one are counted, and so are rows that overlap with the prompts.

    Raises:
        DataError: a source cannot be read, a row is broken, or no row is left.
        UserError: `data.template` names a file that is none.
    """
    if data.template.endswith((".yaml", ".yml")):
        find_template(data.template)
    reading = _Reading(data.fields, data.on_bad_row, prompts=False, limit=data.max_train_rows)
    overlap = Overlap(_judged(data), data.overlap_ngram) if data.overlap_ngram else None
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for source, weight in _weights(data.train):
        rows = _usable(str(demo.train_file()) if source == "demo" else source, reading)
        left_out += rows.left_out
        kept = rows.examples
        if overlap is not None:
            clean = [example for example in kept if example not in overlap]
            verb = "dropped" if data.drop_overlap else "kept"
            left_out[f"rows {verb} that overlap with the prompts"] += len(kept) - len(clean)
            kept = clean if data.drop_overlap else kept
        examples += _weighted(kept, weight, source)
    return Rows(examples, +left_out)


def read_prompts(data: DataConfig, part: str, *, gold: bool = True) -> Rows:
    """Prompts of the search (`eval`) or of the confirmation (`confirm`).

    Args:
        data: Where they are.
        part: Which of the two.
        gold: Leave out, and count, prompts whose right answer is not known; only the offline judge
            needs one.
    """
    source = str(demo.eval_file()) if data.eval_prompts is None else data.eval_prompts
    if part == "confirm" and data.confirm_prompts not in (None, HELD_BACK):
        source = str(data.confirm_prompts)
    elif part == "confirm" and data.confirm_prompts is None:
        source = str(demo.confirm_file())
    rows = _usable(
        source, _Reading(data.prompt_fields, data.on_bad_row, prompts=True, limit=None, gold=gold)
    )
    examples = rows.examples
    if data.confirm_prompts == HELD_BACK:
        examples = _half(examples, part)
    return Rows(examples[: data.max_eval_prompts], rows.left_out)


def read_texts(source: str, limit: int) -> list[str]:
    """The first plain texts of a source: strings, or rows with `text`; empty ones are passed over.

    Raises:
        DataError: the source cannot be read, or holds something else, or no text.
    """
    texts: list[str] = []
    for place, row in _records(source):
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


def _half(examples: list[Example], part: str) -> list[Example]:
    """A random half that depends on the number of prompts alone; both halves keep file order."""
    order = list(range(len(examples)))
    random.Random(_HOLD_BACK_SEED).shuffle(order)
    middle = (len(order) + 1) // 2
    chosen = order[:middle] if part == "eval" else order[middle:]
    return [examples[index] for index in sorted(chosen)]


def _judged(data: DataConfig) -> list[Example]:
    """All prompts of the search and the confirmation, whatever part of them a trial answers.

    So the rows that are trained on depend neither on `data.prompts` nor on limits.
    """
    whole = data.model_copy(update={"max_eval_prompts": None})
    confirms = data.confirm_prompts is not None or data.eval_prompts is None
    parts = ("eval", "confirm") if confirms else ("eval",)
    return [example for part in parts for example in read_prompts(whole, part, gold=False).examples]


def _weights(train: str | tuple[str, ...] | dict[str, float]) -> list[tuple[str, float]]:
    """Sources with weights; a mapping's go by name, since its order is not part of the config."""
    if isinstance(train, dict):
        return sorted(train.items())
    return [(source, 1.0) for source in ([train] if isinstance(train, str) else train)]


def _weighted(examples: list[Example], weight: float, source: str) -> list[Example]:
    """Every example as often as the weight's whole part, and a seeded share of them once more."""
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


def _usable(source: str, reading: _Reading) -> Rows:
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for place, row in _records(source):
        try:
            example = _example(row, reading)
        except RowError as error:
            if reading.on_bad_row == "error":
                raise DataError(f"{place}: {error} ({SKIPPING})") from None
            left_out[f"rows skipped: {error.rule}"] += 1
            continue
        judged = not reading.gold or example.gold.strip()
        if not (judged if reading.prompts else example.teaches):
            kind = "prompts without a gold answer" if reading.prompts else NOTHING_TO_TRAIN_ON
            left_out[kind] += 1
        elif reading.limit is None or len(examples) < reading.limit:
            examples.append(example)
    if not examples:
        why = "; ".join(f"{count} {what}" for what, count in left_out.items())
        raise DataError(
            f"{source}: must hold at least one row with an answer, but got none"
            + (f" ({why})" if why else "")
        )
    return Rows(examples, left_out)


def _example(row: Any, reading: _Reading) -> Example:
    if isinstance(row, RowError):
        raise row
    return to_example(row, reading.fields, prompt=reading.prompts)


def _records(source: str) -> Iterator[tuple[str, Any]]:
    """Place and raw record of every row; a `RowError` stands for a line that is no record."""
    if not source:
        raise DataError("a data source must be named, but got an empty name")
    path = Path(source)
    if path.is_dir():
        return _folder_records(path)
    if path.is_file():
        return _file_records(path)
    if source in PRESETS:
        return _hub_records(*PRESETS[source])
    if path.suffix in (*FILE_SUFFIXES, *OTHER_SUFFIXES) or path.is_absolute() or source[0] == ".":
        raise DataError(f"{source}: the data file must exist")
    return _hub_records(source)


def _file_records(path: Path) -> Iterator[tuple[str, Any]]:
    with _opening(path), path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    return _parquet_records(path) if parquet else _json_records(path)


def _json_records(path: Path) -> Iterator[tuple[str, Any]]:
    """A JSON list, or one JSON object a line, whatever the file is called."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: must be readable UTF-8 text, but {error}") from None
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: must be valid JSON, but {error.msg}") from None
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    _refuse_single_object(text, path)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return RowError("a line must be one JSON object", f"{error.msg} at column {error.colno}")


def _refuse_single_object(text: str, path: Path) -> None:
    """One object over several lines is no list of rows, and its lines are no objects."""
    first = text.lstrip().partition("\n")[0]
    if not first.startswith("{") or not isinstance(_parsed(first), RowError):
        return
    if not isinstance(_parsed(text), RowError):
        raise DataError(
            f"{path}: must hold a list of rows or one object a line, but got a single object over "
            "several lines; put it into brackets [ ]"
        )


def _parquet_records(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet  # type: ignore[import-untyped]  # slow; for such files only

    number = 0
    with _opening(path), pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """What the system or Parquet says of a file, as one line."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: must be a readable file, but {reason}") from None


def _folder_records(folder: Path) -> Iterator[tuple[str, Any]]:
    """A saved Hugging Face data set, or the data files right in a folder, by name."""
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        yield from _saved_records(folder)
        return
    files = sorted(file for file in folder.iterdir() if file.suffix in FILE_SUFFIXES)
    if not files:
        raise DataError(
            f"{folder}: a folder must hold {', '.join(FILE_SUFFIXES)} files or a saved Hugging "
            "Face data set, but has none right in it"
        )
    for file in files:
        yield from _file_records(file)


def _saved_records(folder: Path) -> Iterator[tuple[str, Any]]:
    import datasets  # slow to import, and only needed for its own folders

    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # it raises all kinds for what is not whole
        raise DataError(f"{folder}: must be a whole saved data set, but {_line(error)}") from None
    if isinstance(rows, dict):
        if "train" not in rows:
            raise DataError(f"{folder}: must have a split train, but got {', '.join(rows)}")
        rows = rows["train"]
    yield from ((f"{folder} row {number}", row) for number, row in enumerate(rows, 1))


def _hub_records(name: str, file: str | None = None) -> Iterator[tuple[str, Any]]:
    """Rows of the `train` split of a Hugging Face data set; loading scripts are not run."""
    import datasets  # slow to import, and only needed for hub names
    import huggingface_hub

    unreachable: Exception | None = None
    offline = datasets.config.HF_HUB_OFFLINE
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # no network, no such name, no access: only a cached copy helps
        unreachable = error
    try:
        # Left to itself the library would try for half a minute where there is no network.
        datasets.config.HF_HUB_OFFLINE = offline or unreachable is not None
        rows = datasets.load_dataset(name, split="train", data_files=file)
    except Exception as error:
        raise DataError(
            f"{name}: must be a file or folder that exists, one of {', '.join(PRESETS)}, or a "
            "Hugging Face data set that can be loaded or is cached, but "
            f"{_line(unreachable or error)}"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    yield from ((f"{name} row {number}", row) for number, row in enumerate(rows, 1))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
