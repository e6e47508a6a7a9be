"""Judge with a rule of your own: a server of a few lines that speaks like an OpenAI endpoint.

    python examples/own_judge.py

The rule prefers a whole sentence, and of two alike the shorter one. Anything may stand in its
place: a classifier, known answers, a person at a keyboard. Results go to runs/own-judge.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import symnoise_ray

PARTS = re.compile(r"^(?:Request|Answer A|Answer B): (.*)$", re.MULTILINE)
"""The three parts of a request of symnoise_ray; each is a JSON string on a line of its own."""


def rule(request: str, first: str, second: str) -> str:
    """`A` if the first answer is better, else `B`."""
    del request  # this rule looks at the answers alone
    return "A" if quality(first) >= quality(second) else "B"


def quality(answer: str) -> tuple[bool, int]:
    """Whole sentences come before all else; of two alike, the shorter one."""
    is_sentence = re.fullmatch(r"[A-Z0-9].*[.!?]", answer, re.DOTALL) is not None
    return is_sentence, -len(answer)


class Judge(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions with one letter."""

    def do_POST(self) -> None:
        """Read the two answers, decide, and reply as a chat model does."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = [json.loads(part) for part in PARTS.findall(body["messages"][-1]["content"])]
        message = {"role": "assistant", "content": rule(*parts)}
        self.reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def reply(self, content: dict[str, Any]) -> None:
        """Send a JSON object."""
        data = json.dumps({"id": "rule", "object": "chat.completion", **content}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_words: object) -> None:
        """Print nothing per call."""


def main() -> None:
    """Serve the judge while a small sweep of the tiny demo runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "judge.type": "api",
        "judge.model": "whole-sentences",
        "judge.base_url": f"http://127.0.0.1:{server.server_port}/v1",
        "judge.verdict": "text",
        # A server on a port of its own each time: name the rule, so that its verdicts are known.
        "judge.revision": "1",
        # Three noise types with a baseline each, so 0, 3, 6, ... further trials are balanced.
        "search.num_trials": 0,
        "confirm.arms": 1,
        "confirm.looks": [2],
        "train.max_steps": 20,
        "data.max_eval_prompts": 32,
    }
    result = symnoise_ray.run("quickstart", settings, output="runs/own-judge")
    server.shutdown()
    for trial in result.trials:
        outcome = f"wins {trial.win_rate:.0%}" if trial.is_done else trial.reason
        print(f"{trial.trial:<26} {trial.label:<24} {outcome}")
    print(result.verdict.sentence)


if __name__ == "__main__":  # a plain script needs this line around what it runs
    main()
