"""What other sweeps of the same folder have taken: seeds and prompts of their confirmations.

In: the folder of the sweeps. Out: the seeds, and the names of the sweeps. A verdict on seeds or
prompts that an earlier verdict rests on is not independent of it. A directory that is broken or of
another kind is passed over: what lies beside a sweep must never end it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from symnoise_ray.config import DataConfig, SweepConfig
from symnoise_ray.config.data import HELD_BACK, AnySource, Source
from symnoise_ray.errors import DataError
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import DESIGN, LOCK, SWEEP, TRIALS
from symnoise_ray.space.design import Arms, first_seed

_SOURCE: TypeAdapter[AnySource | None] = TypeAdapter(AnySource | None)
_CONFIRMED = re.compile(r"confirm-.+-seed(\d+)(-.+)?")
"""The name of a confirmed trial's directory."""


def used_seeds(runs_folder: Path, except_directory: Path) -> set[int]:
    """Training seeds that other sweeps have confirmed on, or have declared that they will.

    Of trials only the names of their directories are read, so it is quick beside thousands.

    Args:
        runs_folder: The folder that holds the directories of sweeps.
        except_directory: The sweep that asks.
    """
    others = _others(runs_folder, except_directory)
    return {seed for each in others for seed in _confirmed_seeds(each) | _declared_seeds(each)}


def search_seeds(config: SweepConfig) -> list[int]:
    """The training seeds that a sweep's fresh seeds are counted from: one, or one of each arm."""
    arms = Arms.of(config)
    return sorted({first_seed(config, arms.treatment, value) for value in arms.values})


def used_prompts(
    runs_folder: Path, except_directory: Path, data: DataConfig, files: Mapping[str, str]
) -> list[str]:
    """Names of other sweeps that confirmed on prompts from where this one takes them, sorted.

    Files are the same if their contents are, wherever they lie. Where contents are not known, as of
    a data set by its name, the names decide. A file that has got more prompts since is another one.

    Args:
        runs_folder: The folder that holds the directories of sweeps.
        except_directory: The sweep that asks.
        data: Its data.
        files: Path -> digest of the files that it reads, as for run.lock.json.
    """
    own = _origin(data.eval_prompts, data.confirm_prompts, files)
    return [
        sweep.name
        for sweep in _others(runs_folder, except_directory)
        if _confirmed_seeds(sweep) and (earlier := _origin_of(sweep)) and own.is_like(earlier)
    ]


def _others(runs_folder: Path, except_directory: Path) -> list[Path]:
    """The directories of the other sweeps, sorted by name."""
    try:
        paths = sorted(runs_folder.iterdir())
    except OSError:
        return []
    return [path for path in paths if _is_sweep(path) and not _is_same(path, except_directory)]


def _is_sweep(path: Path) -> bool:
    with suppress(OSError):  # a folder that may not be read
        return (path / SWEEP).is_file()
    return False


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError):  # one of them is not there
        return one.samefile(other)
    return False


def _confirmed_seeds(sweep: Path) -> set[int]:
    try:
        names = [path.name for path in (sweep / TRIALS).iterdir()]
    except OSError:
        return set()
    return {int(match[1]) for name in names if (match := _CONFIRMED.fullmatch(name))}


def _declared_seeds(sweep: Path) -> set[int]:
    """The seeds of the looks that a sweep has declared; none where its files do not say."""
    declared = _read(sweep / DESIGN)
    with suppress(LookupError, TypeError, ValueError):
        if declared["arms_confirmed"] > 0:
            config = SweepConfig.model_validate(_read(sweep / SWEEP))
            num_seeds = max(number for part in declared["parts"] for number in part["looks"])
            begins = [seed + declared["fresh_seeds_from"] for seed in search_seeds(config)]
            return {first + number for first in begins for number in range(num_seeds)}
    return set()


class _Origin(NamedTuple):
    """Where the prompts of a confirmation come from; no source is the demo."""

    source: Source | None
    digests: frozenset[str]

    def is_like(self, other: _Origin) -> bool:
        if self.source and other.source and self.digests and other.digests:
            same_part = self.source.part == other.source.part
            return same_part and not self.digests.isdisjoint(other.digests)
        return self.source == other.source


def _origin(
    eval_prompts: AnySource | None, confirm_prompts: AnySource | None, files: Mapping[str, str]
) -> _Origin:
    """The origin by the settings of a sweep and the digests of its files."""
    given = eval_prompts if confirm_prompts in (None, HELD_BACK) else confirm_prompts
    if given is None:
        return _Origin(None, frozenset())
    source = Source.of(given)
    place = source.name
    found = (files[name] for name in files if name == place or name.startswith(f"{place}/"))
    return _Origin(source, frozenset(found))


def _origin_of(sweep: Path) -> _Origin | None:
    """The origin by the files of an earlier sweep, or None where they do not say."""
    written, lock = _read(sweep / SWEEP), _read(sweep / LOCK)
    if not isinstance(written.get("trial"), dict):
        return None
    data = _inner(written["trial"], "data")
    try:
        asked, confirmed = (
            _SOURCE.validate_python(data.get(name)) for name in ("eval_prompts", "confirm_prompts")
        )
    except ValidationError:
        return None
    root = Path(str(lock.get("directory")))  # where paths below the working directory begin
    files = {str(root / path): str(digest) for path, digest in _inner(lock, "files").items()}
    return _origin(asked, confirmed, files)


def _read(path: Path) -> dict[str, Any]:
    with suppress(DataError):
        values = read_json(path)
        return values if isinstance(values, dict) else {}
    return {}


def _inner(values: dict[str, Any], name: str) -> dict[str, Any]:
    inner = values.get(name)
    return inner if isinstance(inner, dict) else {}
