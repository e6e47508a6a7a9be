"""Answers as traces with assessments, which MLflow shows side by side for two runs.

In: judged answers of a trial. Out: one trace per prompt, linked to the trial's run. The calls are
those of MLflow 3.17's own tracing client, which its documentation does not have; this module alone
makes them. All ids are hashes, so what is written twice is there once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from symnoise_ray.tracking.answers import Judged

AT_ONCE = 100
"""Traces that one call may link to a run."""
PREVIEW = 1000
"""Characters of a request and an answer in lists; the span has the whole."""
NAME = "answer"


def write_traces(
    uri: str, experiment_id: str, run_id: str, answers: Sequence[Judged], time_ms: int
) -> None:
    """Write at most `AT_ONCE` answers as traces of a run.

    Args:
        uri: Of the store.
        experiment_id: Of the run.
        run_id: The run.
        answers: Its answers.
        time_ms: When they count as given, in milliseconds; the same on every replay.

    Raises:
        mlflow.exceptions.MlflowException: the tracker refused or did not answer.
    """
    import mlflow
    from mlflow.tracing.client import TracingClient

    if not answers:
        return
    client = TracingClient(uri)
    spans = []
    for each in answers:
        trace_id = f"tr-{_hash(run_id, each.item, length=32)}"
        client.start_trace(_trace_info(trace_id, experiment_id, run_id, each, time_ms))
        spans.append(_span(trace_id, each, time_ms))
    client.log_spans(experiment_id, spans)
    ids = [span.trace_id for span in spans]
    mlflow.MlflowClient(uri).link_traces_to_run(ids, run_id)


def _hash(*parts: Any, length: int) -> str:
    return hashlib.sha256("#".join(map(str, parts)).encode()).hexdigest()[:length]


def _inputs(each: Judged) -> str | list[str]:
    """What was asked, turn by turn; equal for all runs, which is how the interface finds pairs."""
    return each.requests[0] if len(each.requests) == 1 else list(each.requests)


def _trace_info(trace_id: str, experiment_id: str, run_id: str, each: Judged, time_ms: int) -> Any:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=time_ms,
        execution_duration=0,
        state=TraceState.OK,
        request_preview="\n".join(each.requests)[:PREVIEW],
        response_preview=each.answer[:PREVIEW],
        trace_metadata={"mlflow.sourceRun": run_id, "mlflow.trace_schema.version": "3"},
        tags={"mlflow.traceName": NAME, "mlflow.trace.spansLocation": "TRACKING_STORE"},
        assessments=_assessments(trace_id, run_id, each, time_ms),
    )


def _assessments(trace_id: str, run_id: str, each: Judged, time_ms: int) -> list[Any]:
    """The verdict as a word and as a number, and the right answer where it is known."""
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    # Nearness to the gold answer is computed; every other judge is a model.
    kind = "CODE" if each.judge.startswith("reference") else "LLM_JUDGE"
    judge = AssessmentSource(kind, each.judge)
    found: list[Any] = [
        Feedback("verdict", each.verdict, source=judge, rationale=each.reasons, trace_id=trace_id)
    ]
    if each.score is not None:
        found.append(Feedback("win", each.score, source=judge, trace_id=trace_id))
    if each.gold:
        known = AssessmentSource("CODE", "gold answer")
        found.append(Expectation("expected_response", each.gold, source=known, trace_id=trace_id))
    for one in found:
        one.assessment_id = f"a-{_hash(trace_id, one.name, length=32)}"
        one.metadata = {"mlflow.assessment.sourceRunId": run_id}
        one.run_id = run_id
        one.create_time_ms = one.last_update_time_ms = time_ms
    return found


def _span(trace_id: str, each: Judged, time_ms: int) -> Any:
    from mlflow.entities import Span
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    digits = trace_id.removeprefix("tr-")
    context = SpanContext(
        int(digits, 16), int(digits[:16], 16) or 1, False, TraceFlags(TraceFlags.SAMPLED)
    )
    attributes = {
        "mlflow.traceRequestId": trace_id,
        "mlflow.spanType": "LLM",
        "mlflow.spanInputs": _inputs(each),
        "mlflow.spanOutputs": each.answer,
    }
    return Span(
        ReadableSpan(
            name=NAME,
            context=context,
            attributes={name: json.dumps(value) for name, value in attributes.items()},
            # Without one, every span asks anew, in threads, what process this is.
            resource=Resource.get_empty(),
            status=Status(StatusCode.OK),
            start_time=time_ms * 1_000_000,
            end_time=time_ms * 1_000_000,
        )
    )
