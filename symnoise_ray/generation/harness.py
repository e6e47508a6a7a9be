"""The upstream check: the scores of a fine-tuned model in tasks of lm-evaluation-harness.

In: a model, its tokenizer, the tasks. Out: lm_eval's own metrics by name, as fractions.
Tasks, prompts, log-likelihoods and metrics are lm_eval's, with the seeds of its command line. This
module shares the requests among all workers, and restores the state of the process afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from symnoise_ray.config import HarnessConfig
from symnoise_ray.errors import (
    CancelledError,
    DataError,
    OutOfMemoryError,
    UserError,
    kind_of,
    reason_of,
)
from symnoise_ray.generation.harness_tasks import task_index
from symnoise_ray.models.deepspeed_engine import is_sharded
from symnoise_ray.models.process import choose_device
from symnoise_ray.models.weights import uncompiled
from symnoise_ray.records.metrics import UPSTREAM, plain_name

BOOTSTRAP_DRAWS = 100
"""Draws for the standard errors of metrics that are no means; those of means have a formula."""


def load_tasks(config: HarnessConfig) -> Any:
    """The tasks with their data; call it before training, so that a missing task costs no time.

    One prompt of each task is built, so that a broken task file is found at once.

    Raises:
        UserError: lm_eval is missing, or does not know a task, or a task cannot be run here.
        DataError: a task or its data cannot be loaded.
    """
    index = task_index(config)
    named = f"harness.tasks={','.join(config.tasks)}"
    with _apart():
        try:
            loaded = index.load(list(config.tasks))
            for task in loaded["tasks"].values():
                _set_shots(task, config.num_fewshot)
                task.build_all_requests(limit=1)
                _set_shots(task, config.num_fewshot)
        except Exception as error:
            # No network, no such data set, a broken file: lm_eval has no kinds of errors.
            raise DataError(f"{named}: lm_eval must load them, but {reason_of(error)}") from None
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(f"{named}: {name} runs code that the model writes, which is refused")
        if getattr(task, "MULTIMODAL", False):
            raise UserError(f"{named}: {name} asks about images or sounds, which are not shown")
    return loaded


def _set_shots(task: Any, num_fewshot: int | None) -> None:
    """Set the number of examples as lm_eval's command line does, and restart their random draw."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    own = task.get_config("num_fewshot")
    if own is None or (num_fewshot is not None and own != 0):
        task.set_config("num_fewshot", num_fewshot or 0)
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)


