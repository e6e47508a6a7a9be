"""A local judge on Ray workers: each worker loads the model once, for all trials of a sweep.

In: pairs, from any process. Out: verdicts, chunk by chunk. A worker that dies is started again and
gets its chunk again. After `MAX_RESTARTS`, or when it has answered nothing for too long, the other
workers take over its items, each item once. An item that is lost then too has failed verdicts with
the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray import cloudpickle

from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import InfrastructureError, UserError
from symnoise_ray.judges.asking import ASK_AGAIN_SECONDS, Asking
from symnoise_ray.judges.protocol import Pair, Verdict, by_item
from symnoise_ray.judges.reader import batches

MAX_RESTARTS = 3
CHUNKS_AHEAD = 2
"""Chunks of a trial that a worker holds, so that it need not wait for the next one."""
KEPT_CHUNKS = 1000
"""Chunks whose verdicts a worker keeps, for those that ask again: a few hundred bytes a verdict."""


class JudgeWorker:
    """The actor: one copy of the model, loaded when it is first needed.

    Args:
        config: The judge.
        code_check: A pickled function that says what is wrong with the code of a machine, if
            anything is; empty takes any.

    Raises:
        InfrastructureError: something is. Ray may start a worker again on a machine that has joined
            since the sweep looked at all of them.
    """

    def __init__(self, config: JudgeConfig, code_check: bytes = b"") -> None:
        if code_check and (problem := cloudpickle.loads(code_check)()):
            node = ray.util.get_node_ip_address()
            raise InfrastructureError(f"no worker of the judge can run on node {node}: {problem}")
        self.config = config
        self._read: dict[str, list[tuple[int, Verdict]]] = {}

    def load(self) -> tuple[dict[str, Any], int]:
        """Load the model; returns the judge's identity and how many items it reads together."""
        judge = self._judge()
        return dict(judge.identity), judge.engine.batch_items

    def judge(self, key: str, pairs: list[Pair]) -> list[tuple[int, Verdict]]:
        """All verdicts of a chunk; one that is asked for again, by its key, is not read again."""
        if key not in self._read:
            self._read[key] = list(self._judge().judge(pairs))
            if len(self._read) > KEPT_CHUNKS:
                del self._read[next(iter(self._read))]
        return self._read[key]

    def _judge(self) -> Any:
        import torch

        from symnoise_ray.judges.local import local_judge  # transformers: only on the worker

        torch.set_num_threads(self.config.cpus_per_worker)
        return local_judge(self.config)


class RemoteJudge:
    """A handle on the workers; it pickles, so that trials can judge in any process.

    Each copy notices lost workers itself and stops asking them.

    Args:
        name: What verdicts call the judge.
        identity: What decides a verdict, for the store.
        batch_items: Items that a worker reads together.
        workers: Handles of `JudgeWorker`.
        patience: Seconds without any answer after which a worker counts as lost.
    """

    ask_again_seconds = ASK_AGAIN_SECONDS

    def __init__(
        self,
        name: str,
        identity: Mapping[str, Any],
        batch_items: int,
        workers: Sequence[Any],
        patience: float,
    ) -> None:
        self.name, self.identity, self.patience = name, identity, patience
        self.batch_items, self.workers = batch_items, list(workers)
        self._last_error = ""

    def judge(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Verdict]]:
        """Yield verdicts chunk by chunk, in the order in which workers finish.

        After the loss of a worker the items of its chunk are asked again, each alone on a worker.
        An item that loses a second worker fails, so that it cannot end all of them.
        """
        chunks = [list(itertools.chain(*items)) for items in batches(pairs, self.batch_items)]
        suspect: list[list[int]] = []
        yield from self._ask(pairs, chunks, CHUNKS_AHEAD, suspect)
        if not suspect:
            return
        self._drop_dead()
        fatal: list[list[int]] = []
        items = [item for chunk in suspect for item in _items(chunk, pairs)]
        yield from self._ask(pairs, items, 1, fatal)
        reason = f"two workers of the judge were lost with it; the last: {self._last_error}"
        yield from ((index, Verdict(None, reason)) for item in fatal for index in item)

    def _ask(
        self, pairs: Sequence[Pair], chunks: list[list[int]], ahead: int, lost: list[list[int]]
    ) -> Iterator[tuple[int, Verdict]]:
        """Yield the verdicts on all chunks, except those that lost a worker: `lost` gets these.

        A chunk that raises is asked again in parts, so that only the pairs that raise fail.
        """
        free = [worker for _ in range(ahead) for worker in self.workers]
        asking = Asking(pairs, self.patience, self.ask_again_seconds)
        while chunks or asking:
            while chunks and free:
                asking.ask(free.pop(0), chunks.pop(0))
            if not asking:
                reason = f"all workers of the judge are lost; the last: {self._last_error}"
                failed = Verdict(None, reason, over=True)
                yield from ((index, failed) for chunk in chunks for index in chunk)
                return
            worker, chunk, answer = asking.answer()
            free.append(worker)
            if not isinstance(answer, Exception):
                yield from ((chunk[number], verdict) for number, verdict in answer)
            elif _is_lost(answer):
                self._drop(worker, answer)
                free = [other for other in free if other is not worker]
                lost.append(chunk)
            elif len(chunk) > 1:
                chunks += _parts(chunk, pairs)
            else:
                yield chunk[0], Verdict(None, f"the judge's worker failed: {_last_line(answer)}")

    def _drop_dead(self) -> None:
        """Drop workers that are lost already, so that no item counts as the cause."""
        asked = {worker.load.remote(): worker for worker in self.workers}
        if not asked:
            return
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=self.patience)
        for answer in answered:
            worker = asked[answer]
            try:
                ray.get(answer)
            except ray.exceptions.RayError as error:
                if _is_lost(error):
                    self._drop(worker, error)

    def _drop(self, worker: Any, error: Exception) -> None:
        """Stop asking a worker, in this call and in later ones."""
        self.workers = [other for other in self.workers if other is not worker]
        self._last_error = _last_line(error)


