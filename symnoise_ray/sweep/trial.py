"""One trial from its description to its score: the page where the stages meet.

config -> data -> noise -> train -> generate -> judge -> score. The worker's part (up to the
answers) runs on a warm slot; judging and scoring run here, beside the next trial's training.
Everything a trial knows lies in its directory, the last file being trial.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from symnoise_ray.config.redaction import without_secrets
from symnoise_ray.errors import (
    ERRORS,
    CancelledError,
    JudgeError,
    SymnoiseError,
    kind_of,
    reason_of,
)
from symnoise_ray.judges.choose import JudgeSource
from symnoise_ray.judges.judging import judge_all, require_coverage
from symnoise_ray.records.completions import Completion, read_completions
from symnoise_ray.records.files import digest, read_json, write_json, write_lines
from symnoise_ray.records.layout import (
    COMPLETIONS,
    CONFIG,
    DIGESTS,
    KEPT,
    METRICS,
    OUTCOME,
    PREFERENCES,
    RESULT,
    SCORE,
    STOP,
)
from symnoise_ray.records.metrics import PHASES, Tail, timed
from symnoise_ray.records.results import STOPPED, TrialResult
from symnoise_ray.space.trials import TrialPlan
from symnoise_ray.statistics.answer_statistics import answer_statistics
from symnoise_ray.statistics.early_exit import CLEAN_LOSS, Decision
from symnoise_ray.statistics.win_rate import win_rate
from symnoise_ray.workers.client import Workers
from symnoise_ray.workers.outcome import Outcome

WAIT_SECONDS = 0.2
_DIGESTED = (METRICS, COMPLETIONS, OUTCOME, PREFERENCES, SCORE)
NUM_REASONS = 5
"""Most reasons of failed verdicts in a result; an endpoint may give each call its own."""


def run_trial(
    plan: TrialPlan, workers: Workers, judges: JudgeSource
) -> Iterator[dict[str, Any] | TrialResult | None]:
    """Run a trial, yielding its records, None when there is nothing new, and last its result.

    The result is also in trial.json, whatever happened.

    Raises:
        SymnoiseError: the trial failed; its result was written and yielded before.
    """
    seconds: dict[str, float] = {}
    directory = plan.directory
    try:
        write_json(plan.config.model_dump(mode="json"), directory / CONFIG)
        trained = yield from _train_and_answer(plan, workers)
        seconds |= trained.seconds
        completions = read_completions(directory / COMPLETIONS)
        reference = yield from _await_reference(plan)
        with timed(seconds, "judge"):
            score = _judge(plan, completions, reference, judges)
    except Exception as error:
        if (directory / STOP).exists():
            yield stop_by_order(plan, error.seconds if isinstance(error, CancelledError) else {})
            return
        # Every failure is the trial's own: FAILED with its reason, never a score.
        failed = fail(plan, error, seconds)
        yield failed
        # Ray Tune writes what is raised to a file; the error itself may hold a secret.
        raise ERRORS.get(failed.kind, SymnoiseError)(failed.reason) from None
    values = {
        "attempts": trained.attempts,
        **trained.summary,
        **answer_statistics(completions, **plan.config.answers.model_dump()),
        **score,
    }
    yield _finish(plan, "done", seconds, counts=trained.counts, values=values)


def _train_and_answer(
    plan: TrialPlan, workers: Workers
) -> Generator[dict[str, Any] | None, None, Outcome]:
    """The worker's part, once: a sweep that goes on may find it done."""
    path = plan.directory / OUTCOME
    if path.exists():
        return Outcome.from_json(read_json(path))
    if plan.kept is None:
        (plan.directory / KEPT).unlink(missing_ok=True)
    else:
        write_json(str(plan.kept), plan.directory / KEPT)
    for record in workers.run(plan.name, plan.config, plan.directory):
        if isinstance(record, Outcome):
            write_json(record.to_json(), path)
            return record
        yield record
    raise AssertionError("a worker's last word is an Outcome or an exception")


def _await_reference(plan: TrialPlan) -> Generator[None, None, list[Completion]]:
    """The reference's answers; the plain baseline may still be training on another slot."""
    while not plan.reference.exists():
        ended = plan.reference.parent / RESULT
        if ended.exists() and not plan.reference.exists():
            raise JudgeError(
                f"the baseline {plan.reference.parent.name} failed, so there are no answers to "
                "compare with"
            )
        time.sleep(WAIT_SECONDS)
        yield None
    return read_completions(plan.reference)


