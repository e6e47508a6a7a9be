"""What a worker does with one trial: train, answer the prompts, check upstream, leave the files.

In: a `TrialConfig` and a directory. Out: metrics.jsonl, completions.jsonl, on request model/, and
an `Outcome`. Free of Ray, so a trial can be run in any process; every rank calls it alike.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from symnoise_ray.config import TrialConfig
from symnoise_ray.config.judge import needs_gold
from symnoise_ray.config.redaction import without_secrets
from symnoise_ray.data.prompts import read_sayable
from symnoise_ray.errors import CancelledError, kind_of, reason_of
from symnoise_ray.generation.answering import answer_from_disk, complete
from symnoise_ray.generation.harness import harness_scores, load_tasks
from symnoise_ray.generation.vllm_package import require_vllm
from symnoise_ray.models.process import give_memory_back
from symnoise_ray.models.weights import export
from symnoise_ray.records.files import read_json, write_lines
from symnoise_ray.records.layout import (
    CHECKPOINTS,
    COMPLETIONS,
    KEPT,
    METRICS,
    MODEL,
    OUTCOME,
    RESULT,
    STOP,
    TOKENS,
    sweep_directory,
)
from symnoise_ray.records.metrics import Metrics, timed
from symnoise_ray.training.loop import Interlude, Report, Trained, train
from symnoise_ray.workers.outcome import Outcome


def run_task(
    config: TrialConfig,
    directory: Path,
    *,
    report: Report,
    cancelled: Callable[[], bool],
    interview: Interlude | None = None,
) -> Outcome:
    """Run the worker's part of a trial; every exception becomes an outcome.

    Args:
        config: The trial.
        directory: Where rank 0 writes the files; anything from an earlier attempt is replaced.
        report: Called on rank 0 with every record that was written to metrics.jsonl.
        cancelled: Asked on rank 0 at every step, and on all ranks at every token of the answers.
        interview: Prompts that the model answers while it trains.
    """
    seconds: dict[str, float] = {}
    try:
        outcome = _train_and_answer(config, directory, report, cancelled, seconds, interview)
    except CancelledError as error:
        outcome = Outcome("cancelled", error.kind, error.message)
        # Stopped for good, not to be gone on with.
        if (directory / RESULT).exists() or (directory / STOP).exists():
            remove_checkpoints(directory)
    except Exception as error:
        # The one place where a worker meets any failure of a trial: the process must survive it.
        # Only this process knows its own secrets.
        reason, detail = map(without_secrets, (reason_of(error), traceback.format_exc()))
        outcome = Outcome("failed", kind_of(error), reason, detail)
    give_memory_back()
    return replace(outcome, seconds={phase: round(spent, 4) for phase, spent in seconds.items()})


def _train_and_answer(
    config: TrialConfig,
    directory: Path,
    report: Report,
    cancelled: Callable[[], bool],
    seconds: dict[str, float],
    interview: Interlude | None,
) -> Outcome:
    require_vllm(config.generate)
    if (directory / KEPT).exists():
        return _answer_again(config, directory, cancelled, seconds)
    tasks: Any = None
    if config.harness.tasks:
        with timed(seconds, "harness"):
            tasks = load_tasks(config.harness)
    caches = sweep_directory(directory) / TOKENS  # for the whole sweep
    trained = train_in(
        directory, config, report, cancelled, seconds=seconds, caches=caches, interlude=interview
    )
    try:
        with timed(seconds, "generate"):
            counts = trained.counts + _answer(config, directory, trained, cancelled)
        if tasks is not None:
            with timed(seconds, "harness"):
                trained.summary |= _check_upstream(config, tasks, trained, cancelled)
        if config.train.save_model:
            export_in(directory, config, trained)
        remove_checkpoints(directory)
        return Outcome("done", summary=trained.summary, counts=dict(counts))
    finally:
        trained.release()


def _answer_again(
    config: TrialConfig,
    directory: Path,
    cancelled: Callable[[], bool],
    seconds: dict[str, float],
) -> Outcome:
    """Answer the prompts with the model that an earlier trial of the same training has kept."""
    kept = Path(read_json(directory / KEPT))
    model = config.model.model_copy(update={"name": str(kept / MODEL)})
    with timed(seconds, "generate"):
        completions, counts = answer_from_disk(
            config,
            model,
            generator=directory.name,
            gold=needs_gold(config.judge),
            cancelled=cancelled,
        )
    if dist.get_rank() == 0:
        write_lines(completions, directory / COMPLETIONS)
        shutil.copyfile(kept / METRICS, directory / METRICS)
    before = Outcome.from_json(read_json(kept / OUTCOME))
    summary = {**before.summary, "kept_model_of": kept.name}
    return Outcome("done", summary=summary, counts={**before.counts, **counts})


def train_in(
    directory: Path,
    config: TrialConfig,
    report: Report,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    seconds: dict[str, float] | None = None,
    caches: Path,
    interlude: Interlude | None = None,
) -> Trained:
    """Train in a trial's directory: metrics.jsonl on the way, checkpoints to go on from.

    Args:
        directory: Of the trial; training that was cut off goes on from its newest checkpoint.
        config: The trial.
        report: Called on rank 0 with every record that was written to metrics.jsonl.
        cancelled: Asked on rank 0 between steps.
        seconds: Wall seconds by phase are added to it.
        caches: Folder for tokenised rows.
        interlude: What the model may be wanted for between two steps.
    """
    with Metrics(directory / METRICS) as metrics:

        def record(values: dict[str, Any]) -> None:
            if dist.get_rank() == 0:
                metrics.write(values)
                report(values)

        return train(
            config,
            record,
            cancelled=cancelled,
            seconds=seconds,
            caches=caches,
            checkpoints=directory / CHECKPOINTS,
            interlude=interlude,
        )


def export_in(directory: Path, config: TrialConfig, trained: Trained) -> None:
    """Write the fine-tuned model into a trial's directory."""
    export(trained.model, trained.tokenizer, directory / MODEL, merge=config.lora.merge)


def remove_checkpoints(directory: Path) -> None:
    """Remove what a trial that came to its end need not go on from."""
    if dist.get_rank() == 0:
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)


def _answer(
    config: TrialConfig, directory: Path, trained: Trained, cancelled: Callable[[], bool]
) -> Any:
    """Answer the trial's prompts and write them; returns what was left out or cut."""
    prompts = read_sayable(
        config.data,
        config.data.prompts,
        trained.tokenizer,
        trained.template,
        gold=needs_gold(config.judge),
    )
    completions, counts = complete(
        trained.model,
        trained.tokenizer,
        prompts.examples,
        trained.template,
        config.generate,
        context=trained.context,
        generator=directory.name,
        cancelled=cancelled,
    )
    if dist.get_rank() == 0:
        write_lines(completions, directory / COMPLETIONS)
    return counts + prompts.left_out


def _check_upstream(
    config: TrialConfig, tasks: Any, trained: Trained, cancelled: Callable[[], bool]
) -> dict[str, float]:
    """Scores of the model in the tasks of lm-evaluation-harness."""

    return harness_scores(
        trained.model,
        trained.tokenizer,
        config.harness,
        tasks,
        context=trained.context,
        cancelled=cancelled,
    )
