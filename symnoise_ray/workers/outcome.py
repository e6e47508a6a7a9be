"""How a worker's part of a trial ended: what crosses from the worker to the trial, and a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from symnoise_ray.errors import ERRORS, CancelledError, InfrastructureError, SymnoiseError


@dataclass(frozen=True)
class Outcome:
    """How a worker's part of a trial ended: `done`, `failed` or `cancelled`.

    `kind`, `reason` and `detail` say why it failed. `summary` holds measured values, `counts` how
    many rows or prompts were left out or cut, `seconds` the time by phase. `attempts` counts how
    often the trial was handed out.
    """

    status: str
    kind: str = ""
    reason: str = ""
    detail: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 1

    @classmethod
    def cancelled(cls, reason: str) -> Self:
        """It was stopped before its end."""
        return cls("cancelled", CancelledError.kind, reason)

    @classmethod
    def lost(cls, reason: str) -> Self:
        """Its workers were lost."""
        return cls("failed", InfrastructureError.kind, reason)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read outcome.json, which holds an end that went well."""
        return cls(**{"status": "done", **row})

    def to_json(self) -> dict[str, Any]:
        """Plain values, for outcome.json."""
        return asdict(self)

    def after(self, waited_seconds: float, attempts: int) -> Self:
        """The same end of a trial that waited so long for its workers, in so many attempts."""
        seconds = {**self.seconds, "start": round(waited_seconds, 4)}
        return replace(self, seconds=seconds, attempts=attempts)

    def raise_failure(self) -> None:
        """Raise what the worker met, as its own kind of error.

        Raises:
            CancelledError: the trial was stopped.
            SymnoiseError: it failed.
        """
        if self.status == "cancelled":
            cancelled = CancelledError(self.reason)
            cancelled.seconds = dict(self.seconds)
            raise cancelled
        if self.status == "failed":
            error = ERRORS.get(self.kind, SymnoiseError)(self.reason)
            error.add_note(self.detail)
            raise error
