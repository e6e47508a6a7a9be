"""Carries out orders while a sweep runs: a thread of its process reads them and answers.

In: orders in the sweep's directory. Out: trials that stop or are added, a search that pauses, other
limits; each is an event in the journal. What would make the verdict unsound is refused: a trial of
the confirmation that is stopped because it looks bad, and a setting that is added after the choice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

from symnoise_ray.config import BudgetConfig
from symnoise_ray.config.faults import nearest
from symnoise_ray.config.loading import Document, build
from symnoise_ray.errors import UserError, reason_of
from symnoise_ray.records.files import write_json
from symnoise_ray.records.layout import OUTCOME, STOP
from symnoise_ray.records.results import read_result
from symnoise_ray.report.standing import rows
from symnoise_ray.space.counts import most_confirmed
from symnoise_ray.space.parameters import Params, Space, in_range
from symnoise_ray.space.trials import ADDED, SweepPlans, TrialPlan, show
from symnoise_ray.sweep.budget import Budget
from symnoise_ray.sweep.ordered import KIND, added_points, is_paused
from symnoise_ray.sweep.orders import Desk, Order
from symnoise_ray.sweep.watch import Watch
from symnoise_ray.workers.session import THREAD_PREFIX

if TYPE_CHECKING:
    from symnoise_ray.workers.client import Workers  # ray: bad input is told before it is imported

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HOLD_SECONDS = 2.0
"""How often a paused sweep tells its hub so: one that took another's place does not know."""
SLOTS_SECONDS = 1.0
"""How often the live view is told which slot runs which trial."""
START_SECONDS = 5.0
"""How long an order to stop waits for a trial that has just been started."""
END_SECONDS = 1.0
"""How long an interrupted sweep waits for the order that is being carried out."""
ANSWER_SECONDS = 60.0
"""How long an answer may take; it comes between two steps."""
FREE_SECONDS = 10.0
"""How long it waits for the slot: a trial stops between two of its steps."""


class Search(Protocol):
    """The part of the search that orders need."""

    def add(self, index: int) -> bool:
        """Hand out one more trial; False where the search has ended."""


