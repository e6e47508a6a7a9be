"""How much scores differ by prompt and by seed, as earlier sweeps of the same kind have seen it.

In: a folder of sweeps, and a trial of the sweep that is planned. Out: variance components, and the
names of the sweeps that they come from. A directory that is broken or of another kind is passed
over: what lies beside a sweep must never end it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from symnoise_ray.config import TrialConfig
from symnoise_ray.errors import DataError
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import CONFIG, RESULTS, TRIALS
from symnoise_ray.records.results import SCHEMA_VERSION
from symnoise_ray.records.verdict import Comparison, Verdict
from symnoise_ray.statistics.power import cautious
from symnoise_ray.statistics.two_way import Spread

_SAME = {
    "model": ("name",),
    "data": ("train", "eval_prompts", "confirm_prompts"),
    "judge": ("type", "model", "revision", "prompt", "orders"),
}
"""Settings that make two sweeps alike: the same model, data and judge."""
_FEWEST = 2
"""Degrees of freedom below which seeds say next to nothing of how much they differ."""


class Measured(NamedTuple):
    """Variance components to plan with; `freedom` is that of the seeds, over all sweeps."""

    spread: Spread
    sweeps: tuple[str, ...]
    freedom: int


class _Found(NamedTuple):
    """The components of one decision, over its opponents, and what they rest on."""

    spread: Spread
    num_units: int
    freedom: int


def measured(folder: Path, config: TrialConfig, population: str) -> Measured | None:
    """The variance components of earlier sweeps of the same model, data and judge.

    They are averaged with the seeds' degrees of freedom as weights; see `cautious` for the seeds.

    Args:
        folder: The folder that holds the directories of sweeps.
        config: Any trial of the sweep that is planned.
        population: Of its question: whether prompts or groups are the units.

    Returns:
        None if no earlier sweep is of use.
    """
    own = _kind(config.model_dump(mode="json"))
    found: dict[str, list[_Found]] = {}
    for directory in _directories(folder):
        with suppress(OSError, DataError, LookupError, TypeError, ValueError, AttributeError):
            if _kind_of(directory) == own and (seen := list(_decided(directory, population))):
                found[directory.name] = seen
    rows = [row for seen in found.values() for row in seen]
    freedom = sum(row.freedom for row in rows)
    if freedom < _FEWEST:
        return None
    shares = [row.freedom / freedom for row in rows]
    parts = zip(*(row.spread for row in rows), strict=True)
    mean = Spread(*(sum(s * x for s, x in zip(shares, part, strict=True)) for part in parts))
    num_units = sum(s * row.num_units for s, row in zip(shares, rows, strict=True))
    return Measured(cautious(mean, num_units, freedom), tuple(found), freedom)


def _directories(folder: Path) -> list[Path]:
    with suppress(OSError):  # there is none, or it may not be read
        return sorted(folder.iterdir())
    return []


def _kind(trial: Mapping[str, Any]) -> list[Any]:
    return [trial[section].get(name) for section, names in _SAME.items() for name in names]


def _kind_of(sweep: Path) -> list[Any] | None:
    """Model, data and judge of a sweep, by any of its confirmed trials; None without one."""
    first = next((sweep / TRIALS).glob(f"confirm-*/{CONFIG}"), None)
    return None if first is None else _kind(read_json(first))


def _decided(sweep: Path, population: str) -> Iterator[_Found]:
    """The components of every arm that was confirmed on several seeds."""
    content = read_json(sweep / RESULTS)
    if content.get("schema_version") != SCHEMA_VERSION:
        return
    verdict = Verdict.from_json(content["verdict"])
    if verdict.population != population:
        return
    for decision in verdict.decisions:
        used = [each for each in decision.comparisons if each.num_seeds > 1 and not each.over]
        spreads = [spread for each in used if (spread := _spread(each)) is not None]
        if spreads:
            mean = Spread(*(sum(part) / len(spreads) for part in zip(*spreads, strict=True)))
            by_groups = population == "other_groups"
            units = used[0].num_groups if by_groups else used[0].num_prompts
            yield _Found(mean, units, min(each.num_seeds for each in used) - 1)


def _spread(comparison: Comparison) -> Spread | None:
    by_prompt, by_seed = comparison.spread_prompts, comparison.spread_seeds
    if by_prompt is None or by_seed is None or comparison.spread_rest is None:
        return None
    return Spread(by_prompt, by_seed, comparison.spread_rest)
