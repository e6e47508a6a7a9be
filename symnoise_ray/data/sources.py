"""Data sources to raw records: JSON, JSONL, Parquet, folders, Hugging Face data sets.

In: the name of a source. Out: the place and the raw record of every row. `formats` says what a
record means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symnoise_ray.data.formats import RowError
from symnoise_ray.demo import content
from symnoise_ray.errors import DataError, one_line

PRESETS: dict[str, tuple[str, str | None]] = {
    "alpaca": ("tatsu-lab/alpaca", None),
    "evol-instruct": ("WizardLMTeam/WizardLM_evol_instruct_70k", None),
    # Vicuna's own split was never published; this is the community's reconstruction of it.
    "sharegpt": (
        "anon8231489123/ShareGPT_Vicuna_unfiltered",
        "ShareGPT_V3_unfiltered_cleaned_split.json",
    ),
    "open-platypus": ("garage-bAInd/Open-Platypus", None),
    "alpaca-eval": ("tatsu-lab/alpaca_eval", "alpaca_eval.json"),
}
"""Name of a data set of the NEFTune paper, or of its prompts -> its Hugging Face data set, and the
file to take where the data set has several or a loading script."""

FILE_SUFFIXES = (".json", ".jsonl", ".parquet")
"""Endings of the files that are read in a folder, in the order of their names."""
OTHER_SUFFIXES = (".txt", ".csv", ".tsv", ".yaml", ".arrow", ".gz", ".zip", ".zst")
HUB_SECONDS = 5.0
"""How long the hub may take to answer before a cached copy is looked for."""


def locate(source: str) -> str:
    """The file that `demo` names among the training rows; any other name as it is."""
    return str(content.train_file()) if source == "demo" else source


def read_records(source: str) -> Iterator[tuple[str, Any]]:
    """Place and raw record of every row; a line that is no record gives a `RowError` in its place.

    Raises:
        DataError: the source does not exist or cannot be read.
    """
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
    """Records of a JSON list, or of one JSON object per line, whatever the name of the file."""
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
    """Refuse one object over several lines: it is no list of rows, and its lines are no objects."""
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
    """Turn an error of the system or of Parquet into one line that names the file."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: must be a readable file, but {one_line(error)}") from None


def _folder_records(folder: Path) -> Iterator[tuple[str, Any]]:
    """Records of a saved Hugging Face data set, or of the data files directly in a folder."""
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        yield from _saved_records(folder)
        return
    files = sorted(file for file in folder.iterdir() if file.suffix in FILE_SUFFIXES)
    if not files:
        raise DataError(
            f"{folder}: a folder must hold {', '.join(FILE_SUFFIXES)} files or a saved Hugging "
            "Face data set, but has none directly in it"
        )
    for file in files:
        yield from _file_records(file)


def _saved_records(folder: Path) -> Iterator[tuple[str, Any]]:
    import datasets  # slow to import, and only needed for its own folders

    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # it raises all kinds for what is not whole
        raise DataError(
            f"{folder}: must be a whole saved data set, but {one_line(error, 200)}"
        ) from None
    if isinstance(rows, dict):
        if "train" not in rows:
            raise DataError(f"{folder}: must have a split train, but got {', '.join(rows)}")
        rows = rows["train"]
    yield from ((f"{folder} row {number}", row) for number, row in enumerate(rows, 1))


def _hub_records(name: str, file: str | None = None) -> Iterator[tuple[str, Any]]:
    """Rows of one file of a Hugging Face data set, or of its `train` split; no script is run."""
    import huggingface_hub

    unreachable: Exception | None = None
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # no network, no such name, no access: only a cached copy helps
        unreachable = error
    offline = unreachable is not None
    try:
        rows = _split_rows(name, offline) if file is None else _file_rows(name, file, offline)
    except Exception as error:
        raise DataError(
            f"{name}: must be a file or folder that exists, one of {', '.join(PRESETS)}, or a "
            "Hugging Face data set that can be loaded or is cached, but "
            f"{one_line(unreachable or error, 200)}"
        ) from None
    yield from ((f"{name} row {number}", row) for number, row in enumerate(rows, 1))


def _split_rows(name: str, offline: bool) -> Iterable[Any]:
    """The `train` split, which the library converts to its own format and keeps."""
    import datasets  # slow to import, and only needed for hub names

    before = datasets.config.HF_HUB_OFFLINE
    try:
        # By itself the library tries for half a minute where there is no network.
        datasets.config.HF_HUB_OFFLINE = before or offline
        rows: Iterable[Any] = datasets.load_dataset(name, split="train")
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    return rows


def _file_rows(name: str, file: str, offline: bool) -> Iterator[Any]:
    """The rows of one JSON file: `datasets` refuses a data set that has a loading script beside."""
    import huggingface_hub

    path = huggingface_hub.hf_hub_download(
        name, file, repo_type="dataset", local_files_only=offline
    )
    return (row for _, row in _file_records(Path(path)))
