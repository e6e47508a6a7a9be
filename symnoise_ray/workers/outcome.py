"""How a worker's part of a trial ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """How a worker's part of a trial ended; `kind` and `reason` tell a failure."""

    status: str
    kind: str = ""
    reason: str = ""
    detail: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, to cross processes."""
        return asdict(self)
