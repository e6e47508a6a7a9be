"""What a sweep may spend, and what it has spent: time, trials, GPU-hours, calls of the judge.

In: the `budget:` block and the results so far. Out: whether another trial may start. The share of
the confirmation is reserved from the beginning, so that a search that takes long leaves it enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from symnoise_ray.config import BudgetConfig, SweepConfig
from symnoise_ray.config.judge import JudgeConfig
from symnoise_ray.records.metrics import PHASES
from symnoise_ray.records.results import TrialResult
from symnoise_ray.space.counts import most_confirmed, most_judged
from symnoise_ray.space.design import design

HOUR = 3600.0
_ON_DEVICE = ("load", "train", "generate", "harness")


def _is_judge(name: str) -> bool:
    return name.startswith("judge_")


@dataclass
class Budget:
    """The limits of one sweep; `results` gives what has ended so far.

    The wall time counts from the start of this part of the sweep, everything else from the start
    of the sweep. `pairs` gives what judging trials against each other took so far. `num_prompts`
    are those of the search and of the confirmation.
    """

    sweep: SweepConfig
    judge: JudgeConfig
    results: Callable[[], Sequence[TrialResult]]
    began: float = field(default_factory=time.monotonic)
    num_slots: int = 1
    spent_on: str = ""
    """The limit that ended something, in words; empty if none did."""
    pairs: Callable[[], Sequence[Mapping[str, int]]] = tuple
    num_prompts: tuple[int, int] = (1, 1)

    def reserved(self, name: str) -> float:
        """Share of a limit for the confirmation: that of its trainings among all.

        Of a number of trials at least those of its first look. Of the judge's calls and cost it is
        that of the verdicts, since the confirmation has other prompts and may judge more pairs.
        """
        if _is_judge(name):
            before, after = most_judged(self.sweep)
            return after * self._longer / (before + after * self._longer)
        confirmed, looks = most_confirmed(self.sweep), self.sweep.confirm.looks
        share = confirmed / (len(design(self.sweep)) + confirmed)
        if name != "trials" or self.sweep.budget.trials is None:
            return share
        return max(share, confirmed * looks[0] / looks[-1] / self.sweep.budget.trials)

    @property
    def _longer(self) -> float:
        """Verdicts on a set of answers of the confirmation, over those on one of the search."""
        search, confirm = self.num_prompts
        return confirm / search

    def limits(self) -> dict[str, tuple[float, float]]:
        """Name of each limit -> what is spent and what may be."""
        given = self.sweep.budget.model_dump(exclude_none=True)
        # Tune asks ten times a second, and to add up takes the longer the more trials there were.
        spent = self._spent() if given else {}
        return {name: (spent[name], limit) for name, limit in given.items()}

    def spending(self) -> dict[str, tuple[float, float | None]]:
        """What is spent, with its limit: of each limit, and of what was spent of the others."""
        limits, spent = self.limits(), self._spent()
        others = {n: (spent[n], None) for n in ("gpu_hours", "judge_cost") if spent[n]}
        return {**others, **limits}

    def change(self, limits: BudgetConfig) -> None:
        """Take other limits from now on."""
        self.sweep = self.sweep.model_copy(update={"budget": limits})
        self.spent_on = ""

    def search_may_go_on(self, num_running: int) -> bool:
        """Whether another trial of the search may start beside those; notes the limit if not."""

        def fits(name: str, spent: float, limit: float) -> bool:
            left = 1 - self.reserved(name)
            running = num_running if name == "trials" else 0
            return spent + running + 1e-9 < left * limit

        return self._within(fits)

    def search_may_judge(self, num_verdicts: int) -> bool:
        """Whether so many more verdicts may be asked for before the confirmation.

        Notes the limit if not. A verdict is taken to cost what those of the search did.
        """
        spent = self._spent()
        cost = num_verdicts * spent["judge_cost"] / max(1.0, spent["judge_calls"])
        more = {"judge_calls": float(num_verdicts), "judge_cost": cost}

        def fits(name: str, spent: float, limit: float) -> bool:
            left = (1 - self.reserved(name)) * limit
            return name not in more or spent + more[name] <= left

        return self._within(fits)

    def search_time_is_up(self) -> bool:
        """Whether the search has taken its share of the wall time."""
        hours = self.sweep.budget.wall_time
        spent = time.monotonic() - self.began
        return hours is not None and spent >= (1 - self.reserved("wall_time")) * hours * HOUR

    def allows(self, num_trainings: int, num_pairs: int = 0) -> bool:
        """Whether so many more trainings are within the budget, if each takes what they took.

        Notes the limit if they are not. To judge one of so many pairs beside them is taken to cost
        what judging a training of the confirmation did, or would by its number of prompts.
        """
        ended = [result for result in self.results() if result.is_done]
        confirmed = [result for result in ended if result.part == "confirm"]
        each, judged = self._spent(ended), self._spent(confirmed or ended)
        longer = 1.0 if confirmed else self._longer
        number, num_judged = max(1, len(ended)), max(1, len(confirmed or ended))
        rounds = num_trainings / self.num_slots

        def fits(name: str, spent: float, limit: float) -> bool:
            more = num_trainings * each[name] / number
            if _is_judge(name):
                more = (num_trainings + num_pairs) * longer * judged[name] / num_judged
            if name == "wall_time":
                seconds = [sum(result.seconds.get(p, 0.0) for p in PHASES) for result in ended]
                more = rounds * fmean(seconds or [0.0]) / HOUR
            return spent + more <= limit * (1 + 1e-9)

        return self._within(fits)

    def _within(self, fits: Callable[[str, float, float], bool]) -> bool:
        for name, (spent, limit) in self.limits().items():
            if not fits(name, spent, limit):
                self.spent_on = f"budget.{name}={limit:g}"
                return False
        return True

    def _spent(self, results: Sequence[TrialResult] | None = None) -> dict[str, float]:
        """By all trials and pairs, or by some trials alone."""
        known = self.results() if results is None else results
        workers = self.sweep.workers
        seconds = sum(result.seconds.get(phase, 0.0) for result in known for phase in _ON_DEVICE)
        usage = [result.get("judge_usage") or {} for result in known]
        if results is None and (self.sweep.budget.judge_calls or self.sweep.budget.judge_cost):
            usage += self.pairs()
        read = sum(each.get("input_tokens", 0) for each in usage)
        wrote = sum(each.get("output_tokens", 0) for each in usage)
        price = read * self.judge.price_input + wrote * self.judge.price_output
        return {
            "wall_time": (time.monotonic() - self.began) / HOUR,
            "trials": float(len(known)),
            "gpu_hours": seconds / HOUR * workers.num_workers * workers.gpus_per_worker,
            "judge_calls": float(sum(each.get("calls", 0) for each in usage)),
            "judge_cost": price / 1e6,
        }
