"""How fast an endpoint may be asked, and how much may be spent: a pace and a budget.

In: estimates before a call and what it took after it. Out: seconds to wait, or the reason why no
more calls are made. Both are shared by the threads that ask; the budget counts what other
processes of the sweep have spent, so all of them together exceed it by the calls in flight at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.protocol import NOTHING, Usage


class Pace:
    """Spreads calls evenly so that neither limit per minute is passed."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_call = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next = clock()
        self._lock = threading.Lock()

    def turn(self, tokens: int) -> float:
        """Take the next turn for a call of about so many tokens; returns seconds until then."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + max(self._per_call, self._per_token * tokens)
            return start - now

    def correct(self, tokens: int) -> None:
        """A call took so many tokens more (or fewer) than was thought."""
        with self._lock:
            self._next += self._per_token * tokens

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes before so many seconds: the endpoint asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


class Budget:
    """Calls, tokens and money of a sweep: what others spent, and what is spent through this one."""

    def __init__(self, config: JudgeConfig, others: Callable[[], Usage] = lambda: NOTHING) -> None:
        self.config = config
        self._others = others
        self._own = NOTHING
        self._lock = threading.Lock()

    def reserve(self, estimate: Usage) -> str:
        """Take a call's estimate out of the budget; returns why it cannot, or nothing."""
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
        """A call ended: what it took stands in for its estimate."""
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
