"""An endpoint for AlpacaEval's annotators, whose log-probabilities any letter would change."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.servers.endpoint import Endpoint, _Handler, completion, logprobs, serving

CANARY = "sk-canary-7f3a9b51c04e"
ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
OTHER_VARIABLES = (
    *("OPENAI_API_KEYS", "OPENAI_API_BASE", "OPENAI_ORGANIZATION_IDS"),
    "OPENAI_CLIENT_CONFIG_PATH",
)

Rule = Callable[[str], dict[str, float]]


def by_letters(prompt: str) -> dict[str, float]:
    """Log-probabilities that any other letter or order would change."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return {"m": -digest[0] / 64, "M": -digest[1] / 64}


def answering(rule: Rule) -> type[_Handler]:
    """A handler that answers by a rule of the user message."""

    class Handler(_Handler):
        def _judge(self, body: dict[str, Any], _: str) -> None:
            self._send(200, completion("m", logprobs=logprobs(**rule(asked(body)))))

    return Handler


def asked(body: dict[str, Any]) -> str:
    """The user message of a request."""
    return str(body["messages"][-1]["content"])


@contextmanager
def annotating(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A server that AlpacaEval's package finds by its own environment variables."""
    with serving() as running:
        running.RequestHandlerClass = answering(by_letters)
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        for name in OTHER_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        yield running