def harness_scores(
    model: nn.Module,
    tokenizer: Any,
    config: HarnessConfig,
    tasks: Any,
    *,
    context: int | None,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Scores by name, `harness/<task>/<metric>`, the same on all workers, which must all call it.

    The members of a group that has its own score are left out, and so are numbers that are not
    finite and standard errors that lm_eval does not know.

    Args:
        model: The trained model itself; it is left in the mode it was in.
        tokenizer: Its tokenizer; it is left as it is.
        config: Number of examples, of questions, and the size of the batches.
        tasks: The result of `load_tasks`.
        context: Most tokens that the model takes, if known.
        cancelled: Called on every worker before every forward pass. If it returns true anywhere,
            all workers stop.

    Raises:
        CancelledError: `cancelled` returned true.
        UserError: memory ran out.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    mode = model.training
    try:
        with _apart(), uncompiled(model):
            lm = HFLM(
                pretrained=model,
                tokenizer=copy.deepcopy(tokenizer),  # lm_eval gives it a padding token
                max_length=context,
                batch_size=config.batch_size,
            )
            if is_sharded(model):
                lm._device = choose_device()  # a sharded weight may lie on another device
            results = evaluate(
                _Shared(lm, cancelled),
                tasks,
                limit=config.limit,
                bootstrap_iters=BOOTSTRAP_DRAWS,
                log_samples=False,
            )
    except Exception as error:
        if kind_of(error) != OutOfMemoryError.kind:
            raise
        raise _too_large(config.batch_size, error) from None
    finally:
        model.train(mode)
    return _named(results)


def _too_large(batch_size: int, error: Exception) -> UserError:
    """No OutOfMemoryError: that would train again, with smaller micro-batches."""
    return UserError(
        f"harness.batch_size={batch_size}: must fit into the memory, but {reason_of(error)}; "
        "lower it"
    )


class _Shared:
    """A model for lm_eval: every worker answers a share, and all workers get all answers.

    lm_eval sees one worker, so that all workers draw the same examples and compute the same scores.
    """

    rank, world_size = 0, 1

    def __init__(self, lm: Any, cancelled: Callable[[], bool]) -> None:
        self.lm, self.cancelled = lm, cancelled
        self.together = dist.get_world_size() > 1 and is_sharded(lm.model)

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Log-likelihoods of continuations, and whether each is the greedy one."""
        return self._share(self.lm.loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
        """Log-likelihoods of whole texts."""
        return self._share(self.lm.loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Continuations up to a stop word."""
        return self._share(self.lm.generate_until, requests)

    def _share(self, ask: Callable[[list[Any]], list[Any]], requests: list[Any]) -> list[Any]:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        numbers = range(len(requests))
        # Requests that begin with the same words stay together: lm_eval computes those words once.
        by_words = [
            list(group) for _, group in itertools.groupby(numbers, lambda i: requests[i].args[0])
        ]
        own = [number for group in by_words[rank::world_size] for number in group]
        found: dict[int, Any] | None = None  # of a worker that was cancelled
        with contextlib.suppress(CancelledError):
            hook = self.lm.model.register_forward_pre_hook(self._before_a_pass, prepend=True)
            try:
                answers = ask([requests[i] for i in own]) if own else []
            finally:
                hook.remove()
            while self.together and self._anyone_runs(False):
                self.lm._model_call(torch.zeros(1, 1, dtype=torch.long, device=self.lm.device))
            found = dict(zip(own, answers, strict=True))
        shares: list[Any] = [found]
        if world_size > 1:
            shares *= world_size
            dist.all_gather_object(shares, found)
        if None in shares:
            raise CancelledError("cancelled while answering the tasks of harness.tasks")
        found = {number: answer for share in shares for number, answer in share.items()}
        return [found[number] for number in numbers]

    def _before_a_pass(self, *_: Any) -> None:
        if self.together:
            self._anyone_runs(True)
        elif self.cancelled():
            raise CancelledError("cancelled")

    def _anyone_runs(self, me: bool) -> bool:
        """Whether some worker has a pass to run. All workers must gather sharded weights together,
        so a worker that has finished runs an empty pass as long as others need it, and one that is
        cancelled stops at the same pass as the others."""
        flags = torch.tensor([int(me), int(self.cancelled())], device=self.lm.device)
        dist.all_reduce(flags)
        anyone, cancelled = flags.tolist()
        if cancelled:
            raise CancelledError("cancelled")
        return bool(anyone)


@contextmanager
def _apart() -> Iterator[None]:
    """Run with lm_eval's seeds and without its messages, and restore all random states."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    device = choose_device()
    states = random.getstate(), np.random.get_state()
    logger = logging.getLogger("lm_eval")
    level, one_process = logger.level, os.environ.get("DISABLE_MULTIPROC")
    logger.setLevel(logging.CRITICAL)
    os.environ["DISABLE_MULTIPROC"] = "1"  # lm_eval would fork this process for a bootstrap
    quiet = io.StringIO()
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            redirect_stdout(quiet),
            redirect_stderr(quiet),
        ):
            random.seed(DEFAULT_RANDOM_SEED)
            np.random.seed(DEFAULT_OTHER_SEED)
            torch.manual_seed(DEFAULT_OTHER_SEED)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        logger.setLevel(level)
        os.environ.pop("DISABLE_MULTIPROC")
        if one_process is not None:
            os.environ["DISABLE_MULTIPROC"] = one_process


def _named(results: Any) -> dict[str, float]:
    """lm_eval's `acc,none` of a task as `harness/<task>/acc`; the name of another filter is
    kept."""
    members = results["group_subtasks"]
    inside = {name for group in results.get("groups", ()) for name in _below(group, members)}
    return {
        UPSTREAM + plain_name(f"{name}/{key.removesuffix(',none').replace(',', '.')}"): float(value)
        for name, metrics in results["results"].items()
        for key, value in metrics.items()
        if name not in inside and "," in key
        if isinstance(value, int | float | np.number) and math.isfinite(value)
    }


def _below(group: str, members: dict[str, list[str]]) -> set[str]:
    """All members of a group, and the members of these."""
    own = set(members.get(group, ()))
    return own.union(*(_below(name, members) for name in own))
