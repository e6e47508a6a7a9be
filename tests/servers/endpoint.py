"""An OpenAI-compatible endpoint on the loopback that judges by a rule, and misbehaves on demand.

The rule: of two answers, the one with more letters wins. A script says for the n-th call what goes
wrong, so that a test knows every call. Every request is kept.
"""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Trouble = Callable[[int, dict[str, Any]], str]
"""Number of the call and its body -> the name of what goes wrong, or nothing."""

QUESTION = re.compile(
    r'.*?\n\nRequest: (".*?")\n\nAnswer A: (".*?")\n\nAnswer B: (".*?")\n\nWhich answer .*',
    re.DOTALL,
)
"""The shipped prompt; what is filled in holds no line break, so the parts cannot be mistaken."""

NUM_LINES = 14


def parts(body: dict[str, Any]) -> list[str]:
    """Instruction, first and second answer, as they stand in a request.

    Raises:
        AssertionError: the request has not the shape that every request must have.
    """
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    found = QUESTION.fullmatch(body["messages"][1]["content"])
    assert found, body["messages"][1]["content"]
    assert body["messages"][1]["content"].count("\n") == NUM_LINES
    return [json.loads(part) for part in found.groups()]


def rule(first: str, second: str) -> str:
    """The label of the answer with more letters; of equal ones, of the first."""
    return "B" if letters(second) > letters(first) else "A"


def letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def completion(text: str | None, **more: Any) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more}
    usage = {"prompt_tokens": 200, "completion_tokens": 1, "total_tokens": 201}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def logprobs(**values: float) -> dict[str, Any]:
    """Of a reply of one token, the first; the others are what it might have been."""
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in values.items()]
    return {"content": [{"token": top[0]["token"], "logprob": 0.0, "top_logprobs": top}]}


class Endpoint(ThreadingHTTPServer):
    """The server, its requests and its script."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.trouble: Trouble = lambda number, body: ""
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.delay = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that left are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(body)
            self.server.keys.add(self.headers.get("authorization"))
            self.server.times.append(time.monotonic())
        time.sleep(self.server.delay)
        trouble = self.server.trouble(number, body)
        getattr(self, f"_{trouble.partition(' ')[0]}" if trouble else "_judge")(
            body, trouble.partition(" ")[2]
        )

    def _send(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def _judge(self, body: dict[str, Any], _: str) -> None:
        """By the rule, with log-probabilities where they are asked for."""
        _, first, second = parts(body)
        label = rule(first, second)
        more: dict[str, Any] = {}
        if body.get("logprobs"):
            gap = 2.0 if label == "A" else -2.0
            more["logprobs"] = logprobs(A=-1.0 + gap / 2, B=-1.0 - gap / 2)
        self._send(200, completion(label, **more))

    def _status(self, body: dict[str, Any], argument: str) -> None:
        """`status CODE [RETRY-AFTER]`, and an error that shows the key, as bad servers do."""
        code, _, after = argument.partition(" ")
        message = f"something about {self.headers.get('authorization')}"
        headers = {"retry_after": after} if after else {}
        self._send(int(code), {"error": {"message": message, "code": "x"}}, **headers)

    def _quota(self, body: dict[str, Any], field: str) -> None:
        """`quota [FIELD]`: endpoints name the reason as the error's code, or as its type."""
        error = {"message": "no money", "code": None, field or "code": "insufficient_quota"}
        self._send(429, {"error": error})

    def _redirect(self, body: dict[str, Any], argument: str) -> None:
        """`redirect CODE [URL]`: to another place, or back to where it came from."""
        code, _, url = argument.partition(" ")
        self._send(int(code), b"<html>moved</html>", location=url or self.path)

    def _nologprobs(self, body: dict[str, Any], _: str) -> None:
        if body.get("logprobs"):
            self._send(422, {"error": {"message": "Unsupported fields: logprobs"}})
        else:
            self._judge(body, "")

    def _echo(self, body: dict[str, Any], message: str) -> None:
        """`echo MESSAGE`: the request is refused, and given back as it came."""
        self._send(400, {"error": {"message": message, "code": "bad", "request": body}})

    def _thinker(self, body: dict[str, Any], _: str) -> None:
        """A model that thinks first: it refuses what such models refuse."""
        if "max_tokens" in body:
            message = "'max_tokens' is not supported. Use 'max_completion_tokens' instead."
            self._send(400, {"error": {"message": message, "code": "unsupported_parameter"}})
        elif "temperature" in body or "logprobs" in body:
            self._send(400, {"error": {"message": "only the default temperature and no logprobs"}})
        elif body["max_completion_tokens"] < 100:
            self._send(200, completion("", finish_reason="length"))
        else:
            self._judge(body, "")

    def _say(self, body: dict[str, Any], text: str) -> None:
        """`say TEXT`: a text in place of a verdict."""
        self._send(200, completion(text))

    def _absurd(self, body: dict[str, Any], text: str) -> None:
        """`absurd JSON`: any body."""
        self._send(200, text.encode())

    def _truncated(self, body: dict[str, Any], _: str) -> None:
        self._send(200, json.dumps(completion("A")).encode()[:60])

    def _cut(self, body: dict[str, Any], _: str) -> None:
        """Fewer bytes than were announced."""
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.close_connection = True

    def _reset(self, body: dict[str, Any], _: str) -> None:
        """A reset instead of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _hang(self, body: dict[str, Any], seconds: str) -> None:
        time.sleep(float(seconds))
        self._judge(body, "")

    def _drip(self, body: dict[str, Any], seconds: str) -> None:
        """A byte now and then, so that the connection never looks dead."""
        self.send_response(200)
        self.send_header("content-length", "100000")
        self.end_headers()
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            self.wfile.write(b" ")
            time.sleep(0.05)
        self.close_connection = True

    def _huge(self, body: dict[str, Any], _: str) -> None:
        self._send(200, b" " * (3 << 20) + json.dumps(completion("A")).encode())


@contextmanager
def serving() -> Iterator[Endpoint]:
    """A running endpoint; it ends with the block."""
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()
