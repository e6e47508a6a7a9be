"""A judging model behind any OpenAI-compatible endpoint, through the official client.

In: pairs. Out: verdicts in the order of the replies, since several calls run at once. A call that
fails, or whose reply is not a verdict, is repeated a few times; then its verdict has failed, with
the reason. A refused key or a spent budget ends all calls; verdicts given before that stay.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import openai

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.key import read_key
from symnoise_ray.judges.limits import Budget, Pace
from symnoise_ray.judges.prompt import find_prompt
from symnoise_ray.judges.protocol import NOTHING, Pair, Usage, Verdict
from symnoise_ray.judges.replies import (
    LARGEST_REPLY,
    LIMIT,
    NEW_LIMIT,
    Fault,
    LongReplyError,
    Reply,
    explain,
    read_reply,
)

TOP_LOGPROBS = 5
"""As AlpacaEval asks for; some endpoints refuse more."""
BYTES_PER_TOKEN = 4
NO_KEY = "none"
"""Sent to endpoints without keys, because the client requires one."""


class ApiJudge:
    """Asks an endpoint, several pairs at once."""

    def __init__(
        self, config: JudgeConfig, spent_elsewhere: Callable[[], Usage] = lambda: NOTHING
    ) -> None:
        self.config = config
        self.prompt = find_prompt(config.prompt)
        self.name = str(config.model)
        self._key = read_key(config)
        self._client = openai.OpenAI(
            api_key=self._key or NO_KEY,
            base_url=config.base_url,
            timeout=config.timeout_seconds,
            max_retries=0,  # retries are made here, where they are paced and counted
            # A redirect would be a call that is not counted, or send the texts to another host.
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        weakref.finalize(self, self._client.close)
        self._pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self._budget = Budget(config, spent_elsewhere)
        self._verdict, self._limit = config.verdict, LIMIT
        self._over = ""
        self._stop = threading.Event()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Endpoint, model, prompt and decoding."""
        config = self.config
        return {
            "type": "api",
            "base_url": config.base_url,
            "model": config.model,
            "revision": config.revision,
            "prompt": self.prompt.digest,
            "verdict": config.verdict,
            "reading": 2,  # raised when the same reply means another verdict
            "temperature": config.temperature,
            "max_new_tokens": config.max_new_tokens,
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield verdicts in the order of the replies."""
        self._over = ""
        self._stop.clear()
        executor = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="judge")
        try:
            futures = {executor.submit(self._ask, pair): i for i, pair in enumerate(pairs)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # Also when the caller stops early: no call begins, those under way end by their limit.
            self._stop.set()
            executor.shutdown(wait=False, cancel_futures=True)

    def _ask(self, pair: Pair) -> Verdict:
        """One verdict, after as many calls as it needs and the settings allow."""
        messages = self.prompt.messages(pair)
        size = sum(len(message["content"].encode()) for message in messages)
        estimate = Usage(1, size // BYTES_PER_TOKEN, self.config.max_new_tokens)
        usage, retries = NOTHING, 0
        while True:
            refused = self._wait_for_turn(estimate)
            if refused:
                return Verdict(None, refused, usage, over=bool(self._over))
            reply, used = self._call(messages, estimate)
            usage += used
            if isinstance(reply, Reply):
                return Verdict(reply.preference, usage=usage)
            if self._can_adapt(reply):
                continue  # without counting as a retry
            if reply.over:
                self._end(reply.reason)
            if not reply.again or retries == self.config.max_retries:
                return Verdict(None, reply.reason, usage, over=reply.over)
            wait = self._back_off(retries) if reply.wait is None else reply.wait
            if wait > self.config.max_wait_seconds:
                return Verdict(None, f"{reply.reason} (asked to wait {wait:.0f} s)", usage)
            if reply.wait is not None:
                self._pace.pause(wait)
            self._stop.wait(wait)
            retries += 1

    def _can_adapt(self, fault: Fault) -> bool:
        """Change how all later calls ask, where the endpoint does not know a setting."""
        if fault.no_logprobs and self.config.verdict == "auto":
            self._verdict = "text"
            return True
        if fault.other_limit:
            self._limit = NEW_LIMIT
        return fault.other_limit

    def _back_off(self, retries: int) -> float:
        """Doubled each time, and random, so that failed calls are not all repeated at once."""
        wait = self.config.retry_seconds * 2.0**retries * random.uniform(0.5, 1.5)
        return min(wait, self.config.max_wait_seconds)

    def _wait_for_turn(self, estimate: Usage) -> str:
        """Wait for a turn and reserve a call in the budget; returns why none may be made."""
        tokens = estimate.input_tokens + estimate.output_tokens
        self._stop.wait(self._pace.turn(tokens))
        while self._pace.is_paused() and not self._stop.is_set():
            self._stop.wait(self._pace.turn(tokens))  # the pause began while this call waited
        if not self._stop.is_set():
            spent = self._budget.reserve(estimate)
            if not spent:
                return ""
            self._end(spent)
        return self._over or "judging was stopped"

    def _end(self, reason: str) -> None:
        """Allow no more calls; waiting ones end with this reason."""
        self._over = self._over or reason
        self._stop.set()

    def _call(self, messages: list[dict[str, str]], estimate: Usage) -> tuple[Reply | Fault, Usage]:
        """One call, and its cost: by the endpoint's own count where it gives one."""
        verdict, limit, used = self._verdict, self._limit, estimate
        reply: Reply | Fault
        try:
            body = self._post(messages, limit, logprobs=verdict != "text")
            reply = read_reply(body, self.prompt.labels, verdict)
            if reply.usage is not None:
                used = reply.usage
        except Exception as error:
            # Any error concerns this call alone. The exception may hold the key, so only the reason
            # is kept.
            reply = explain(error, self._key)
            # A setting that was not sent, or that a quoted answer names, is not the cause.
            asked = " ".join(message["content"] for message in messages).lower()
            reply = reply._replace(
                no_logprobs=reply.no_logprobs and verdict != "text" and "logprobs" not in asked,
                other_limit=reply.other_limit and limit == LIMIT and NEW_LIMIT not in asked,
            )
        self._budget.settle(estimate, used)
        self._pace.correct(
            used.input_tokens + used.output_tokens - estimate.input_tokens - estimate.output_tokens
        )
        return reply, used

    def _post(self, messages: list[dict[str, str]], limit: str, *, logprobs: bool) -> bytes:
        """The reply's body, read within limits of time and size.

        The client's own time limit starts again with every byte that arrives.
        """
        config = self.config
        until = time.monotonic() + config.timeout_seconds
        request: dict[str, Any] = {"model": self.name, "messages": messages}
        request[limit] = config.max_new_tokens
        if config.temperature is not None:
            request["temperature"] = config.temperature
        if logprobs:
            request |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        body = b""
        with self._client.chat.completions.with_streaming_response.create(**request) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > LARGEST_REPLY:
                    raise LongReplyError
                if time.monotonic() > until:
                    raise TimeoutError("the reply does not end")
        return body
