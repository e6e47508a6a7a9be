"""A pace and a budget for the calls to an endpoint.

In: estimates before a call and the actual cost after it. Out: seconds to wait, or the reason why no
more calls are made. Threads share both. The budget includes what other processes of the sweep have
spent, so all together can exceed it only by the calls that are under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.protocol import NOTHING, Usage


class Pace:
    """Spreads calls evenly, so that neither limit per minute is exceeded.

    Each limit has a clock of its own. A call that takes fewer tokens than estimated gives time back
    to the limit of tokens alone, so it never lets more calls out than the other limit allows.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_call = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next_call = self._next_token = self._paused_until = clock()
        self._lock = threading.Lock()

    def turn(self, tokens: int) -> float:
        """Reserve the next turn, for a call of about so many tokens; returns seconds until then."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next_call, self._next_token, self._paused_until)
            self._next_call = start + self._per_call
            self._next_token = start + self._per_token * tokens
            return start - now

    def correct(self, tokens: int) -> None:
        """Correct for a call that took so many tokens more, or fewer, than estimated."""
        with self._lock:
            self._next_token += self._per_token * tokens

    def pause(self, seconds: float) -> None:
        """Let no call begin for so many seconds, as the endpoint asked.

        A turn that was reserved before may fall into the pause: see `is_paused`.
        """
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def is_paused(self) -> bool:
        """Whether a turn that comes now must not be taken; its caller reserves another one."""
        with self._lock:
            return self._clock() < self._paused_until


class Budget:
    """Calls, tokens and money that a sweep spends, here and in its other processes."""

    def __init__(self, config: JudgeConfig, others: Callable[[], Usage] = lambda: NOTHING) -> None:
        self.config = config
        self._others = others
        self._own = NOTHING
        self._lock = threading.Lock()

    def reserve(self, estimate: Usage) -> str:
        """Reserve a call's estimate; returns the reason why it exceeds the budget, or nothing."""
        config = self.config
        limits = (config.max_calls, config.max_total_tokens, config.max_cost)
        if not any(limits):
            return ""
        with self._lock:
            total = self._others() + self._own + estimate
            for name, limit, value in zip(
                ("max_calls", "max_total_tokens", "max_cost"),
                limits,
                (total.calls, total.input_tokens + total.output_tokens, self.cost(total)),
                strict=True,
            ):
                if limit is not None and value > limit:
                    return f"the budget judge.{name}={limit:g} is spent"
            self._own += estimate
        return ""

    def settle(self, estimate: Usage, actual: Usage) -> None:
        """Replace a call's estimate by what it took."""
        with self._lock:
            self._own += Usage(
                actual.calls - estimate.calls,
                actual.input_tokens - estimate.input_tokens,
                actual.output_tokens - estimate.output_tokens,
            )

    def cost(self, usage: Usage) -> float:
        """Money, in the currency of the prices."""
        read, wrote = usage.input_tokens, usage.output_tokens
        return (read * self.config.price_input + wrote * self.config.price_output) / 1e6
