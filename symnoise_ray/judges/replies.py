"""Replies of an endpoint as preferences, and failed calls as reasons with what to do next.

In: the body of a reply, or the exception of a call. Out: plain values. Nothing is guessed: a reply
that is not one of the two labels is no verdict. Reasons hold neither the key nor a part of it.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from typing import Any, NamedTuple

import openai

from symnoise_ray.config.redaction import SEEN_PART
from symnoise_ray.judges.logprobs import log_probability_preference, log_sum
from symnoise_ray.judges.protocol import Usage

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses after which the same call may succeed."""
LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""The limit of a reply's tokens, and its name for models that think before they answer."""
NEVER = {401, 402, 403, 404}
"""Statuses that every later call would get too, from the key, money, rights, address or model."""
SPENT = "insufficient_quota"
"""The code of a status 429 that no waiting helps against: the account has no money left."""
LARGEST_REPLY = 1 << 20
"""Bytes of a reply that are read at most; a verdict takes a few hundred."""
MOST_TOKENS = 10**7
"""More than any call takes: a higher count is ignored."""
ENOUGH = 0.5
"""Probability that both labels must have together, so that no unlikely token decides."""
REDIRECT = "a redirect, which is not followed; give its end as judge.base_url"


class LongReplyError(Exception):
    """A reply has more than `LARGEST_REPLY` bytes."""


class Fault(NamedTuple):
    """Why a call brought no verdict.

    `again`: repeat it after `wait` seconds (None: the usual back-off). `over`: end all calls.
    `no_logprobs`, `other_limit`: the endpoint refuses log-probabilities, or the name `max_tokens`.
    `usage`: what the call cost, where the endpoint says so.
    """

    reason: str
    again: bool = True
    over: bool = False
    wait: float | None = None
    no_logprobs: bool = False
    other_limit: bool = False
    usage: Usage | None = None


class Reply(NamedTuple):
    """A preference and what it cost; `usage` is None where the endpoint does not say."""

    preference: float
    usage: Usage | None


def read_reply(body: bytes, labels: tuple[str, str], verdict: str) -> Reply | Fault:
    """The preference in a chat completion.

    Args:
        body: The reply's JSON.
        labels: Of the first and of the second answer.
        verdict: `logprobs`, `text`, or `auto`: the text where log-probabilities do not decide.
    """
    usage = None
    try:
        reply = json.loads(body)
        usage = _usage(reply.get("usage"))
        choice = reply["choices"][0]
        text = choice["message"].get("content") or ""
        refused = choice["message"].get("refusal")
        preference = _from_logprobs(choice, labels) if verdict != "text" else None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Fault("the reply is not a complete chat completion", usage=usage)
    if refused:
        return Fault("the judge refused", usage=usage)
    if preference is None and verdict == "logprobs":
        reason = "the log-probabilities name neither label (judge.verdict=logprobs)"
        return Fault(reason, usage=usage)
    if preference is None:
        preference = _from_text(str(text), labels)
    if preference is None and choice.get("finish_reason") == "length":
        reason = "the reply was cut off before a label (judge.max_new_tokens)"
        return Fault(reason, usage=usage)
    if preference is None:
        return Fault("the reply is not one of the two labels", usage=usage)
    return Reply(preference, usage)


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    read, wrote = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(read, int) and isinstance(wrote, int)):
        return None
    sound = min(read, wrote) >= 0 and max(read, wrote) <= MOST_TOKENS
    return Usage(1, read, wrote) if sound else None


def _from_logprobs(choice: dict[str, Any], labels: tuple[str, str]) -> float | None:
    """Preference from the likeliest alternatives of a token; None where they do not decide.

    The token is the first that is not blank. The labels must have half of the probability there,
    because alternatives to another first token say nothing about the label that follows it.
    Spellings of a label (with a space before it) are added up. A label that is not among the
    alternatives counts as impossible, as in AlpacaEval.
    """
    content = (choice.get("logprobs") or {}).get("content") or ()
    tops = next((said.get("top_logprobs") for said in content if said["token"].strip()), None)
    seen: dict[str, list[float]] = {label: [] for label in labels}
    for top in tops or ():
        label, logprob = top["token"].strip(), float(top["logprob"])
        if math.isnan(logprob) or logprob > 1e-3:
            raise ValueError("no log-probability")
        if label in seen:
            seen[label].append(logprob)
    if math.fsum(math.exp(value) for values in seen.values() for value in values) < ENOUGH:
        return None
    return log_probability_preference(*(log_sum(seen[label]) for label in labels))


def _from_text(text: str, labels: tuple[str, str]) -> float | None:
    """1 or 2 where the text is one of the labels, bare or in quotes, brackets or bold."""
    whole = text.strip()  # a label may have brackets of its own
    for said in (whole, whole.strip("\"'`*.:()[]").strip()):
        if said in labels:
            return float(labels.index(said) + 1)
    return None


def explain(error: Exception, key: str) -> Fault:
    """What a failed call means: its reason, and whether to try again."""
    if isinstance(error, openai.APIStatusError):
        return _status(error, key)
    if isinstance(error, LongReplyError):
        return Fault(f"the reply has more than {LARGEST_REPLY >> 20} MiB")
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Fault("no complete answer within judge.timeout_seconds")
    if isinstance(error, openai.APIConnectionError | OSError):
        return Fault("the connection failed or broke")
    return Fault(f"the client failed with {type(error).__name__}")


def _status(error: openai.APIStatusError, key: str) -> Fault:
    status, message = error.status_code, without_key(_message(error), key)
    if 300 <= status < 400:
        return Fault(f"status {status}: {REDIRECT}", again=False)
    reason = f"status {status}" + (f": {message}" if message else "")
    if status in NEVER or (status == 429 and SPENT in (error.code, error.type)):
        return Fault(reason, again=False, over=True)
    if status in AGAIN:
        return Fault(reason, wait=_retry_after(error))
    # Endpoints name an unknown setting in many ways, anywhere in the body. Where the body quotes
    # the request, only the endpoint's own message counts.
    text = str(error.body).lower()
    if "messages" in text:
        text = f"{_message(error)} {error.param} {error.code}".lower()
    return Fault(
        reason,
        again=False,
        no_logprobs="logprobs" in text,
        other_limit=NEW_LIMIT in text,
    )


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    if not isinstance(message, str):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in message)
    return " ".join(printable.split())[:160]


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the endpoint asks for: as a number or as a date."""
    value = error.response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def without_key(text: str, key: str) -> str:
    """The text, or an empty one where it shows a part of the key."""
    parts = {key[i : i + SEEN_PART] for i in range(max(1, len(key) - SEEN_PART + 1))} if key else ()
    return "" if any(part in text for part in parts) else text
