"""The prompts of a sweep as run.lock.json keeps them, and whether they have only grown since.

In: the trials' settings, and the prompts of the part before. Out: `Prompts`, or one line that says
what must be put back. A confirmation may get more prompts. The search's prompts, the prompts that
were confirmed on, and the training rows stay as they were.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from symnoise_ray.config import DataConfig, TrialConfig
from symnoise_ray.config.data import HELD_BACK, Source
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.data.rows import read_prompts, read_train
from symnoise_ray.errors import UserError
from symnoise_ray.space.paths import input_files


@dataclass(frozen=True)
class Prompts:
    """Digests of all prompts, in the order of their source, copies included.

    `began_with` counts the confirmation's in the first part of the sweep. `rows` is a digest of the
    training rows where they depend on the prompts (`data.drop_overlap`), else empty. `source` is
    the file or folder that may grow: it holds prompts of the confirmation, and no other setting
    names it. It is empty where there is none. `num_unused` prompts were added that fall to the
    search, which keeps those it had. `data` are the settings that the prompts come from.
    """

    search: tuple[str, ...]
    confirm: tuple[str, ...]
    began_with: int
    rows: str = ""
    source: str = ""
    num_unused: int = 0
    data: DataConfig = field(default_factory=DataConfig)

    def to_json(self) -> dict[str, Any]:
        """What run.lock.json keeps."""
        return {
            "began_with": self.began_with,
            "search": list(self.search),
            "confirm": list(self.confirm),
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Read what run.lock.json keeps."""
        return cls(tuple(row["search"]), tuple(row["confirm"]), row["began_with"], row["rows"])

    @property
    def num_grown(self) -> int:
        """How many the confirmation has, if that is more than it began with; else 0."""
        return len(self.confirm) if len(self.confirm) > self.began_with else 0

    @property
    def search_limit(self) -> int | None:
        """How many of its source's prompts the search takes, where these have grown; else None."""
        return len(self.search) if self.num_unused else None

    @property
    def told(self) -> str:
        """What has grown, for people; empty if nothing has."""
        if not self.num_grown:
            return ""
        unused = (
            f"; {self.num_unused} more fall to the search, which keeps those it had"
            if self.num_unused
            else ""
        )
        return (
            f"the confirmation has {self.num_grown} prompts, {self.began_with} at first{unused}. "
            "Models that a verdict still waits for answer all of them, in trials that end in "
            f"-prompts{self.num_grown}: those that were kept (train.save_model), and the others "
            "trained again on the same seeds"
        )

    def may_grow_in(self, file: str) -> bool:
        """Whether a file may hold more prompts than before."""
        return bool(self.source) and Path(file).is_relative_to(self.source)

    def after(self, before: Prompts, directory: Path) -> Prompts:
        """These prompts as those of a later part of the sweep in a directory.

        The search keeps what it had, also where some of the added prompts would fall to it.

        Raises:
            UserError: prompts are gone or were edited, or training rows would change.
        """
        _require_kept(before, self, directory)
        if len(self.confirm) > len(before.confirm) and before.rows != self.rows:
            raise UserError(
                f"{self._where}: the added prompts must not overlap with training rows, which "
                "data.drop_overlap would leave out of the later trainings alone, but some do; take "
                "these prompts out"
            )
        more = len(self.search) - len(before.search)
        return replace(self, search=before.search, began_with=before.began_with, num_unused=more)

    @property
    def _where(self) -> str:
        return self.source or "data.confirm_prompts"


def _require_kept(before: Prompts, now: Prompts, directory: Path) -> None:
    """Refuse prompts that lack one of those before.

    The search takes the first ones of the source, so there the order counts.
    """
    grows = now.data.confirm_prompts == HELD_BACK
    if (now.search[: len(before.search)] if grows else now.search) != before.search:
        raise UserError(
            f"{now.data.eval_prompts or 'data.eval_prompts'}: the search must have the "
            f"{len(before.search)} prompts that it had when the sweep in {directory} began, but "
            "some are gone, moved or edited; put them back, add others below them, or start anew "
            "without --resume"
        )
    gone = Counter(before.confirm) - Counter(now.confirm)
    if gone:
        limit = now.data.max_confirm_prompts or now.data.max_eval_prompts
        among = f" among its first {limit}" if limit else ""
        raise UserError(
            f"{now._where}: must still hold the {len(before.confirm)} prompts of the confirmation "
            f"that the sweep in {directory} had{among}, but {gone.total()} of them are gone or "
            "edited; put them back and only add others, or start anew without --resume"
        )


def prompts_of(configs: Iterable[TrialConfig], *, confirms: bool) -> Prompts | None:
    """The prompts of a sweep; None if its trials do not all have the same.

    Args:
        configs: Trials that stand for all.
        confirms: Whether the sweep has a confirmation.

    Raises:
        DataError: the prompts cannot be read.
    """
    found: set[Prompts] = set()
    different = {(config.data, needs_gold(config.judge)): config for config in configs}
    for (data, gold), config in different.items():
        search, confirm = (
            tuple(each.digest for each in read_prompts(data, part, gold=gold).examples)
            for part in ("eval", "confirm" if confirms else "eval")
        )
        rows = _digest_of_rows(data) if data.drop_overlap else ""
        asked = confirm if confirms else ()
        found.add(Prompts(search, asked, len(asked), rows, _source(config) if confirms else ""))
        last = data
    same = {(each.search, each.confirm) for each in found}
    if len(same) != 1:
        return None
    rows = ",".join(sorted({each.rows for each in found}))
    return replace(min(found, key=lambda each: each.source), rows=rows, data=last)


def _digest_of_rows(data: DataConfig) -> str:
    digests = ",".join(example.digest for example in read_train(data).examples)
    return hashlib.sha256(digests.encode()).hexdigest()


def _source(config: TrialConfig) -> str:
    """Where the confirmation's prompts lie on this machine, if nothing else is read from there."""
    data = config.data
    setting = "eval_prompts" if data.confirm_prompts == HELD_BACK else "confirm_prompts"
    source = getattr(data, setting)
    if source is None:
        return ""
    source = Source.of(source).name
    if not Path(source).is_absolute():
        return ""
    without = config.model_copy(update={"data": data.model_copy(update={setting: None})})
    for other in map(Path, input_files([without])):
        if other.is_relative_to(source) or Path(source).is_relative_to(other):
            return ""
    return str(source)
