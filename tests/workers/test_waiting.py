"""A change wakes those that wait for its subject, and nobody else."""

import asyncio
from collections import Counter
from collections.abc import Callable

from symnoise_ray.workers.hub import KEPT_RECORDS, Hub
from symnoise_ray.workers.outcome import Outcome
from symnoise_ray.workers.waiting import Waiting

LONG = 600.0


def counting(name: str, looks: Counter[str], facts: set[str]) -> Callable[[], bool]:
    """A condition that counts how often it is looked at."""

    def ready() -> bool:
        looks[name] += 1
        return name in facts

    return ready


async def settled() -> None:
    """Let every coroutine run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_only_those_that_wait_for_the_subject_look_again() -> None:
    async def play() -> Counter[str]:
        waiting, looks, facts = Waiting(), Counter[str](), set[str]()
        tasks = {
            name: asyncio.create_task(
                waiting.until(counting(name, looks, facts), LONG, ("trial", name), "all")
            )
            for name in ("a", "b")
        }
        await settled()
        waiting.wake(("trial", "a"))  # too early: its condition does not hold yet
        await settled()
        assert looks == {"a": 2, "b": 1}
        facts.add("a")
        waiting.wake(("trial", "a"), ("trial", "c"))
        assert await tasks["a"]
        assert looks == {"a": 3, "b": 1}
        facts.add("b")
        waiting.wake("all")
        assert await tasks["b"]
        waiting.wake_all()
        return looks

    assert asyncio.run(play()) == {"a": 3, "b": 2}


def test_a_condition_that_never_holds_ends_with_its_time_and_leaves_nothing_behind() -> None:
    async def play() -> tuple[bool, dict[object, object]]:
        waiting = Waiting()
        held = await waiting.until(lambda: False, 0.01, "one", "other")
        return held, dict(waiting._futures)

    assert asyncio.run(play()) == (False, {})


def test_a_record_of_one_trial_wakes_no_other_trial_and_no_slot() -> None:
    async def play() -> list[str]:
        hub, woken = Hub(), []
        for name in ("a", "b"):
            await hub.slot_up(f"slot-{name}", "pool", "1", 0, 1, 0, b"")
            await hub.submit(name, {"config": {"train": {"micro_batch_size": 1}}}, "pool", "key")
            assert await hub.take(f"slot-{name}", "1", 0) is not None
        wake = hub.waiting.wake
        hub.waiting.wake = lambda *subjects: (woken.extend(map(str, subjects)), wake(*subjects))[1]  # type: ignore[func-returns-value, method-assign]
        await hub.tell("slot-a", "1", "a", [{"step": 0}])
        await hub.finish("slot-b", "1", "b", 0, Outcome("done"))
        assert hub._watcher is not None
        hub._watcher.cancel()
        return woken

    assert set(asyncio.run(play())) == {
        "('task', 'a')", "('slot', 'slot-b')", "('task', 'b')",
    }  # fmt: skip


def test_the_records_of_a_trial_can_be_asked_for_again_until_many_more_have_ended() -> None:
    async def play() -> tuple[list[int], int]:
        hub, found = Hub(), []
        await hub.slot_up("slot", "pool", "1", 0, 1, 0, b"")
        for number in range(KEPT_RECORDS + 1):
            name = f"trial-{number}"
            await hub.submit(name, {"config": {"train": {"micro_batch_size": 1}}}, "pool", "key")
            assert await hub.take("slot", "1", number) is not None
            await hub.tell("slot", "1", name, [{"step": 0}])
            await hub.finish("slot", "1", name, 0, Outcome("done"))
            for _ in range(2):  # the first answer may have been lost on its way
                told = await hub.events(name, 0, LONG)
                assert told is not None
                found.append(len(told[0]))
        assert hub._watcher is not None
        hub._watcher.cancel()
        return found, len(hub.tasks["trial-0"].events)

    found, left = asyncio.run(play())
    assert set(found) == {1}
    assert left == 0
