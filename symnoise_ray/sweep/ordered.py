"""What people ordered while a sweep ran, as its journal holds it.

In: the directory of a sweep. Out: the points that were added, whether it is paused, its budget, and
what the report says. The journal is the sweep's memory of orders, so they outlive its process.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from symnoise_ray.config import BudgetConfig, SweepConfig
from symnoise_ray.records.files import read_json, read_lines
from symnoise_ray.records.layout import DESIGN, JOURNAL
from symnoise_ray.space.parameters import Params
from symnoise_ray.space.trials import ADDED

KIND = "order"
"""Kind of an event in the journal."""
_OF_DESIGN = ("stop", "add")
"""Orders by which the search is another one than was declared."""


def orders(directory: Path) -> list[dict[str, Any]]:
    """The events of all orders that were carried out, in their order."""
    return [event for event in read_lines(directory / JOURNAL) if event["kind"] == KIND]


def added_points(directory: Path) -> dict[int, Params]:
    """Number of each trial that was added -> its point."""
    points = [event["point"] for event in orders(directory) if event["verb"] == "add"]
    return dict(enumerate(points, ADDED))


def is_paused(directory: Path) -> bool:
    """Whether the sweep was paused, and not resumed since."""
    last = [each["verb"] for each in orders(directory) if each["verb"] in ("pause", "resume")]
    return last[-1:] == ["pause"]


def with_ordered_budget(config: SweepConfig, directory: Path) -> SweepConfig:
    """A sweep with the limits that were ordered.

    Of a limit that `--resume` gives another value than it had before the order, that value counts.
    """
    limits = config.budget.model_dump()
    for event in orders(directory):
        for name, (was, now) in event.get("limits", {}).items():
            if limits[name] == was:
                limits[name] = now
    return config.model_copy(update={"budget": BudgetConfig.model_validate(limits)})


def departures(directory: Path) -> tuple[str, ...]:
    """What orders made of the declared search, a line each, and how unequal the arms became."""
    events = [event for event in orders(directory) if event["verb"] in _OF_DESIGN]
    if not events:
        return ()
    declared = read_json(directory / DESIGN)["trials_by_arm"]
    sums = []
    for arm, number in declared.items():
        count = Counter(event["verb"] for event in events if event["arm"] == arm)
        sums.append(f"{arm} {number} + {count['add']} - {count['stop']}")
    unequal = (
        f"the arms were not tuned with equally many trials (declared + added - stopped: "
        f"{', '.join(sums)}), and an arm with more of them has an advantage in being chosen"
    )
    return (*map(_line, events), unequal)


def notes(directory: Path) -> tuple[str, ...]:
    """Orders that left the design as it was, a line each."""
    events = [event for event in orders(directory) if event["verb"] not in _OF_DESIGN]
    return tuple(map(_line, events))


def _line(event: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(event["time_ms"] / 1000, UTC).isoformat(" ", "seconds")
    return f"by order of {event['by']}, {when}: {event['said']}"
