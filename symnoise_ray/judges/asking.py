"""Chunks that workers of a local judge were asked for, until each has an answer.

In: workers, and chunks of pairs. Out: verdicts, or why there are none. Ray waits without an end for
an answer that was on its way when a link was cut, and for a worker that it would start again but
has no room for. So a chunk without an answer is asked again, which costs the worker nothing, and a
worker that answers nothing for too long is given up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from symnoise_ray.errors import InfrastructureError
from symnoise_ray.judges.protocol import Pair, Verdict

ASK_AGAIN_SECONDS = 30.0
"""After so long without any answer every open chunk is asked again."""
RETRY_SECONDS = 1.0
"""How soon a worker is asked again that Ray cannot reach at the moment."""


@dataclass(eq=False)
class _Chunk:
    """The numbers of some pairs, the worker that is asked for them, and since when."""

    worker: Any
    pairs: list[int]
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    since: float = field(default_factory=time.monotonic)


class Asking:
    """All open chunks of one asker.

    Args:
        pairs: What the chunks are numbers of.
        patience: Seconds without any answer after which a worker is given up.
        again_seconds: Seconds without any answer after which all chunks are asked again.
    """

    def __init__(self, pairs: Sequence[Pair], patience: float, again_seconds: float) -> None:
        self.pairs, self.patience, self.again_seconds = pairs, patience, again_seconds
        self._open: dict[Any, _Chunk] = {}
        self._heard: dict[Any, float] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def ask(self, worker: Any, numbers: list[int]) -> None:
        """Ask a worker for the verdicts on some pairs."""
        self._send(_Chunk(worker, numbers))

    def _send(self, chunk: _Chunk) -> None:
        pairs = [self.pairs[number] for number in chunk.pairs]
        self._open[chunk.worker.judge.remote(chunk.key, pairs)] = chunk

    def answer(self) -> tuple[Any, list[int], list[tuple[int, Verdict]] | Exception]:
        """The next answer: its worker, the chunk, and the verdicts or what went wrong.

        What went wrong is an InfrastructureError where the worker was silent for too long.
        """
        while True:
            if given_up := self._given_up():
                return self._end(given_up, self._silence())
            ready, _ = ray.wait(list(self._open), timeout=self.again_seconds)
            if not ready:
                for chunk in set(self._open.values()):
                    self._send(chunk)
                continue
            chunk = self._open[ready[0]]
            try:
                verdicts = ray.get(ready[0])
            except ray.exceptions.ActorUnavailableError:
                time.sleep(RETRY_SECONDS)
                del self._open[ready[0]]
                self._send(chunk)
            except ray.exceptions.RayError as error:
                return self._end(chunk, error)
            else:
                self._heard[chunk.worker] = time.monotonic()
                return self._end(chunk, verdicts)

    def _end(self, chunk: _Chunk, answer: Any) -> tuple[Any, list[int], Any]:
        self._open = {asked: other for asked, other in self._open.items() if other is not chunk}
        return chunk.worker, chunk.pairs, answer

    def _given_up(self) -> _Chunk | None:
        """A chunk of a worker that was asked long ago and has answered nothing since."""
        now = time.monotonic()
        for chunk in self._open.values():
            if now - max(chunk.since, self._heard.get(chunk.worker, 0.0)) > self.patience:
                return chunk
        return None

    def _silence(self) -> InfrastructureError:
        return InfrastructureError(
            "a worker of the judge must answer or be up again within workers.start_minutes="
            f"{self.patience / 60:g}, but is silent"
        )
