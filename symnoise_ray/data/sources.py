"""Data sources to raw records: files, folders of them, Hugging Face data sets and their splits.

In: the name of a source, with a split and a configuration where they matter. Out: the place and the
raw record of every row. `files` reads one file; `formats` says what a record means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from symnoise_ray.config.data import AnySource, Source
from symnoise_ray.data.files import PACKED_SUFFIXES, SUFFIXES, file_records, is_data_file
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

DEFAULT_SPLIT = "train"
"""The split of a Hugging Face data set that is read where none is named."""
FILE_SUFFIXES = (*SUFFIXES, *PACKED_SUFFIXES, ".txt", ".yaml", ".arrow", ".zip", ".xz")
"""Endings of names that can only be files, readable or not."""
HUB_SECONDS = 5.0
"""How long the hub may take to answer before a cached copy is looked for."""


def locate(source: AnySource) -> AnySource:
    """The file that `demo` names among the training rows; any other source as it is."""
    return str(content.train_file()) if source == "demo" else source


def read_records(given: AnySource) -> Iterator[tuple[str, Any]]:
    """Place and raw record of every row; a line that is no record gives a `RowError` in its place.

    Raises:
        DataError: the source does not exist or cannot be read, or has no such split.
    """
    source = Source.of(given)
    if not source.name:
        raise DataError("a data source must be named, but got an empty name")
    path = Path(source.name)
    if path.is_dir():
        return _folder_records(path, source)
    preset, file = (None, None) if path.is_file() else PRESETS.get(source.name, (None, None))
    if source.chooses and (path.is_file() or file is not None):
        raise DataError(
            f"{source}: a single file has neither splits nor configurations; leave them out"
        )
    if path.is_file():
        return file_records(path)
    if preset is not None:
        return _hub_records(source.model_copy(update={"name": preset}), file)
    if path.suffix in FILE_SUFFIXES or path.is_absolute() or source.name[0] == ".":
        raise DataError(f"{source}: the data file must exist")
    return _hub_records(source, None)


def _folder_records(folder: Path, source: Source) -> Iterator[tuple[str, Any]]:
    """Records of a saved data set, of the data files directly in a folder, or of a folder that is
    laid out as on the hub, which is read where a split or a configuration is named or nothing lies
    directly in it."""
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        yield from _saved_records(folder, source)
        return
    files = sorted(file for file in folder.iterdir() if is_data_file(file))
    if source.chooses or (not files and any(map(is_data_file, folder.rglob("*")))):
        try:
            rows = _split_rows(source, offline=True)
        except Exception as error:  # it raises all kinds for what it cannot load
            raise DataError(
                f"{source}: must be a split and a configuration of the folder, but "
                f"{one_line(error, 200)}"
            ) from None
        yield from ((f"{source} row {number}", row) for number, row in enumerate(rows, 1))
        return
    if not files:
        raise DataError(
            f"{folder}: a folder must hold {', '.join(SUFFIXES)} files or a saved Hugging "
            "Face data set, but has none"
        )
    for file in files:
        yield from file_records(file)


def _saved_records(folder: Path, source: Source) -> Iterator[tuple[str, Any]]:
    import datasets  # slow to import, and only needed for its own folders

    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # it raises all kinds for what is not whole
        raise DataError(
            f"{folder}: must be a whole saved data set, but {one_line(error, 200)}"
        ) from None
    if source.config is not None or (source.split is not None and not isinstance(rows, dict)):
        raise DataError(
            f"{source}: a data set that was saved has no configurations, and splits only where "
            "several were saved together; name the folder alone"
        )
    split = source.split or DEFAULT_SPLIT
    if isinstance(rows, dict):
        if split not in rows:
            raise DataError(f"{folder}: must have a split {split}, but got {', '.join(rows)}")
        rows = rows[split]
    yield from ((f"{source} row {number}", row) for number, row in enumerate(rows, 1))


def _hub_records(source: Source, file: str | None) -> Iterator[tuple[str, Any]]:
    """Rows of one file of a Hugging Face data set, or of one of its splits; no script is run."""
    import huggingface_hub

    unreachable: Exception | None = None
    try:
        huggingface_hub.HfApi().dataset_info(source.name, timeout=HUB_SECONDS)
    except Exception as error:  # no network, no such name, no access: only a cached copy helps
        unreachable = error
    offline = unreachable is not None
    try:
        rows = (
            _split_rows(source, offline) if file is None else _file_rows(source.name, file, offline)
        )
    except Exception as error:
        raise DataError(
            f"{source}: must be a file or folder that exists, one of {', '.join(PRESETS)}, or a "
            "Hugging Face data set that can be loaded or is cached, but "
            f"{one_line(unreachable or error, 200)}"
        ) from None
    yield from ((f"{source} row {number}", row) for number, row in enumerate(rows, 1))


def _split_rows(source: Source, offline: bool) -> Iterable[Any]:
    """One split, which the library converts to its own format and keeps."""
    import datasets  # slow to import, and only needed for hub names and their folders

    before = datasets.config.HF_HUB_OFFLINE
    try:
        # By itself the library tries for half a minute where there is no network.
        datasets.config.HF_HUB_OFFLINE = before or offline
        rows: Iterable[Any] = datasets.load_dataset(
            source.name, source.config, split=source.split or DEFAULT_SPLIT
        )
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    return rows


def _file_rows(name: str, file: str, offline: bool) -> Iterator[Any]:
    """The rows of one JSON file: `datasets` refuses a data set that has a loading script beside."""
    import huggingface_hub

    path = huggingface_hub.hf_hub_download(
        name, file, repo_type="dataset", local_files_only=offline
    )
    return (row for _, row in file_records(Path(path)))