def _judge(
    plan: TrialPlan,
    completions: list[Completion],
    reference: list[Completion],
    judges: JudgeSource,
) -> dict[str, Any]:
    """Preferences and score, and their files; a verdict that failed stays without a number.

    Raises:
        JudgeError: too few verdicts could be had, or the score is not a number.
    """
    config = plan.config.judge
    # The verdict of a sweep rests on the confirmation, so that one judges full sets.
    early = config.early and plan.part == "search"
    judged = judge_all(
        judges.judge(),
        completions,
        reference,
        early=early,
        min_coverage=config.min_coverage,
        orders=config.orders,
    )
    write_lines(judged.preferences, plan.directory / PREFERENCES)
    require_coverage(judged, config.min_coverage)
    score = win_rate(judged.preferences)
    if not math.isfinite(score.win_rate):
        raise JudgeError(f"the win rate must be a number, but is {score.win_rate}")
    values = score.to_json() | judged.early_fields()
    write_json(values, plan.directory / SCORE)
    took: dict[str, Any] = {"judge_usage": asdict(judged.usage)} if judged.usage.calls else {}
    if judged.failures:
        took["judge_failures"] = dict(judged.failures.most_common(NUM_REASONS))
    return {**values, **took}


def stop(
    plan: TrialPlan, decision: Decision, losses: Mapping[int, float], seconds: float
) -> TrialResult:
    """Write the result of a trial that was stopped early: it is no failure, and has no score.

    Args:
        plan: The trial.
        decision: Why it was stopped.
        losses: Its clean losses by step.
        seconds: How long it trained, about.
    """
    last = max(losses)
    return _finish(
        plan,
        STOPPED,
        {"train": seconds},
        reason=(
            f"its clean loss of {decision.loss:.4g} after {100 * decision.rung:g} % of its "
            f"training had rank {decision.rank} among the {decision.num} trials of {plan.arm} that "
            "had come so far"
        ),
        values={
            "stopped_at": last,
            "stopped_rank": decision.rank,
            "stopped_among": decision.num,
            "first_clean_loss": losses[min(losses)],
            CLEAN_LOSS: losses[last],
        },
    )


def stop_by_order(plan: TrialPlan, seconds: Mapping[str, float] | None = None) -> TrialResult:
    """Write the result of a trial that a person stopped, from its order and its own curve.

    Args:
        plan: The trial, in whose directory the order lies.
        seconds: What it took, by phase.
    """
    records = Tail(plan.directory / METRICS).new()
    losses = [record[CLEAN_LOSS] for record in records if CLEAN_LOSS in record]
    last = records[-1]["step"] if records else 0
    measured = {"first_clean_loss": losses[0], CLEAN_LOSS: losses[-1]} if losses else {}
    reason = f"by order of {read_json(plan.directory / STOP)['by']}"
    return _finish(
        plan,
        STOPPED,
        seconds or {},
        reason=reason,
        values={"stopped_at": last, **measured},
    )


def fail(
    plan: TrialPlan, error: Exception, seconds: Mapping[str, float] | None = None
) -> TrialResult:
    """Write the result of a trial that failed, or that could not even be started."""
    return _finish(
        plan,
        "cancelled" if isinstance(error, CancelledError) else "failed",
        seconds or {},
        kind=kind_of(error),
        reason=without_secrets(reason_of(error)),
        detail=without_secrets("\n".join(getattr(error, "__notes__", []))),
    )


def _finish(
    plan: TrialPlan, status: str, seconds: Mapping[str, float], **values: Any
) -> TrialResult:
    """Write trial.json: the trial's result, whatever it is."""
    phases = {name: round(seconds[name], 3) for name in PHASES if name in seconds}
    result = plan.result(status, seconds=phases, **values)
    written = plan.directory / RESULT
    partial = written.with_name(f".{RESULT}.new")
    write_json(result.to_json(), partial)
    # A trial that did not come to its end may still be writing the others.
    names = _DIGESTED if result.is_done else ()
    files = {name: plan.directory / name for name in names} | {RESULT: partial}
    digests = {name: digest(path) for name, path in files.items() if path.exists()}
    write_json(digests, plan.directory / DIGESTS)
    partial.replace(written)
    return result
