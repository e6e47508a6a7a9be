"""The confirmation: the chosen settings again, on fresh seeds and prompts that they never met.

In: the questions that the search leads to. Out: a decision on each, look by look. Each arm is
compared with the reference at the reference's own best setting and at the arm's shared settings,
seed by seed or over all pairs of seeds. A look adds seeds to the questions that are still open.
Where the prompts have grown after a verdict, what the verdict decided stays; of what it left open,
kept models or models that are trained again answer all prompts, so that every comparison rests on
the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

from symnoise_ray.errors import JudgeError
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.records.layout import COMPLETIONS, PREFERENCES
from symnoise_ray.records.preferences import read_annotations
from symnoise_ray.records.results import TrialResult, read_result
from symnoise_ray.space.trials import SweepPlans, TrialPlan, show
from symnoise_ray.statistics.decision import Ruling, rule
from symnoise_ray.statistics.looks import Look
from symnoise_ray.statistics.power import stopped
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.evidence import Evidence, Scored, contrast, evidence, scored
from symnoise_ray.sweep.kept import kept_model
from symnoise_ray.sweep.pairs import is_judged, judge_pair
from symnoise_ray.sweep.questions import Question, Setting
from symnoise_ray.sweep.schedule import Part, num_prompts
from symnoise_ray.sweep.trial import run_trial
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.workers.client import Workers
from symnoise_ray.workers.session import THREAD_PREFIX

Key = tuple[str, str]
"""What tells questions apart: an arm, and the arm it is compared with or an empty text."""
Pair = tuple[TrialPlan, TrialPlan]


class Confirmation:
    """Trains, judges and decides, look by look.

    Args:
        plans: The sweep.
        own: The reference at its own best setting; all others are judged against its answers.
        asked: The questions; what is found is noted in them.
        parts: Of the sweep, as design.json holds them.
    """

    def __init__(
        self, plans: SweepPlans, own: Setting, asked: Sequence[Question], parts: Sequence[Part]
    ) -> None:
        self.plans, self.own, self.asked = plans, own, list(asked)
        self.num_prompts = [num_prompts(part) for part in parts]
        self.effect = plans.sweep.question.effect
        self.by_groups = plans.sweep.question.population == "other_groups"
        self.rulings: dict[Key, Ruling] = {}
        self.notes: dict[str, None] = {}
        """Which pairs could not be judged, and why; each once, in their order."""
        self._trained: set[str] = set()

    def run(self, workers: Workers, judges: JudgeSource, watch: Watch, budget: Budget) -> None:
        """Decide all questions; what was trained and judged before is taken from its files."""
        watch.take_up_confirmed(self.plans.directory)
        looks = {(self._prompts(look), look.num_seeds) for q in self.asked for look in q.looks}
        standing = watch.board.standing
        for number, (prompts, num_seeds) in enumerate(sorted(looks), 1):
            going = [each for each in self.asked if self._goes_on(each, prompts)]
            looking = [
                (each, look)
                for each in going
                for look in each.looks
                if (self._prompts(look), look.num_seeds) == (prompts, num_seeds)
            ]
            plans = list(self._plans(going, num_seeds, prompts))
            num_new = sum(read_result(plan.directory) is None for plan in plans)
            if not looking or (num_new and prompts != self.num_prompts[-1]):
                continue  # what did not answer the earlier prompts answers all of them
            if not budget.allows(num_new, self.num_unjudged(going, num_seeds, prompts)):
                self._end(going)
                return
            standing.begin_look(number, len(looks))
            names = ", ".join(dict.fromkeys(each.arm for each in going))
            asked = f" and all {prompts} prompts" if prompts else ""
            watch.board.say(f"confirming {names} on {num_seeds} fresh seeds{asked} ...")
            jobs = [_job(plan, workers, judges, watch) for plan in plans]
            _at_once(jobs, budget.num_slots + 1)
            self._trained |= {plan.name for plan in plans}
            for question, look in looking:
                self._look(question, look, judges)
            self._rule_and_stop(looking)

    def _prompts(self, look: Look) -> int:
        """How many prompts a look rests on; 0 for those that the sweep began with."""
        return self.num_prompts[look.part - 1]

    def _goes_on(self, question: Question, prompts: int) -> bool:
        """Whether a question still waits for looks on so many prompts."""
        if all(self._prompts(look) != prompts for look in question.looks):
            return False
        on_these = bool(question.seen) and self._prompts(question.seen[-1]) == prompts
        return not question.stopped or (question.stopped != "decided" and not on_these)

    @staticmethod
    def _end(going: Sequence[Question]) -> None:
        for question in going:
            question.stopped = "budget"

    def plan(self, setting: Setting, number: int, prompts: int) -> TrialPlan:
        """A setting on the number-th seed, answering so many prompts; 0 for those at first."""
        seed = (setting.point, number, setting.number, self.own.number)
        first = self.plans.confirm(*seed)
        if not prompts:
            return first
        plan = self.plans.confirm(*seed, prompts)
        return replace(plan, kept=kept_model(plan, first))

    def results(self, question: Question) -> list[tuple[Setting, list[TrialResult | None]]]:
        """The trainings that a question's evidence rests on: its own setting's, then the others'.

        None stands for a training without a result.
        """
        if not question.seen:
            return []
        last = question.seen[-1]
        found = []
        for setting in (question.setting, *question.opponents.values()):
            plans = [self.plan(setting, n, self._prompts(last)) for n in range(last.num_seeds)]
            found.append((setting, [read_result(plan.directory) for plan in plans]))
        return found

    def _plans(
        self, going: Sequence[Question], num_seeds: int, prompts: int
    ) -> Iterable[TrialPlan]:
        """What is still to be trained; the reference's best first, since others wait for it."""
        settings = {(self.own.arm, self.own.number): self.own}
        for question in going:
            for each in (question.setting, *question.opponents.values()):
                settings.setdefault((each.arm, each.number), each)
        for setting in settings.values():
            for number in range(num_seeds):
                plan = self.plan(setting, number, prompts)
                if plan.name not in self._trained:
                    yield plan

    def judged_pairs(self, seen: Mapping[Key, Sequence[int]]) -> Iterator[Pair]:
        """Trials whose answers were judged against each other, once each.

        Args:
            seen: Question -> the numbers of seeds at the looks that it had.
        """
        told: set[tuple[str, str]] = set()
        for question in self.asked:
            for look in self._looks_seen(question, seen)[-1:]:
                for met in question.meetings(self.own):
                    for _, *pair in self._pairs(met, look.num_seeds, self._prompts(look)):
                        one, other = pair
                        if (one.name, other.name) not in told:
                            told.add((one.name, other.name))
                            yield one, other

    def look_again(self, seen: Mapping[Key, Sequence[int]], judges: JudgeSource) -> None:
        """Rule on the evidence of the last looks alone, where all is trained and judged."""
        for question in self.asked:
            looks = self._looks_seen(question, seen)
            if looks:
                question.seen = looks[:-1]
                self._look(question, looks[-1], judges)
        self.rulings = self._rulings()

    @staticmethod
    def _looks_seen(question: Question, seen: Mapping[Key, Sequence[int]]) -> list[Look]:
        """The looks that a question had: the first ones of those that were planned for it."""
        return question.looks[: len(seen.get(question.key, ()))]

    def _look(self, question: Question, look: Look, judges: JudgeSource) -> None:
        """Note what a look shows.

        One seed that is left of several is no evidence: it does not show how much seeds differ. The
        next look may have more.
        """
        question.seen.append(look)
        found = self._evidence(question, look, judges)
        enough = all(each.num_seeds >= min(2, look.num_seeds) for each in found)
        question.evidence = found if enough else []
        goes_on = bool(found) and (enough or look != question.looks[-1])
        question.stopped = "" if goes_on else "failed"

    def _evidence(self, question: Question, look: Look, judges: JudgeSource) -> list[Evidence]:
        """One per opponent; empty if some opponent cannot be compared with at all."""
        tables = [
            {
                (n, m): self._over(one, other, judges)
                for (n, m), one, other in self._pairs(met, look.num_seeds, self._prompts(look))
            }
            for met in question.meetings(self.own)
        ]
        if question.over:
            found = [contrast(*tables)]
        else:
            named = zip(tables, question.opponents.items(), strict=True)
            found = [evidence(table, kind, show(other.point)) for table, (kind, other) in named]
        return [each for each in found if each is not None] if all(found) else []

    def _over(self, plan: TrialPlan, rival: TrialPlan, judges: JudgeSource) -> Scored:
        """Scores of one trial over another; none if one of them failed, or the judge did."""
        ended = [read_result(each.directory) for each in (plan, rival)]
        if not all(result is not None and result.is_done for result in ended):
            return {}
        answers = rival.directory / COMPLETIONS
        usual = plan.directory / PREFERENCES
        # Against the reference's best it is judged when it ends; by a second judge, afterwards.
        if plan.reference == answers and usual.exists():
            return scored(read_annotations(usual))
        try:
            return scored(judge_pair(plan.directory, answers, judges, plan.config.judge))
        except JudgeError as failure:
            self.notes[f"{plan.name} against {rival.name} could not be judged: {failure}"] = None
            return {}

    def _pairs(
        self, met: tuple[Setting, Setting], num_seeds: int, prompts: int
    ) -> Iterable[tuple[tuple[int, int], TrialPlan, TrialPlan]]:
        """Trials of two settings that are judged against each other, by numbers of their seeds."""
        one, other = met
        for n, m in product(range(num_seeds), repeat=2):
            if n == m or self.plans.sweep.confirm.pairs == "all":
                yield (n, m), self.plan(one, n, prompts), self.plan(other, m, prompts)

    def num_unjudged(self, going: Sequence[Question], num_seeds: int, prompts: int) -> int:
        """Pairs that are still to be judged, beside what is judged when a training ends."""
        pairs = {
            (one.directory, other.directory / COMPLETIONS)
            for question in going
            for met in question.meetings(self.own)
            for _, one, other in self._pairs(met, num_seeds, prompts)
            if one.reference != other.directory / COMPLETIONS
        }
        return sum(not is_judged(*pair) for pair in pairs)

    def _rule_and_stop(self, looking: Sequence[tuple[Question, Look]]) -> None:
        self.rulings = self._rulings()
        for question, look in looking:
            if question.evidence:
                same = [one for one in question.looks if self._prompts(one) == self._prompts(look)]
                question.stopped = stopped(
                    self.rulings[question.key].verdict,
                    [found.test(by_groups=self.by_groups) for found in question.evidence],
                    look,
                    same[-1],
                    self.effect_on(question),
                    len(self.asked),
                )

    def _rulings(self) -> dict[Key, Ruling]:
        return rule(
            {
                each.key: (
                    [found.test(by_groups=self.by_groups) for found in each.evidence],
                    each.seen[-1].share,
                    self.effect_on(each),
                )
                for each in self.asked
                if each.evidence
            }
        )

    def effect_on(self, question: Question) -> float:
        """The effect, on the scale of the evidence: that of a contrast is halved."""
        return self.effect / 2 if question.over else self.effect


def _job(
    plan: TrialPlan, workers: Workers, judges: JudgeSource, watch: Watch
) -> Callable[[], None]:
    """Run one trial to its end, if it did not end before; its result is in its directory."""

    def job() -> None:
        if watch.take_up(plan) is not None:
            return
        watch.add(plan)
        try:
            for _record in run_trial(plan, workers, judges):
                pass
        except Exception:
            if read_result(plan.directory) is None:
                raise

    return job


def _at_once(jobs: Sequence[Callable[[], None]], num_threads: int) -> None:
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix=THREAD_PREFIX)
    try:
        for future in [executor.submit(job) for job in jobs]:
            future.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