class Steering:
    """What listens to a sweep's orders; a context manager that listens while it is open.

    `added` holds the points that orders added, by the number of the trial, and `search` the search
    once it has taken them up; until then nothing is added while `lock` is held.
    """

    def __init__(self, plans: SweepPlans, watch: Watch, budget: Budget) -> None:
        self.plans, self.watch, self.budget = plans, watch, budget
        self.added: dict[int, Params] = added_points(plans.directory)
        self.paused = is_paused(plans.directory)
        self.search: Search | None = None
        self._workers: Workers | None = None
        self._desk = Desk(plans.directory)
        self.lock = threading.Lock()
        self._stop = threading.Event()
        self._told = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"{THREAD_PREFIX}-orders", daemon=True
        )
        self._tell_size()
        self._verbs: dict[str, Callable[[Order], tuple[str, dict[str, Any]]]] = {
            "list": self._list,
            "stop": self._stop_trial,
            "pause": self._pause,
            "resume": self._resume,
            "add": self._add,
            "budget": self._budget,
            "answer": self._answer,
        }

    def _tell_size(self) -> None:
        """Let whoever shows the sweep know how large it is, and what it may spend."""
        standing, confirm = self.watch.board.standing, self.plans.sweep.confirm
        standing.num_searched = len(self.plans.cells) + len(self.added)
        most, looks = most_confirmed(self.plans.sweep), confirm.looks
        standing.by_look = tuple(most * each // looks[-1] for each in looks if confirm.arms)
        standing.spending = self.budget.spending

    def of(self, workers: Workers) -> Self:
        """Say whose trials it steers, before it is opened."""
        self._workers = workers
        return self

    @property
    def workers(self) -> Workers:
        """The slots of the sweep."""
        assert self._workers is not None
        return self._workers

    def __enter__(self) -> Self:
        self._desk.__enter__()
        self.watch.board.standing.paused = self.paused
        if self.paused:
            self.watch.board.say("paused by an order; `symnoise-ray ctl DIR resume` goes on")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._stop.set()
        self._thread.join(None if kind is None else END_SECONDS)
        self._desk.__exit__()

    def _run(self) -> None:
        board, looked = self.watch.board, 0.0
        while not self._stop.wait(POLL_SECONDS):
            try:
                if self.paused and time.monotonic() - self._told > HOLD_SECONDS:
                    self._hold()
                if board.is_live and time.monotonic() - looked > SLOTS_SECONDS:
                    board.standing.slots, looked = self.workers.slots(), time.monotonic()
                for order in self._desk.pending():
                    self._carry_out(order)
            except Exception as error:
                # The sweep goes on whatever becomes of its orders, such as when storage is away.
                log.debug("orders: %s", reason_of(error))

    def _hold(self) -> None:
        self.workers.hold(self.paused)
        self._told = time.monotonic()

    def _carry_out(self, order: Order) -> None:
        try:
            if order.verb not in self._verbs:
                raise UserError(f"{order.verb}: is no order.{nearest(order.verb, [*self._verbs])}")
            said, values = self._verbs[order.verb](order)
        except Exception as error:
            self._desk.answer(order, reason_of(error), refused=True)
        else:
            self._desk.answer(order, said, **values)

    def _note(self, order: Order, said: str, **values: Any) -> tuple[str, dict[str, Any]]:
        """Write an order into the journal, once it is certain to be carried out."""
        name = self.plans.sweep.name
        self.watch.tracker.log(KIND, name, verb=order.verb, by=order.by, said=said, **values)
        self.watch.board.say(f"by order of {order.by}: {said}")
        return said, {}

    def _list(self, order: Order) -> tuple[str, dict[str, Any]]:
        standing = self.watch.board.standing
        return standing.status_line(), {"rows": rows(standing, self.workers.slots())}

    def _pause(self, order: Order) -> tuple[str, dict[str, Any]]:
        if self.paused:
            raise UserError("pause: the sweep must not be paused already, but is; resume goes on")
        self.paused = True
        self._hold()
        self.watch.board.standing.paused = True
        return self._note(order, "paused; trials that run go on to their end, and none begins")

    def _resume(self, order: Order) -> tuple[str, dict[str, Any]]:
        if not self.paused:
            raise UserError("resume: the sweep must be paused, but is not")
        self.paused = False
        self._hold()
        self.watch.board.standing.paused = False
        return self._note(order, "resumed")

    def _stop_trial(self, order: Order) -> tuple[str, dict[str, Any]]:
        plan = self._stoppable(str(order.values["trial"]))
        began = time.monotonic()
        write_json({"by": order.by}, plan.directory / STOP)
        try:
            self._cancel(plan)
        except BaseException:
            (plan.directory / STOP).unlink()
            raise
        self._note(order, f"{plan.name} is stopped", trial=plan.name, arm=plan.arm)
        while plan.name in self.workers.slots().values():
            if time.monotonic() - began > FREE_SECONDS:
                return f"{plan.name} stops at its next step, and then frees its slot", {}
            time.sleep(POLL_SECONDS / 5)
        seconds = round(time.monotonic() - began, 2)
        return f"{plan.name} is stopped; its slot was free after {seconds} s", {"seconds": seconds}

    def _cancel(self, plan: TrialPlan) -> None:
        """Cancel a trial that trains or waits; one that was just started is soon known."""
        deadline = time.monotonic() + START_SECONDS
        while not self.workers.cancel(plan.name):
            ended = read_result(plan.directory)
            if ended is not None and ended.is_stopped:
                return
            if ended is not None or (plan.directory / OUTCOME).exists():
                raise UserError(
                    f"{plan.name}: must train or wait for a slot, but has freed its slot and is "
                    "being judged; it ends by itself"
                )
            if time.monotonic() > deadline:
                raise UserError(f"{plan.name}: must have begun, but starts just now; try again")
            time.sleep(POLL_SECONDS)

    def _known(self, name: str) -> TrialPlan:
        """A trial that has not ended, by its name or the beginning of it."""
        plans = {plan.name: plan for plan in self.watch.unfinished}
        found = [name] if name in plans else [each for each in plans if each.startswith(name)]
        if len(found) != 1 or not name:
            ended = {result.trial: result.status for result in self.watch.results}
            if name in ended:
                raise UserError(f"{name}: must be a trial that runs, but has ended: {ended[name]}")
            raise UserError(f"{name!r} must be one trial that runs.{nearest(name, [*plans])}")
        return plans[found[0]]

    def _stoppable(self, name: str) -> TrialPlan:
        """The same; only a trial that the verdict and the others can do without."""
        plan = self._known(name)
        if plan.part == "confirm":
            raise UserError(
                f"{plan.name}: must be a trial of the search; the verdict rests on all trials of "
                "the confirmation, so none of them can be stopped alone; pause, or end the sweep"
            )
        if plan.result("").is_reference:
            raise UserError(
                f"{plan.name}: must not be the reference's first baseline, since all trials are "
                "judged against its answers; end the sweep in place of it"
            )
        return plan

    def _add(self, order: Order) -> tuple[str, dict[str, Any]]:
        point = require_point(self.plans, dict(order.values["point"]))
        with self.lock:
            index = ADDED + len(self.added)
            # Of a search that has not begun, `added` is read when it does.
            self.added[index] = point
            self.watch.board.standing.num_searched += 1
            if self.search is not None and not self.search.add(index):
                del self.added[index]
                self.watch.board.standing.num_searched -= 1
                raise UserError(
                    "add: the search must go on, but has ended; a setting that is added after the "
                    "choice could not be chosen"
                )
            plan = self.plans.search(index, point)
            said = f"{plan.name} is added: {show(point)}"
            return self._note(order, said, trial=plan.name, arm=plan.arm, point=point)

    def _answer(self, order: Order) -> tuple[str, dict[str, Any]]:
        plan = self._known(str(order.values["trial"]))
        prompt = str(order.values["prompt"])
        found = self.workers.ask(plan.name, prompt, ANSWER_SECONDS)
        if found is None:
            raise UserError(
                f"{plan.name}: must train, and answer within {ANSWER_SECONDS:.0f} s, but does not; "
                "a trial that waits or answers its own prompts takes none"
            )
        text, failed = found
        if failed:
            raise UserError(text)
        step = self.watch.board.standing.lines[plan.name].step
        told = {"trial": plan.name, "prompt": prompt, "answer": text}
        self._note(order, f"{plan.name} is asked a prompt about step {step}", **told)
        return text, {}

    def _budget(self, order: Order) -> tuple[str, dict[str, Any]]:
        before = self.budget.sweep.budget.model_dump()
        asked = before | dict(order.values["limits"])
        limits = build(BudgetConfig, Document(asked, {}, "budget"))
        changed = {
            name: [before[name], value]
            for name, value in limits.model_dump().items()
            if before[name] != value
        }
        if not changed:
            raise UserError("budget: some limit must get another value, but all have it already")
        self.budget.change(limits)
        told = ", ".join(f"budget.{name} {was} -> {now}" for name, (was, now) in changed.items())
        return self._note(order, told.replace("None", "no limit"), limits=changed)


def require_point(plans: SweepPlans, point: Params) -> Params:
    """A point that the search itself could have proposed.

    Raises:
        UserError: it is none; the message names what must change.
    """
    parameters = plans.sweep.parameters
    space = Space(parameters)
    for name in point:
        if name not in parameters:
            raise UserError(
                f"add: {name} must be varied by the sweep.{nearest(name, [*parameters])}"
            )
    wanted = {name for name in space.ordered() if space.active(name, point)}
    for name in sorted(wanted ^ set(point)):
        does = "is needed there" if name in wanted else "has no meaning there"
        raise UserError(f"add: the point must be whole, but {name} {does}: {show(point)}")
    for name, value in point.items():
        if not in_range(parameters[name], value):
            given = parameters[name]
            may = (
                "one of " + ", ".join(map(str, given.choices))
                if given.choices
                else f"from {given.low:g} to {given.high:g}, in its steps"
            )
            raise UserError(f"add: {name} must be {may}, but is {value!r}")
    plans.config(point)
    return point