def _parts(chunk: list[int], pairs: Sequence[Pair]) -> list[list[int]]:
    """The items of a chunk, or the pairs of a chunk of one item."""
    items = _items(chunk, pairs)
    return items if len(items) > 1 else [[index] for index in chunk]


def _items(chunk: list[int], pairs: Sequence[Pair]) -> list[list[int]]:
    items = by_item([pairs[index] for index in chunk])
    return [[chunk[number] for number in item] for item in items]


def _is_lost(error: Exception) -> bool:
    """Whether a worker can never answer: not restarted, silent, or unable to read the model."""
    cannot_load = isinstance(getattr(error, "cause", None), UserError)
    return cannot_load or isinstance(error, ray.exceptions.ActorDiedError | InfrastructureError)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:300]


@contextmanager
def judge_workers(
    config: JudgeConfig, start_minutes: float, code_check: bytes = b""
) -> Iterator[RemoteJudge]:
    """Start the workers of a local judge; they end with the block.

    Args:
        config: The judge.
        start_minutes: How long a worker may take to be up.
        code_check: See `JudgeWorker`.

    Raises:
        UserError: the model cannot be read.
        InfrastructureError: no worker was up in time.
    """
    actor = ray.remote(JudgeWorker)
    options = {
        "num_cpus": config.cpus_per_worker,
        "num_gpus": config.gpus_per_worker,
        "max_restarts": MAX_RESTARTS,
        "max_task_retries": MAX_RESTARTS,
    }
    start = actor.options(**options)
    workers = [start.remote(config, code_check) for _ in range(config.num_workers)]
    try:
        loaded = _first_up(workers, start_minutes)
        # One that is started again elsewhere has as long as at its first start.
        yield RemoteJudge(str(config.model), *loaded, workers, patience=60 * start_minutes)
    finally:
        for worker in workers:
            ray.kill(worker)


def _first_up(workers: list[Any], start_minutes: float) -> tuple[dict[str, Any], int]:
    """What `load` returns of the first worker that has loaded the model."""
    asked = [worker.load.remote() for worker in workers]
    done, _ = ray.wait(asked, timeout=60 * start_minutes)
    if not done:
        raise InfrastructureError(
            f"a worker of the judge must be up within workers.start_minutes={start_minutes:g}, but "
            "none is; see judge.cpus_per_worker and judge.gpus_per_worker"
        )
    try:
        loaded: tuple[dict[str, Any], int] = ray.get(done[0])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # the error itself, without the worker's traceback
    except ray.exceptions.RayError as error:
        raise InfrastructureError(f"no worker of the judge started: {_last_line(error)}") from None
    return loaded
