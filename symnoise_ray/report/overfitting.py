"""How far the loss on rows that were not trained on lies above the one on rows that were.

In: the trials of a sweep. Out: a `Section` with one row per arm; None where nothing was kept out.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from symnoise_ray.records.results import SweepResult, TrialResult
from symnoise_ray.report.section import Section, Table
from symnoise_ray.report.trial_tables import number
from symnoise_ray.report.words import DASH

GAP = (
    "Mean losses per answer token without noise at the end of training, over the finished trials "
    "of each arm. The gap is what overfitting shows as: rows that were kept out of training minus "
    "rows that were trained on. Right answers are those to the search's prompts, which may be of "
    "another kind than the training rows. Arms with other learning rates or steps overfit "
    "differently without any noise, and no interval is given: this is a description, no verdict."
)
HEADER = (
    "arm", "trials", "trained rows", "rows kept out", "gap", "right answers", "gap",
)  # fmt: skip


def overfitting(results: SweepResult) -> Section | None:
    """Clean, held-out and gold losses by arm, of the search and of the confirmation."""
    tables = []
    for part in ("search", "confirm"):
        trials = [
            trial
            for trial in results.part(part)
            if trial.is_done and trial.get("heldout_loss") is not None
        ]
        by_arm = {arm: [t for t in trials if t.arm == arm] for arm in _arms(trials)}
        if by_arm:
            rows = [_row(arm, found) for arm, found in by_arm.items()]
            where = "In the search" if part == "search" else "In the confirmation"
            tables.append(Table("lrrrrrr", HEADER, rows, tuple(by_arm), where))
    return Section("Overfitting", (GAP,), tuple(tables)) if tables else None


def _arms(trials: Sequence[TrialResult]) -> list[str]:
    return list(dict.fromkeys(trial.arm for trial in trials))


def _row(arm: str, trials: Sequence[TrialResult]) -> tuple[str, ...]:
    clean, heldout, gold = (
        _mean(trials, name) for name in ("clean_loss", "heldout_loss", "gold_loss")
    )
    return (
        arm,
        str(len(trials)),
        number(clean),
        number(heldout),
        _gap(heldout, clean),
        number(gold),
        _gap(gold, clean),
    )


def _mean(trials: Sequence[TrialResult], name: str) -> float | None:
    known = [trial[name] for trial in trials if trial.get(name) is not None]
    return fmean(known) if known else None


def _gap(loss: float | None, clean: float | None) -> str:
    return DASH if loss is None or clean is None else f"{loss - clean:+.3f}"
